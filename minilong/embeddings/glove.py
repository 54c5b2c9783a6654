"""GloVe: vectors whose products fit the logarithms of counts, in a weighted sum of squares, by AdaGrad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilong.embeddings.cooccurrence import Cooccurrence
from minilong.embeddings.descent import DIVERGED
from minilong.embeddings.models import start_vectors
from minilong.embeddings.rows import RowGradient, sum_rows
from minilong.errors import Diverged, UserError
from minilong.keys import Key

CHUNK = 1 << 22
"""Pairs that are mixed in memory at once."""


@dataclass(frozen=True)
class GloveSettings:
    """How GloVe is trained. most, power: the weight is (x / most)^power, at most 1. batch: pairs at once."""

    width: int = 100
    epochs: int = 25
    lr: float = 0.05
    most: float = 100.0
    power: float = 0.75
    batch: int = 4096
    seed: int = 1


@dataclass(frozen=True, eq=False)
class Glove:
    """What is learnt: `words` and `contexts` (V, width + 1) float32, the bias last, and AdaGrad's sums of squares."""

    words: np.ndarray
    contexts: np.ndarray
    word_squares: np.ndarray
    context_squares: np.ndarray

    @property
    def vectors(self) -> np.ndarray:
        """The vector (V, width) of each word: the sum of its two, without biases."""
        total: np.ndarray = self.words[:, :-1] + self.contexts[:, :-1]
        return total


def glove_gradients(
    words: np.ndarray, contexts: np.ndarray, values: np.ndarray, *, most: float, power: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses (n,) of pairs, and cotangents of their rows words, contexts (n, width + 1), biases last; `eq:glove`."""
    weight = np.minimum(1.0, (values / most) ** power).astype(words.dtype)
    miss = np.einsum("nd,nd->n", words[:, :-1], contexts[:, :-1]) + words[:, -1] + contexts[:, -1]
    miss -= np.log(values).astype(words.dtype)
    pull = (weight * miss)[:, None]
    to_words, to_contexts = pull * contexts, pull * words
    to_words[:, -1:] = to_contexts[:, -1:] = pull
    return 0.5 * weight * miss * miss, to_words, to_contexts


def adagrad_step(table: np.ndarray, squares: np.ndarray, rows: np.ndarray, values: np.ndarray, lr: float) -> None:
    """AdaGrad on the rows that occur, in place: squares += sum g², table -= lr sum g / sqrt(squares); `eq:adagrad`."""
    mass = np.zeros(rows.size)
    which, total, _ = sum_rows([RowGradient(rows, values, mass)])
    _, more, _ = sum_rows([RowGradient(rows, values * values, mass)])
    more += squares[which]
    squares[which] = more
    np.sqrt(more, out=more)
    total /= more
    total *= lr
    table[which] -= total


def train_glove(
    counts: Cooccurrence, settings: GloveSettings, *, report: Callable[[int, int, float, float], None] | None = None
) -> Glove:
    """Fit vectors to counts. report: is told pairs passed, of how many, the mean loss of late, and seconds.

    Both (i, j) and (j, i) are fitted; a pair of a word with itself is one. UserError where nothing occurs together.
    """
    if not len(counts):
        raise UserError("no two words occur together; give more text, or a lower --min-count")
    key, width = Key.of(settings.seed), settings.width + 1
    made = [start_vectors(counts.size, width, key.fold(name)) for name in ("words", "contexts")]
    found = Glove(*made, *(np.ones((counts.size, width), np.float32) for _ in range(2)))
    begin = shown = time.perf_counter()
    done, total = 0, settings.epochs * len(counts)
    for epoch in range(settings.epochs):
        for rows, columns, values in _batches(counts, settings.batch, key.fold("epoch", epoch)):
            mirror = np.flatnonzero(rows != columns)
            i, j = np.concatenate([rows, columns[mirror]]), np.concatenate([columns, rows[mirror]])
            x = np.concatenate([values, values[mirror]])
            loss, to_words, to_contexts = glove_gradients(
                found.words[i], found.contexts[j], x, most=settings.most, power=settings.power
            )
            adagrad_step(found.words, found.word_squares, i, to_words, settings.lr)
            adagrad_step(found.contexts, found.context_squares, j, to_contexts, settings.lr)
            done += rows.size
            now = time.perf_counter()
            if report is not None and (now - shown > 0.5 or done == total):
                shown, mean = now, float(np.mean(loss))
                if not np.isfinite(mean):
                    raise Diverged(DIVERGED)
                report(done, total, mean, now - begin)
    if not np.isfinite(found.vectors).all():
        raise Diverged(DIVERGED)
    return found


def _batches(counts: Cooccurrence, size: int, key: Key) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs once, mixed: every `strides`-th pair is one chunk, which is put in random order in memory."""
    rng = key.generator()
    strides = -(-len(counts) // CHUNK)
    for first in rng.permutation(strides):
        rows, columns, values = counts.part(slice(int(first), None, strides))
        order = rng.permutation(rows.size)
        for start in range(0, rows.size, size):
            some = order[start : start + size]
            yield rows[some], columns[some], values[some]
