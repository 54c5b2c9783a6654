"""What a streaming memory is: a policy as a value, and for each attention layer a state that it writes and reads.

A stream of rows arrives in pieces of any size. A piece is written, and then `read` gives every row that the piece may
attend to, in order of position. Which rows those are depends on positions alone, never on how the stream was cut into
pieces: that is the law of all memories (`minilong/audit/laws/memories.py`).

    state = memory.init()
    for piece in pieces:                                # each (..., t, width), t <= memory.room(state.seen)
        seen, t = state.seen, piece.shape[-2]
        state = memory.write(state, (piece,))
        (rows,) = memory.read(state)                    # (..., m + t, width), the piece last
        y = attention(piece, rows, mask=memory.mask(seen, t), positions=memory.visible(seen, t))

Rows are a tuple of arrays with the batch axis first and the time axis at -2: keys and values (b, g, t, d) of a cache,
or the inputs (b, t, width) of a layer for segment recurrence. What they mean is the caller's affair.

A memory that chooses by attention (`scored`) wants the queries of each piece as well, after it was read:

        state = memory.heed(state, q, scale)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from minilong.attention import Mask
from minilong.autodiff import stop_gradient
from minilong.backend import Array

Rows: TypeAlias = tuple[Any, ...]
"""Arrays (or tensors, in segment memories) with one time axis at -2, of one length."""


@dataclass(frozen=True)
class Card:
    """What a memory can do, for a reader who chooses one."""

    exact: bool
    """A query sees the very rows that `allowed` admits: all of them, and no summaries."""
    beyond_window: bool
    """One layer sees more, sinks aside, than its own window or segment."""
    constant_memory: bool
    """The bytes do not grow with the stream."""
    trainable_through: bool
    """Gradients reach all that is visible: in one pass under the mask for caches, which hold constants themselves."""
    about: str
    """One sentence: what it forgets."""


class State(Protocol):
    """What one attention layer remembers. `seen`: rows written so far; `write` gives the next state."""

    @property
    def seen(self) -> int:
        """Rows written so far, those forgotten included."""

    def select(self, batch: Array) -> State:
        """The state of these batch rows (integers; repeats allowed), in memory of its own: beam search reorders so."""

    def copy(self) -> State:
        """The same state in memory of its own."""

    def constant(self) -> State:
        """The same state without gradients: what is carried from one training step to the next."""

    def parts(self) -> tuple[Rows, ...]:
        """All that is held."""


class Memory(ABC):
    """A policy: what is kept of a stream. Functions of counts (`seen` rows before, `t` rows now) know no state."""

    @property
    @abstractmethod
    def card(self) -> Card:
        """What it can do."""

    @abstractmethod
    def init(self) -> Any:
        """The empty state. Shapes and types are those of the first rows written."""

    @abstractmethod
    def write(self, state: Any, rows: Rows) -> Any:
        """The state after these rows. The given state must not be used again: its memory may be written over.

        ValueError where the rows cross a boundary (more than `room(seen)`), or do not fit those before.
        """

    @abstractmethod
    def read(self, state: Any) -> Rows:
        """All rows that the rows just written may see, themselves included, last. May be a view: use it before the
        next write. ValueError before the first write."""

    @abstractmethod
    def visible(self, seen: int, t: int) -> Array:
        """Positions of what `read` gives after writing `t` rows to a state that had seen `seen`, increasing.

        int64; float64 where a slot stands for a block of rows: the block's centre; NaN where the heads keep different
        rows, so that no position is that of all.
        """

    @abstractmethod
    def allowed(self, n: int) -> Array:
        """(n, n) booleans: whether row i of one pass over n sees row j, be it as part of a summary. The definition;
        of a memory that chooses by attention, whether it may."""

    @abstractmethod
    def held(self, seen: int, t: int) -> int:
        """Rows for which memory is allocated after writing `t` rows to a state that had seen `seen`."""

    @abstractmethod
    def reach(self, layers: int) -> int | None:
        """The largest distance at which a token, sinks aside, can influence an output of a stack; None: any."""

    def mask(self, seen: int, t: int) -> Mask:
        """Who sees whom among what `read` gives: queries are its last `t` rows."""
        return Mask(causal=True, offset=len(self.visible(seen, t)) - t)

    def room(self, seen: int) -> int | None:
        """How many rows can be written at once; None: any number. A longer piece is cut there."""
        return None

    @property
    def scored(self) -> bool:
        """Whether what is kept depends on attention, so that `heed` must follow each `read`."""
        return False

    @property
    def in_parts(self) -> bool:
        """Whether `parts` gives less at a time than `read`, and so takes less memory."""
        return False

    @property
    def endless(self) -> bool:
        """Whether a text may go on for ever: in constant memory, at distances that do not grow."""
        return self.card.constant_memory

    def prompted(self, length: int) -> Memory:
        """The memory for a stream that begins with a prompt of so many rows. Most do not care."""
        return self

    def heed(self, state: Any, q: Array, scale: float) -> Any:
        """The state after the queries (b, h, t, d) of the rows just written, times `scale`, have met what `read` gave.

        Keys are rows[0] (b, g, s, d), each for h / g queries; what `read` gave must not be used any more.
        """
        return state

    def parts(self, state: Any) -> Iterator[Rows]:
        """What `read` gives, in the same order, in parts that need not be in memory at the same time."""
        yield self.read(state)

    def bytes(self, state: Any) -> int:
        """Bytes that the state holds, the views that `read` gave included."""
        return sum(x.nbytes for x in arrays(state))

    def predicted_bytes(
        self, seen: int, t: int, row_bytes: int, *, head: int = 64, shared: int = 1, itemsize: int = 4
    ) -> int:
        """What `bytes` is after that write: a row takes `row_bytes` (batch included) in all arrays together
        (`eq:memory-rows`). For caches that hold more than rows, or rows in few bits (`eq:compressed-cache-bytes`):
        components of a head, query heads of a key head, and bytes of a component."""
        return self.held(seen, t) * row_bytes


def arrays(state: Any) -> list[Array]:
    """The arrays of a state, those under tensors included."""
    return [stop_gradient(x) for part in state.parts() for x in part]


def length_of(rows: Rows, before: Rows = ()) -> int:
    """The common length of the rows. ValueError where they differ, or do not continue `before`."""
    if not rows:
        raise ValueError("memory: no rows were given")
    lengths = {x.shape[-2] for x in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"memory: rows must have one length of at least 1, not {sorted(lengths)}")
    if before:
        same = len(rows) == len(before)
        if not same or any(x.dtype != y.dtype or _rest(x) != _rest(y) for x, y in zip(rows, before, strict=True)):
            found, kept = ([(*_rest(x), np.dtype(x.dtype).name) for x in some] for some in (rows, before))
            raise ValueError(f"memory: rows {found} do not continue rows {kept} (shape without time, type)")
    return int(rows[0].shape[-2])


def _rest(x: Any) -> tuple[Any, ...]:
    shape = x.shape
    return (*shape[:-2], shape[-1])
