"""Sinusoidal positions: what `eq:sinusoidal` says of any table, and wrong ones, the article's sum among them.

Widths are even: the equation does not say how an odd one ends. The table's precision is free, and bounds follow it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minilong.positions as positions
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound_of

kind(
    "sinusoidal",
    "sinusoidal(length, width)",
    "table (length, width) for an even width: columns 2i and 2i+1 are sine and cosine of p / 10000^(2i/width)",
    public=True,
)


@subject("sinusoidal", "sinusoidal", code=positions.sinusoidal, equation="eq:sinusoidal")
def ours(length: int, width: int) -> Any:
    return positions.sinusoidal(length, width, dtype="float64")


@subject("sinusoidal", "sinusoidal at positions", code=positions.sinusoidal_at, equation="eq:sinusoidal")
def ours_at(length: int, width: int) -> Any:
    return positions.sinusoidal_at(np.arange(length), width, dtype="float64")


@subject("sinusoidal", "sinusoidal (float32)", code=positions.sinusoidal, equation="eq:sinusoidal")
def ours_float32(length: int, width: int) -> Any:
    return positions.sinusoidal(length, width)


def make(r: Numbers, length: int, width: int) -> Case:
    """A table's size, and a shift along it."""
    return {"length": length, "width": width, "shift": int(r.integers(0, length))}


tables = cases(make, length=(1, 2, 3, 7, 31, 128, 1009), width=(2, 4, 6, 8, 10, 32, 64))
short = cases(make, length=(1, 2, 3, 7, 31, 128), width=(2, 4, 6, 8, 10, 32))


