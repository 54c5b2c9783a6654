"""Wrong memories, most of them met in real projects, which the laws of `memories.py` must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.law import mutant
from minilong.audit.laws.common import F
from minilong.audit.laws.memories import Places, in_stream, ours_cache, ours_compressive, ours_segments, streamed
from minilong.memory import CacheState, Compressive, Compressor, Full, Memory, Rows, Segments, SegmentState, Window


def cache(of: Callable[[int, int], Memory], places: Places = in_stream) -> F:
    """A kind's function with this window; the full cache stays right."""

    def wrong(q: Any, k: Any, v: Any, window: int | None, sinks: int, slope: float, splits: list[int]) -> Any:
        return streamed(Full() if window is None else of(window, sinks), q, k, v, slope, splits, places)

    return wrong


def segments(of: Callable[[int, int], Memory], places: Places = in_stream) -> F:
    """A kind's function with this segment memory."""

    def wrong(q: Any, k: Any, v: Any, segment: int, memory: int, slope: float, splits: list[int]) -> Any:
        return streamed(of(segment, memory), q, k, v, slope, splits, places)

    return wrong


def compressive(of: Callable[[int, int, int, Compressor], Memory]) -> F:
    """A kind's function with this compressive memory."""

    def wrong(
        q: Any, k: Any, v: Any, segment: int, memory: int, slots: int, rate: int, sort: str, slope: float, splits: Any
    ) -> Any:
        return streamed(of(segment, memory, slots, Compressor(sort, rate)), q, k, v, slope, splits)

    return wrong


# Caches

mutant("cache", "window of one key more", kills=("one-pass", "window-count"),
       met="transformers 29623, 35924 and 39408: i - j <= w for i - j < w")(
    cache(lambda window, sinks: Window(window + 1, sinks)))  # fmt: skip


@dataclass(frozen=True)
class FullAfterAll(Window):
    """Everything may be seen by a query that comes alone."""

    def mask(self, seen: int, t: int) -> Mask:
        return super().mask(seen, t) if t > 1 else Mask(causal=True, offset=seen)

    def write(self, state: CacheState, rows: Rows) -> CacheState:
        return Full().write(state, rows)

    def visible(self, seen: int, t: int) -> np.ndarray:
        return np.arange(seen + t)

    def _kept(self, seen: int) -> int:
        return seen


mutant("cache", "window forgotten in decoding", kills=("one-pass", "any-split", "window-count"),
       met="nanochat 452: the fallback ignored the window when one token is decoded")(cache(FullAfterAll))  # fmt: skip


class Ring(Window):
    """Rows in the order in which a ring buffer stores them."""

    def read(self, state: CacheState) -> Rows:
        rows = super().read(state)
        s, w = self.sinks, self.window
        if rows[0].shape[-2] != s + w:
            return rows
        turned = (state.seen - s) % w
        return tuple(np.concatenate([x[..., :s, :], np.roll(x[..., s:, :], turned, axis=-2)], axis=-2) for x in rows)


mutant("cache", "ring buffer read unordered", kills=("one-pass", "any-split"),
       met="plausible: the ring's storage handed to attention, the positions counted as if it were in order")(
    cache(Ring))  # fmt: skip


class Overwritten(Window):
    """The oldest row of the window stands where the sinks should be."""

    def read(self, state: CacheState) -> Rows:
        rows = super().read(state)
        if state.seen <= self.sinks + self.window:
            return rows
        return tuple(np.concatenate([x[..., self.sinks : 2 * self.sinks, :], x[..., self.sinks :, :]], axis=-2)
                     if x.shape[-2] >= 2 * self.sinks else x for x in rows)  # fmt: skip


mutant("cache", "sinks overwritten", kills=("one-pass", "any-split"),
       met="plausible: a rolling buffer that wraps to slot 0 and not to the slot after the sinks")(
    cache(Overwritten))  # fmt: skip


