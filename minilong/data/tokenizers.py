"""Byte and character tokenizers, and the way back from a file to any tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from minilong.data.bpe import BpeTokenizer
from minilong.data.marked import MarkedTokenizer
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.vocabulary import (
    FIRST,
    SPECIALS,
    Ids,
    StreamDecoder,
    Tokenizer,
    take_fields,
    to_utf8,
)
from minilong.errors import UserError, did_you_mean

__all__ = [
    "FIRST",
    "SPECIALS",
    "BpeTokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Ids",
    "PretrainedTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "tokenizer_from_dict",
]

KINDS = ("byte", "char", "bpe", "marked", "pretrained")


@dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: byte b is id b + 4. Every text has an encoding and nothing is learnt."""

    name: ClassVar[str] = "byte"

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        return (*[b""] * FIRST, *[bytes([byte]) for byte in range(256)])

    def encode(self, text: str) -> Ids:
        return np.frombuffer(to_utf8(text), np.uint8).astype(np.int32) + np.int32(FIRST)

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.name}


@dataclass(frozen=True)
class CharTokenizer(Tokenizer):
    """The characters (code points) of the training texts, sorted by code point, from id 4 on.

    A character that is not among them raises `UserError`, or with `unknown="replace"` becomes the id `unk`, which then
    is id 4 (before the characters) and decodes to U+FFFD.
    """

    characters: str
    unknown: str = "error"

    name: ClassVar[str] = "char"

    def __post_init__(self) -> None:
        if self.unknown not in ("error", "replace"):
            raise UserError(f"unknown characters: {self.unknown!r} is no choice; take 'error' or 'replace'")
        if not self.characters:
            raise UserError("a character vocabulary is empty; give a text that has characters")
        codes = _codes(self.characters)
        if (np.diff(codes.astype(np.int64)) <= 0).any():
            raise UserError("a character vocabulary is not sorted by code point, or repeats a character; it is damaged")
        to_utf8(self.characters)

    @staticmethod
    def train(texts: Iterable[str], *, unknown: str = "error") -> CharTokenizer:
        """The tokenizer of the characters that occur in the texts."""
        return CharTokenizer("".join(sorted(set().union(*texts))), unknown)

    @property
    def unk(self) -> int | None:
        """The id of an unknown character, where there is one."""
        return FIRST if self.unknown == "replace" else None

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        unk = [] if self.unk is None else ["\ufffd".encode()]
        return (*[b""] * FIRST, *unk, *[character.encode() for character in self.characters])

    @cached_property
    def _table(self) -> Ids:
        """The id of each code point up to one past the last that is known; -1 or `unk` where it is not known."""
        codes = _codes(self.characters)
        missing = -1 if self.unk is None else self.unk
        table = np.full(int(codes[-1]) + 2, missing, np.int32)
        table[codes] = np.arange(self.size - codes.size, self.size)
        return table

    def encode(self, text: str) -> Ids:
        table = self._table
        ids = table[np.minimum(_codes(text), np.uint32(table.size - 1))]
        if self.unk is None and ids.size and ids.min() < 0:
            place = int(np.argmin(ids))
            raise UserError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}, number {place + 1} of the text) is not among the"
                f" {len(self.characters)} of the vocabulary; leave it out, or train with the tokenizer 'byte' or with a"
                f" text that has it"
            )
        return ids

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.name, "characters": self.characters, "unknown": self.unknown}


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def tokenizer_from_dict(data: object, source: str = "the tokenizer file") -> Tokenizer:
    """The tokenizer that `to_dict` wrote; `UserError` naming `source` and what is wrong, whatever else `data` is."""
    if not isinstance(data, dict):
        raise UserError(f"{source} is {type(data).__name__}, not a table of keys; it is damaged")
    kind = data.get("kind")
    rest = {key: value for key, value in data.items() if key != "kind"}
    try:
        if kind == "byte":
            take_fields(rest, {}, source)
            return ByteTokenizer()
        if kind == "char":
            characters, unknown = take_fields(rest, {"characters": str, "unknown": str}, source)
            return CharTokenizer(str(characters), str(unknown))
        if kind == "bpe":
            (merges,) = take_fields(rest, {"merges": list}, source)
            return BpeTokenizer.from_merges(merges)
        if kind == "marked":
            base, marks = take_fields(rest, {"base": dict, "marks": int}, source)
            return MarkedTokenizer(tokenizer_from_dict(base, source), marks)  # type: ignore[arg-type]
        if kind == "pretrained":
            return PretrainedTokenizer.from_dict(rest, source)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(source) else f"{source}: {text}") from None
    hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
    raise UserError(f"{source} has the kind {kind!r}{hint}; minilong knows {', '.join(KINDS)}")
