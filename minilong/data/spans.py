"""Spans that a text loses, a sentinel in the place of each; the answer tells them (T5, Raffel et al. 2020).

The two together hold the whole text: `restore` puts it back. Sentinels are the marks of a `MarkedTokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from minilong.data.batches import IGNORE, PackedWindows, PairBatch, pair_batch
from minilong.data.vocabulary import BOS, EOS, PAD, Ids
from minilong.errors import UserError
from minilong.keys import Key

DENSITY, MEAN_SPAN = 0.15, 3.0


def span_counts(n: int, density: float, mean: float) -> tuple[int, int]:
    """How many of n tokens are lost, and in how many spans (`eq:span-counts`). n is at least 2."""
    lost = min(max(round(n * density), 1), n - 1)
    spans = min(max(round(lost / mean), 1), lost, n - lost + 1)
    return lost, spans


def draw_spans(n: int, key: Key, *, density: float = DENSITY, mean: float = MEAN_SPAN) -> NDArray[np.bool_]:
    """Which of n tokens are lost (`eq:span-counts`): spans of random lengths at random places, no two adjacent.

    Every way to cut the lost tokens into spans is equally likely, and so is every way to place these.
    """
    numbers = key.generator()
    lost, spans = span_counts(n, density, mean)
    lengths = _parts(numbers, lost, spans)
    kept = _parts(numbers, n - lost + 2, spans + 1)  # before, between and behind: the outer two may be empty
    kept[0], kept[-1] = kept[0] - 1, kept[-1] - 1
    turns = np.zeros(2 * spans + 1, np.int64)
    turns[0::2], turns[1::2] = kept, lengths
    return np.repeat(np.arange(turns.size) % 2 == 1, turns)


def _parts(numbers: np.random.Generator, total: int, count: int) -> NDArray[np.int64]:
    """A random way to write `total` as a sum of `count` positive integers, all equally likely."""
    cuts = np.sort(numbers.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(tokens: Ids, lost: NDArray[np.bool_], first: int) -> tuple[Ids, Ids]:
    """Source and target (`eq:span-corruption`): span k of the lost tokens is `first` + k in the source; the target is,
    span by span, that sentinel and the tokens."""
    tokens, lost = np.asarray(tokens, np.int32), np.asarray(lost, bool)
    begins = lost & ~np.concatenate([[False], lost[:-1]])
    sentinels = (first + np.cumsum(begins) - 1).astype(np.int32)
    source = np.where(begins, sentinels, tokens)[~lost | begins]
    places = np.flatnonzero(begins)
    return source, np.insert(tokens[lost], np.searchsorted(np.flatnonzero(lost), places), sentinels[places])


def restore(source: Ids, target: Ids, first: int) -> Ids:
    """The tokens of a source with each sentinel replaced by the span that the target names; the inverse of `corrupt`.

    A sentinel that the target lacks stands for nothing.
    """
    source, target = np.asarray(source, np.int32), np.asarray(target, np.int32)
    ends = [*np.flatnonzero(target >= first), len(target)]
    spans = {int(target[a]): target[a + 1 : b] for a, b in pairwise(ends)}
    nothing = np.zeros(0, np.int32)
    parts = [spans.get(int(token), nothing) if token >= first else np.array([token], np.int32) for token in source]
    return np.concatenate([nothing, *parts])


class SpanWindows:
    """Windows of a token stream with spans lost: pairs for an encoder-decoder, other spans in every step.

    sentinels: how many there are, from `first` on. UserError where a window would need more.
    """

    def __init__(self, windows: PackedWindows, *, first: int, sentinels: int) -> None:
        self.windows, self.first = windows, first
        needed = span_counts(windows.context, DENSITY, MEAN_SPAN)[1]
        if needed > sentinels:
            raise UserError(
                f"a window of {windows.context} tokens loses {needed} spans, and there are {sentinels} sentinels; "
                "lower --context"
            )

    def batch(self, step: int, size: int, key: Key) -> PairBatch:
        """The pairs of a step, a function of (step, size, key)."""
        rows = self.windows.batch(step, size, key).inputs
        return self._pairs(list(rows), key.fold("spans", step))

    def sequential(self, size: int) -> Iterator[PairBatch]:
        """The windows in order, with spans lost as in no run's training: the same in every run."""
        for number, batch in enumerate(self.windows.sequential(size)):
            widths = np.count_nonzero(batch.targets != IGNORE, axis=1)
            rows = [row[:width] for row, width in zip(batch.inputs, widths.tolist(), strict=True) if width > 1]
            if rows:
                yield self._pairs(rows, Key.of(0).fold("held out", number))

    def _pairs(self, rows: Sequence[Ids], key: Key) -> PairBatch:
        cut = partial(corrupt, first=self.first)
        pairs = [cut(row, draw_spans(len(row), key.fold(i))) for i, row in enumerate(rows)]
        return pair_batch(pairs, pad=PAD, bos=BOS, eos=EOS)
