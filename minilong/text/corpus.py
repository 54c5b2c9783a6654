"""A corpus of word numbers: read once, kept in a file without a name, visited in stretches of constant memory.

While the text is read, each new word gets the next provisional number, and the numbers go to a temporary file. Then
the vocabulary is sorted, and the file renumbered in place. Only the words themselves are held in memory, and these are
bounded too: where there are more than `most`, the rarest are forgotten.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from minilong.errors import UserError

END = -1
"""Stands behind the words of each unit (sentence or document)."""

HELD = 1 << 16
"""Word numbers in memory at once."""


@dataclass(frozen=True, eq=False)
class WordCounts:
    """The words of a vocabulary, commonest first (ties by code point), and how often each occurs."""

    words: tuple[str, ...]
    counts: np.ndarray

    def __post_init__(self) -> None:
        if len(self.words) != self.counts.size or len(self.index) != len(self.words):
            raise ValueError(f"{len(self.words)} words ({len(self.index)} distinct) with {self.counts.size} counts")

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True, eq=False)
class WordCorpus:
    """Units of words as numbers. `ids`: (n,) int32, those of the vocabulary, each unit's followed by `END`."""

    vocabulary: WordCounts
    ids: np.ndarray
    units: int

    @property
    def tokens(self) -> int:
        """Words, ends of units not counted."""
        return int(self.vocabulary.counts.sum())

    def stretches(self, size: int) -> Iterator[np.ndarray]:
        """Consecutive parts of `ids`, about `size` long, that end with a unit's end where there is one in reach."""
        start, total = 0, self.ids.size
        while start < total:
            stop = min(start + size, total)
            if stop < total:
                ends = np.flatnonzero(np.asarray(self.ids[start:stop]) == END)
                stop = start + int(ends[-1]) + 1 if ends.size else stop
            yield np.asarray(self.ids[start:stop])
            start = stop


def keep_probability(counts: np.ndarray, sample: float) -> np.ndarray:
    """The probability (V,) that one occurrence of each word stays, `eq:subsampling`; `sample` 0 keeps all."""
    if sample == 0:
        return np.ones(len(counts))
    share = counts / counts.sum()
    kept: np.ndarray = np.minimum(1.0, np.sqrt(sample / share) + sample / share)
    return kept


def read_corpus(
    units: Iterable[list[str]], min_count: int = 5, *, most: int = 5_000_000, folder: Path | None = None
) -> WordCorpus:
    """Number the words of units in one pass; words that occur less than `min_count` times are left out.

    most: distinct words held at once; beyond, the rarest are forgotten, with what they counted so far. folder: where
    the temporary file lies [the system's]; it has no name and goes with the corpus. UserError where nothing is left.
    """
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}: give at least 1")
    numbers: dict[str, int] = {}
    counts: list[int] = []
    held: list[int] = []
    total = read = 0
    with tempfile.TemporaryFile(dir=folder) as file:  # the map below keeps it alive
        for unit in units:
            read += 1
            for word in unit:
                number = numbers.get(word)
                if number is None:
                    number = numbers[word] = len(counts)
                    counts.append(0)
                counts[number] += 1
                held.append(number)
            held.append(END)
            if len(held) >= HELD:
                total += _write(file, held)
            if len(numbers) > most:
                _forget(numbers, counts, most)
        total += _write(file, held)
        file.flush()
        frequent = (word for word, number in numbers.items() if counts[number] >= min_count)
        chosen = sorted(frequent, key=lambda word: (-counts[numbers[word]], word))
        if not chosen:
            seen = f"no word occurs {min_count} times" if numbers else "the text has no words"
            raise UserError(f"{seen}; give more text" + (", or a lower --min-count" if numbers else ""))
        vocabulary = WordCounts(tuple(chosen), np.array([counts[numbers[word]] for word in chosen], np.int64))
        renumbered = np.full(len(counts) + 1, -2, np.int32)
        renumbered[END] = END  # the last place
        renumbered[[numbers[word] for word in chosen]] = np.arange(len(chosen), dtype=np.int32)
        ids = np.memmap(file, np.int32, "r+", shape=(total,))
    return WordCorpus(vocabulary, ids[: _renumber(ids, renumbered)], read)


def _write(file: object, held: list[int]) -> int:
    file.write(np.array(held, np.int32).tobytes())  # type: ignore[attr-defined]
    count = len(held)
    held.clear()
    return count


def _forget(numbers: dict[str, int], counts: list[int], most: int) -> None:
    """Keep the commonest half of the words that may be held; a forgotten word that comes again starts at 0."""
    kept = sorted(numbers.items(), key=lambda item: -counts[item[1]])[: most // 2]
    numbers.clear()
    numbers.update(kept)


def _renumber(ids: np.ndarray, renumbered: np.ndarray) -> int:
    """Rewrite the numbers in place, without those that are left out; how many remain."""
    done = 0
    for start in range(0, ids.size, HELD):
        part = renumbered[ids[start : start + HELD]]
        part = part[part != -2]
        ids[done : done + part.size] = part
        done += part.size
    return done
