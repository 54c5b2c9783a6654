"""Two traces of the same tokens: where they begin to differ by more than rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from minilong.errors import UserError
from minilong.train.trace_records import Record
from minilong.train.trace_statistics import Statistics

TOLERANCE = 1e-4
"""Of the size of a number, or of those in its row. Float32 through thirty layers stays some ten times below it."""


@dataclass(frozen=True)
class Comparison:
    """One array on both sides. difference: the largest, at `index`, where the values are `pair` (ours, theirs).
    excess: the largest difference in units of what is allowed; infinite where shapes differ."""

    name: str
    ours: Statistics
    theirs: Statistics
    difference: float
    index: tuple[int, ...]
    pair: tuple[float, float]
    excess: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def diverges(self) -> bool:
        """Whether some number differs by more than is allowed, or the shapes do."""
        return not self.excess <= 1


def compare(
    records: Iterable[Record], ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float
) -> list[Comparison]:
    """Each array that both sides have, in our order of computation. UserError where there is none."""
    both = [r.name for r in records if r.name in ours and r.name in theirs]
    found = [difference(name, ours[name], theirs[name], tolerance) for name in both]
    if not found:
        raise UserError("the two traces have no name in common, so nothing is compared; leave out --only and --layer")
    return found


def first_divergence(comparisons: Iterable[Comparison]) -> Comparison | None:
    """The first array that differs by more than is allowed: what is computed later differs because of it."""
    return next((c for c in comparisons if c.diverges), None)


def difference(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Comparison:
    """Compare two arrays, leading axes of size 1 aside.

    A number may differ by tolerance times its size, or the root mean square of its row (last axis) or of the row in the
    middle, all of theirs, whichever is largest: a row that cancels out has the errors of what it was added up from.
    What is not finite must be the same on both sides.
    """
    a, b = _plain(ours), _plain(theirs)
    told = Statistics.of(ours), Statistics.of(theirs)
    if a.shape != b.shape:
        return Comparison(name, *told, np.inf, (), (np.nan, np.nan), np.inf, (ours.shape, theirs.shape))
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, np.abs(a - b))
        apart = np.where(np.isnan(apart), np.inf, apart)
        squares = np.where(np.isfinite(b), b, 0.0) ** 2
        size = np.sqrt(squares.mean(axis=-1, keepdims=True)) if b.ndim else np.sqrt(squares)
        size = np.maximum(size, np.median(size)) if size.size else size
        allowed = tolerance * np.maximum(size, np.sqrt(squares))
        excess = np.where(apart == 0, 0.0, apart / allowed)
    if not apart.size:
        return Comparison(name, *told, 0.0, (), (np.nan, np.nan), 0.0, (ours.shape, theirs.shape))
    place = np.unravel_index(int(apart.argmax()), a.shape)
    index = (0,) * (ours.ndim - a.ndim) + tuple(int(i) for i in place)
    pair = (float(a[place]), float(b[place]))
    return Comparison(name, *told, float(apart[place]), index, pair, float(excess.max()), (ours.shape, theirs.shape))


def _plain(x: np.ndarray) -> np.ndarray:
    """In float64, without leading axes of size 1."""
    while x.ndim > 1 and x.shape[0] == 1:
        x = x[0]
    return x.astype(np.float64)
