"""A cache in few bits: old keys by channel, old values by token, and the latest rows exact (KIVI).

Keys have channels that are large at every token, and a scale for each channel keeps those from spoiling the others;
values have no such channels, and what one token loses then harms no other. `parts` decodes some rows at a time, so
that attention over the cache never needs all of it as floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.attention.layout import token_major
from minilong.backend import Array, array_module, workspace
from minilong.memory.base import Card, Memory, Rows, length_of
from minilong.memory.cache import CacheState, fresh, owned, put
from minilong.memory.packing import BITS, Packed, encode, packed_bytes
from minilong.memory.segments import joined
from minilong.memory.window import Window


@dataclass(frozen=True)
class Block:
    """Keys (b, g, d, groups) and values (b, g, rows, groups) of consecutive rows, packed."""

    keys: Packed
    values: Packed

    def decode(self, keys: Array, values: Array) -> None:
        """Write the rows: keys (b, g, d, rows), whose rows are contiguous by channel, and values (b, g, rows, d)."""
        for packed, out in ((self.keys, keys), (self.values, values)):
            packed.decode(out.reshape(*out.shape[:-1], -1, packed.size))

    def over(self, f: Callable[[Array], Array]) -> Block:
        """The same with each array mapped."""
        return Block(self.keys.over(f), self.values.over(f))


@dataclass(frozen=True)
class QuantisedState:
    """first: the exact rows that stay for ever; blocks: what is packed; recent: the latest rows, exact.

    gone: blocks that a window has left behind.
    """

    seen: int = 0
    first: Rows = ()
    blocks: tuple[Block, ...] = ()
    gone: int = 0
    recent: CacheState = field(default_factory=CacheState)

    def parts(self) -> tuple[Rows, ...]:
        """All arrays held."""
        packed = [(*block.keys.arrays, *block.values.arrays) for block in self.blocks]
        return (*((self.first,) if self.first else ()), *packed, *self.recent.parts())

    def select(self, batch: Array) -> QuantisedState:
        """These batch rows, in memory of their own."""
        return self._each(lambda x: x[batch], self.recent.select(batch))

    def copy(self) -> QuantisedState:
        """The same, in memory of its own."""
        return self._each(lambda x: x.copy(), self.recent.copy())

    def constant(self) -> QuantisedState:
        """Itself: a cache holds constants."""
        return self

    def _each(self, f: Callable[[Array], Any], recent: CacheState) -> QuantisedState:
        blocks = tuple(block.over(f) for block in self.blocks)
        return replace(self, first=tuple(f(x) for x in self.first), blocks=blocks, recent=recent)


@dataclass(frozen=True)
class Quantised(Memory):
    """A full cache, or a window with sinks, whose older rows are kept in `bits` bits (`eq:quantised-cache`).

    recent: the stream is cut into blocks of so many rows; the current block and the one before it are exact, older
    ones are packed. So at least `recent` rows before a query are exact, and which ones depends on positions alone.
    group: neighbours that share a scale and a zero: rows of a key's channel (it divides recent), channels of a value
    (or all of them, where a head has no such number). Sinks stay exact. decoded: rows that are decoded at a time, or
    one block. Source: Liu et al. 2024 (KIVI).
    """

    bits: int
    group: int = 32
    recent: int = 128
    window: Window | None = None
    decoded: int = 2048

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"quantised cache: {self.bits} bits are none of {', '.join(map(str, BITS))}")
        if self.group < 1 or self.recent < 1 or self.recent % self.group:
            raise ValueError(
                f"quantised cache: groups of {self.group} rows do not fill blocks of {self.recent}; recent must be a "
                "multiple of group"
            )

    @property
    def sinks(self) -> int:
        """First rows that stay exact for ever."""
        return self.window.sinks if self.window else 0

    @property
    def card(self) -> Card:
        about = "Blurs what is older than its recent rows"
        if self.window is None:
            return Card(False, True, False, False, f"{about}.")
        return Card(False, False, True, False, f"{about}, and forgets what the window leaves.")

    @property
    def in_parts(self) -> bool:
        return True

    def init(self) -> QuantisedState:
        return QuantisedState()

    def write(self, state: QuantisedState, rows: Rows) -> QuantisedState:
        t = length_of(rows, state.recent.view() or state.first)
        if len(rows) != 2:
            raise ValueError(f"quantised cache: rows are keys and values, two arrays, not {len(rows)}")
        if t > self.room(state.seen):
            raise ValueError(
                f"memory: {t} rows cross the block's end at {state.seen + self.room(state.seen)}; cut there"
            )
        first, blocks, recent, gone = state.first, state.blocks, state.recent, self._gone(state.seen)
        early = min(max(self.sinks - state.seen, 0), t)
        if early:
            first = joined(first, tuple(x[..., :early, :].copy() for x in rows))
        if recent.seen == 2 * self.recent and early < t:  # a block begins: the older of the two is packed
            view = recent.view()
            blocks = (*blocks, self._packed(tuple(x[..., : self.recent, :] for x in view)))
            kept = tuple(x[..., self.recent :, :] for x in view)
            buffer = fresh(kept, kept, 2 * self.recent)  # a new one: the old state still holds what it held
            buffer.seen = self.recent
            recent = CacheState(self.recent, 0, self.recent, buffer)
        if early < t:
            recent = self._append(recent, tuple(x[..., early:, :] for x in rows))
        return QuantisedState(state.seen + t, first, blocks[max(gone - state.gone, 0) :], gone, recent)

    def _append(self, recent: CacheState, rows: Rows) -> CacheState:
        stop = recent.stop + rows[0].shape[-2]
        buffer = owned(recent, rows) or fresh((), rows, 2 * self.recent)
        put(buffer, rows, recent.stop)
        buffer.seen = stop
        return CacheState(stop, 0, stop, buffer)

    def _packed(self, rows: Rows) -> Block:
        k, v = rows
        by_channel = array_module(k).ascontiguousarray(k.swapaxes(-1, -2))
        size = channels(v.shape[-1], self.group)
        return Block(
            encode(by_channel.reshape(*by_channel.shape[:-1], -1, self.group), self.bits),
            encode(v.reshape(*v.shape[:-1], -1, size), self.bits),
        )

    def read(self, state: QuantisedState) -> Rows:
        whole = [tuple(x.copy() for x in part) for part in self.parts(state)]
        xp = array_module(*whole[0])
        return tuple(xp.concatenate([part[i] for part in whole], axis=-2) for i in range(2))

    def parts(self, state: QuantisedState) -> Iterator[Rows]:
        """First rows, packed ones as they are decoded (the memory of each is used again for the next), recent ones."""
        if not state.seen:
            raise ValueError("memory: nothing was written yet, so there is nothing to read")
        if state.first:
            yield state.first
        step = max(1, self.decoded // self.recent)
        if state.blocks:
            like, value = state.recent.view()
            xp, most = array_module(like), self.recent * min(step, len(state.blocks))
            keys = workspace(xp, (*like.shape[:2], like.shape[-1], most), like.dtype)
            values = token_major(xp, value.shape[:2], most, value.shape[-1], value.dtype)
            for i in range(0, len(state.blocks), step):
                some = state.blocks[i : i + step]
                for j, block in enumerate(some):
                    at = slice(j * self.recent, (j + 1) * self.recent)
                    block.decode(keys[..., at], values[..., at, :])
                n = len(some) * self.recent
                yield keys[..., :n].swapaxes(-1, -2), values[..., :n, :]
        if state.recent.buffer is not None:
            yield state.recent.view()

    def _block(self, seen: int) -> int:
        """The number of the block to which the next row belongs."""
        return max(seen - self.sinks, 0) // self.recent

    def _gone(self, seen: int) -> int:
        """Packed blocks of which the next row, and so any later one, sees nothing."""
        if self.window is None:
            return 0
        packed = max(self._block(seen) - 1, 0)
        return min(packed, max(seen - self.window.window + 1 - self.sinks, 0) // self.recent)

    def visible(self, seen: int, t: int) -> Array:
        n = seen + t
        first = min(self.sinks, n)
        return np.concatenate([np.arange(first), np.arange(first + self.recent * self._gone(seen), n)])

    def mask(self, seen: int, t: int) -> Mask:
        offset = len(self.visible(seen, t)) - t
        if self.window is None:
            return Mask(causal=True, offset=offset)
        return Mask(causal=True, window=self.window.window, sinks=self.sinks, offset=offset)

    def room(self, seen: int) -> int:
        later = seen - self.sinks
        return self.recent - (later % self.recent if later > 0 else later)

    def allowed(self, n: int) -> Array:
        return self.window.allowed(n) if self.window else np.tri(n, dtype=bool)

    def reach(self, layers: int) -> int | None:
        return self.window.reach(layers) if self.window else None

    def held(self, seen: int, t: int) -> int:
        return self._exact(seen + t) + self.recent * self._packed_blocks(seen)

    def _exact(self, n: int) -> int:
        """Rows for which floating-point numbers are allocated."""
        return min(self.sinks, n) + (2 * self.recent if n > self.sinks else 0)

    def _packed_blocks(self, seen: int) -> int:
        return max(self._block(seen) - 1, 0) - self._gone(seen)

    def predicted_bytes(
        self, seen: int, t: int, row_bytes: int, *, head: int = 64, shared: int = 1, itemsize: int = 4
    ) -> int:
        """The packed rows take fewer bytes, and two numbers a group (`eq:compressed-cache-bytes`)."""
        heads, size = row_bytes // (2 * head * itemsize), channels(head, self.group)
        keys = head * (self.recent // self.group) * (packed_bytes(self.group, self.bits) + 2 * itemsize)
        values = self.recent * (head // size) * (packed_bytes(size, self.bits) + 2 * itemsize)
        return self._exact(seen + t) * row_bytes + self._packed_blocks(seen) * heads * (keys + values)


def channels(width: int, group: int) -> int:
    """How many channels of a value share a scale: `group` where it divides the head's width, else all of them."""
    return group if width % group == 0 else width
