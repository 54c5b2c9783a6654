"""Caches that choose by attention what they keep: H2O while a text is read, SnapKV at the end of a prompt.

Every key head keeps rows of its own, in order of position. Keys are turned before they are cached, so rotary positions
stay right; what adds a bias by distance would need another one for each head, and is refused (`nn/past.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from minilong.attention import Mask
from minilong.backend import Array, array_module, beside
from minilong.memory.base import Card, Memory, Rows, length_of
from minilong.memory.cache import LEAST, Buffer, CacheState, fresh, owned, put
from minilong.memory.scores import attention_mass, largest_rows, pooled

PLACE = 4
"""Bytes of a row's position."""


@dataclass(frozen=True)
class ScoredState(CacheState):
    """A cache whose buffer also holds what is known of each row and key head, (b, g, s, 1): see `Eviction.extras`.

    scored: rows of the stream whose queries were heeded. queries: the latest of them (b, h, m, d), where they vote.
    """

    scored: int = 0
    queries: Rows = ()

    def parts(self) -> tuple[Rows, ...]:
        """All arrays held."""
        return (*super().parts(), self.queries) if self.queries else super().parts()

    def select(self, batch: Array) -> ScoredState:
        """These batch rows, in memory of their own."""
        return replace(self, buffer=super().select(batch).buffer, queries=tuple(x[batch] for x in self.queries))

    def copy(self) -> ScoredState:
        """The same, in memory of its own."""
        return replace(self, buffer=super().copy().buffer, queries=tuple(x.copy() for x in self.queries))

    @property
    def places(self) -> Array:
        """Positions in the stream of the rows that are held, (b, g, s), increasing."""
        return self.view()[-1][..., 0]


class Eviction(Memory):
    """What both share: rows with their positions (and a mass), in a buffer; which rows stay is decided in `heed`."""

    extras: int
    """Arrays beside keys and values: the positions, last, and the mass before them."""

    @property
    def scored(self) -> bool:
        return True

    @property
    def endless(self) -> bool:
        """Never: old rows stay where they were, and distances grow beyond those that a model has learnt."""
        return False

    def init(self) -> ScoredState:
        return ScoredState()

    def write(self, state: ScoredState, rows: Rows) -> ScoredState:
        t = length_of(rows, state.view()[: -self.extras])
        room = self.room(state.seen)
        if room is not None and t > room:
            raise ValueError(f"memory: {t} rows cross the place {state.seen + room} where some are evicted; cut there")
        if state.scored != state.seen:
            raise ValueError("memory: the queries of the rows written last were not heeded; call heed after read")
        xp, size, buffer = array_module(rows[0]), self.capacity(state.seen, t), owned(state, rows)
        lead = (*rows[0].shape[:2], t, 1)
        at = xp.arange(state.seen, state.seen + t, dtype=np.int32)[:, None]
        whole = (*rows, *[xp.zeros(lead, rows[0].dtype)] * (self.extras - 1), xp.broadcast_to(at, lead))
        if buffer is None or buffer.capacity < size:
            buffer = fresh(state.view(), whole, size)
        put(buffer, whole, state.stop)
        buffer.seen = state.seen + t
        return replace(state, seen=buffer.seen, stop=state.stop + t, buffer=buffer)

    def read(self, state: ScoredState) -> Rows:
        if state.buffer is None:
            raise ValueError("memory: nothing was written yet, so there is nothing to read")
        return state.view()[: -self.extras]

    def heed(self, state: ScoredState, q: Array, scale: float) -> ScoredState:
        if q.shape[-2] != state.seen - state.scored:
            raise ValueError(
                f"memory: {q.shape[-2]} queries came for {state.seen - state.scored} new rows; heed each piece once"
            )
        if state.buffer is not None and state.buffer.seen != state.seen:
            raise ValueError("memory: this state was written to already; keep the new state, or copy() before")
        return replace(self.weigh(state, q, scale), scored=state.seen)

    @abstractmethod
    def weigh(self, state: ScoredState, q: Array, scale: float) -> ScoredState:
        """The state after the queries of the last piece: with what they say of its rows, or without those evicted."""

    @abstractmethod
    def kept(self, seen: int) -> int:
        """Rows that are left of so many seen."""

    @abstractmethod
    def capacity(self, seen: int, t: int) -> int:
        """Rows for which memory is allocated while `t` rows are read after so many seen."""

    def visible(self, seen: int, t: int) -> Array:
        rows = self.kept(seen) + t
        places = np.arange(seen + t - rows, seen + t)
        return places if rows == seen + t else np.where(np.arange(rows) < rows - t, np.nan, places)

    def mask(self, seen: int, t: int) -> Mask:
        return Mask(causal=True, offset=self.kept(seen))

    def allowed(self, n: int) -> Array:
        return np.tri(n, dtype=bool)

    def reach(self, layers: int) -> None:
        return None


