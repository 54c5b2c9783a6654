"""A training state as the files of a run folder, and back: names and slices, no code, nothing executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import Array
from minilong.data.tokenizers import tokenizer_from_dict
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError, did_you_mean
from minilong.models.assemble import assemble, shapes_of
from minilong.models.pretrained import decoded
from minilong.nn.flat import Layout, flatten
from minilong.nn.lowbit import LowBit
from minilong.optim import AdamState
from minilong.train.arrays import arrays_in, arrays_to_bytes
from minilong.train.config import RunConfig
from minilong.train.run import RunFolder

CONFIG, TOKENIZER, MODEL, BEST, OPTIMIZER, STATE = (
    "config.toml",
    "tokenizer.json",
    "model.safetensors",
    "best.safetensors",
    "optimizer.safetensors",
    "state.json",
)

PRETRAINED = "pretrained.json"
"""What is known of a model that was opened: `opened.py`. Runs that come of it keep the file."""

LOW_BIT = "lowbit"
"""Key of the metadata of `model.safetensors` under which kinds and shapes of its low-bit arrays stand."""


@dataclass
class State:
    """Where a run stands, apart from its arrays. Data order and dropout are functions of the seed and the step.

    Losses are nats per token; `loss`, `lr` and `gradient_norm` are those of the last step.
    """

    step: int = 0
    loss: float | None = None
    smoothed_loss: float | None = None
    lr: float = 0.0
    gradient_norm: float = 0.0
    validation: float | None = None
    validated_step: int = 0
    best_validation: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    updates: int = 0
    """Steps whose update was made: in float16 a step whose numbers leave the range is left out."""
    loss_scale: float = 1.0
    good_steps: int = 0
    """Updates since the loss scale changed."""
    data: str = ""
    """Digest of the texts that the run reads."""


def model_file(vector: np.ndarray, layout: Layout) -> bytes:
    """`model.safetensors`: each array under its field path."""
    return arrays_to_bytes(layout.slices(vector))


def optimizer_file(adam: AdamState, layout: Layout) -> bytes:
    """`optimizer.safetensors`: `first.` and `second.` moments of each array."""
    arrays: dict[str, np.ndarray] = {}
    for moment, vector in (("first", adam.first), ("second", adam.second)):
        arrays |= {f"{moment}.{name}": a for name, a in layout.slices(vector).items()}
    return arrays_to_bytes(arrays)


def state_file(state: State) -> bytes:
    """`state.json`. JSON keeps every bit of a float."""
    return json.dumps(vars(state), indent=1).encode()


def read_config(run: RunFolder) -> RunConfig:
    """The configuration of a run."""
    return RunConfig.from_toml(run.read(CONFIG).decode(), str(run.path / CONFIG))


def read_tokenizer(run: RunFolder) -> Tokenizer:
    """The tokenizer of a run."""
    return tokenizer_from_dict(json.loads(run.read(TOKENIZER)), str(run.path / TOKENIZER))


def read_state(run: RunFolder) -> State:
    """The step and figures of a run. UserError where the file does not have exactly these keys."""
    values = json.loads(run.read(STATE))
    if not isinstance(values, dict) or set(values) != set(vars(State())):
        raise UserError(f"{run.path / STATE} does not hold the state of a run; restore it from a copy")
    return State(**values)


def weights_file(arrays: Mapping[str, Array | LowBit]) -> bytes:
    """`model.safetensors` of arrays by their field paths; low-bit ones as their blocks, whose kind and shape stand in
    the metadata."""
    blocks = {name: x for name, x in arrays.items() if isinstance(x, LowBit)}
    plain = {name: x.blocks if isinstance(x, LowBit) else x for name, x in arrays.items()}
    about = {name: [x.kind, *x.shape] for name, x in sorted(blocks.items())}
    return arrays_to_bytes(plain, {LOW_BIT: json.dumps(about)} if about else None)


def read_arrays(run: RunFolder, name: str) -> dict[str, Array | LowBit]:
    """The arrays of a file as they lie in it: views of mapped memory, low-bit ones as blocks."""
    source = str(run.path / name)
    arrays, metadata = arrays_in(run.map(name), source)
    found: dict[str, Array | LowBit] = dict(arrays)
    try:
        for key, (kind, *shape) in json.loads(metadata.get(LOW_BIT, "{}")).items():
            found[key] = LowBit(arrays[key], str(kind), tuple(map(int, shape)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} describes its low-bit arrays wrongly; restore it from a copy of the run") from error
    return found


def open_model(run: RunFolder, name: str, config: RunConfig, vocabulary: int, *, decode: bool = False) -> Any:
    """The model of the very arrays of a file, for reading: mapped memory, no copy, no random values.

    decode: low-bit arrays as float32 ones, which are new, for what cannot work on blocks. UserError lists missing,
    unexpected and misshapen arrays together.
    """
    arrays, source = read_arrays(run, name), str(run.path / name)
    require_fit(shapes_of(config.model, vocabulary), arrays, source)
    if decode:
        arrays = {key: decoded(key, x) if isinstance(x, LowBit) else x for key, x in arrays.items()}
    return assemble(config.model, vocabulary, arrays, source)


def read_model(run: RunFolder, name: str, config: RunConfig, vocabulary: int) -> tuple[np.ndarray, Any, Layout]:
    """Flat vector, model and layout of a file, for training: a copy, low-bit arrays decoded. UserError as above."""
    return flatten(open_model(run, name, config, vocabulary, decode=True))


def read_optimizer(run: RunFolder, vector: np.ndarray, layout: Layout, step: int) -> AdamState:
    """The moments of a run after `step` steps; zeros where it has none, since it was opened and not trained yet."""
    if OPTIMIZER not in run.files and step == 0:
        return AdamState(np.zeros_like(vector), np.zeros_like(vector), 0)
    source = str(run.path / OPTIMIZER)
    arrays, _ = arrays_in(run.map(OPTIMIZER), source)
    moments = []
    for moment in ("first", "second"):
        own = {name.removeprefix(f"{moment}."): a for name, a in arrays.items() if name.startswith(f"{moment}.")}
        moments.append(np.empty_like(vector))
        fill(layout, moments[-1], own, source)
    return AdamState(moments[0], moments[1], step)


def fill(layout: Layout, vector: np.ndarray, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copy named arrays into their places of the vector; strict about names, shapes and types."""
    places = layout.slices(vector)
    require_fit({name: place.shape for name, place in places.items()}, arrays, source)
    for name, place in places.items():
        place[...] = arrays[name]