def frequencies(width: int) -> np.ndarray:
    """1 / 10000^(2i/d) for each pair i."""
    return np.array([10000.0 ** (-2 * i / width) for i in range(width // 2)])


def table(f: F, case: Case, measure: Measure, *, length: int | None = None, width: int | None = None) -> np.ndarray:
    """The function's table, checked to be of the right shape and of real numbers."""
    size = (case["length"] if length is None else length, case["width"] if width is None else width)
    y = np.asarray(f(*size))
    measure.holds(y.shape == size, f"the table has shape {y.shape}, and the law asks for {size}")
    measure.holds(y.dtype.kind == "f", f"the table's numbers are of type {y.dtype}")
    return y


def exact(y: np.ndarray) -> np.ndarray:
    """In float64, so that sums of a narrower table are not rounded once more."""
    return y.astype(np.float64)


def rounding(y: np.ndarray, terms: int = 1) -> float:
    """The angle of the last position is the largest number that is rounded."""
    return bound_of(y, float(len(y)), terms)


@law("sinusoidal", "definition", serves="eq:sinusoidal", cases=tables)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """Entry (p, 2i) is sin(p / 10000^(2i/d)), entry (p, 2i+1) the cosine of the same angle."""
    y = table(f, case, measure)
    angle = np.arange(len(y))[:, None] * frequencies(case["width"])
    measure.close(y, np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(y.shape), rounding(y), "the table")


@law("sinusoidal", "first-row", serves="eq:sinusoidal", cases=tables)
def first_row(f: F, case: Case, measure: Measure) -> None:
    """Position 0 is 0, 1, 0, 1, ...: positions count from 0, and sines come first."""
    y = table(f, case, measure)
    measure.close(y[0], np.arange(case["width"]) % 2, bound_of(y, 1.0), "row 0")


@law("sinusoidal", "interleaved", serves="eq:sinusoidal", cases=tables)
def interleaved(f: F, case: Case, measure: Measure) -> None:
    """Neighbours 2i and 2i+1 belong together: their squares sum to 1 at every position."""
    y = table(f, case, measure)
    pairs = (exact(y) ** 2).reshape(len(y), -1, 2).sum(axis=-1)
    measure.close(pairs, np.ones(pairs.shape), bound_of(y, 2.0), "the squared length of a pair")


@law("sinusoidal", "constant-norm", serves="eq:sinusoidal", cases=tables)
def constant_norm(f: F, case: Case, measure: Measure) -> None:
    """The squared norm of every row is d / 2."""
    y = table(f, case, measure)
    found = (exact(y) ** 2).sum(axis=-1)
    measure.close(
        found, np.full(len(y), case["width"] / 2), bound_of(y, 2.0, case["width"]) * case["width"], "the squared norm"
    )


@law("sinusoidal", "shift", serves="eq:sinusoidal", cases=tables)
def shift(f: F, case: Case, measure: Measure) -> None:
    """A shift by k is one rotation of each pair, by k / 10000^(2i/d), the same at every position."""
    y, k = table(f, case, measure), case["shift"]
    sine, cosine = exact(y)[:, 0::2], exact(y)[:, 1::2]
    angle = k * frequencies(case["width"])
    stop = len(y) - k
    turned_sine = sine[:stop] * np.cos(angle) + cosine[:stop] * np.sin(angle)
    turned_cosine = cosine[:stop] * np.cos(angle) - sine[:stop] * np.sin(angle)
    measure.close(sine[k:], turned_sine, 2 * rounding(y), f"the sines {k} positions on")
    measure.close(cosine[k:], turned_cosine, 2 * rounding(y), f"the cosines {k} positions on")


@law("sinusoidal", "linear-shift", serves="eq:sinusoidal", cases=short)
def linear_shift(f: F, case: Case, measure: Measure) -> None:
    """Each pair obeys P(p+1) + P(p-1) = 2 cos(frequency) P(p): any three rows in a row are linearly dependent."""
    y = table(f, case, measure)
    rows = exact(y)
    factor = np.repeat(2 * np.cos(frequencies(case["width"])), 2)
    if len(y) > 2:
        measure.close(rows[2:] + rows[:-2], factor * rows[1:-1], 4 * rounding(y), "the sum of two rows")


@law("sinusoidal", "distance-kernel", serves="eq:sinusoidal", cases=short)
def distance_kernel(f: F, case: Case, measure: Measure) -> None:
    """The product of two rows depends on their distance only: it is the sum of cos((p - r) / 10000^(2i/d))."""
    y = table(f, case, measure)
    distance = np.arange(len(y))[:, None] - np.arange(len(y))
    right = sum(np.cos(distance * w) for w in frequencies(case["width"]))
    measure.close(exact(y) @ exact(y).T, right, rounding(y, case["width"]) * case["width"], "the product of two rows")


@law("sinusoidal", "prefix", serves="eq:sinusoidal", cases=tables)
def prefix(f: F, case: Case, measure: Measure) -> None:
    """A shorter table is the beginning of a longer one: a position's row does not depend on the length."""
    y, length = table(f, case, measure), case["shift"] + 1
    measure.close(table(f, case, measure, length=length), y[:length], rounding(y), f"the table of length {length}")


@law("sinusoidal", "nested-widths", serves="eq:sinusoidal", cases=short)
def nested_widths(f: F, case: Case, measure: Measure) -> None:
    """Every second pair of twice the width is the table of the width: exponents are shares 2i/d of the width."""
    y = table(f, case, measure)
    wide = table(f, case, measure, width=2 * case["width"])
    found = wide.reshape(len(y), -1, 2)[:, ::2].reshape(y.shape)
    measure.close(found, y, 2 * rounding(y), "every second pair of the wide table")


@law("sinusoidal", "first-pair", serves="eq:sinusoidal", cases=tables)
def first_pair(f: F, case: Case, measure: Measure) -> None:
    """The first pair turns by one radian at each position, and no pair turns faster."""
    y = exact(table(f, case, measure))
    right = np.array([[math.sin(p), math.cos(p)] for p in range(len(y))])
    slack = rounding(table(f, case, measure))
    measure.close(y[:, :2], right, slack, "the first pair")
    if len(y) > 1:
        measure.holds(np.all(y[1, 1::2] >= y[1, 1] - slack), f"a pair turns faster than the first: row 1 is {y[1]!r}")


# Mutants


def angles(length: int, width: int, exponent: Any) -> Any:
    return np.arange(length)[:, None] / 10000.0 ** np.asarray(exponent)


def joined(sine: Any, cosine: Any) -> Any:
    return np.stack([sine, cosine], axis=-1).reshape(len(sine), -1)


def pairs_of(angle: Any) -> Any:
    return joined(np.sin(angle), np.cos(angle))


def even(width: int) -> Any:
    return np.arange(0, width, 2) / width


@mutant(
    "sinusoidal",
    "cas",
    kills=("first-row", "interleaved", "constant-norm", "shift", "linear-shift", "distance-kernel"),
    met="the article, 4.3: sine plus cosine in one component (`eq:cas`)",
)
def cas(length: int, width: int) -> Any:
    return positions.cas(length, width, dtype="float64")


@mutant(
    "sinusoidal", "concatenated", kills=("interleaved", "first-row"), met="tensor2tensor: all sines, then all cosines"
)
def concatenated(length: int, width: int) -> Any:
    angle = angles(length, width, even(width))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)


@mutant("sinusoidal", "cosine-first", kills=("first-row", "definition"), met="plausible: the two swapped")
def cosine_first(length: int, width: int) -> Any:
    angle = angles(length, width, even(width))
    return joined(np.cos(angle), np.sin(angle))


@mutant(
    "sinusoidal", "own-frequencies", kills=("interleaved", "constant-norm"), met="exponent j/d of the column j itself"
)
def own_frequencies(length: int, width: int) -> Any:
    angle = angles(length, width, np.arange(width) / width)
    return np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle))


