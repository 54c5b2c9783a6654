"""Which keys a block of queries reaches under a mask: the blocks to visit, and what to add to the scores of each.

A block that the mask empties is never visited; one that it leaves whole costs nothing. Between the two the mask enters
as zeros and minus infinities. Where it depends on the distance alone these are a view of one line per length, not a
table (`bias.diagonals`), so causal masks, windows and distance biases cost one addition for each score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from minilong.attention.bias import diagonals, distance_line
from minilong.attention.layout import Layout
from minilong.attention.mask import Mask
from minilong.backend import Array


class Cut(Enum):
    """What the mask does to a block that it does not empty."""

    NOTHING = 0
    BY_DISTANCE = 1
    BY_TABLE = 2


@dataclass(frozen=True, eq=False)
class Reach:
    """A mask and a distance bias over t queries and s keys, evaluated block by block. Made by `reach_of`.

    bias, both: what the bias alone, and bias and mask together, add to a score, along the distances from the largest
    to the smallest: lines (..., heads, t + s - 1), or (t + s - 1) where all heads have the same. None stands for zeros.
    """

    xp: Any
    mask: Mask
    t: int
    s: int
    bias: Array | None
    both: Array | None

    @property
    def by_row(self) -> bool:
        """Whether sequences of the batch see keys of their own."""
        return any(rows is not None and len(rows) > 1 for rows in (self.mask.key_lengths, self.mask.segments))

    def blocks(
        self, at: tuple[Any, ...], i: int, i_end: int, columns: int, low: int = 0, high: int | None = None
    ) -> Iterator[tuple[int, int, Cut]]:
        """Blocks of at most `columns` keys between `low` and `high` that queries [i, i_end) of the heads `at` reach.

        at: index of the layout's outer axes. Each as (first key, key after the last, cut), in the order of the keys.
        """
        for start, stop, whole in self._intervals(batch_row(at), i, i_end):
            start, stop = max(start, low), min(stop, self.s if high is None else high)
            for j in range(start, stop, columns):
                j_end = min(j + columns, stop)
                yield j, j_end, self._cut(i, i_end, j, j_end) if whole else Cut.BY_TABLE

    def near(self, starts: Sequence[int], rows: int, low: int, high: int) -> list[int]:
        """Those of the blocks of `rows` queries that may reach a key between `low` and `high`."""
        m = self.mask
        first = low - m.offset - rows + 1 if m.causal else 0
        past = high + m.window - m.offset - 1 if m.window is not None and low >= m.sinks else self.t
        return [i for i in starts if first <= i < past]

    def added(self, at: tuple[Any, ...], i: int, i_end: int, j: int, j_end: int, cut: Cut) -> Array | None:
        """Bias and mask of a block, to add to its scores: what broadcasts to (..., heads of each key head, queries,
        keys), or None for zeros. at: index of the layout's outer axes.
        """
        line = self.both if cut is Cut.BY_DISTANCE else self.bias
        view = None
        if line is not None:
            own = line if line.ndim == 1 else line[at]
            view = diagonals(self.xp, own, i_end - i, j_end - j, first=self.t - 1 - i + j)
        if cut is not Cut.BY_TABLE:
            return view
        hidden = self.xp.where(self._allowed(batch_row(at), i, i_end, j, j_end), 0.0, -self.xp.inf)
        return hidden if view is None else view + hidden.astype(view.dtype)

    def add_to(self, scores: Array, at: tuple[Any, ...], i: int, i_end: int, j: int, j_end: int, cut: Cut) -> None:
        """Add bias and mask of a block to its scores (..., heads of each key head x queries, keys), in place.

        Where there is no bias only those keys are touched that some query of the block does not see.
        """
        parts = [(j, j_end)]
        if cut is Cut.BY_DISTANCE and self.bias is None:
            m, first, last = self.mask, i + self.mask.offset, i_end - 1 + self.mask.offset
            behind = j if m.window is None else min(max(last - m.window + 1, j), j_end)
            ahead = max(min(first + 1, j_end), j) if m.causal else j_end
            parts = [(j, behind), (ahead, j_end)] if behind < ahead else parts
        stack = scores.reshape(*scores.shape[:-2], -1, i_end - i, j_end - j)
        for start, stop in parts:
            added = self.added(at, i, i_end, start, stop, cut) if start < stop else None
            if added is not None:
                stack[..., start - j : stop - j] += added

    def _intervals(self, row: int, i: int, i_end: int) -> Iterator[tuple[int, int, bool]]:
        """Ranges of keys outside which no query of the block sees any; whether segments leave all keys in it."""
        m, first, last = self.mask, i + self.mask.offset, i_end - 1 + self.mask.offset
        start, stop, whole = 0, self.s, True
        if m.causal:
            stop = min(stop, last + 1)
        if m.key_lengths is not None:
            stop = min(stop, int(m.key_lengths[row if len(m.key_lengths) > 1 else 0]))
        if m.segments is not None and stop > 0:
            segments = m.segments[row if len(m.segments) > 1 else 0]
            own = segments[first : last + 1]
            near = (segments[:stop] >= own.min()) & (segments[:stop] <= own.max())
            found = self.xp.flatnonzero(near)
            start, stop = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
            whole = bool(own.min() == own.max() and near[start:stop].all())
        near_start = start if m.window is None else max(start, first - m.window + 1)
        if near_start > m.sinks:
            yield start, min(m.sinks, stop), whole
            yield near_start, stop, whole
        else:
            yield start, stop, whole

    def _cut(self, i: int, i_end: int, j: int, j_end: int) -> Cut:
        m, first, last = self.mask, i + self.mask.offset, i_end - 1 + self.mask.offset
        ahead = m.causal and j_end - 1 > first
        behind = m.window is not None and j <= last - m.window and j_end > m.sinks
        if not (ahead or behind):
            return Cut.NOTHING
        return Cut.BY_TABLE if j < m.sinks else Cut.BY_DISTANCE  # a line knows nothing of sinks

    def _allowed(self, row: int, i: int, i_end: int, j: int, j_end: int) -> Array:
        """The mask's definition (`eq:mask`) for one block; padding is no part of any block."""
        m = self.mask
        p = self.xp.arange(i, i_end)[:, None] + m.offset
        c = self.xp.arange(j, j_end)
        allowed = c <= p if m.causal else self.xp.ones((i_end - i, j_end - j), bool)
        if m.window is not None:
            allowed &= (c > p - m.window) | (c < m.sinks)
        if m.segments is not None:
            segments = m.segments[row if len(m.segments) > 1 else 0]
            allowed &= segments[i + m.offset : i_end + m.offset][:, None] == segments[j:j_end]
        return allowed