def gathered(state: ScoredState, rows: Array, size: int) -> ScoredState:
    """The state with these rows (b, g, m) of what it holds and no others, in a buffer for `size` rows."""
    xp = array_module(rows)
    kept = tuple(xp.take_along_axis(x, rows[..., None], axis=-2) for x in state.view())
    buffer = state.buffer
    assert buffer is not None
    target = buffer.rows if buffer.capacity <= size else fresh((), kept, size).rows
    buffer.seen = -1  # the given state must not be used again
    new = Buffer(target, state.seen)
    put(new, kept, 0)
    return replace(state, stop=rows.shape[-1], buffer=new)


@dataclass(frozen=True)
class HeavyHitters(Eviction):
    """The latest rows, and those that received most attention so far (`eq:heavy-hitters`), `budget` rows in all.

    recent: latest rows that stay (default: half the budget). sinks: first rows that stay in any case. block: rows are
    evicted where the stream has reached a multiple of it, so that the result does not depend on how it was cut; up to
    then the new rows are held beside the budget. 1 is the paper's algorithm. Source: Zhang et al. 2023 (H2O).
    """

    budget: int
    recent: int | None = None
    sinks: int = 0
    block: int = 1

    extras = 2

    def __post_init__(self) -> None:
        if self.budget < 1 or self.sinks < 0 or self.block < 1 or self.latest < 0:
            raise ValueError(f"heavy hitters: {self} must have budget >= 1, sinks >= 0, recent >= 0 and block >= 1")
        if self.sinks + self.latest > self.budget:
            raise ValueError(
                f"heavy hitters: {self.sinks} sinks and {self.latest} recent rows are more than the budget of "
                f"{self.budget}"
            )

    @property
    def latest(self) -> int:
        """Latest rows that are never evicted."""
        return (self.budget - self.sinks) // 2 if self.recent is None else self.recent

    @property
    def card(self) -> Card:
        return Card(False, True, True, False, "Forgets what received little attention.")

    def weigh(self, state: ScoredState, q: Array, scale: float) -> ScoredState:
        keys, *_, mass, _ = state.view()
        mass[..., 0] += attention_mass(q, keys, scale)
        rows = state.stop
        if state.seen % self.block or rows <= self.budget:
            return state
        xp, last = array_module(mass), rows - self.latest
        chosen = largest_rows(mass[..., self.sinks : last, 0], self.budget - self.sinks - self.latest) + self.sinks
        lead = chosen.shape[:-1]
        first, end = (beside(mass, np.arange(*part)) for part in ((self.sinks,), (last, rows)))
        ends = [xp.broadcast_to(x, (*lead, len(x))) for x in (first, end)]
        assert state.buffer is not None
        return gathered(state, xp.concatenate([ends[0], chosen, ends[1]], axis=-1), state.buffer.capacity)

    def kept(self, seen: int) -> int:
        return min(seen - seen % self.block, self.budget) + seen % self.block

    def room(self, seen: int) -> int:
        return self.block - seen % self.block

    def capacity(self, seen: int, t: int) -> int:
        return min(self.budget + self.block, power(seen + t))

    def held(self, seen: int, t: int) -> int:
        return self.capacity(seen, t)

    def predicted_bytes(
        self, seen: int, t: int, row_bytes: int, *, head: int = 64, shared: int = 1, itemsize: int = 4
    ) -> int:
        """Each row and key head has a mass and a position beside it (`eq:compressed-cache-bytes`)."""
        heads = row_bytes // (2 * head * itemsize)
        return self.held(seen, t) * (row_bytes + heads * (itemsize + PLACE))


