"""Beyond its trained context: what a model that is there already predicts and recalls, read in several ways.

No weight changes. Rotary positions are scaled (PI, NTK, dynamic, YaRN), or the model forgets (a window with sinks, the
rows that attention chose), or keeps its cache in few bits. Every way reads the same texts, once each, from their
beginning to twice the trained context: what it predicts at each position comes from that one reading, and at each
length the reading is forked to ask for numbers that were hidden further up (`extension_reading.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import minilong
from minilong.data.corpora import read_texts
from minilong.errors import UserError
from minilong.experiments.cells import Cell
from minilong.experiments.extension_reading import Stepped, hidden_text, read
from minilong.experiments.training import digest, rounded
from minilong.memory import Full, HeavyHitters, Memory, Quantised, SnapKV, Window
from minilong.models.config import ModelConfig
from minilong.train.adapt import adapt
from minilong.train.checkpoint import BEST, MODEL, read_config
from minilong.train.loaded import LoadedRun, load, ready_to_read
from minilong.train.run import RunFolder

NAME = "extension"
SINKS, BITS, SHARE = 4, 4, 4
"""First tokens of a window that stay, bits of the cache in few bits, and the share of the trained context that caches
which evict keep: a quarter."""
ROOM = 128
"""Rows of a full cache for a question."""


@dataclass(frozen=True)
class Method:
    """A way to read on: scaled positions, and a memory of a model by its trained context. weight: its time, about."""

    name: str
    scaling: str = "none"
    memory: Callable[[int], Memory] | None = None
    weight: float = 1.0


def window(trained: int) -> Memory:
    """The last tokens of a trained context, with sinks."""
    return Window(max(1, trained - SINKS), SINKS)


def heavy_hitters(trained: int) -> Memory:
    """H2O: a quarter of the trained context."""
    budget = max(2, trained // SHARE)
    return HeavyHitters(budget, sinks=min(SINKS, budget // 4), block=max(1, min(64, budget // 4)))


def snapkv(trained: int) -> Memory:
    """SnapKV: a quarter of the trained context, of the text up to a question and with it."""
    budget = max(2, trained // SHARE)
    return SnapKV(budget, window=max(1, min(32, budget // 2)))


def few_bits(trained: int) -> Memory:
    """The whole cache, older tokens in 4 bits."""
    return Quantised(BITS, 32, 32 * max(1, min(4, trained // 256)))


METHODS = (
    Method("plain"),
    Method("PI", "pi"),
    Method("NTK", "ntk"),
    Method("dynamic NTK", "dynamic", weight=1.3),
    Method("YaRN", "yarn"),
    Method("window + sinks", memory=window),
    Method("YaRN, H2O", "yarn", heavy_hitters, 0.7),
    Method("YaRN, SnapKV", "yarn", snapkv, 1.1),
    Method(f"YaRN, {BITS} bits", "yarn", few_bits, 1.3),
)


@dataclass(frozen=True)
class Sizes:
    """What is read. factor: how far, in trained contexts. lengths: where the reading is forked, as shares of that.
    slots: parts of the text with a hidden number each. questions: asked at each length, at most."""

    factor: float = 2.0
    lengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    slots: int = 8
    questions: int = 8
    digits: int = 5
    chunk: int = 512

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "lengths": list(self.lengths)}

    @staticmethod
    def of(settings: dict[str, Any]) -> Sizes:
        """From `settings`, other keys left aside."""
        own = {key: settings[key] for key in vars(Sizes())}
        return Sizes(**{**own, "lengths": tuple(own["lengths"])})


QUICK = Sizes(slots=2, questions=1, digits=2, chunk=64)
"""Less of everything but the length, which the run decides."""


def trained_context(config: ModelConfig) -> int:
    """The tokens for which a run's positions were trained. UserError where these cannot be scaled."""
    if config.kind != "decoder" or config.memory != "none" or config.window:
        raise UserError("the run is no plain causal model with full attention; choose one without window and segments")
    if config.position != "rotary":
        raise UserError(
            f"the run has {config.position} positions, but what is compared scales rotary ones; choose another run"
        )
    if config.rope_scaling != "none":
        raise UserError(
            f"the run reads by {config.rope_scaling} already; choose the run as it was trained, without scaling"
        )
    return config.resolved().rope_context


