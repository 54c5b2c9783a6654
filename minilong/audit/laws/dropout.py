"""Laws of dropout: which elements go, what becomes of the others, and when nothing happens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.keys import Key
from minilong.nn import Dropout

SIGMAS = 6.0

kind(
    "dropout-layer",
    "dropout(x, rate, key)",
    "x with a share `rate` of its elements zeroed; untouched where key is None.",
)


def ours(x: Any, rate: float, key: Key | None) -> Any:
    """Our layer."""
    return Dropout(rate)(x, key)


subject("dropout-layer", "Dropout", code=Dropout.__call__, equation="eq:dropout")(ours)


def drawn(n: Numbers, *, rows: int, width: int, rate: float) -> dict[str, Any]:
    """Elements away from zero."""
    return {"x": n.nonzero(rows, width), "rate": rate, "seed": int(n.integers(0, 2**31))}


DRAWN = cases(drawn, rows=(1, 2, 5), width=(1, 2, 7), rate=(0.5, 0.1, 0.9, 0.0))
MANY = cases(drawn, rows=(20, 40), width=(50,), rate=(0.5, 0.1, 0.9, 0.3))


@law("dropout-layer", "zero-or-scaled", serves="eq:dropout", cases=DRAWN)
def zero_or_scaled(f: F, c: Case, measure: Measure) -> None:
    """Each element is zero, or what it was divided by 1 - rate."""
    y = np.asarray(f(c["x"], c["rate"], Key.of(c["seed"])))
    kept = y != 0
    measure.close(y[kept], c["x"][kept] / (1 - c["rate"]), bound(largest(c["x"]) / (1 - c["rate"])))
    if c["rate"] == 0.0:
        measure.close(y, c["x"], 0.0, "at rate 0")


@law("dropout-layer", "same-key-same-mask", serves="eq:dropout", cases=MANY)
def same_key_same_mask(f: F, c: Case, measure: Measure) -> None:
    """One key zeroes the same elements each time, whatever their values; another key zeroes others."""
    first = np.asarray(f(c["x"], c["rate"], Key.of(c["seed"]))) != 0
    measure.close(np.asarray(f(-2 * c["x"], c["rate"], Key.of(c["seed"]))) != 0, first, 0.0, "the mask")
    other = np.asarray(f(c["x"], c["rate"], Key.of(c["seed"] + 1))) != 0
    measure.holds(np.any(other != first), "another key gives the same mask")


@law("dropout-layer", "off-without-key", serves=("eq:dropout", "claim:code-training-mode"), cases=DRAWN)
def off_without_key(f: F, c: Case, measure: Measure) -> None:
    """Without a key nothing changes, in any bit: evaluation needs no switch."""
    measure.close(f(c["x"], c["rate"], None), c["x"], 0.0)


@law("dropout-layer", "mean-kept", serves="eq:dropout", cases=MANY)
def mean_kept(f: F, c: Case, measure: Measure) -> None:
    """The share of zeros is the rate, and the mean of ones stays 1, within six deviations of the binomial law."""
    y = np.asarray(f(np.ones_like(c["x"]), c["rate"], Key.of(c["seed"])))
    deviation = math.sqrt(c["rate"] * (1 - c["rate"]) / y.size)
    measure.close(float(np.mean(y == 0)), c["rate"], SIGMAS * deviation, "the share of zeros")
    measure.close(float(y.mean()), 1.0, SIGMAS * deviation / (1 - c["rate"]), "the mean of ones")


def wrong(scale: Any, share: Any = lambda rate: rate) -> F:
    """Dropout with another scale, or another share of zeros."""

    def dropout(x: Any, rate: float, key: Key | None) -> Any:
        if key is None:
            return x
        return x * (key.generator().random(x.shape) >= share(rate)) * scale(rate)

    return dropout


mutant(
    "dropout-layer",
    "not scaled",
    kills=("zero-or-scaled", "mean-kept"),
    met="plausible: the original paper scales at test time instead; mixing both conventions",
)(wrong(lambda rate: 1.0))
mutant(
    "dropout-layer",
    "rate is the share kept",
    kills=("zero-or-scaled", "mean-kept"),
    met="TensorFlow 1's keep_prob against `rate`",
)(wrong(lambda rate: 1 / (rate or 1.0), lambda rate: 1 - rate))


@mutant(
    "dropout-layer",
    "active without a key",
    kills="off-without-key",
    met="chainer PR 4568: its own examples evaluated in training mode",
)
def always(x: Any, rate: float, key: Key | None) -> Any:
    """A mask whatever the key."""
    return ours(x, rate, key or Key.of(0))


@mutant(
    "dropout-layer",
    "mask chosen by the values",
    kills="same-key-same-mask",
    met="plausible: the seed mixed with a hash of the input, so that a recomputation in another type differs",
)
def by_value(x: Any, rate: float, key: Key | None) -> Any:
    """A mask that depends on the input."""
    return ours(x, rate, key and key.fold(int(np.sum(x) * 100)))


@mutant(
    "dropout-layer",
    "whole rows zeroed",
    kills="mean-kept",
    met="plausible: one draw for each row broadcast over it; the mean survives, the number of zeros varies widely",
)
def rows(x: Any, rate: float, key: Key | None) -> Any:
    """One draw for each row."""
    return x if key is None else x * (key.generator().random((*x.shape[:-1], 1)) >= rate) / (1 - rate)