def require_fit(wanted: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array | LowBit], source: str) -> None:
    """UserError unless these are the arrays that are wanted, in name, shape and type: float32, or low-bit blocks."""
    wrong = [f"{name} is missing" for name in wanted if name not in arrays]
    for name, array in arrays.items():
        if name not in wanted:
            wrong.append(f"{name} is unexpected{did_you_mean(name, wanted)}")
            continue
        shape = array.shape
        if isinstance(array, LowBit) and not name.endswith(".table"):
            shape = shape[::-1]  # (out, in) as it lies in a file
        if shape != wanted[name]:
            wrong.append(f"{name} has shape {shape} instead of {wanted[name]}")
        elif not isinstance(array, LowBit) and array.dtype != np.float32:
            wrong.append(f"{name} has type {array.dtype} instead of float32")
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise UserError(
            f"{source} does not fit the run's configuration: {'; '.join(wrong[:5])}{more}; "
            "restore model and configuration from the same run"
        )


def require_unfinished(path: Path, config: RunConfig, state: State) -> None:
    """UserError where a run has no steps left to make."""
    if state.step >= config.train.steps and state.validated_step >= state.step:
        raise UserError(
            f"{path} is complete with {state.step} steps; give a larger --steps to go on, or start a new run"
        )


def require_same_data(path: Path, config: RunConfig, state: State, fingerprint: str) -> None:
    """UserError where the texts are not those that the run was started with."""
    if fingerprint != state.data:
        raise UserError(
            f"the data of {path} ({', '.join(config.data.text) or config.task}) changed since the run was started, "
            "so going on would not be the same run; restore the data, or start a new run"
        )
