"""The backward sweep of blockwise attention: weights are computed again from the log-sum-exp that was saved.

With P the weights, D_i = <g_i, y_i> and dS = P * (g v^T - D) the cotangents are gv = P^T g, gq = scale dS k and
gk = scale dS^T q (`eq:blockwise-cotangents`). One extra column makes two passes over the scores part of the products:
[scale q, -lse] [k, 1]^T gives s - lse, and [g, -D] [v, 1]^T gives g v^T - D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from minilong.attention.bias import add_by_distance, diagonal_sums
from minilong.attention.blocks import Blocks, Scratch
from minilong.attention.layout import Layout, extent, token_major
from minilong.attention.reach import Reach
from minilong.backend import Array
from minilong.backend.products import matmul
from minilong.backend.workers import share_out

PANEL = 4096
"""Keys whose extended rows are held at a time: the copies then stay small beside the inputs, and near the processor."""

NEVER = 1e30
"""In place of an infinite log-sum-exp: exp(s - 1e30) is zero, and no infinity meets another."""

FEW = 4
"""With fewer groups of key heads than this the queries of each are split in two, so that two threads have work."""


def sweep_backward(
    xp: Any,
    layout: Layout,
    reach: Reach,
    g: Array,
    y: Array,
    lse: Array,
    scale: float,
    blocks: Blocks,
    *,
    least: int | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Cotangents of q, k, v on the batch axes of the result (key heads that were shared: summed), and of the bias.

    least: that of the distance bias, if its values (*batch, m) are to have a cotangent.
    """
    q, k, v = layout.q, layout.k, layout.v
    r, t, d = q.shape[-3:]
    s, e = v.shape[-2:]
    stacks = [layout.stacked(x) for x in (g, y, lse)]
    rows, columns = blocks.shape(r, t, s, reach.mask)
    columns = min(columns, PANEL)
    starts = range(0, t, rows)
    groups = layout.groups(r * rows * columns, blocks.area, by_row=reach.by_row)
    parts = 2 if 0 < len(groups) < FEW and len(starts) > 1 else 1
    gq = token_major(xp, layout.batch, t, d, q.dtype)
    gq[...] = 0
    sums_k, sums_v = (
        [_zeros(xp, layout.outer, x.shape[-2], x.shape[-1], q.dtype) for _ in range(parts)] for x in (k, v)
    )
    width = 0 if layout.values is None or least is None else layout.values.shape[-1]
    sums_b = [xp.zeros((*layout.outer, r, width), q.dtype) for _ in range(parts)]
    out = layout.stacked(gq)
    items = [(at, part) for at in groups for part in range(parts)]

    def work(items: Iterator[tuple[tuple[Any, ...], int]]) -> None:
        heads = max((math.prod(extent(at)) for at in groups), default=0)
        room = Room(xp, heads, r * rows, columns, d, e, min(s, PANEL), q.dtype)
        for at, part in items:
            arrays = [x[at] for x in (q, k, v, *stacks)]
            sums = (out[at], sums_k[part][at], sums_v[part][at], sums_b[part][at])
            for low in range(0, s, PANEL):
                near = reach.near(starts[part::parts], rows, low, min(low + PANEL, s))
                _panel(xp, room, reach, at, near, rows, columns, low, arrays, sums, scale, least)

    share_out(work, items, blocks.workers(math.prod(layout.batch) * t * s))
    gk, gv, gb = (_added(x) for x in (sums_k, sums_v, sums_b))
    return gq, gk, gv, gb.reshape(*layout.batch, width) if width else None


def _zeros(xp: Any, outer: tuple[int, ...], rows: int, width: int, dtype: Any) -> Array:
    x = token_major(xp, outer, rows, width, dtype)
    x[...] = 0
    return x


class Room:
    """A thread's memory: two blocks of scores, a panel's extended keys and values, a block's queries and products."""

    def __init__(self, xp: Any, heads: int, n: int, columns: int, d: int, e: int, panel: int, dtype: Any) -> None:
        def scratch(size: int) -> Scratch:
            return Scratch(xp, heads * size, dtype)

        self.weights, self.scores = scratch(n * columns), scratch(n * columns)
        self.keys, self.values = scratch(panel * (d + 1)), scratch(panel * (e + 1))
        self.queries, self.cotangents = scratch(n * (d + 1)), scratch(n * (e + 1))
        self.product, self.total = scratch(max(n, columns) * max(d, e)), scratch(n * d)


