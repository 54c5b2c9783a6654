"""Generated tasks for a causal model: find a token, or several, that stand somewhere in the context.

Each row is a puzzle with one answer that follows from the inputs alone; only the answers are targets, everything else
is ignored. Batches are pure functions of a key and a step, and nothing is drawn again until it fits. No held-out row is
ever a training row, by construction: a parity or a sum, which no single position shows, tells them apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.tokenizers import CharTokenizer
from minilong.data.vocabulary import FIRST, Ids, Tokenizer
from minilong.errors import UserError, did_you_mean
from minilong.keys import Key

FILLER = FIRST
"""The token that stands where nothing is: the first one of each task's alphabet."""


@dataclass(frozen=True, eq=False)
class RecallTask(ABC):
    """Rows of `context` tokens with answers inside. Subclasses say how rows are made, and show them as text."""

    context: int

    name: ClassVar[str]
    description: ClassVar[str]

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that shows rows as text."""

    @abstractmethod
    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """`count` random rows: inputs and targets (count, context), IGNORE where nothing is asked."""

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The `size` training rows of a step, a function of (step, size, key)."""
        if step < 0 or size < 1:
            raise ValueError(f"step {step}, size {size}: the step is at least 0 and the size at least 1")
        return LanguageBatch(*self.rows(size, key.fold("task", self.name, step), held_out=False))

    def sequential(self, size: int, count: int | None = None) -> Iterator[LanguageBatch]:
        """The first `count` held-out rows, the same in every run, `size` a batch. By default about 65,536 tokens."""
        if size < 1:
            raise ValueError(f"size is {size}: give at least 1")
        count = max(32, min(512, 65_536 // self.context)) if count is None else count
        key = Key.of(0).fold("held out", self.name)
        inputs, targets = self.rows(count, key, held_out=True)
        for first in range(0, count, size):
            yield LanguageBatch(inputs[first : first + size], targets[first : first + size])

    def at(self, context: int) -> Self:
        """The same task in rows of another length."""
        return replace(self, context=context)

    def _needs(self, tokens: int, what: str) -> None:
        if self.context < tokens:
            raise UserError(
                f"task {self.name!r} with {what} needs a context of at least {tokens}, and it is {self.context}; "
                f"set --context {tokens} or more, or lower data.items"
            )


@dataclass(frozen=True, eq=False)
class Mqar(RecallTask):
    """Multi-query associative recall (`eq:mqar`; Arora et al. 2023): pairs first, then each key once more.

    symbols: half of them keys, half values. A key and its answer's label stand at an even gap behind the pairs, which
    the power law `eq:recall-gaps` draws; all other places hold the filler. An even order of the keys is held out.
    """

    items: int = 8
    symbols: int = 256
    power: float = 0.01

    name: ClassVar[str] = "mqar"
    description: ClassVar[str] = "key-value pairs, then the keys again: say the value of each"

    def __post_init__(self) -> None:
        if not 2 <= self.items <= self.symbols // 2:
            raise UserError(
                f"task 'mqar' with {self.symbols} symbols takes 2 to {self.symbols // 2} pairs, and data.items is "
                f"{self.items}; change it, or data.symbols"
            )
        self._needs(4 * self.items, f"{self.items} pairs")

    @property
    def keys(self) -> int:
        """How many of the symbols are keys; their ids follow the filler's, and those of the values theirs."""
        return self.symbols // 2

    @property
    def tokenizer(self) -> Tokenizer:
        """Keys are shown as Chinese characters, values as Korean ones."""
        return CharTokenizer("." + _signs(0x4E00, self.keys) + _signs(0xAC00, self.symbols - self.keys))

    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """`count` rows; the held-out ones have their keys in an order of even parity."""
        numbers, pairs = key.generator(), self.items
        keys = _distinct(numbers, count, self.keys, pairs)
        values = _distinct(numbers, count, self.symbols - self.keys, pairs) + FILLER + 1 + self.keys
        gaps = draw_gaps(numbers, count, (self.context - 2 * pairs) // 2, pairs, self.power)
        swapped = (_odd(keys) == held_out)[:, None]
        keys[:, :2] = np.where(swapped, keys[:, 1::-1], keys[:, :2])
        keys += FILLER + 1
        inputs = np.full((count, self.context), FILLER, np.int32)
        inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
        targets = np.full_like(inputs, IGNORE)
        places = 2 * pairs + 2 * gaps
        np.put_along_axis(inputs, places, keys, axis=1)
        np.put_along_axis(targets, places, values, axis=1)
        return inputs, targets


@dataclass(frozen=True, eq=False)
class Induction(RecallTask):
    """Induction heads (`eq:induction`; Olsson et al. 2022; the setting of Gu and Dao 2023, appendix E.1).

    Random symbols, among them a mark (one of the `symbols`) at a random place; the row ends with the mark again, and
    the answer is what followed it. The sum of the ordinary symbols, modulo their number, is 0 in held-out rows only.
    """

    symbols: int = 16

    name: ClassVar[str] = "induction"
    description: ClassVar[str] = "random symbols with one mark, and the mark again: say what followed it"

    def __post_init__(self) -> None:
        if self.symbols < 3:
            raise UserError(
                f"task 'induction' with {self.symbols} symbols has no question; set data.symbols = 3 or more"
            )
        self._needs(4, "a mark")

    @property
    def tokenizer(self) -> Tokenizer:
        """The mark is shown as an asterisk."""
        return CharTokenizer("*" + _letters(self.symbols - 1))

    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """`count` rows; the mark's id is that of the filler, which this task does not need."""
        numbers, radix = key.generator(), self.symbols - 1
        symbols = numbers.integers(0, radix, (count, self.context))
        place = numbers.integers(0, self.context - 2, count)
        every = np.arange(count)
        symbols[every, place] = symbols[:, -1] = 0  # so that marks add nothing
        free = np.where(place == 0, 1, 0)
        symbols[every, free] = 0
        residue = _residues(numbers, count, radix, held_out)
        symbols[every, free] = (residue - symbols.sum(axis=1)) % radix
        inputs = (symbols + FILLER + 1).astype(np.int32)
        inputs[every, place] = inputs[:, -1] = FILLER
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = inputs[every, place + 1]
        return inputs, targets


@dataclass(frozen=True, eq=False)
class SelectiveCopy(RecallTask):
    """Selective copying (`eq:selective-copy`; Jing et al. 2019; the setting of Gu and Dao 2023, appendix E.1).

    `items` symbols at random places among filler, then a mark; from there on the model writes the symbols in order, and
    reads what it should have written (as in generation, where each answer becomes the next input). The sum of the
    symbols, modulo their number, is 0 in held-out rows only.
    """

    items: int = 8
    symbols: int = 16

    name: ClassVar[str] = "selective-copy"
    description: ClassVar[str] = "symbols scattered among filler: write them in order"

    def __post_init__(self) -> None:
        if self.items < 2 or self.symbols < 2:
            raise UserError(
                f"task {self.name!r} takes at least 2 tokens of 2 symbols, and data.items is {self.items} and "
                f"data.symbols {self.symbols}; raise them"
            )
        self._needs(2 * self.items, f"{self.items} tokens")

    @property
    def tokenizer(self) -> Tokenizer:
        """Filler is shown as a full stop and the mark as a colon."""
        return CharTokenizer(".:" + _letters(self.symbols))

    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """`count` rows: context - items places for the symbols, the mark, and all symbols but the last again."""
        numbers, body = key.generator(), self.context - self.items
        symbols = numbers.integers(0, self.symbols, (count, self.items))
        symbols[:, -1] = 0
        residue = _residues(numbers, count, self.symbols, held_out)
        symbols[:, -1] = (residue - symbols.sum(axis=1)) % self.symbols
        ids = (symbols + FILLER + 2).astype(np.int32)
        places = np.sort(_distinct(numbers, count, body, self.items), axis=1)
        inputs = np.full((count, self.context), FILLER, np.int32)
        np.put_along_axis(inputs, places, ids, axis=1)
        inputs[:, body], inputs[:, body + 1 :] = FILLER + 1, ids[:, :-1]
        targets = np.full_like(inputs, IGNORE)
        targets[:, body:] = ids
        return inputs, targets


@dataclass(frozen=True, eq=False)
class CopyText(SelectiveCopy):
    """The string again, in a causal model: selective copying with half of the row to copy, so without filler."""

    name: ClassVar[str] = "copy-lm"
    description: ClassVar[str] = "a string that fills half of the context: write it again (decoder-only)"

    def at(self, context: int) -> Self:
        """The task with strings of half of another length."""
        return replace(self, context=context, items=context // 2)


RECALL: dict[str, type[RecallTask]] = {task.name: task for task in (Mqar, Induction, SelectiveCopy, CopyText)}


def recall_task(name: str, context: int, items: int, symbols: int) -> RecallTask:
    """A task by name; `items` are the pairs of mqar or the tokens of selective-copy, the other tasks have none."""
    if name == "mqar":
        return Mqar(context, items, symbols)
    if name == "induction":
        return Induction(context, symbols)
    if name == "selective-copy":
        return SelectiveCopy(context, items, symbols)
    if name == "copy-lm":
        return CopyText(context, context // 2, symbols)
    raise UserError(f"there is no task {name!r}{did_you_mean(name, RECALL)}; choose one of {', '.join(RECALL)}")


def draw_gaps(numbers: np.random.Generator, count: int, space: int, pairs: int, power: float) -> NDArray[np.int64]:
    """`pairs` distinct gaps from 0 to space - 1 in each of `count` rows, drawn one after another with probability
    proportional to (g + 1)^(power - 1) (`eq:recall-gaps`).

    The places of the smallest exponentials with these rates are such draws (Efraimidis and Spirakis 2006), for all
    rows at once.
    """
    weights = np.arange(1, space + 1) ** (power - 1.0)
    return np.argsort(numbers.standard_exponential((count, space)) / weights, axis=1)[:, :pairs]


def _distinct(numbers: np.random.Generator, count: int, of: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` different numbers below `of` in random order, in each of `count` rows."""
    return np.argsort(numbers.random((count, of)), axis=1)[:, :wanted]


def _odd(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a row has an odd number of pairs in falling order: the parity of the permutation."""
    falling = keys[:, :, None] > keys[:, None, :]
    return np.asarray(np.triu(falling, 1).sum(axis=(1, 2)) % 2 == 1)


def _residues(numbers: np.random.Generator, count: int, radix: int, held_out: bool) -> NDArray[np.int64]:
    """What the sum of each row has to be: 0 where held out, anything else in training."""
    return numbers.integers(1, radix, count) * (not held_out)


def _letters(count: int) -> str:
    """`count` characters in order of code points: a to z while they last, else Chinese ones."""
    return _signs(ord("a"), count) if count <= 26 else _signs(0x4E00, count)


def _signs(first: int, count: int) -> str:
    return "".join(map(chr, range(first, first + count)))
