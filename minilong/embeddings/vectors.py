"""Trained vectors and what is asked of them: neighbours and analogies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minilong.errors import UserError, did_you_mean


@dataclass(frozen=True, eq=False)
class Vectors:
    """A name and a vector for each row: `words` without repetition, `matrix` (n, d) float32."""

    words: tuple[str, ...]
    matrix: np.ndarray

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.words) != len(self.matrix) or len(self.index) != len(self.words):
            raise ValueError(f"{len(self.words)} words for an array of shape {self.matrix.shape}, or repeated ones")

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> np.ndarray:
        """All vectors at length 1; a zero vector stays zero."""
        return normalised(self.matrix)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> np.ndarray:
        """The vector (d,) of a word. UserError, with a near one, where it is not known."""
        return np.asarray(self.matrix[self.row(word)])

    def row(self, word: str) -> int:
        """The row of a word. UserError, with a near one, where it is not known."""
        found = self.index.get(word)
        if found is None:
            raise UserError(f"{word!r} is not in the vocabulary{did_you_mean(word, self.words)}; take another word")
        return found

    def nearest(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The words of largest cosine to a word, itself left out, and the cosines; `eq:nearest`."""
        return self.closest(self.unit[self.row(word)], count, without=[word])

    def analogy(self, a: str, b: str, c: str, count: int = 10) -> list[tuple[str, float]]:
        """What is to c as b is to a: the words of largest cosine to b - a + c, these three left out; `eq:analogy`."""
        rows = [self.row(word) for word in (a, b, c)]
        towards = self.unit[rows[1]] - self.unit[rows[0]] + self.unit[rows[2]]
        return self.closest(towards, count, without=[a, b, c])

    def closest(self, vector: np.ndarray, count: int, *, without: Iterable[str] = ()) -> list[tuple[str, float]]:
        """The words of largest cosine to a vector (d,), best first; of equals, the earlier row first."""
        cosines = self.unit @ normalised(np.asarray(vector, np.float32))
        cosines[[self.index[word] for word in set(without) if word in self.index]] = -np.inf
        count = min(count, int(np.count_nonzero(cosines > -np.inf)))
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(self.words[row], float(cosines[row])) for row in order]


def normalised(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1; zero vectors as they are."""
    length = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))
    return np.asarray(x / np.where(length == 0, 1, length))
