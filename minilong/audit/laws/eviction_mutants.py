"""Wrong heavy hitters, which the laws of `eviction.py` must find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.audit.law import mutant
from minilong.audit.laws.eviction import heeding, ours_heavy
from minilong.memory import HeavyHitters, ScoredState
from minilong.memory.scores import attention_mass

# H2O


def heavy(of: Any) -> Any:
    """The kind's function with this memory."""

    def wrong(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
        return heeding(of(budget, recent, sinks, block), q, k, v, splits)

    return wrong


mutant("heavy-hitters", "sinks evicted", kills="window-and-sinks",
       met="plausible: the first rows left to their attention, which a new head need not pay")(
    heavy(lambda budget, recent, sinks, block: HeavyHitters(budget, recent, 0, block)))  # fmt: skip
mutant("heavy-hitters", "a window of one less", kills="window-and-sinks",
       met="plausible: rows[:-recent + 1] left to choose from")(
    heavy(lambda budget, recent, sinks, block: HeavyHitters(budget, max(recent - 1, 0), sinks, block)))  # fmt: skip
mutant("heavy-hitters", "one row more", kills="count",
       met="plausible: evicted when the budget is exceeded by more than one")(
    heavy(lambda budget, recent, sinks, block: HeavyHitters(budget + 1, recent, sinks, block)))  # fmt: skip


@dataclass(frozen=True)
class Twice(HeavyHitters):
    """A piece's queries count twice where it has several."""

    def weigh(self, state: ScoredState, q: Any, scale: float) -> ScoredState:
        if q.shape[-2] > 1:
            keys, *_, mass, _ = state.view()
            mass[..., 0] += attention_mass(q, keys, scale)
        return super().weigh(state, q, scale)


mutant("heavy-hitters", "a piece counted twice", kills=("most-attention", "any-split"),
       met="plausible: sums kept at reading, and again when the piece is read once more")(heavy(Twice))  # fmt: skip


@dataclass(frozen=True)
class Least(HeavyHitters):
    """Those of least attention stay."""

    def weigh(self, state: ScoredState, q: Any, scale: float) -> ScoredState:
        keys, *_, mass, _ = state.view()
        mass[..., 0] -= 2 * attention_mass(q, keys, scale)
        return super().weigh(state, q, scale)


mutant("heavy-hitters", "the least heavy stay", kills="most-attention",
       met="plausible: argsort without its minus")(heavy(Least))  # fmt: skip


@dataclass(frozen=True)
class LastQuery(HeavyHitters):
    """Only the last piece's attention counts."""

    def weigh(self, state: ScoredState, q: Any, scale: float) -> ScoredState:
        state.view()[-2][...] = 0
        return super().weigh(state, q, scale)


mutant("heavy-hitters", "attention not accumulated", kills=("most-attention", "any-split"),
       met="plausible: the sums of the latest attention for those of all")(heavy(LastQuery))  # fmt: skip


@dataclass(frozen=True)
class Unmoved(HeavyHitters):
    """Rows move when some are evicted; their sums do not."""

    def weigh(self, state: ScoredState, q: Any, scale: float) -> ScoredState:
        keys, *_, mass, _ = state.view()
        before = mass + attention_mass(q, keys, scale)[..., None]
        new = super().weigh(state, q, scale)
        new.view()[-2][...] = before[..., : new.stop, :]
        return new


mutant("heavy-hitters", "sums of other rows", kills="most-attention",
       met="H2O's code: scores beside the cache must be gathered with it")(heavy(Unmoved))  # fmt: skip


@mutant("heavy-hitters", "evicted at the end of a piece", kills=("any-split", "count"),
        met="H2O's code: a prompt is read whole and evicted from once, whatever its length")  # fmt: skip
def at_pieces(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
    return ours_heavy(q, k, v, budget, recent, sinks, max(splits), splits)


@dataclass(frozen=True)
class Shared(HeavyHitters):
    """The sums of all key heads together."""

    def weigh(self, state: ScoredState, q: Any, scale: float) -> ScoredState:
        g = state.view()[0].shape[1]
        keys, *_, mass, _ = state.view()
        own = attention_mass(q, keys, scale)
        mass[..., 0] += own.mean(axis=1, keepdims=True) - own if g > 1 else 0
        return super().weigh(state, q, scale)


mutant("heavy-hitters", "one choice for all heads", kills="most-attention",
       met="plausible: heads averaged, where each is to choose")(heavy(Shared))  # fmt: skip


@mutant("heavy-hitters", "rows come back", kills=("evicted-stays-evicted", "count"),
        met="plausible: a mask over a full cache, made anew from the sums at each step")  # fmt: skip
def resurrected(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
    n, y = q.shape[-2], ours_heavy(q, k, v, budget, recent, sinks, block, splits).copy()
    if n > 3:
        y[:, :, -1] = naive(q, k, v)[:, :, -1]
    return y


@mutant("heavy-hitters", "choice of the first batch row for all", kills=("batch-rows-alone", "attends-to-what-is-kept"),
        met="plausible: indices of the first sequence, used for the batch")  # fmt: skip
def first_choice(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    first = (np.broadcast_to(x[:1], x.shape) for x in (q, k))
    return ours_heavy(*first, v, *rest)


@mutant("heavy-hitters", "a full budget evicts", kills="full-budget",
        met="plausible: room made for the next row and the present one")  # fmt: skip
def short_budget(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
    return ours_heavy(q, k, v, max(budget - 2, recent + sinks, 1), recent, sinks, block, splits)


@mutant("heavy-hitters", "a window of the budget", kills="no-heavy-rows",
        met="plausible: recent counted without the query, heavy with it")  # fmt: skip
def wider(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
    return ours_heavy(q, k, v, budget + 1, recent + 1, sinks, block, splits)