def _panel(
    xp: Any,
    room: Room,
    reach: Reach,
    at: tuple[Any, ...],
    starts: Sequence[int],
    rows: int,
    columns: int,
    low: int,
    arrays: list[Array],
    sums: tuple[Array, ...],
    scale: float,
    least: int | None,
) -> None:
    """Add what the keys of one panel contribute to the cotangents of some key heads and their queries."""
    q, k, v, g, y, lse = arrays
    gq, gk, gv, gb = sums
    *lead, r, t, d = q.shape
    s, e = v.shape[-2:]
    high = min(low + PANEL, s)
    keys = values = None
    for i in starts:
        i_end = min(i + rows, t)
        n = r * (i_end - i)
        reached = list(reach.blocks(at, i, i_end, columns, low, high))
        if not reached:
            continue
        if keys is None or values is None:
            keys = _extended(room.keys.take(*lead, high - low, d + 1), k[..., low:high, :], 1.0)
            values = _extended(room.values.take(*lead, high - low, e + 1), v[..., low:high, :], 1.0)
        own, out = g[..., i:i_end, :], y[..., i:i_end, :]
        cotangents = room.cotangents.take(*lead, r, i_end - i, e + 1)
        _extended(cotangents, own, -xp.einsum("...e,...e->...", own, out))
        queries, sums_of_exp = room.queries.take(*lead, r, i_end - i, d + 1), lse[..., i:i_end]
        _extended(queries, q[..., i:i_end, :], -xp.where(sums_of_exp == -xp.inf, NEVER, sums_of_exp))
        queries[..., :d] *= scale
        queries, cotangents = queries.reshape(*lead, n, d + 1), cotangents.reshape(*lead, n, e + 1)
        total = room.total.take(*lead, n, d)
        for index, (j, j_end, cut) in enumerate(reached):
            c, here = j_end - j, slice(j - low, j_end - low)
            p = matmul(xp, queries, keys[..., here, :].swapaxes(-1, -2), out=room.weights.take(*lead, n, c))
            reach.add_to(p, at, i, i_end, j, j_end, cut)
            xp.exp(p, out=p)
            gv[..., j:j_end, :] += matmul(
                xp, p.swapaxes(-1, -2), cotangents[..., :e], out=room.product.take(*lead, c, e)
            )
            ds = matmul(xp, cotangents, values[..., here, :].swapaxes(-1, -2), out=room.scores.take(*lead, n, c))
            ds *= p
            gk[..., j:j_end, :] += matmul(xp, ds.swapaxes(-1, -2), queries[..., :d], out=room.product.take(*lead, c, d))
            if index:
                total += matmul(xp, ds, k[..., j:j_end, :], out=room.product.take(*lead, n, d))
            else:
                matmul(xp, ds, k[..., j:j_end, :], out=total)
            if gb.shape[-1] and least is not None:
                _add_bias(xp, gb, ds.reshape(*lead, r, i_end - i, c), i + reach.mask.offset - least - j)
        total *= scale
        gq[..., i:i_end, :] += total.reshape(*lead, r, i_end - i, d)


def _added(parts: list[Array]) -> Array:
    """The sum of the parts, in the memory of the first."""
    for part in parts[1:]:
        parts[0] += part
    return parts[0]


def _extended(room: Array, x: Array, last: Any) -> Array:
    """`x` with one more column."""
    room[..., :-1] = x
    room[..., -1] = last
    return room


def _add_bias(xp: Any, gb: Array, ds: Array, start: int) -> None:
    """Add a block's cotangents of the scores (heads, r, rows, columns) to those of the bias by distance (heads, r, m).

    start: place of the block's first row and column among the values. Far from the diagonal a block may lie beyond
    the values' last, or before their first: its sum is all that counts then.
    """
    rows, columns = ds.shape[-2:]
    if start - (columns - 1) >= gb.shape[-1] - 1:
        gb[..., -1] += ds.sum(axis=(-2, -1))
    elif start + rows - 1 <= 0:
        gb[..., 0] += ds.sum(axis=(-2, -1))
    else:
        add_by_distance(xp, gb, diagonal_sums(xp, ds), start - (columns - 1))
