"""Wrong span corruption, for the laws of `spans.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.common import F
from minilong.audit.laws.spans import our_draw, our_windows
from minilong.data.batches import PairBatch
from minilong.data.spans import corrupt, span_counts
from minilong.keys import Key


@mutant(
    "span-corruption", "one sentinel for all", kills=("invertible", "sentinels"), met="BART's text infilling: one mask"
)
def one_sentinel(tokens: Any, lost: Any, first: int) -> Any:
    source, target = corrupt(tokens, lost, first)
    return np.minimum(source, first), np.minimum(target, first)


@mutant("span-corruption", "a sentinel for each token", kills="sentinels", met="T5's ablation: masks of single tokens")
def each_token(tokens: Any, lost: Any, first: int) -> Any:
    marks = first + np.cumsum(lost) - 1
    source = np.where(lost, marks, tokens)
    return source, np.stack([marks[lost], np.asarray(tokens)[lost]], axis=1).ravel()


@mutant(
    "span-corruption",
    "sentinels downwards",
    kills="sentinels",
    met="T5's vocabulary counts its sentinels down from the end",
)
def downwards(tokens: Any, lost: Any, first: int) -> Any:
    source, target = corrupt(tokens, lost, first)
    last = max(int(np.max(source, initial=0)), int(first))
    return tuple(np.where(x >= first, first + last - x, x) for x in (source, target))


@mutant("span-corruption", "the target without its spans", kills="invertible", met="plausible: masks swapped")
def swapped(tokens: Any, lost: Any, first: int) -> Any:
    return corrupt(tokens, lost, first)[0], corrupt(tokens, ~np.asarray(lost), first)[0]


@mutant(
    "span-corruption",
    "a span's first token stays",
    kills="shares",
    met="plausible: the sentinel is put in, not in place",
)
def first_stays(tokens: Any, lost: Any, first: int) -> Any:
    lost = np.asarray(lost)
    later = lost & np.concatenate([[False], lost[:-1]])
    return corrupt(tokens, later, first)


@mutant("span-restoration", "spans by order, not by sentinel", kills="inverse", met="plausible: zip(sentinels, spans)")
def by_order(source: Any, target: Any, first: int) -> Any:
    spans = iter(np.split(np.asarray(target), np.flatnonzero(np.asarray(target) >= first))[1:])
    return np.concatenate([next(spans, np.zeros(0))[1:] if t >= first else [t] for t in source] or [np.zeros(0)])


@mutant("span-restoration", "sentinels stay", kills="inverse", met="plausible: spans put behind the sentinel")
def stay(source: Any, target: Any, first: int) -> Any:
    return np.asarray(source)


def of_turns(make: Any) -> F:
    """Spans from turns of kept and lost lengths."""

    def f(n: int, seed: int, density: float, mean: float) -> Any:
        turns = make(Key.of(seed).generator(), n, *span_counts(n, density, mean))
        return np.repeat(np.arange(len(turns)) % 2 == 1, turns)[:n]

    return f


def parts(numbers: Any, total: int, count: int) -> Any:
    """As a sum of positive integers."""
    cuts = np.sort(numbers.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def ends_with_a_span(numbers: Any, n: int, lost: int, spans: int) -> Any:
    """Kept and lost in turn, from kept on to lost."""
    spans = min(spans, n - lost)
    turns = np.zeros(2 * spans, np.int64)
    turns[::2], turns[1::2] = parts(numbers, n - lost, spans), parts(numbers, lost, spans)
    return turns


def all_alike(numbers: Any, n: int, lost: int, spans: int) -> Any:
    """Spans of the mean length, the last of what is left."""
    kept = parts(numbers, n - lost + 2, spans + 1)
    kept[0], kept[-1] = kept[0] - 1, kept[-1] - 1
    turns = np.zeros(2 * spans + 1, np.int64)
    turns[::2], turns[1::2] = kept, lost // spans
    turns[-2] += lost - lost // spans * spans
    return turns


mutant("span-draw", "a row ends with a span", kills="everywhere", met="T5's random_spans_noise_mask")(
    of_turns(ends_with_a_span)
)
mutant("span-draw", "spans of one length", kills="lengths", met="plausible: the mean length for each span")(
    of_turns(all_alike)
)


@mutant("span-draw", "a coin for each token", kills="counts", met="T5's ablation: independent tokens")
def coins(n: int, seed: int, density: float, mean: float) -> Any:
    return Key.of(seed).generator().random(n) < density


@mutant("span-draw", "always the same", kills="lengths", met="plausible: a generator made anew from a constant")
def constant(n: int, seed: int, density: float, mean: float) -> Any:
    return our_draw(n, 1, density, mean)


class Wrong:
    """Our windows, each batch changed by a function of (self, batch, step, size, key)."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner, self.change, self.asked = inner, change, 0

    def batch(self, step: int, size: int, key: Key) -> PairBatch:
        """The batch of a step, changed."""
        found: PairBatch = self.change(self, self.inner.batch(step, size, key), step, size, key)
        return found

    def sequential(self, size: int) -> Any:
        """The batches in order, changed."""
        for batch in self.inner.sequential(size):
            yield self.change(self, batch, 0, size, None)


def wrong(change: Any) -> F:
    """Our windows with a mistake."""
    return lambda documents, context, sentinels: Wrong(our_windows(documents, context, sentinels), change)


def stateful(self: Wrong, b: PairBatch, step: int, size: int, key: Any) -> PairBatch:
    """The step is how often a batch was asked for."""
    self.asked += 1
    return b if key is None else self.inner.batch(self.asked - 1, size, key)


def unshifted(self: Wrong, b: PairBatch, step: int, size: int, key: Any) -> PairBatch:
    """The decoder reads what it is to tell."""
    return replace(b, inputs=np.maximum(b.targets, 0))


def one_place(self: Wrong, b: PairBatch, step: int, size: int, key: Any) -> PairBatch:
    """The same step for ever."""
    return b if key is None else self.inner.batch(0, size, key)


def last_dropped(self: Wrong, b: PairBatch, step: int, size: int, key: Any) -> PairBatch:
    """One row of a held-out batch is lost."""
    if key is not None:
        return b
    return PairBatch(b.source[1:], b.source_lengths[1:], b.inputs[1:], b.targets[1:])


mutant("span-windows", "the order has a state", kills="pure", met="plausible: a generator that goes on")(
    wrong(stateful)
)
mutant("span-windows", "the decoder is not shifted", kills="windows", met="plausible: labels as decoder inputs")(
    wrong(unshifted)
)
mutant(
    "span-windows", "the same spans in every step", kills="new-spans", met="plausible: spans made once with the data"
)(wrong(one_place))
mutant("span-windows", "a held-out row is lost", kills="held-out", met="plausible: incomplete batches dropped")(
    wrong(last_dropped)
)
