"""The full cache of keys and values, and the buffer that all caches write into in place. Plain arrays only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minilong.attention.layout import token_major
from minilong.autodiff import Tensor
from minilong.backend import Array, array_module
from minilong.memory.base import Card, Memory, Rows, length_of

LEAST = 16
"""Rows of the smallest buffer that grows."""


@dataclass
class Buffer:
    """Arrays (..., capacity, width), and how many rows the stream had at the last write into them."""

    rows: Rows
    seen: int = 0

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return int(self.rows[0].shape[-2])


@dataclass(frozen=True)
class CacheState:
    """A buffer, and the part of it from `start` up to `stop` that the last piece may see."""

    seen: int = 0
    start: int = 0
    stop: int = 0
    buffer: Buffer | None = None

    def parts(self) -> tuple[Rows, ...]:
        """All arrays held."""
        return () if self.buffer is None else (self.buffer.rows,)

    def view(self) -> Rows:
        """The visible part, without copying."""
        return tuple(x[..., self.start : self.stop, :] for x in (self.buffer.rows if self.buffer else ()))

    def select(self, batch: Array) -> CacheState:
        """These batch rows, in memory of their own."""
        if self.buffer is None:
            return self
        return replace(self, buffer=Buffer(tuple(x[batch] for x in self.buffer.rows), self.seen))

    def copy(self) -> CacheState:
        """The same, in memory of its own."""
        if self.buffer is None:
            return self
        return replace(self, buffer=Buffer(tuple(x.copy() for x in self.buffer.rows), self.seen))

    def constant(self) -> CacheState:
        """Itself: a cache holds constants."""
        return self


class Cache(Memory):
    """What caches share: reading a view, and checks before writing."""

    def init(self) -> CacheState:
        return CacheState()

    def read(self, state: CacheState) -> Rows:
        if state.buffer is None:
            raise ValueError("memory: nothing was written yet, so there is nothing to read")
        return state.view()


@dataclass(frozen=True)
class Full(Cache):
    """Every row is kept (`eq:cache`): exact, and memory grows with the stream.

    The buffer's rows are the next power of two, so that appending one row costs a constant number of copies on
    average; with `capacity`, that many rows are allocated at once, which saves the copies and up to half the memory.
    """

    capacity: int | None = None

    def __post_init__(self) -> None:
        if self.capacity is not None and self.capacity < 1:
            raise ValueError(f"full cache: the capacity is {self.capacity}; it must be at least 1, or None")

    @property
    def card(self) -> Card:
        return Card(True, True, False, True, "Forgets nothing.")

    def write(self, state: CacheState, rows: Rows) -> CacheState:
        t = length_of(rows, state.view())
        size, stop = self.held(state.seen, t), state.stop + t
        buffer = owned(state, rows)
        if buffer is None or buffer.capacity != size:
            buffer = fresh(state.view(), rows, size)
        put(buffer, rows, state.stop)
        buffer.seen = stop
        return CacheState(stop, 0, stop, buffer)

    def visible(self, seen: int, t: int) -> Array:
        return np.arange(seen + t)

    def allowed(self, n: int) -> Array:
        return np.tri(n, dtype=bool)

    def held(self, seen: int, t: int) -> int:
        n = seen + t
        if self.capacity is not None and n <= self.capacity:
            return self.capacity
        return int(max(LEAST, 1 << (n - 1).bit_length()))

    def reach(self, layers: int) -> None:
        return None


def owned(state: CacheState, rows: Rows) -> Buffer | None:
    """The state's buffer. ValueError where another state has written into it since, or where a row is a tensor."""
    if any(type(x) is Tensor for x in rows):
        raise ValueError("memory: a cache takes arrays, not tensors; to train, make one pass under the mask")
    if state.buffer is not None and state.buffer.seen != state.seen:
        raise ValueError("memory: this state was written to already; keep the new state, or copy() before")
    return state.buffer


def fresh(kept: Rows, rows: Rows, size: int) -> Buffer:
    """A new buffer for `size` rows like `rows`, which begins with a copy of `kept`."""
    buffer = Buffer(tuple(token_major(array_module(x), x.shape[:-2], size, x.shape[-1], x.dtype) for x in rows))
    if kept:
        put(buffer, kept, 0)
    return buffer


def put(buffer: Buffer, rows: Rows, at: int) -> None:
    """Write rows into the buffer from row `at` on. They may be views of it: overlaps are copied right."""
    for target, x in zip(buffer.rows, rows, strict=True):
        target[..., at : at + x.shape[-2], :] = x
