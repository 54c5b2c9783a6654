"""Batches of packed windows, of sentence pairs and of masked rows, as pure functions of a key and a step number.

Nothing here advances: the batch of step s is computed from (key, s) alone, so a run that stops and resumes at any step
sees the same batches as one that never stopped, and there is no data position to save. Orders of recent epochs are
remembered for speed only.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from minilong.data.vocabulary import PAD, Ids
from minilong.errors import UserError
from minilong.keys import Key

IGNORE = -100  # the target at positions that do not count
CHUNK = 100  # batches that are sorted by length together


@dataclass(frozen=True, eq=False)
class LanguageBatch:
    """Windows of a token stream, `(b, t)` int32. `segments` numbers the documents in a window, None for only one."""

    inputs: Ids
    targets: Ids
    segments: Ids | None = None

    @property
    def tokens(self) -> int:
        """The number of targets that count."""
        return int(np.count_nonzero(self.targets != IGNORE))

    def shards(self, n: int) -> list[LanguageBatch]:
        """The rows in at most `n` shares, none empty, with sizes that differ by at most one."""
        segments = self.segments
        return [
            LanguageBatch(self.inputs[rows], self.targets[rows], None if segments is None else segments[rows])
            for rows in _shares(len(self.inputs), n)
        ]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Padded pairs: `source` (b, s), `source_lengths` (b,), `inputs` and `targets` of the decoder (b, t), int32."""

    source: Ids
    source_lengths: Ids
    inputs: Ids
    targets: Ids

    @property
    def tokens(self) -> int:
        """The number of targets that count."""
        return int(np.count_nonzero(self.targets != IGNORE))

    def shards(self, n: int) -> list[PairBatch]:
        """The rows in at most `n` shares, none empty, with sizes that differ by at most one; widths stay."""
        return [
            PairBatch(self.source[rows], self.source_lengths[rows], self.inputs[rows], self.targets[rows])
            for rows in _shares(len(self.inputs), n)
        ]


@dataclass(frozen=True, eq=False)
class MaskedBatch:
    """Rows with masks: `inputs` and `targets` (b, t), padded, and their `lengths` (b,). Targets count at masks only.

    types (b, t): 0 in a pair's first part and 1 in its second, follows (b,): 1 where the second follows the first in
    the text; None where rows are no pairs.
    """

    inputs: Ids
    targets: Ids
    lengths: Ids
    types: Ids | None = None
    follows: Ids | None = None

    @property
    def tokens(self) -> int:
        """The number of targets that count."""
        return int(np.count_nonzero(self.targets != IGNORE))

    def shards(self, n: int) -> list[MaskedBatch]:
        """The rows in at most `n` shares, none empty, with sizes that differ by at most one; widths stay."""

        def part(rows: slice) -> MaskedBatch:
            pairs = (None if x is None else x[rows] for x in (self.types, self.follows))
            return MaskedBatch(self.inputs[rows], self.targets[rows], self.lengths[rows], *pairs)

        return [part(rows) for rows in _shares(len(self.inputs), n)]


