"""A tokenizer with marks: ids behind its own that no text encodes to, for masks (BERT) and sentinels (T5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from minilong.data.vocabulary import Ids, Tokenizer
from minilong.errors import UserError

MOST = 10_000
"""Marks that a tokenizer has at most."""


@dataclass(frozen=True)
class MarkedTokenizer(Tokenizer):
    """`base`, and `marks` ids more: `first`, `first` + 1 and so on. Like special ids they decode to nothing."""

    base: Tokenizer
    marks: int

    name: ClassVar[str] = "marked"

    def __post_init__(self) -> None:
        if isinstance(self.base, MarkedTokenizer):
            raise UserError("a tokenizer has marks already; it is damaged")
        if not 1 <= self.marks <= MOST:
            raise UserError(f"a tokenizer has {self.marks} marks; it takes 1 to {MOST}")

    @property
    def first(self) -> int:
        """The id of the first mark, which is how many ids the base has."""
        return self.base.size

    @property
    def pad(self) -> int:
        return self.base.pad

    @property
    def bos(self) -> int:
        return self.base.bos

    @property
    def eos(self) -> int:
        return self.base.eos

    @property
    def separator(self) -> int:
        return self.base.separator

    @property
    def mask(self) -> int:
        return self.first

    @property
    def ends(self) -> tuple[int, ...]:
        return self.base.ends

    @property
    def specials(self) -> tuple[int, ...]:
        return (*self.base.specials, *range(self.first, self.size))

    @property
    def prefix(self) -> tuple[int, ...]:
        return self.base.prefix

    @property
    def suffix(self) -> tuple[int, ...]:
        return self.base.suffix

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        return (*self.base.pieces, *[b""] * self.marks)

    def encode(self, text: str) -> Ids:
        return self.base.encode(text)

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.name, "base": self.base.to_dict(), "marks": self.marks}
