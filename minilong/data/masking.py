"""Masked rows: some tokens of each row are replaced, and these are what a bidirectional model is to restore.

BERT (Devlin et al. 2019) fixes the masks once, when the data are made; RoBERTa (Liu et al. 2019) draws new ones each
time a row comes. Both are functions here: the mask of a row follows from the key, the row's number, and (dynamic) the
epoch, or (static) which of its few masks the epoch takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from minilong.data.batches import IGNORE, MaskedBatch
from minilong.data.vocabulary import FIRST, PAD, Ids
from minilong.errors import UserError
from minilong.keys import Key

RATE = 0.15
MASKED, SUBSTITUTED = 0.8, 0.1
"""Of the chosen tokens, how many become the mask and how many another token; the others stay as they are."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row with its special tokens. second: where a pair's second part begins, 0 where there is none; follows: 1 where
    it follows the first part in the text."""

    ids: Ids
    second: int = 0
    follows: int = 0


def mask_count(maskable: int, rate: float) -> int:
    """How many of the maskable tokens of a row are chosen (`eq:mask-count`)."""
    return min(maskable, max(1, round(rate * maskable)))


def replace_chosen(
    tokens: Ids, chosen: NDArray[np.bool_], action: NDArray[np.float64], others: Ids, mask: int
) -> tuple[Ids, Ids]:
    """Inputs and targets of a row (`eq:masking`): chosen places hold the mask, another token or their own, by action,
    uniform in [0, 1); the targets are the tokens of the chosen places."""
    tokens = np.asarray(tokens, np.int32)
    replaced = np.where(action < MASKED, np.int32(mask), np.where(action < MASKED + SUBSTITUTED, others, tokens))
    inputs = np.where(chosen, replaced, tokens).astype(np.int32)
    return inputs, np.where(chosen, tokens, np.int32(IGNORE)).astype(np.int32)


def mask_row(tokens: Ids, key: Key, *, rate: float = RATE, mask: int, last: int) -> tuple[Ids, Ids]:
    """Inputs and targets of a row: tokens from FIRST on may be chosen, substitutes come from FIRST to last - 1."""
    numbers = key.generator()
    places = np.flatnonzero(np.asarray(tokens) >= FIRST)
    chosen = np.zeros(len(tokens), bool)
    chosen[numbers.choice(places, mask_count(places.size, rate), replace=False)] = True
    action, others = numbers.random(len(tokens)), numbers.integers(FIRST, last, len(tokens), dtype=np.int32)
    return replace_chosen(tokens, chosen, action, others, mask)


class MaskedRows:
    """Rows in batches, each masked; every row comes once an epoch, in random order.

    masks: how many masks a row has, which take turns from epoch to epoch (1: always the same); None: a new one in every
    epoch. mask: the id of the mask; last: the id behind those that may replace a token.
    """

    def __init__(
        self, rows: Sequence[Row], *, mask: int, last: int, rate: float = RATE, masks: int | None = None
    ) -> None:
        if not rows:
            raise UserError("the text has no sentence to mask; give more text")
        if masks is not None and masks < 1:
            raise ValueError(f"{masks} masks for each row: give at least 1, or None for new ones in every epoch")
        self.rows, self.masks = list(rows), masks
        self._draw = partial(mask_row, rate=rate, mask=mask, last=last)
        self._order = lru_cache(maxsize=4)(partial(_order, len(self.rows)))

    def batch(self, step: int, size: int, key: Key) -> MaskedBatch:
        """The `size` rows of a step, a function of (step, size, key); a batch may run over the end of an epoch."""
        if step < 0 or size < 1:
            raise ValueError(f"step {step}, size {size}: the step is at least 0 and the size at least 1")
        places = [divmod(place, len(self.rows)) for place in range(step * size, (step + 1) * size)]
        return self._batch([(epoch, int(self._order(key, epoch)[place])) for epoch, place in places], key)

    def sequential(self, size: int) -> Iterator[MaskedBatch]:
        """Every row once, in order, masked as in no run's training: the same in every run."""
        for first in range(0, len(self.rows), size):
            places = range(first, min(first + size, len(self.rows)))
            yield self._batch([(0, place) for place in places], Key.of(0).fold("held out"))

    def _batch(self, places: Sequence[tuple[int, int]], key: Key) -> MaskedBatch:
        rows = [self.rows[place] for _, place in places]
        width = max(len(row.ids) for row in rows)
        inputs = np.full((len(rows), width), PAD, np.int32)
        targets = np.full((len(rows), width), IGNORE, np.int32)
        for i, ((epoch, place), row) in enumerate(zip(places, rows, strict=True)):
            version = epoch if self.masks is None else epoch % self.masks
            n = len(row.ids)
            inputs[i, :n], targets[i, :n] = self._draw(row.ids, key.fold("mask", place, version))
        lengths = np.array([len(row.ids) for row in rows], np.int32)
        if not rows[0].second:
            return MaskedBatch(inputs, targets, lengths)
        second = np.array([[row.second] for row in rows])
        at = np.arange(width)
        types = ((at >= second) & (at < lengths[:, None])).astype(np.int32)
        return MaskedBatch(inputs, targets, lengths, types, np.array([row.follows for row in rows], np.int32))


def _order(rows: int, key: Key, epoch: int) -> NDArray[np.int64]:
    return key.fold("epoch", epoch).generator().permutation(rows)