def _shares(rows: int, n: int) -> list[slice]:
    if n < 1:
        raise ValueError(f"{n} shards: give at least 1")
    n = max(min(n, rows), 1)
    ends = [rows * share // n for share in range(n + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


class PackedWindows:
    """Windows of `context` tokens over documents joined into one stream; targets are inputs shifted once along time.

    `separator` goes between documents and opens the later one: as a target it ends a document, as an input it starts
    the next, and `segments` counts it to the next, so attention kept inside segments starts each document afresh.
    Documents without tokens are passed over.

    In every epoch the stream is cut into `windows` windows from a random offset on, so that boundaries differ between
    epochs, and these are visited in random order, each once. What the cut leaves over at the two ends (less than two
    windows) is not visited in that epoch. A stream shorter than one window is a `UserError`, unless `partial`: then
    `sequential` can be used alone, from two tokens on. `name` is what messages call the stream.
    """

    def __init__(
        self,
        documents: Sequence[ArrayLike],
        context: int,
        *,
        separator: int | None,
        partial: bool = False,
        name: str = "the text",
    ) -> None:
        if context < 1:
            raise ValueError(f"context is {context}: give at least 1")
        kept = [ids for ids in map(_ids, documents) if ids.size]
        glue = np.array([] if separator is None else [separator], np.int32)
        opened = [ids if number == 0 else np.concatenate([glue, ids]) for number, ids in enumerate(kept)]
        self._stream: Ids = np.concatenate([*opened, np.zeros(0, np.int32)])
        self._starts = np.cumsum([0, *map(len, opened[:-1])])
        self.context = context
        self.tokens = self._stream.size
        self._name = name
        self._require(2 if partial else context + 1)
        self.windows = max(1, (self.tokens - context) // context)
        slack = self.tokens - 1 - self.windows * context
        self._epoch = functools.lru_cache(maxsize=4)(functools.partial(_window_order, self.windows, slack))

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The `size` windows of a step, a function of (step, size, key); a batch may run over the end of an epoch."""
        _check(step, size)
        self._require(self.context + 1)
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), self.windows)
        starts = np.empty(size, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            offset, order = self._epoch(key, epoch)
            rows = epochs == epoch
            starts[rows] = offset + self.context * order[places[rows]]
        windows = sliding_window_view(self._stream, self.context + 1)[starts]
        inputs, targets = np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])
        return LanguageBatch(inputs, targets, self._segments(starts, self.context))

    def sequential(self, size: int, stride: int | None = None) -> Iterator[LanguageBatch]:
        """Windows in order, `size` a batch, in which every token but the first is a target that counts exactly once.

        Windows advance by `stride` (default: the context, so that they do not overlap). With a smaller stride only the
        last `stride` targets of a window count, each with at least `context - stride` tokens before it.
        """
        _check(0, size)
        width = min(self.context, self.tokens - 1)
        stride = self.context if stride is None else stride
        if not 1 <= stride <= self.context:
            raise ValueError(f"stride is {stride}: give 1 to the context, {self.context}")
        count = 1 + max(0, -((width - self.tokens + 1) // stride))
        for first in range(0, count, size):
            starts = np.arange(first, min(first + size, count)) * stride
            positions = starts[:, None] + np.arange(width)
            inside = positions < self.tokens - 1
            fresh = inside & ((starts[:, None] == 0) | (np.arange(width) >= width - stride))
            inputs = np.where(inside, self._stream.take(positions, mode="clip"), np.int32(PAD))
            targets = np.where(fresh, self._stream.take(positions + 1, mode="clip"), np.int32(IGNORE))
            yield LanguageBatch(inputs, targets, self._segments(starts, width))

    def _segments(self, starts: NDArray[np.int64], width: int) -> Ids | None:
        if len(self._starts) == 1:
            return None
        documents = np.searchsorted(self._starts, starts[:, None] + np.arange(width), side="right")
        return (documents - documents[:, :1]).astype(np.int32)

    def _require(self, needed: int) -> None:
        if self.tokens < needed:
            shorter = f"lower --context to at most {self.tokens - 1} or " if self.tokens > 1 else ""
            raise UserError(
                f"{self._name} has {self.tokens} tokens and a window of context {self.context} needs {needed};"
                f" {shorter}give more text"
            )


class PairData:
    """Pairs of token ids in batches of similar length.

    The decoder reads `bos` and the target and predicts the target and `eos`. Pairs with more than `max_length` source
    tokens or decoder positions are left out and counted in `dropped`, so no array is wider than `max_length`.

    In every epoch the pairs are shuffled, sorted by length within chunks of 100 batches, cut into batches, and the
    batches shuffled: each pair comes once an epoch, with little padding. One batch of an epoch is smaller where the
    size does not divide the number of pairs.
    """

    def __init__(
        self, pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, pad: int, bos: int, eos: int, max_length: int
    ) -> None:
        ids = [(_ids(source), _ids(target)) for source, target in pairs]
        if not ids:
            raise UserError("there are no pairs; give a file with at least one")
        if any(source.size == 0 for source, _ in ids):
            raise ValueError("a source is empty: every source has at least one token")
        lengths = [max(source.size, target.size + 1) for source, target in ids]
        self._pairs = [pair for pair, length in zip(ids, lengths, strict=True) if length <= max_length]
        self.dropped = len(ids) - len(self._pairs)
        if not self._pairs:
            raise UserError(
                f"all {len(ids)} pairs are longer than max_length {max_length}; raise data.max_length (the shortest"
                f" needs {min(lengths)})"
            )
        # Each side by its own mean, the larger counts: on the shipped pairs 12% of a batch is padding (sum: 19%).
        sides = np.array([(source.size, target.size + 1) for source, target in self._pairs])
        self._lengths = (sides / sides.mean(axis=0)).max(axis=1)
        self._special = (pad, bos, eos)
        self._epoch = functools.lru_cache(maxsize=4)(functools.partial(_pair_order, self._lengths))

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, step: int, size: int, key: Key) -> PairBatch:
        """The pairs of a step, a function of (step, size, key)."""
        _check(step, size)
        epoch, place = divmod(step, -(-len(self) // size))
        return self._batch(self._epoch(size, key, epoch)[place])

    def sequential(self, size: int) -> Iterator[PairBatch]:
        """Every pair once, from the shortest to the longest."""
        _check(0, size)
        order = np.argsort(self._lengths, kind="stable")
        for first in range(0, len(order), size):
            yield self._batch(order[first : first + size])

    def _batch(self, places: NDArray[np.int64]) -> PairBatch:
        pad, bos, eos = self._special
        return pair_batch([self._pairs[place] for place in places.tolist()], pad=pad, bos=bos, eos=eos)


def pair_batch(pairs: Sequence[tuple[Ids, Ids]], *, pad: int, bos: int, eos: int) -> PairBatch:
    """The pairs padded to the longest source and target, one special token added to inputs and targets each."""
    lengths = np.array([len(source) for source, _ in pairs], np.int32)
    width = 1 + max(len(target) for _, target in pairs)
    source = np.full((len(pairs), int(lengths.max())), pad, np.int32)
    inputs = np.full((len(pairs), width), pad, np.int32)
    targets = np.full((len(pairs), width), IGNORE, np.int32)
    inputs[:, 0] = bos
    for row, (ids, answer) in enumerate(pairs):
        source[row, : len(ids)] = ids
        inputs[row, 1 : len(answer) + 1] = answer
        targets[row, : len(answer)] = answer
        targets[row, len(answer)] = eos
    return PairBatch(source, lengths, inputs, targets)


def _window_order(windows: int, slack: int, key: Key, epoch: int) -> tuple[int, NDArray[np.int64]]:
    """The offset of an epoch's first window, 0 to `slack` tokens, and the order of its windows."""
    numbers = key.fold("epoch", epoch).generator()
    return int(numbers.integers(slack + 1)), numbers.permutation(windows)


def _pair_order(lengths: NDArray[np.float64], size: int, key: Key, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch, each as the places of its pairs."""
    numbers = key.fold("epoch", epoch).generator()
    order = numbers.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), CHUNK * size):
        chunk = order[first : first + CHUNK * size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[start : start + size] for start in range(0, len(chunk), size)]
    return [batches[place] for place in numbers.permutation(len(batches))]


def _ids(ids: ArrayLike) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"token ids are a flat list of integers, not {array.dtype} of shape {array.shape}")
    return array.astype(np.int32)


def _check(step: int, size: int) -> None:
    if step < 0 or size < 1:
        raise ValueError(f"step {step}, size {size}: the step is at least 0 and the size at least 1")