@mutant("sinusoidal", "half-exponent", kills=("shift", "definition"), met="exponent i/d for 2i/d")
def half_exponent(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width) / 2))


@mutant(
    "sinusoidal",
    "double-exponent",
    kills=("shift", "definition"),
    met="2i/d with i = 0, 2, 4, ...: the article's range",
)
def double_exponent(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width) * 2))


@mutant(
    "sinusoidal", "to-the-last", kills=("nested-widths", "shift"), met="tensor2tensor: the last pair gets exactly 10000"
)
def to_the_last(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, np.arange(width // 2) / max(width // 2 - 1, 1)))


@mutant("sinusoidal", "base-1000", kills=("shift", "distance-kernel"), met="plausible: another base")
def base_1000(length: int, width: int) -> Any:
    return pairs_of(np.arange(length)[:, None] / 1000.0 ** even(width))


@mutant(
    "sinusoidal", "from-one", kills=("first-row", "definition"), met="fairseq: positions begin after the padding index"
)
def from_one(length: int, width: int) -> Any:
    return pairs_of(angles(length + 1, width, even(width)))[1:]


@mutant("sinusoidal", "relative", kills=("prefix", "first-pair"), met="plausible: positions divided by the length")
def relative(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width)) / length)


@mutant(
    "sinusoidal", "full-turns", kills=("first-pair", "linear-shift"), met="plausible: 2 pi p, as for Fourier features"
)
def full_turns(length: int, width: int) -> Any:
    return pairs_of(2 * np.pi * angles(length, width, even(width)))


@mutant(
    "sinusoidal", "multiplied", kills=("first-pair", "definition"), met="the minus in exp(-2i/d log 10000) forgotten"
)
def multiplied(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, -even(width)))


@mutant("sinusoidal", "unit-rows", kills=("constant-norm", "interleaved"), met="plausible: rows normalised to length 1")
def unit_rows(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width))) / np.sqrt(width / 2)


@mutant(
    "sinusoidal",
    "float32-angles",
    kills=("definition", "linear-shift"),
    met="angles in float32, rounded at long lengths",
)
def float32_angles(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width)).astype(np.float32).astype(np.float64))


@mutant("sinusoidal", "transposed", kills=("definition",), met="plausible: (width, length)")
def transposed(length: int, width: int) -> Any:
    return pairs_of(angles(length, width, even(width))).T
