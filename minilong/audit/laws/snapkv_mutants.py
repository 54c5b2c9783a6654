"""Wrong SnapKV, which the laws of `eviction.py` must find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.attention import Mask, naive
from minilong.audit.law import mutant
from minilong.audit.laws.attention_mass import softmax, tables
from minilong.audit.laws.eviction import heeding, ours_snapkv
from minilong.memory import ScoredState, SnapKV
from minilong.memory.eviction import gathered
from minilong.memory.scores import attention_mass, largest_rows, pooled


def snap(of: Any) -> Any:
    """The kind's function with this memory."""

    def wrong(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
        return heeding(of(budget, window, kernel).prompted(prompt), q, k, v, splits)

    return wrong


mutant("snapkv", "votes not pooled", kills="most-votes",
       met="plausible: the paper's ablation, where retrieval of neighbours fails")(
    snap(lambda budget, window, kernel: SnapKV(budget, window, 1)))  # fmt: skip


@dataclass(frozen=True)
class Compressing(SnapKV):
    """A SnapKV whose choice is another: see `choose`."""

    def _compressed(self, state: ScoredState, scale: float) -> ScoredState:
        old = state.stop - self.window
        score = self.choose(state.queries[0], state.view()[0], scale, old)
        chosen = largest_rows(score, min(self.budget - self.window, old))
        window = np.broadcast_to(np.arange(old, state.stop), (*score.shape[:-1], self.window))
        rows = np.concatenate([chosen, window], axis=-1)
        return gathered(replace(state, queries=()), rows, state.stop)

    def choose(self, q: Any, k: Any, scale: float, old: int) -> Any:
        return pooled(attention_mass(q, k, scale)[..., :old], self.kernel)


class Latest(Compressing):
    """The last query alone votes."""

    def choose(self, q: Any, k: Any, scale: float, old: int) -> Any:
        return pooled(attention_mass(q[..., -1:, :], k, scale)[..., :old], self.kernel)


mutant("snapkv", "the last query alone votes", kills="most-votes",
       met="plausible: attention at the last position, as of a classifier")(snap(Latest))  # fmt: skip


class Ahead(Compressing):
    """Softmax before the mask."""

    def choose(self, q: Any, k: Any, scale: float, old: int) -> Any:
        scores, _ = tables(q, k, scale)
        return pooled(softmax(scores).sum(axis=(2, 3))[..., :old], self.kernel)


mutant("snapkv", "softmax before the mask", kills="most-votes",
       met="plausible: votes without the mask inside the window, which the code adds by hand")(snap(Ahead))  # fmt: skip


class Within(Compressing):
    """Softmax over the old rows only."""

    def choose(self, q: Any, k: Any, scale: float, old: int) -> Any:
        scores, _ = tables(q, k, scale)
        return pooled(softmax(scores[..., :old]).sum(axis=(2, 3)), self.kernel)


mutant("snapkv", "softmax over the old rows", kills="most-votes",
       met="plausible: keys cut before the softmax, so that all queries vote alike")(snap(Within))  # fmt: skip


class Joint(Compressing):
    """All key heads choose together."""

    def choose(self, q: Any, k: Any, scale: float, old: int) -> Any:
        own = super().choose(q, k, scale, old)
        return np.broadcast_to(own.mean(axis=1, keepdims=True), own.shape).copy()


mutant("snapkv", "one choice for all heads", kills="most-votes",
       met="plausible: heads averaged, where each is to choose")(snap(Joint))  # fmt: skip


@mutant("snapkv", "window not kept", kills="window-and-later",
        met="plausible: top-k over the whole prompt, the window with it")  # fmt: skip
def without_window(
    q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]
) -> Any:
    y = ours_snapkv(q, k, v, budget, window, kernel, prompt, splits).copy()
    if q.shape[-2] > prompt:
        rest = [j for j in range(prompt) if j != prompt - 1]
        at = [*rest, *range(prompt, q.shape[-2])]
        y[:, :, prompt:] = naive(q[:, :, at], k[:, :, at], v[:, :, at], mask=Mask(causal=True))[:, :, len(rest) :]
    return y


@mutant("snapkv", "compressed before the prompt was attended to", kills=("prompt-is-whole", "any-split"),
        met="plausible: the cache returns what it keeps, and the prompt's own attention gets that")  # fmt: skip
def hasty(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
    n = q.shape[-2]
    return ours_snapkv(q, k, v, budget, min(window, budget), kernel, max(splits) if prompt < n else prompt - 1, splits)


@mutant("snapkv", "compressed at the first piece", kills=("any-split", "prompt-is-whole"),
        met="plausible: chunked prefill, each chunk taken for the prompt")  # fmt: skip
def first_piece(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
    return ours_snapkv(q, k, v, budget, window, kernel, max(splits[0], window), splits)


@mutant("snapkv", "choice of the first batch row for all", kills=("batch-rows-alone", "attends-to-what-is-kept"),
        met="plausible: indices of the first sequence, used for the batch")  # fmt: skip
def first_votes(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    first = (np.broadcast_to(x[:1], x.shape) for x in (q, k))
    return ours_snapkv(*first, v, *rest)


@mutant("snapkv", "later rows evicted too", kills=("window-and-later", "evicted-stays-evicted"),
        met="plausible: the budget held after the prompt as well, by a mask that moves")  # fmt: skip
def moving(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
    y, n = ours_snapkv(q, k, v, budget, window, kernel, prompt, splits).copy(), q.shape[-2]
    for i in range(prompt + 1, n):
        keys = slice(max(i - budget + 1, 0), i + 1)
        y[:, :, i] = naive(q[:, :, i : i + 1], k[:, :, keys], v[:, :, keys])[:, :, 0]
    return y


@mutant("snapkv", "a full budget is too small", kills="full-budget",
        met="plausible: compressed whenever there is a prompt, to one row less than it has")  # fmt: skip
def always(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
    return ours_snapkv(q, k, v, max(min(budget, prompt - 1), window), window, kernel, prompt, splits)