def batch_row(at: tuple[Any, ...]) -> int:
    """The first sequence of an index, or of slices, of the layout's outer axes (batch..., key heads)."""
    if len(at) < 2:
        return 0
    return int(at[0].start if isinstance(at[0], slice) else at[0])


def reach_of(xp: Any, mask: Mask, layout: Layout, least: int) -> Reach:
    """The reach of a layout's queries over its keys; least: that of its distance bias.

    Raises TypeError for another kind of mask: its table would be ignored here, not honoured.
    """
    if type(mask) is not Mask:
        raise TypeError(f"blockwise attention knows the fields of Mask, not a {type(mask).__name__}; use dense")
    q, values = layout.q, layout.values
    r, t, s = q.shape[-3], q.shape[-2], layout.k.shape[-2]
    for name, rows in (("key_lengths", mask.key_lengths), ("segments", mask.segments)):
        if rows is not None and (len(q.shape) < 4 or len(rows) not in (1, q.shape[0])):
            raise ValueError(f"mask: {name} are for {len(rows)} sequences, but queries have shape {q.shape}")
    visible = bias = None
    if values is not None:
        bias = distance_line(xp, values.astype(q.dtype, copy=False), queries=t, keys=s, start=mask.offset - least)
    if mask.causal or mask.window is not None:
        distance = xp.arange(t - 1 + mask.offset, mask.offset - s, -1)
        hidden = xp.zeros(len(distance), bool)
        if mask.causal:
            hidden |= distance < 0
        if mask.window is not None:
            hidden |= distance >= mask.window
        visible = xp.where(hidden, -xp.inf, 0.0).astype(q.dtype)
    both = visible if bias is None else bias if visible is None else bias + visible

    def heads(line: Array | None) -> Array | None:  # a view: sequences share the bias of their heads
        return line if line is None or line.ndim == 1 else xp.broadcast_to(line, (*layout.outer, r, line.shape[-1]))

    return Reach(xp, mask, t, s, heads(bias), heads(both))
