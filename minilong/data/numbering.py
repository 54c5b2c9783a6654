"""The numbers in which masks and spans are drawn: special ids first, then text, then marks, as in our tokenizers.

A pretrained tokenizer has its special ids anywhere, and T5's sentinels run backwards. So rows are made in numbers, and
become the model's ids at the end. Of our own tokenizers the numbers are the ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from minilong.data.batches import IGNORE, MaskedBatch, PairBatch
from minilong.data.marked import MarkedTokenizer
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.vocabulary import FIRST, SEPARATOR, Ids, Tokenizer
from minilong.errors import UserError
from minilong.keys import Key

SENTINEL = re.compile(r"<extra_id_(\d+)>")

Batch: TypeAlias = MaskedBatch | PairBatch


class Rows(Protocol):
    """What is learnt, by step, and what is held out, in order."""

    def batch(self, step: int, size: int, key: Key) -> Batch:
        """The batch of a step, a function of (step, size, key)."""
        ...

    def sequential(self, size: int) -> Iterator[Batch]:
        """All rows once."""
        ...


@dataclass(frozen=True, eq=False)
class Numbering:
    """The numbers of a tokenizer's ids. first: number of the first mark; marks: how many there are, in order.

    table (n,): number -> id, numbers: id -> number; None where both are the same. closing: ids behind a source.
    """

    tokenizer: Tokenizer
    first: int
    marks: int
    table: Ids | None = None
    numbers: Ids | None = None
    closing: tuple[int, ...] = ()

    separator = SEPARATOR

    def encode(self, text: str) -> Ids:
        """The numbers of a text, none of them special."""
        ids = self.tokenizer.encode(text)
        return ids if self.numbers is None else self.numbers[ids]

    def decode(self, numbers: Ids) -> str:
        """The text of numbers."""
        return self.tokenizer.decode(self.ids(numbers))

    def ids(self, numbers: Ids) -> Ids:
        """The model's ids of numbers of any shape; `IGNORE` stays."""
        if self.table is None:
            return numbers
        return np.where(numbers == IGNORE, np.int32(IGNORE), self.table[np.maximum(numbers, 0)])

    def of_ids(self, ids: Ids) -> Ids:
        """The numbers of ids that a batch holds."""
        return ids if self.numbers is None else self.numbers[ids]

    def source(self, numbers: Ids) -> Ids:
        """What an encoder reads of a source (n,): its ids, and those that close it."""
        return np.array([*self.ids(numbers), *self.closing], np.int32)

    def batch(self, batch: Batch) -> Batch:
        """A batch in ids."""
        if self.table is None:
            return batch
        inputs, targets = self.ids(batch.inputs), self.ids(batch.targets)
        if isinstance(batch, MaskedBatch):
            return replace(batch, inputs=inputs, targets=targets)
        more = len(self.closing)
        source = np.pad(self.ids(batch.source), ((0, 0), (0, more)), constant_values=self.tokenizer.pad)
        for row, length in zip(source, batch.source_lengths, strict=True):
            row[length : length + more] = self.closing
        return PairBatch(source, batch.source_lengths + np.int32(more), inputs, targets)

    def rows(self, rows: Rows) -> Rows:
        """Rows in ids."""
        return rows if self.table is None else Renumbered(rows, self)


@dataclass(frozen=True, eq=False)
class Renumbered:
    """Rows that were made in numbers, in ids."""

    inner: Rows
    numbering: Numbering

    def batch(self, step: int, size: int, key: Key) -> Batch:
        """The batch of a step."""
        return self.numbering.batch(self.inner.batch(step, size, key))

    def sequential(self, size: int) -> Iterator[Batch]:
        """All rows once."""
        yield from map(self.numbering.batch, self.inner.sequential(size))


def numbering_of(tokenizer: Tokenizer, *, spans: bool) -> Numbering:
    """The numbering for spans or for masks. UserError where the tokenizer has no sentinels, or no mask."""
    if isinstance(tokenizer, MarkedTokenizer):
        return Numbering(tokenizer, tokenizer.first, tokenizer.marks)
    marks = _sentinels(tokenizer) if spans else [] if tokenizer.mask is None else [tokenizer.mask]
    if not marks:
        what = "sentinels (<extra_id_0> and so on)" if spans else "mask"
        raise UserError(f"the run's tokenizer has no {what}; choose another run")
    special = np.zeros(tokenizer.size, bool)
    special[list(tokenizer.specials)] = True
    if isinstance(tokenizer, PretrainedTokenizer) and tokenizer.unknown is not None:
        special[tokenizer.unknown] = False  # a text may hold it
    special[marks] = True
    text = np.flatnonzero(~special)
    own = [tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.separator]
    assert len(own) == FIRST
    table = np.concatenate([own, text, marks]).astype(np.int32)
    numbers = np.zeros(tokenizer.size, np.int32)
    numbers[table[::-1]] = np.arange(len(table), dtype=np.int32)[::-1]  # of ids with two roles, the first
    return Numbering(tokenizer, FIRST + len(text), len(marks), table, numbers, tokenizer.suffix if spans else ())


def _sentinels(tokenizer: Tokenizer) -> list[int]:
    """T5's, in the order in which they are used."""
    found = [(int(match[1]), c.id) for c in tokenizer.controls if (match := SENTINEL.fullmatch(c.text))]
    return [id for _, id in sorted(found)]
