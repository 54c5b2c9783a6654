"""Generated tasks with exact answers: copy a random string, or reverse it.

They show within minutes whether an encoder-decoder learns, and need no data. No held-out string is ever a training
string, by construction: the sum of a string's symbols, modulo their number, is 0 for held-out strings and never 0 in
training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilong.data.batches import PairBatch, pair_batch
from minilong.data.tokenizers import CharTokenizer
from minilong.data.vocabulary import BOS, EOS, FIRST, PAD, Ids
from minilong.errors import UserError
from minilong.keys import Key


@dataclass(frozen=True)
class Task:
    """Random strings of `shortest` to `longest` symbols of `alphabet`, and the `answer` to each (ids to ids)."""

    name: str
    description: str
    answer: Callable[[Ids], Ids]
    alphabet: str = "abcdefghijklmnop"
    shortest: int = 4
    longest: int = 12
    held_out: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise UserError(
                f"the task {self.name!r} draws {self.shortest} to {self.longest} symbols; give a range of at least 1"
            )
        if len(self.alphabet) < 2 or list(self.alphabet) != sorted(set(self.alphabet)):
            raise ValueError(f"the alphabet {self.alphabet!r} is not two or more symbols sorted by code point")

    @property
    def tokenizer(self) -> CharTokenizer:
        """The tokenizer that shows sources and answers as text."""
        return CharTokenizer(self.alphabet)

    def batch(self, step: int, size: int, key: Key) -> PairBatch:
        """The `size` training pairs of a step, a function of (step, size, key)."""
        if step < 0 or size < 1:
            raise ValueError(f"step {step}, size {size}: the step is at least 0 and the size at least 1")
        return self._pairs(self._draw(size, key.fold("task", self.name, step), held_out=False))

    def sequential(self, size: int) -> Iterator[PairBatch]:
        """The `held_out` pairs for evaluation, the same in every run, `size` a batch."""
        if size < 1:
            raise ValueError(f"size is {size}: give at least 1")
        sources = self._draw(self.held_out, Key.of(0).fold("held out", self.name), held_out=True)
        for first in range(0, self.held_out, size):
            yield self._pairs(sources[first : first + size])

    def _draw(self, count: int, key: Key, *, held_out: bool) -> list[Ids]:
        numbers = key.generator()
        radix = len(self.alphabet)
        lengths = numbers.integers(self.shortest, self.longest + 1, count)
        symbols = numbers.integers(0, radix, (count, self.longest))
        residues = numbers.integers(1, radix, count) * (not held_out)
        strings = []
        for length, row, residue in zip(lengths.tolist(), symbols, residues.tolist(), strict=True):
            string = row[:length]
            string[-1] = (residue - int(string[:-1].sum())) % radix
            strings.append((string + FIRST).astype(np.int32))
        return strings

    def _pairs(self, sources: list[Ids]) -> PairBatch:
        return pair_batch([(source, self.answer(source)) for source in sources], pad=PAD, bos=BOS, eos=EOS)


def _copy(source: Ids) -> Ids:
    return source


def _reverse(source: Ids) -> Ids:
    return source[::-1]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("copy", "write the string again", _copy),
        Task("reverse", "write the string from its end to its start", _reverse),
    )
}
