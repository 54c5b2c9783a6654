"""How often words occur near each other, counted in bounded memory.

Pairs are counted in stretches of the corpus. What is counted is a list of distinct pairs, sorted; two lists are merged
when the newer has grown to the older's size. A list that outgrows the memory allowed goes to a temporary file, and at
the end the files are merged range by range into one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minilong.text.corpus import END, WordCorpus

STRETCH = 1 << 15
PAIR = np.dtype([("key", np.int64), ("value", np.float64)])


@dataclass(frozen=True, eq=False)
class Cooccurrence:
    """The distinct pairs i <= j that occur, sorted, with x_ij = x_ji; `pairs` (n,) of `PAIR`, its key i V + j."""

    pairs: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.pairs)

    def part(self, which: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and values of some pairs."""
        keys, values = self.pairs["key"][which], self.pairs["value"][which]
        return keys // self.size, keys % self.size, np.asarray(values)


def count_pairs(
    corpus: WordCorpus,
    window: int = 10,
    *,
    memory: int = 1 << 30,
    folder: Path | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Cooccurrence:
    """Sum 1/distance over all pairs of words at most `window` apart in a unit, `eq:cooccurrence`.

    memory: bytes that the counts may take at once; beyond, they go to temporary files without names in `folder` [the
    system's]. report: is told words passed, and of how many.
    """
    size, lists = len(corpus.vocabulary), _Lists(memory, folder)
    done = 0
    for ids in corpus.stretches(STRETCH):
        words, units = ids[ids != END].astype(np.int64), np.cumsum(ids == END)[ids != END]
        keys, weights = [], []
        for apart in range(1, min(window, words.size - 1) + 1):
            same = units[apart:] == units[:-apart]
            a, b = words[:-apart][same], words[apart:][same]
            keys.append(np.minimum(a, b) * size + np.maximum(a, b))
            # A word beside itself is met from both sides, like any other pair, but both meetings are the same number.
            weights.append(np.where(a == b, 2.0, 1.0) / apart)
        if keys:
            lists.add(_summed(np.concatenate(keys), np.concatenate(weights)))
        done += words.size
        report(done, corpus.tokens)
    return Cooccurrence(lists.whole(), size)


def _summed(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Distinct keys, sorted, with the sum of their values."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.concatenate([keys[:1] == keys[:1], keys[1:] != keys[:-1]]))
    found = np.empty(starts.size, PAIR)
    found["key"] = keys[starts]
    found["value"] = np.add.reduceat(values, starts) if starts.size else 0.0
    return found


def _merged(lists: list[np.ndarray]) -> np.ndarray:
    return _summed(np.concatenate([x["key"] for x in lists]), np.concatenate([x["value"] for x in lists]))


class _Lists:
    """Sorted lists of pairs: short ones on top of long ones in memory, full ones in files."""

    def __init__(self, memory: int, folder: Path | None) -> None:
        self.most = max(memory // (4 * PAIR.itemsize), 1)  # a merge holds the lists, their sum, and an order
        self.folder = folder
        self.stack: list[np.ndarray] = []
        self.files: list[np.ndarray] = []

    def add(self, new: np.ndarray) -> None:
        """One more list."""
        self.stack.append(new)
        while len(self.stack) > 1 and 2 * len(self.stack[-1]) > len(self.stack[-2]):
            self.stack.append(_merged([self.stack.pop(), self.stack.pop()]))
        if sum(map(len, self.stack)) > self.most:
            self.files.append(self._filed(_merged(self.stack)))
            self.stack.clear()

    def whole(self) -> np.ndarray:
        """All pairs, in one list: in memory if it never outgrew it."""
        rest = _merged(self.stack) if self.stack else np.zeros(0, PAIR)
        if not self.files:
            return rest
        lists = [*self.files, rest]
        at = [0] * len(lists)
        share = max(self.most // len(lists), 1)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            total = 0
            while any(start < len(x) for start, x in zip(at, lists, strict=True)):
                # Up to the least of the keys that end each list's next share, no key is in a later part.
                ends = [
                    x["key"][start + share - 1] for start, x in zip(at, lists, strict=True) if start + share < len(x)
                ]
                stops = [
                    int(np.searchsorted(x["key"][start : start + share], min(ends), "right")) + start
                    if ends
                    else len(x)
                    for start, x in zip(at, lists, strict=True)
                ]
                part = _merged([np.asarray(x[a:b]) for x, a, b in zip(lists, at, stops, strict=True)])
                file.write(part.tobytes())
                total += len(part)
                at = stops
            file.flush()
            return np.memmap(file, PAIR, "r", shape=(total,))

    def _filed(self, pairs: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryFile(dir=self.folder) as file:  # the map keeps it
            file.write(pairs.tobytes())
            file.flush()
            return np.memmap(file, PAIR, "r", shape=pairs.shape)
