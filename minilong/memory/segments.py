"""Segment recurrence (Transformer-XL): the rows of a layer's last segment are remembered as constants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.autodiff import ops, stop_gradient
from minilong.backend import Array
from minilong.memory.base import Card, Memory, Rows, length_of


@dataclass(frozen=True)
class SegmentState:
    """slots: summaries of old rows; past: remembered rows; both constants. own: the rows of the current segment."""

    seen: int = 0
    slots: Rows = ()
    past: Rows = ()
    own: Rows = ()

    def parts(self) -> tuple[Rows, ...]:
        """All that is held, in order of position."""
        return tuple(part for part in (self.slots, self.past, self.own) if part)

    def select(self, batch: Array) -> SegmentState:
        """These batch rows, in memory of their own."""
        return self._each(lambda x: ops.getitem(x, key=batch))

    def copy(self) -> SegmentState:
        """The same, in memory of its own. A tensor is a constant value already."""
        return self._each(lambda x: x.copy() if isinstance(x, np.ndarray) else x)

    def constant(self) -> SegmentState:
        """The same without gradients."""
        return self._each(stop_gradient)

    def _each(self, f: Any) -> SegmentState:
        slots, past, own = (tuple(f(x) for x in part) for part in (self.slots, self.past, self.own))
        return replace(self, slots=slots, past=past, own=own)


@dataclass(frozen=True)
class Segments(Memory):
    """Rows of one's own segment, and the last `memory` rows before it, as constants (`eq:segment-memory`).

    Segments begin at the multiples of `segment`. A layer's memory holds its inputs, which had a memory of their own in
    the layer below: so a stack reaches back `memory` rows for each layer. No gradient enters the memory
    (`eq:segment-gradients`). Rows may be tensors; they are kept as they are given, so the caller must not change them.
    Source: Dai et al. 2019.
    """

    segment: int
    memory: int

    def __post_init__(self) -> None:
        if self.segment < 1 or self.memory < 0:
            raise ValueError(f"segments: needs segment >= 1 and memory >= 0, not {self.segment} and {self.memory}")

    @property
    def card(self) -> Card:
        return Card(True, self.memory > 0, True, False, "Forgets what is older than its memory, layer by layer.")

    def init(self) -> SegmentState:
        return SegmentState()

    def write(self, state: SegmentState, rows: Rows) -> SegmentState:
        t = length_of(rows, state.own)
        if t > self.room(state.seen):
            raise ValueError(
                f"memory: {t} rows cross the segment's end at {state.seen + self.room(state.seen)}; cut them there"
            )
        if state.own and state.seen % self.segment == 0:
            state = self.turn(state)
        return replace(state, seen=state.seen + t, own=joined(state.own, rows))

    def turn(self, state: SegmentState) -> SegmentState:
        """At a segment's end: its rows become memory, as constants, and the oldest are forgotten."""
        rows = tuple(last(x, self.memory) for x in constants(joined(state.past, state.own)))
        return replace(state, past=rows, own=())

    def read(self, state: SegmentState) -> Rows:
        if not state.own:
            raise ValueError("memory: nothing was written yet, so there is nothing to read")
        whole: Rows = ()
        for part in state.parts():
            whole = joined(whole, part)
        return whole

    def visible(self, seen: int, t: int) -> Array:
        return np.arange(max(self.start(seen) - self.memory, 0), seen + t)

    def room(self, seen: int) -> int:
        return self.segment - seen % self.segment

    def allowed(self, n: int) -> Array:
        i, j = np.arange(n)[:, None], np.arange(n)
        return np.asarray((j <= i) & (j >= i - i % self.segment - self.memory))

    def held(self, seen: int, t: int) -> int:
        return len(self.visible(seen, t))

    def reach(self, layers: int) -> int:
        return reach(layers, self.segment, self.memory)

    def start(self, seen: int) -> int:
        """Where the segment of the next row begins."""
        return seen - seen % self.segment


def reach(layers: int, segment: int, behind: int) -> int:
    """The largest distance in a stack, where a segment sees `behind` rows before its start (`eq:memory-reach`).

    The last row of a segment sees `behind` rows before the segment's start; the oldest of them, in the layer below, is
    in the middle of a segment of its own, and sees as far back as its start does.
    """
    if layers == 0:
        return 0
    whole = -(-behind // segment) * segment
    return segment - 1 + behind + (layers - 1) * whole


def joined(first: Rows, then: Rows) -> Rows:
    """Rows after rows."""
    if not first:
        return then
    return tuple(ops.concatenate(a, b, axis=-2) for a, b in zip(first, then, strict=True))


def constants(rows: Rows) -> Rows:
    """The arrays under the rows."""
    return tuple(stop_gradient(x) for x in rows)


def last(x: Array, n: int) -> Array:
    """A copy of the last n rows, of all where there are fewer: a view would keep the others in memory too."""
    copy: Array = x[..., max(x.shape[-2] - n, 0) :, :].copy()
    return copy
