"""Train short, read long: how position schemes fare beyond the length that they were trained at.

Small models learn a text in windows of 64 characters. The held-out end is then read in windows of up to 2,048, in two
ways, with the same characters scored each time: windows side by side, in which the first characters of each window are
predicted from little; and windows that overlap, so that each character has at least 3/4 of the window before it. Longer
windows side by side make every model look better, because fewer characters stand at a beginning (the early-token
curse, Press et al. 2021, appendix B); what remains when windows overlap is what the model gains from context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import minilong
from minilong.autodiff.tree import leaves
from minilong.data.batches import PackedWindows
from minilong.data.corpora import read_texts, split_text
from minilong.data.tokenizers import CharTokenizer
from minilong.errors import UserError
from minilong.experiments.cells import Cell
from minilong.experiments.training import Recipe, bits, digest, fit, rounded, windows
from minilong.keys import Key
from minilong.models.build import scheme as position_scheme
from minilong.models.config import ModelConfig
from minilong.nn import LanguageModel
from minilong.objectives import causal_loss

NAME = "extrapolation"
HELD_OUT = 0.1
SINKS = 4
TIMED, READING = 8, 100
"""Steps that are timed for a budget, and how many take as long as reading in all ways does."""


@dataclass(frozen=True)
class Scheme:
    """A training (keys of the model that differ from the base), and the ways in which the trained model is read.

    weight: time of a step, relative to the fastest scheme.
    """

    name: str
    model: dict[str, Any]
    readings: tuple[str, ...] = ()
    weight: float = 1.0


SCHEMES = (
    Scheme("sinusoidal", {"position": "sinusoidal"}),
    Scheme("cas", {"position": "cas"}),
    Scheme("learned", {"position": "learned"}, weight=0.8),
    Scheme("none", {"position": "none"}),
    Scheme("t5", {"position": "t5"}, weight=1.2),
    Scheme("alibi", {"position": "alibi"}, weight=1.1),
    Scheme("xl", {"position": "xl"}, weight=1.9),
    Scheme("rotary", {"position": "rotary"}, ("rotary, window", "rotary, window + sinks"), weight=2.0),
)
"""Ten rows of the table. Within a context of 64, a window of 64 (or of 60 and 4 sinks) sees what full attention sees:
training would be the same, bit for bit. So the rotary model is trained once and read in three ways."""

ROWS = tuple(name for scheme in SCHEMES for name in (scheme.name, *scheme.readings))

SCALINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "PI": {"rope_scaling": "pi"},
    "NTK": {"rope_scaling": "ntk"},
    "dynamic NTK": {"rope_scaling": "dynamic"},
    "YaRN (code)": {"rope_scaling": "yarn", "rope_ramp": "code"},
    "YaRN (paper)": {"rope_scaling": "yarn", "rope_ramp": "paper"},
}
"""Ways to read with a trained rotary model beyond its context, without training it again."""


@dataclass(frozen=True)
class Sizes:
    """What a run of the experiment trains and measures. tokens: scored characters of the held-out text. strides:
    overlapping windows advance by this part of their length."""

    steps: int = 900
    context: int = 64
    lengths: tuple[int, ...] = (64, 96, 128, 256, 512, 1024, 2048)
    factors: tuple[int, ...] = (2, 4, 8)
    tokens: int = 8192
    scaling_tokens: int = 4096
    strides: int = 4
    layers: int = 3
    width: int = 64
    heads: int = 4
    batch: int = 32
    lr: float = 2e-3

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "lengths": list(self.lengths), "factors": list(self.factors)}

    @staticmethod
    def of(settings: dict[str, Any]) -> Sizes:
        """From `settings`, other keys left aside."""
        own = {key: settings[key] for key in vars(Sizes())}
        return Sizes(**{**own, "lengths": tuple(own["lengths"]), "factors": tuple(own["factors"])})


QUICK = Sizes(
    steps=12, context=16, lengths=(16, 24, 32, 64), factors=(2, 4), tokens=192, scaling_tokens=128, layers=1, width=16,
    heads=2, batch=4,
)  # fmt: skip
"""Seconds instead of minutes: the machinery works, the numbers mean nothing."""


def cells(texts: Sequence[str], sizes: Sizes, seeds: int) -> list[Cell]:
    """One cell for each training: scheme by scheme, all schemes of one seed before the next seed."""
    found = read_texts(texts)
    _, held_out = _split(found)
    if len(held_out) <= max(sizes.tokens, max(sizes.lengths)):
        raise UserError(
            f"the held-out end of the text has {len(held_out)} characters, and {max(sizes.tokens, *sizes.lengths) + 1} "
            "are scored; give more text"
        )
    shared = {"text": list(texts), "digest": digest(found), "version": minilong.__version__, **sizes.settings()}
    return [
        Cell(
            f"{scheme.name}, seed {seed}",
            f"{__name__}:compute",
            {**shared, "scheme": scheme.name, "seed": seed},
            scheme.weight + (1.0 if scheme.readings else 0.4),
        )
        for seed in range(1, seeds + 1)
        for scheme in sorted(SCHEMES, key=lambda s: -s.weight)  # long ones first, so that workers end together
    ]


def steps_for(budget: float, timings: Sequence[dict[str, Any]], seeds: int, workers: int) -> int:
    """Steps for which the whole experiment takes about `budget` seconds, from the records of `timing_cells`.

    Reading takes each cell about the time of `READING` steps.
    """
    each = sum(record["result"]["seconds_per_step"] for record in timings)
    return max(10, int(budget * workers / (seeds * each)) - READING)


def timing_cells(texts: Sequence[str], sizes: Sizes, budget: float) -> list[Cell]:
    """Cells that take a few steps of each scheme. They are kept, so a run that goes on has the same steps."""
    return [
        Cell(
            f"timing of {cell.settings['scheme']}",
            f"{__name__}:time_steps",
            {**cell.settings, "steps": TIMED, "budget": budget},
        )
        for cell in cells(texts, sizes, 1)
    ]


def time_steps(settings: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Seconds that a step of one scheme takes here, the first ones left out."""
    marks: list[float] = []
    _train(settings, lambda share: marks.append(time.perf_counter()))
    return {"seconds_per_step": (marks[-1] - marks[1]) / (len(marks) - 2)}


