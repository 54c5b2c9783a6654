"""How blockwise attention sees its arrays: batch axes to walk over, and query heads that share a key head as one stack.

Only views are made, whatever axes broadcast: a key head that serves many query heads is never repeated in memory.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.backend import Array, workspace


@dataclass(frozen=True, eq=False)
class Layout:
    """Views: q (*outer, r, t, d), k (*outer, s, d), v (*outer, s, e); values (..., r, m) or None broadcasts to them.

    outer: the batch axes, key heads last: never empty. r: the query heads of a key head. batch: the leading axes of the
    result.
    """

    q: Array
    k: Array
    v: Array
    values: Array | None
    batch: tuple[int, ...]

    @classmethod
    def of(cls, xp: Any, q: Array, k: Array, v: Array, values: Array | None) -> Layout:
        """The layout of arrays with leading axes that broadcast, as an operation receives them."""
        leads = [x.shape[:-2] for x in (q, k, v)] + ([] if values is None else [values.shape[:-1]])
        batch = xp.broadcast_shapes(*leads)
        wide = batch or (1,)
        if all(x.ndim == 2 or x.shape[-3] == 1 for x in (k, v)):  # one key head for all of the last axis
            k, v = (x if x.ndim > 2 else x[None] for x in (k, v))
            q = q[..., None, :, :, :] if q.ndim > 2 else q
            outer, r = (*wide[:-1], 1), wide[-1]
            values = values[..., None, :, :] if values is not None and values.ndim > 2 else values
        else:
            q = q[..., None, :, :]
            values = None if values is None else values[..., None, :]
            outer, r = wide, 1
        return cls(
            xp.broadcast_to(q, (*outer, r, *q.shape[-2:])),
            xp.broadcast_to(k, (*outer, *k.shape[-2:])),
            xp.broadcast_to(v, (*outer, *v.shape[-2:])),
            values,
            batch,
        )

    @property
    def outer(self) -> tuple[int, ...]:
        """The batch axes with key heads of their own."""
        return tuple(self.k.shape[:-2])

    def stacked(self, x: Array) -> Array:
        """An array of the result's leading axes (*batch, ...) as (*outer, r, ...): a view."""
        return x.reshape(*self.outer, self.q.shape[-3], *x.shape[len(self.batch) :])

    def groups(self, scores: int, area: int, *, by_row: bool) -> list[tuple[Any, ...]]:
        """Indices of `outer`, made of slices: heads and rows of the batch that together fill `area` with `scores` each.

        by_row: rows of the batch are never taken together, because they do not see the same keys.
        """
        left, axes = max(1, area // max(1, scores)), []
        for axis, n in reversed(list(enumerate(self.outer))):  # heads lie nearest to one another: they come first
            step = 1 if by_row and axis == 0 and len(self.outer) > 1 else max(1, min(n, left))
            axes.append([slice(i, min(i + step, n)) for i in range(0, n, step)])
            left //= step
        return list(itertools.product(*reversed(axes)))


def extent(at: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes of the axes that a group's slices cut out."""
    return tuple(part.stop - part.start for part in at)


def token_major(xp: Any, batch: tuple[int, ...], t: int, e: int, dtype: Any) -> Array:
    """Memory for an array (*batch, t, e) in which the heads of a token lie side by side.

    Joining the heads, (b, h, t, e) -> (b, t, h e), is then a view and no copy.
    """
    row, heads = batch[:1], batch[1:]
    x, n = workspace(xp, (*row, t, *heads, e), dtype), len(batch)
    return x.transpose(0, *range(2, n + 1), 1, n + 1) if n else x


BOUNDED = 40.0
"""Scores within +-40 need no shift: e^40 times a million keys is 1e23, and e^-40 is far from underflow in float32."""


def longest(xp: Any, x: Array) -> Array:
    """The largest norm of a row, for each head: x (..., n, d) -> (...)."""
    squares = xp.einsum("...nd,...nd->...n", x, x)
    return xp.sqrt(squares.max(axis=-1) if x.shape[-2] else squares.sum(axis=-1))


def row_sums(xp: Any, x: Array, ones: Array) -> Array:
    """Sums over the last axis. On a CPU a product with ones is several times faster than a reduction."""
    return x @ ones if xp is np else x.sum(axis=-1)


def bounded(xp: Any, q: Array, k: Array, scale: float) -> bool:
    """Whether |q| |k| keeps all scores so near to zero that their exponentials can be taken as they are."""
    return abs(scale) * largest(longest(xp, q) * longest(xp, k)) <= BOUNDED


def largest(x: Array) -> float:
    """The largest of some numbers that are not negative; 0 if there are none."""
    return float(x.max()) if x.size else 0.0
