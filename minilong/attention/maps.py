"""Parts and pictures of the attention map, computed from the log-sum-exp that blockwise attention returns.

The map has queries x keys entries and is never made. A weight is exp(scale <q_i, k_j> + bias - lse_i), so any tile of
it costs as much as the tile is large, and a picture of any length takes the memory of a few blocks
(`eq:attention-tile`). These are the weights of `naive`, up to rounding, not an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from minilong.attention.bias import DistanceBias
from minilong.attention.blocks import Blocks
from minilong.attention.blockwise_backward import NEVER
from minilong.attention.kernels import prepared
from minilong.attention.layout import Layout
from minilong.attention.mask import Mask
from minilong.attention.naive import array_of
from minilong.attention.reach import reach_of
from minilong.backend import Array, array_module, beside
from minilong.backend.products import matmul

BLOCKS = Blocks()


def attention_tile(
    q: Array,
    k: Array,
    lse: Array,
    rows: tuple[int, int],
    columns: tuple[int, int],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    bias: DistanceBias | None = None,
) -> Array:
    """Weights of queries rows[0] to rows[1] (exclusive) on keys columns[0] to columns[1]: (..., h, rows, columns).

    q (..., h, t, d), k (..., g, s, d), lse (..., h, t): of `Blockwise.with_lse` with the same mask, scale and bias.
    """
    t, s = q.shape[-2], k.shape[-2]
    for name, (start, stop), size in (("rows", rows, t), ("columns", columns, s)):
        if not 0 <= start <= stop <= size:
            raise ValueError(f"attention_tile: {name} {start} to {stop} do not lie within 0 to {size}")
    return _Map(q, k, lse, mask, scale, bias).tile(rows, columns)


def attention_row(
    q: Array,
    k: Array,
    lse: Array,
    row: int,
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    bias: DistanceBias | None = None,
) -> Array:
    """Weights of one query on all keys, (..., h, s)."""
    return attention_tile(q, k, lse, (row, row + 1), (0, k.shape[-2]), mask=mask, scale=scale, bias=bias)[..., 0, :]


def attention_picture(
    q: Array,
    k: Array,
    lse: Array,
    size: int | tuple[int, int],
    *,
    by: str = "mean",
    mask: Mask | None = None,
    scale: float | None = None,
    bias: DistanceBias | None = None,
) -> Array:
    """The map reduced to at most `size` (rows, columns) cells, each the mean or max (`by`) of its weights.

    Result (..., h, rows, columns), `eq:attention-picture`. Cell (a, b) covers queries [a t / rows, (a + 1) t / rows),
    rounded down, and keys likewise. What the mask empties costs nothing.
    """
    if by not in ("mean", "max"):
        raise ValueError(f'attention_picture: by is {by!r}; it is "mean" or "max"')
    t, s = q.shape[-2], k.shape[-2]
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"attention_picture: a picture of {height} x {width} cells shows nothing")
    row_edges, column_edges = edges(t, height), edges(s, width)
    xp, part = array_of(q), _Map(q, k, lse, mask, scale, bias)
    picture = xp.zeros((*q.shape[:-2], len(row_edges) - 1, len(column_edges) - 1), q.dtype)
    combine = xp.maximum if by == "max" else xp.add
    for a in range(len(row_edges) - 1):
        for i in range(row_edges[a], row_edges[a + 1], BLOCKS.rows):
            rows = (i, min(i + BLOCKS.rows, row_edges[a + 1]))
            for first, last in _runs(column_edges, BLOCKS.columns):
                start = column_edges[first]
                for j in range(start, column_edges[last], BLOCKS.columns):  # more than once only for one wide cell
                    stop = min(j + BLOCKS.columns, column_edges[last])
                    tile = part.tile(rows, (j, stop))
                    tile = tile.max(axis=-2) if by == "max" else tile.sum(axis=-2)
                    starts = [max(column_edges[c] - j, 0) for c in range(first, last)]
                    cells = picture[..., a, first:last]
                    combine(cells, _by_cell(tile, starts, by), out=cells)
    if by == "mean":
        picture /= beside(q, np.outer(np.diff(row_edges), np.diff(column_edges)).astype(q.dtype))
    return picture


def _by_cell(tile: Array, starts: list[int], by: str) -> Array:
    """Sums or maxima over the last axis, of a part for each start: (..., columns) -> (..., cells)."""
    if array_module(tile) is np:
        return (np.maximum if by == "max" else np.add).reduceat(tile, starts, axis=-1)
    parts = [tile[..., i:j] for i, j in pairwise([*starts, tile.shape[-1]])]  # CuPy's maximum has no reduceat
    return array_module(tile).stack([x.max(axis=-1) if by == "max" else x.sum(axis=-1) for x in parts], axis=-1)


class _Map:
    """The map of one call: its arrays as blockwise attention sees them, and its reach."""

    def __init__(
        self, q: Array, k: Array, lse: Array, mask: Mask | None, scale: float | None, bias: DistanceBias | None
    ) -> None:
        if lse.shape != q.shape[:-1]:
            raise ValueError(f"attention map: lse has shape {lse.shape} and needs {q.shape[:-1]}, one for each query")
        self.xp, self.scale = array_of(q), 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        (wide_q, wide_k, wide_v), values, least = prepared(q, k, k, mask, bias)
        self.layout = Layout.of(self.xp, wide_q, wide_k, wide_v, values)
        self.reach = reach_of(self.xp, mask or Mask(), self.layout, least)
        self.lead = q.shape[:-2]
        lse = lse.reshape(*self.layout.outer, self.layout.q.shape[-3], q.shape[-2])
        self.lse = self.xp.where(lse == -self.xp.inf, NEVER, lse).astype(q.dtype)

    def tile(self, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
        """Weights (*lead, rows, columns); blocks that the mask empties stay zero and are not computed."""
        xp, (i, i_end), (low, high) = self.xp, rows, columns
        q, k = self.layout.q, self.layout.k
        r, n, m = q.shape[-3], i_end - i, high - low
        weights = xp.zeros((*self.layout.outer, r, n, m), q.dtype)
        if not weights.size:
            return weights.reshape(*self.lead, n, m)
        with np.errstate(over="ignore", under="ignore"):
            for at in np.ndindex(self.layout.outer):
                for j, j_end, cut in self.reach.blocks(at, i, i_end, m, low, high):
                    block = matmul(xp, q[at][:, i:i_end] * self.scale, k[at][j:j_end].T)
                    added = self.reach.added(at, i, i_end, j, j_end, cut)
                    block -= self.lse[at][:, i:i_end, None]
                    if added is not None:
                        block += added
                    weights[at][:, :, j - low : j_end - low] = xp.exp(block, out=block)
        return weights.reshape(*self.lead, n, m)


def edges(n: int, cells: int) -> list[int]:
    """Where each of at most `cells` nearly equal parts of n begins, and n."""
    cells = min(n, cells)
    return [i * n // cells for i in range(cells + 1)] if cells else [0]


def _runs(column_edges: Sequence[int], columns: int) -> list[tuple[int, int]]:
    """Cells in runs that together are at most `columns` wide, as (first cell, cell after the last); at least one."""
    runs, first = [], 0
    for cell in range(1, len(column_edges) - 1):
        if column_edges[cell + 1] - column_edges[first] > columns:
            runs.append((first, cell))
            first = cell
    return [*runs, (first, len(column_edges) - 1)] if len(column_edges) > 1 else []