def compute(settings: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Train one scheme with one seed, and read the held-out text in all ways and lengths.

    `rows`: reading -> "side by side" and "overlapping" -> length -> bits per character, None beyond what a scheme can
    read. `scaling`, for the rotary scheme: method -> the same, at multiples of the context.
    """
    sizes = Sizes.of(settings)
    scheme, config, tokenizer, held_out, model = _train(settings, lambda share: report(0.7 * share))
    ids = tokenizer.encode(held_out[: sizes.tokens + 1])
    rows = {}
    for name in (scheme.name, *scheme.readings):
        rows[name] = _measure(_read_as(model, name, sizes.context), ids, sizes.lengths, sizes.strides)
        report(0.85)
    scaling = {}
    for name, keys in SCALINGS.items() if scheme.name == "rotary" else ():
        parts = [_scaled(model, config, keys, sizes, factor, ids) for factor in sizes.factors]
        scaling[name] = {way: {k: v for part in parts for k, v in part[way].items()} for way in parts[0]}
    result: dict[str, Any] = rounded({"rows": rows, "scaling": scaling})
    parameters = sum(array.size for array in leaves(model))
    return {**result, "parameters": parameters, "vocabulary": tokenizer.size}


def _train(
    settings: dict[str, Any], report: Callable[[float], None]
) -> tuple[Scheme, ModelConfig, CharTokenizer, str, LanguageModel]:
    """Train what the settings say; the scheme, the model's configuration, tokenizer, held-out text and the model."""
    sizes = Sizes.of(settings)
    scheme = next(s for s in SCHEMES if s.name == settings["scheme"])
    texts = read_texts(settings["text"])
    if digest(texts) != settings["digest"]:
        raise UserError("a text has changed since the experiment began; start it anew with another --out")
    learnt, held_out = _split(texts)
    tokenizer = CharTokenizer.train(texts)
    packed = PackedWindows([tokenizer.encode(learnt)], sizes.context, separator=None, name="the training text")
    config = ModelConfig(
        layers=sizes.layers, width=sizes.width, heads=sizes.heads, context=sizes.context, **scheme.model
    )

    def loss(model: LanguageModel, step: int, key: Key) -> Any:
        return causal_loss(model, packed.batch(step, sizes.batch, key))

    recipe = Recipe(sizes.steps, sizes.lr, settings["seed"])
    return scheme, config, tokenizer, held_out, fit(config, tokenizer.size, loss, recipe, report)


def _split(texts: list[str]) -> tuple[str, str]:
    """What is learnt and what is held out, each in one piece."""
    parts = [split_text(text, HELD_OUT) for text in texts]
    return "".join(a for a, _ in parts), "".join(b for _, b in parts)


def _read_as(model: LanguageModel, name: str, context: int) -> LanguageModel:
    """The same weights with the mask of a reading."""
    if name.endswith("window"):
        return replace(model, window=context)
    return replace(model, window=context - SINKS, sinks=SINKS) if name.endswith("sinks") else model


def _measure(
    model: LanguageModel, ids: Any, lengths: Sequence[int], strides: int
) -> dict[str, dict[str, float | None]]:
    """Bits per character for both ways of reading, by length."""
    longest = None if model.input.positions is None else model.context
    found: dict[str, dict[str, float | None]] = {"side by side": {}, "overlapping": {}}
    for length in lengths:
        ends = longest is not None and length > longest
        for way, stride in (("side by side", None), ("overlapping", length // strides)):
            found[way][str(length)] = None if ends else bits(model, windows(ids, length, stride))
    return found


def _scaled(
    model: LanguageModel, config: ModelConfig, keys: dict[str, str], sizes: Sizes, factor: int, ids: Any
) -> dict[str, dict[str, float | None]]:
    """The same at one multiple of the context, with rotary frequencies scaled for it. Dynamic scaling needs no factor:
    it follows the length."""
    by = 1.0 if keys.get("rope_scaling") == "dynamic" or not keys else float(factor)
    scaled = replace(config.resolved(), rope_factor=by, **keys)  # type: ignore[arg-type]
    other = replace(model, scheme=position_scheme(scaled, causal=True))
    return _measure(other, ids[: sizes.scaling_tokens + 1], [sizes.context * factor], sizes.strides)
