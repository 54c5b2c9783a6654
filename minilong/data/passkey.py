"""The passkey task: a sentence with a number, hidden at any depth of a real text, and a question for the number.

Known as passkey retrieval (Mohtashami and Jaggi 2023) and needle in a haystack (RULER: Hsieh et al. 2024).
Training rows are cut from the training part of the text, held-out ones from its held-out end. Every row has its own
name, number, depth and stretch of text, and nothing is drawn again until it fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.recall import RecallTask
from minilong.data.vocabulary import Ids, Tokenizer
from minilong.errors import UserError
from minilong.keys import Key

NAMES = (
    "Ada", "Bruno", "Clara", "David", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Laura",
    "Martin", "Nora", "Oscar", "Paula",
)  # fmt: skip


def needle(name: str, number: str) -> str:
    """The sentence that is hidden."""
    return f" The passkey for {name} is {number}. "


def question(name: str) -> str:
    """What the row ends with, before the answer."""
    return f"\nWhat is the passkey for {name}? "


@dataclass(frozen=True, eq=False)
class Passkey(RecallTask):
    """Rows of text with `items` hidden sentences, of which the question names one (`eq:passkey`).

    text, held_out_text: token ids to hide them in, of characters or bytes. digits: of a number.
    whole: all tokens are targets, not the answer alone; the model then learns the text as well.
    """

    codec: Tokenizer = field(kw_only=True)
    text: Ids = field(kw_only=True, repr=False)
    held_out_text: Ids = field(kw_only=True, repr=False)
    items: int = 1
    digits: int = 5
    whole: bool = False

    name: ClassVar[str] = "passkey"
    description: ClassVar[str] = "a number hidden in a real text, and a question: say the number"

    def __post_init__(self) -> None:
        if not 1 <= self.items <= len(NAMES):
            raise UserError(
                f"task 'passkey' hides 1 to {len(NAMES)} numbers, and data.items is {self.items}; change it"
            )
        if self.codec.name == "bpe":
            raise UserError(
                "task 'passkey' needs a token for each digit, and the tokenizer 'bpe' joins characters; "
                "set data.tokenizer = char or byte"
            )
        self._needs(self.least, f"{self.items} hidden number{'s'[: self.items != 1]}")

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text."""
        return self.codec

    @property
    def least(self) -> int:
        """The smallest context in which every row has room, without any text around."""
        longest = max(NAMES, key=len)
        one = len(self.codec.encode(needle(longest, "0" * self.digits)))
        return self.items * one + len(self.codec.encode(question(longest))) + self.digits - 1

    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """`count` rows, each with its own depth."""
        return self._rows(count, key, self.held_out_text if held_out else self.text, None)

    def at_depth(self, depth: float, size: int, count: int) -> list[LanguageBatch]:
        """`count` held-out rows, `size` a batch, with the number behind a share `depth` (0 to 1) of the text."""
        if not 0 <= depth <= 1:
            raise ValueError(f"the depth is {depth}: give 0 (the beginning) to 1 (before the question)")
        key = Key.of(0).fold("held out", self.name)
        inputs, targets = self._rows(count, key, self.held_out_text, depth)
        return [LanguageBatch(inputs[i : i + size], targets[i : i + size]) for i in range(0, count, size)]

    def _rows(self, count: int, key: Key, text: Ids, depth: float | None) -> tuple[Ids, Ids]:
        rows = np.stack([self._row(key.fold(number).generator(), text, depth) for number in range(count)])
        inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()  # of a single row, a slice would be a view
        if not self.whole:
            targets[:, : -self.digits] = IGNORE
        return inputs, targets

    def _row(self, numbers: np.random.Generator, text: Ids, depth: float | None) -> Ids:
        """context + 1 tokens: text with the sentences inside, the question, the answer; the first name is asked for."""
        names = [NAMES[place] for place in numbers.permutation(len(NAMES))[: self.items]]
        codes = ["".join(map(str, numbers.integers(0, 10, self.digits))) for _ in names]
        needles = [self.codec.encode(needle(*pair)) for pair in zip(names, codes, strict=True)]
        tail = self.codec.encode(question(names[0]) + codes[0])
        room = self.context + 1 - sum(map(len, needles)) - len(tail)
        if len(text) < room:
            raise UserError(
                f"the text to hide a passkey in has {len(text)} tokens and a context of {self.context} needs {room}; "
                "lower --context or give more text"
            )
        start = int(numbers.integers(len(text) - room + 1))
        places = numbers.integers(room + 1, size=self.items)
        if depth is not None:
            places[0] = round(depth * room)
        return np.concatenate([*_inserted(text[start : start + room], needles, places.tolist()), tail])


def _inserted(text: Ids, needles: Sequence[Ids], places: Sequence[int]) -> list[Ids]:
    """The text in pieces with each needle at its place, counted in tokens of the text."""
    parts, done = [], 0
    for place, ids in sorted(zip(places, needles, strict=True), key=lambda pair: pair[0]):
        parts += [text[done:place], ids]
        done = place
    return [*parts, text[done:]]