def in_cache(policy: Memory, seen: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions counted from the first row of the cache."""
    at = np.arange(len(policy.visible(seen, t)))
    return at[-t:], at


mutant("cache", "positions counted inside the cache", kills=("one-pass", "any-split"),
       met="the keys of transformers' SinkCache, turned anew at each step; streaming-llm does it by design")(
    cache(Window, in_cache))  # fmt: skip


def unshifted(policy: Memory, seen: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries counted as if nothing stood before them."""
    return np.arange(t), np.arange(len(policy.visible(seen, t)))


mutant("cache", "positions of queries start at zero", kills=("one-pass", "any-split"),
       met="x-transformers PR 103: ALiBi without the offset of what is cached")(cache(Window, unshifted))  # fmt: skip


class Hasty(Window):
    """All but the last w rows are hidden before the piece has been attended to."""

    def mask(self, seen: int, t: int) -> Mask:
        hidden = len(self.visible(seen, t)) - self.window - self.sinks
        return Late(causal=True, window=self.window, sinks=self.sinks, offset=self._kept(seen), least=max(hidden, 0))


@dataclass(frozen=True, eq=False)
class Late(Mask):
    """Keys before `least` are gone, but for sinks and the query's own."""

    least: int = 0

    def dense(self, xp: Any, queries: int, keys: int) -> Any:
        there, j = super().dense(xp, queries, keys), np.arange(keys)
        own = j == np.arange(queries)[:, None] + self.offset
        return there & ((j >= self.least + self.sinks) | (j < self.sinks) | own)


mutant("cache", "evicted before the piece was attended to", kills=("one-pass", "any-split"),
       met="plausible: a prompt longer than the window, of which the cache returns only what it keeps")(
    cache(Hasty))  # fmt: skip


def shared_prefix(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    """The first row's keys serve the whole batch."""
    return ours_cache(q, np.broadcast_to(k[:1], k.shape), v, *rest)


mutant("cache", "keys of the first batch row for all", kills=("batch-rows-alone", "one-pass"),
       met="plausible: a prompt cached once and expanded, in a batch of different prompts")(shared_prefix)  # fmt: skip


class Ahead(Window):
    """One key more on the right."""

    def mask(self, seen: int, t: int) -> Mask:
        return replace(super().mask(seen, t), offset=self._kept(seen) + 1)


mutant("cache", "mask shifted by one", kills=("causal", "one-pass", "any-split"),
       met="transformers PR 14832: the mask of TransfoXL off by one")(cache(Ahead))  # fmt: skip


@mutant("cache", "sinks hidden from a wide window", kills="wide-window",
        met="plausible: the window taken from the rows after the sinks")  # fmt: skip
def behind_sinks(q: Any, k: Any, v: Any, window: int | None, sinks: int, slope: float, splits: list[int]) -> Any:
    """A window less the sinks."""
    return ours_cache(q, k, v, None if window is None else max(window - max(sinks, 1), 1), sinks, slope, splits)


# Segments


mutant("segment-memory", "memory and segment exchanged", kills=("one-pass", "long-memory", "segments-of-one"),
       met="transformer-xl 59, 118: _update_mems gets mlen and qlen exchanged; there it shows only if ext_len > 0")(
    segments(lambda segment, memory: Segments(segment, segment)))  # fmt: skip
mutant("segment-memory", "only the last segment remembered", kills=("one-pass", "long-memory", "segments-of-one"),
       met="plausible: the memory replaced by the last segment's rows, where it is longer than a segment")(
    segments(lambda segment, memory: Segments(segment, min(segment, memory))))  # fmt: skip
mutant("segment-memory", "positions of queries start at zero", kills=("one-pass", "any-split"),
       met="x-transformers PR 103: with a memory of length M the offset of keys must be shifted by M")(
    segments(Segments, unshifted))  # fmt: skip


class AheadSegments(Segments):
    """One key more on the right."""

    def mask(self, seen: int, t: int) -> Mask:
        return Mask(causal=True, offset=len(self.visible(seen, t)) - t + 1)


mutant("segment-memory", "mask shifted by one", kills=("causal", "one-pass", "any-split"),
       met="transformers PR 14832: the mask of TransfoXL off by one")(segments(AheadSegments))  # fmt: skip


class AtPieces(Segments):
    """A segment ends where a piece does."""

    def write(self, state: SegmentState, rows: Rows) -> SegmentState:
        ended = self.turn(state) if state.own else state
        return replace(ended, seen=state.seen + rows[0].shape[-2], own=rows)

    def visible(self, seen: int, t: int) -> np.ndarray:
        return np.arange(max(seen - self.memory, 0), seen + t)


mutant("segment-memory", "segments begin where pieces do", kills=("any-split", "one-pass"),
       met="plausible: memory updated at each call, as Transformer-XL's code does, with calls of other lengths")(
    segments(AtPieces))  # fmt: skip


@mutant("segment-memory", "memory of the first batch row for all", kills="batch-rows-alone",
        met="plausible: a memory made for one row and broadcast over a batch")  # fmt: skip
def shared_memory(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    """The first row's keys serve the whole batch."""
    return ours_segments(q, np.broadcast_to(k[:1], k.shape), v, *rest)


# Compressive memory


class Counted(Compressive):
    """A slot is counted as one row."""

    def visible(self, seen: int, t: int) -> np.ndarray:
        n = len(super().visible(seen, t))
        return np.arange(seen + t - n, seen + t)


mutant("compressive", "slots counted as rows", kills="one-pass",
       met="compressive-transformer-pytorch: positions run through slots and rows alike")(
    compressive(Counted))  # fmt: skip


class FirstKept(Compressive):
    """Full once, the slots stay as they are."""

    def turn(self, state: SegmentState) -> SegmentState:
        new = super().turn(state)
        full = state.slots and state.slots[0].shape[-2] == self.compressed
        return replace(new, slots=state.slots) if full else new


mutant("compressive", "old slots never forgotten", kills=("one-pass", "rate-one"),
       met="plausible: the queue of slots cut at the wrong end")(compressive(FirstKept))  # fmt: skip


class Blurred(Compressive):
    """The newest rows are compressed, and the leaving ones lost."""

    def leaving(self, state: SegmentState) -> Rows:
        gone = super().leaving(state)[0].shape[-2]
        whole = Segments(self.segment, self.memory + self.segment).turn(state).past
        return tuple(x[..., x.shape[-2] - gone :, :] for x in whole)


mutant("compressive", "what stays is compressed", kills=("one-pass", "rate-one"),
       met="plausible: the pool of the current segment, where the paper pools the oldest memory")(
    compressive(Blurred))  # fmt: skip


@mutant("compressive", "blocks begin where pieces do", kills=("any-split", "one-pass"),
        met="native-sparse-attention-pytorch 20: cached decoding pools other blocks than the full forward")  # fmt: skip
def at_pieces(
    q: Any, k: Any, v: Any, segment: int, memory: int, slots: int, rate: int, sort: str, slope: float, splits: Any
) -> Any:
    """The stream shifted within its blocks by the length of the first piece."""
    shift = splits[0] % rate if slots and len(splits) > 1 else 0
    front = [np.concatenate([np.repeat(x[:, :, :1], shift, axis=-2), x], axis=-2) for x in (q, k, v)]
    longer = [splits[0] + shift, *splits[1:]]
    y = ours_compressive(*front, segment, memory, slots, rate, sort, slope, longer)
    return y[:, :, shift:]


class AheadCompressive(Compressive):
    """One key more on the right."""

    def mask(self, seen: int, t: int) -> Mask:
        return Mask(causal=True, offset=len(self.visible(seen, t)) - t + 1)


mutant("compressive", "mask shifted by one", kills=("causal", "one-pass", "any-split"),
       met="transformers PR 14832, of the memory that this one extends")(compressive(AheadCompressive))  # fmt: skip


@mutant("compressive", "a slot where none is asked for", kills="no-slots",
        met="plausible: x[-0:] is the whole array, so zero slots keep all")  # fmt: skip
def all_slots(
    q: Any, k: Any, v: Any, segment: int, memory: int, slots: int, rate: int, sort: str, slope: float, splits: Any
) -> Any:
    """Slots without a limit if there are to be none."""
    return ours_compressive(q, k, v, segment, memory, slots or 10**6, rate, sort, slope, splits)


@mutant("compressive", "memory of the first batch row for all", kills="batch-rows-alone",
        met="plausible: a memory made for one row and broadcast over a batch")  # fmt: skip
def shared_slots(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    """The first row's keys serve the whole batch."""
    return ours_compressive(q, np.broadcast_to(k[:1], k.shape), v, *rest)