@dataclass(frozen=True)
class SnapKV(Eviction):
    """Of a prompt, the rows for which its end votes (`eq:snapkv`), `budget` in all; what follows is kept whole.

    window: the last rows of the prompt, whose queries vote by their attention, and which stay. kernel: neighbours over
    which votes are pooled (an odd number). prompt: rows of the prompt, by `prompted`; without it all is kept. The
    prompt itself is read with all its rows. Source: Li et al. 2024 (SnapKV).
    """

    budget: int
    window: int = 32
    kernel: int = 7
    prompt: int | None = None

    extras = 1

    def __post_init__(self) -> None:
        if not 1 <= self.window <= self.budget or self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"snapkv: {self} must have 1 <= window <= budget and an odd kernel")

    @property
    def card(self) -> Card:
        return Card(False, True, False, False, "Forgets of a prompt what its end did not look at.")

    def prompted(self, length: int) -> SnapKV:
        return replace(self, prompt=length)

    def weigh(self, state: ScoredState, q: Array, scale: float) -> ScoredState:
        if self.prompt is None or state.seen > self.prompt or self.prompt <= self.budget:
            return state
        new = q[..., max(q.shape[-2] - self.window, 0) :, :]
        latest = array_module(q).concatenate([*state.queries, new], axis=-2)
        state = replace(state, queries=(latest[..., max(latest.shape[-2] - self.window, 0) :, :].copy(),))
        return self._compressed(state, scale) if state.seen == self.prompt else state

    def _compressed(self, state: ScoredState, scale: float) -> ScoredState:
        """At the prompt's end: the rows that got most votes, and the window."""
        old = state.stop - self.window
        votes = attention_mass(state.queries[0], state.view()[0], scale)[..., :old]
        chosen = largest_rows(pooled(votes, self.kernel), self.budget - self.window)
        xp = array_module(votes)
        window = xp.broadcast_to(beside(votes, np.arange(old, state.stop)), (*votes.shape[:-1], self.window))
        rows = xp.concatenate([chosen, window], axis=-1)
        return gathered(replace(state, queries=()), rows, power(self.budget))

    def kept(self, seen: int) -> int:
        if self.prompt is None or seen < self.prompt:
            return seen
        return min(self.prompt, self.budget) + seen - self.prompt

    def room(self, seen: int) -> int | None:
        return None if self.prompt is None or seen >= self.prompt else self.prompt - seen

    def capacity(self, seen: int, t: int) -> int:
        return power(self.kept(seen) + t)

    def held(self, seen: int, t: int) -> int:
        """After `heed`."""
        return power(self.kept(seen + t))

    def predicted_bytes(
        self, seen: int, t: int, row_bytes: int, *, head: int = 64, shared: int = 1, itemsize: int = 4
    ) -> int:
        """After `heed`. Each row and key head has a position; before the prompt's end, queries are held as well
        (`eq:compressed-cache-bytes`)."""
        heads, n = row_bytes // (2 * head * itemsize), seen + t
        queries = 0
        if self.prompt is not None and n < self.prompt and self.prompt > self.budget:
            queries = min(n, self.window) * heads * shared * head * itemsize
        return self.held(seen, t) * (row_bytes + heads * PLACE) + queries


def power(n: int) -> int:
    """The rows of a buffer that grows: the next power of two."""
    return max(LEAST, 1 << (n - 1).bit_length())
