"""A training state as the files of a run folder, and back: names and slices, no code, nothing executed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.data.tokenizers import tokenizer_from_dict
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError, did_you_mean
from minilong.keys import Key
from minilong.models.build import build
from minilong.nn.flat import Layout, flatten
from minilong.optim import AdamState
from minilong.train.arrays import arrays_from_bytes, arrays_to_bytes
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


def read_model(run: RunFolder, name: str, config: RunConfig, vocabulary: int) -> tuple[np.ndarray, Any, Layout]:
    """Flat vector, model and layout, from `name`. UserError lists missing, unexpected and misshapen arrays together."""
    vector, model, layout = flatten(build(config.model, vocabulary, Key.of(0)))
    fill(layout, vector, arrays_from_bytes(run.read(name), str(run.path / name)), str(run.path / name))
    return vector, model, layout


def read_optimizer(run: RunFolder, vector: np.ndarray, layout: Layout, step: int) -> AdamState:
    """The moments of a run after `step` steps."""
    source = str(run.path / OPTIMIZER)
    arrays = arrays_from_bytes(run.read(OPTIMIZER), source)
    moments = []
    for moment in ("first", "second"):
        own = {name.removeprefix(f"{moment}."): a for name, a in arrays.items() if name.startswith(f"{moment}.")}
        moments.append(np.empty_like(vector))
        fill(layout, moments[-1], own, source)
    return AdamState(moments[0], moments[1], step)


def fill(layout: Layout, vector: np.ndarray, arrays: dict[str, np.ndarray], source: str) -> None:
    """Copy named arrays into their places of the vector; strict about names, shapes and types."""
    places = layout.slices(vector)
    wrong = [f"{name} is missing" for name in places if name not in arrays]
    for name, array in arrays.items():
        if name not in places:
            wrong.append(f"{name} is unexpected{did_you_mean(name, places)}")
        elif array.shape != places[name].shape:
            wrong.append(f"{name} has shape {array.shape} instead of {places[name].shape}")
        elif array.dtype != vector.dtype:
            wrong.append(f"{name} has type {array.dtype} instead of {vector.dtype}")
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise UserError(
            f"{source} does not fit the run's configuration: {'; '.join(wrong[:5])}{more}; "
            "restore model and configuration from the same run"
        )
    for name, place in places.items():
        place[...] = arrays[name]
