"""A bias that depends on the distance between query and key alone, as a value: memory of one row, whatever the length.

ALiBi's penalties and T5's relative biases are such values. A kernel evaluates them where it needs them: `naive` and
`dense` for all scores at once, `blockwise` for one block at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import primitive, real
from minilong.autodiff.draws import Shapes
from minilong.backend import Array


@dataclass(frozen=True, eq=False)
class DistanceBias:
    """What is added to a score, by head and distance (`eq:distance-bias`).

    values (h, m), an array or a tensor: head h adds values[h, clip(i + offset - j - least, 0, m - 1)] to the score of
    query i and key j, where offset (of the mask) is the position of query 0 among the keys. Distances below `least`,
    or beyond least + m - 1, take the first or last value.
    """

    values: Any
    least: int = 0

    def __post_init__(self) -> None:
        if len(self.values.shape) != 2 or not self.values.shape[1]:
            raise ValueError(f"bias: values have shape {self.values.shape} and need (heads, distances)")

    def dense(self, t: int, s: int, offset: int = 0) -> Any:
        """The biases of t queries and s keys, (h, t, s): an array, or a tensor where the values are one."""
        return by_distance(self.values, queries=t, keys=s, start=offset - self.least)


def _sizes(rng: np.random.Generator, _: Shapes) -> dict[str, Any]:
    return {"queries": int(rng.integers(1, 5)), "keys": int(rng.integers(1, 5)), "start": int(rng.integers(-3, 4))}


def _width(rng: np.random.Generator, _: Shapes) -> dict[str, Any]:
    return {"width": int(rng.integers(1, 6)), "start": int(rng.integers(-3, 4))}


@primitive(eq="eq:distance-bias", shapes="(m)->(t,s)", domain=real(-2, 2), bilinear=True, draw=_sizes)
def by_distance(xp: Any, values: Array, *, queries: int, keys: int, start: int) -> Array:
    """values[..., clip(i - j + start, 0, m - 1)] for query i and key j"""
    line = distance_line(xp, values, queries=queries, keys=keys, start=start)
    return xp.ascontiguousarray(diagonals(xp, line, queries, keys))


@by_distance.vjp
def by_distance_vjp(g: Any, values_shape: Any, *, start: int) -> tuple[Any, ...]:
    return (sum_by_distance(g, width=values_shape[-1], start=start),)


@primitive(eq="eq:sum-by-distance", shapes="(t,s)->(m)", domain=real(-2, 2), bilinear=True, draw=_width)
def sum_by_distance(xp: Any, x: Array, *, width: int, start: int) -> Array:
    """the transpose of by_distance: element (i, j) is added to place clip(i - j + start, 0, width - 1)"""
    y = xp.zeros((*x.shape[:-2], width), x.dtype)
    add_by_distance(xp, y, diagonal_sums(xp, x), start - x.shape[-1] + 1)
    return y


@sum_by_distance.vjp
def sum_by_distance_vjp(g: Any, x_shape: Any, *, start: int) -> tuple[Any, ...]:
    return (by_distance(g, queries=x_shape[-2], keys=x_shape[-1], start=start),)


def distance_line(xp: Any, values: Array, *, queries: int, keys: int, start: int) -> Array:
    """The values along the distances i - j + start from the largest to the smallest, (..., queries + keys - 1)."""
    distances = xp.arange(queries - 1 + start, start - keys, -1)
    return values[..., xp.clip(distances, 0, values.shape[-1] - 1)]


def diagonals(xp: Any, line: Array, queries: int, keys: int, first: int | None = None) -> Array:
    """View of a line as a matrix (..., queries, keys) that is constant along its diagonals; no memory of its own.

    Row i begins at line[first - i]; first is queries - 1 unless given: then the line's last key ends row 0.
    """
    first = queries - 1 if first is None else first
    step = line.strides[-1]
    strides = (*line.strides[:-1], -step, step)
    return xp.lib.stride_tricks.as_strided(line[..., first:], (*line.shape[:-1], queries, keys), strides)


def diagonal_sums(xp: Any, x: Array) -> Array:
    """Sums of x (..., t, s) along its diagonals, (..., t + s - 1): at place i - j + s - 1 all x[i, j] of that distance.

    Rows are shifted against one another by reading a buffer whose rows are one element longer than they are read as.
    """
    *batch, t, s = x.shape
    wide = xp.zeros((*batch, t, t + s), x.dtype)
    wide[..., :s] = x[..., ::-1]
    flat = wide.reshape(*batch, t * (t + s))[..., : t * (t + s - 1)]
    return flat.reshape(*batch, t, t + s - 1).sum(axis=-2)


def add_by_distance(xp: Any, y: Array, sums: Array, start: int) -> None:
    """Add sums (..., n) of consecutive distances, the first of them `start`, into y (..., m), in place.

    Distances below 0 go to y's first place, those from m on to its last.
    """
    n, m = sums.shape[-1], y.shape[-1]
    low, high = min(max(-start, 0), n), min(max(m - start, 0), n)
    y[..., start + low : start + high] += sums[..., low:high]
    y[..., 0] += sums[..., :low].sum(axis=-1)
    y[..., -1] += sums[..., high:].sum(axis=-1)


def as_scores(bias: Any, t: int, s: int, offset: int) -> Any:
    """A kernel's `bias` as what is added to the scores: that of a DistanceBias, or the array or tensor itself."""
    return bias.dense(t, s, offset) if isinstance(bias, DistanceBias) else bias