def lengths(trained: int, sizes: Sizes) -> list[int]:
    """Where the readings are forked, in tokens."""
    longest = round(trained * sizes.factor)
    return [max(1, round(longest * share)) for share in sizes.lengths]


def chosen(names: Sequence[str]) -> list[Method]:
    """The methods of these names, in the order of the table; all of them without names. UserError for another name."""
    known = {method.name.lower(): method for method in METHODS}
    for name in names:
        if name.lower() not in known:
            raise UserError(f"there is no method {name!r}; choose from {'; '.join(m.name for m in METHODS)}")
    return [method for method in METHODS if not names or method.name.lower() in {name.lower() for name in names}]


def cells(run: str, texts: Sequence[str], sizes: Sizes, samples: int, methods: Sequence[str] = ()) -> list[Cell]:
    """One cell for each method and text that is read; all methods of one text before the next."""
    with RunFolder.open(Path(run)) as folder:
        config = read_config(folder)
        weights = {name: folder.sha256(name) for name in (MODEL, BEST) if name in folder.files}
    if config.task not in ("lm", "passkey"):
        raise UserError(f"{run} learnt the task {config.task!r}, which reads no text; choose another run")
    trained = trained_context(config.model)
    shared = {
        "run": run,
        "weights": weights,
        "text": list(texts),
        "digest": digest(read_texts(texts)),
        "version": minilong.__version__,
        "trained": trained,
        **sizes.settings(),
    }
    return [
        Cell(
            f"{method.name}, text {sample}",
            f"{__name__}:compute",
            {**shared, "method": method.name, "sample": sample},
            method.weight,
        )
        for sample in range(1, samples + 1)
        for method in chosen(methods)
    ]


def extended(loaded: LoadedRun, method: Method, sizes: Sizes) -> tuple[LoadedRun, Memory]:
    """The run as a method reads with it, and what it remembers."""
    trained = trained_context(loaded.config.model)
    longest = round(trained * sizes.factor)
    if method.scaling in ("pi", "ntk", "yarn"):
        loaded = adapt(loaded, context=longest, rope_scaling=method.scaling, rope_factor=sizes.factor)
    else:
        loaded = adapt(loaded, context=longest)
    return loaded, Full(longest + ROOM) if method.memory is None else method.memory(trained)


def compute(settings: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Read one text in one way.

    `losses`: nats per token at the positions before each length, back to the length before it; `curve`: the same in 64
    parts of the whole text, with their middles. `answers`: of each length, (distance in tokens, right tokens, tokens)
    of each question. `bytes`: of the memory after the last question. Hidden sentences, and the token behind each, are
    not among the losses.
    """
    sizes = Sizes.of(settings)
    method = next(m for m in METHODS if m.name == settings["method"])
    texts = read_texts(settings["text"])
    if digest(texts) != settings["digest"]:
        raise UserError("the text has changed since the experiment began; start it anew with another --out")
    loaded, memory = extended(load(Path(settings["run"])), method, sizes)
    ends = lengths(settings["trained"], sizes)
    sample = settings["sample"]
    text = hidden_text(loaded.tokenizer, texts[(sample - 1) % len(texts)], ends[-1], sizes, sample)

    def model_at(stop: int) -> Any:
        """The model that reads up to a position: dynamic scaling goes by the length at the end of what is read."""
        if method.scaling != "dynamic":
            return loaded.model
        scaling = Stepped.at(stop, settings["trained"], sizes.factor)
        return replace(loaded.model, scheme=replace(loaded.model.scheme, scaling=scaling))

    with ready_to_read():
        result: dict[str, Any] = rounded(read(model_at, memory, text, ends, sizes, report))
    return result
