"""Byte-pair encoding over bytes (Sennrich et al. 2016; over bytes: Radford et al. 2019), by the `tokenizers` library.

The library learns the merges and applies them; the vocabulary is ours. Ids 4 to 259 are the bytes, as in the byte
tokenizer, and each merge adds the next id, so a list of merges is the whole tokenizer and decoding needs no library.
The library never sees a special token: text that looks like one stays text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from minilong.data.vocabulary import FIRST, Ids, Tokenizer, to_utf8
from minilong.errors import UserError

if TYPE_CHECKING:
    import tokenizers as library

SMALLEST = FIRST + 256


@dataclass(frozen=True)
class BpeTokenizer(Tokenizer):
    """Byte-level BPE. `merges` pairs tokens in order of rank; token t (a byte, or 256 and up a merge) is id t + 4."""

    merges: tuple[tuple[int, int], ...]

    name: ClassVar[str] = "bpe"

    @staticmethod
    def train(texts: Iterable[str], size: int) -> BpeTokenizer:
        """The tokenizer of at most `size` ids learnt from the texts: fewer where no pair of tokens is left to merge."""
        if size < SMALLEST:
            raise UserError(f"a BPE vocabulary of {size} is too small; give at least {SMALLEST} (256 bytes, 4 special)")
        _require()
        from tokenizers import Tokenizer as Learner
        from tokenizers import models, pre_tokenizers, trainers

        learner = Learner(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size - FIRST,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        learner.train_from_iterator((to_utf8(text).decode() for text in texts), trainer)
        back = {letter: byte for byte, letter in enumerate(letters())}
        table = _Table()
        for left, right in json.loads(learner.to_str())["model"]["merges"]:
            table.merge(*(table.tokens[bytes(back[letter] for letter in part)] for part in (left, right)))
        return BpeTokenizer(tuple(table.merges))

    @staticmethod
    def from_merges(merges: object) -> BpeTokenizer:
        """The tokenizer of a list of pairs of tokens; `UserError` naming the first pair that can not be a merge."""
        if not isinstance(merges, Sequence):
            raise UserError(f"the merges are {type(merges).__name__}, not a list; the tokenizer is damaged")
        table = _Table()
        for rank, pair in enumerate(merges):
            whole = isinstance(pair, list | tuple) and len(pair) == 2 and all(type(token) is int for token in pair)
            if not whole or not all(0 <= token < len(table.pieces) for token in pair):
                raise UserError(f"merge {rank} is {str(pair)[:40]!r}, not two earlier tokens; the tokenizer is damaged")
            if tuple(pair) in table.seen:
                raise UserError(f"merge {rank} repeats an earlier one; the tokenizer is damaged")
            table.merge(*pair)
        return BpeTokenizer(tuple(table.merges))

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        table = _Table()
        for pair in self.merges:
            table.merge(*pair)
        return (*[b""] * FIRST, *table.pieces)

    @cached_property
    def _library(self) -> library.Tokenizer:
        _require()
        from tokenizers import Tokenizer as Encoder
        from tokenizers import models, pre_tokenizers

        alphabet = letters()
        names = ["".join([alphabet[byte] for byte in piece]) for piece in self.pieces[FIRST:]]
        vocabulary = {name: token for token, name in enumerate(names)}
        encoder = Encoder(models.BPE(vocab=vocabulary, merges=[(names[a], names[b]) for a, b in self.merges]))
        encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return encoder

    def encode(self, text: str) -> Ids:
        to_utf8(text)
        return np.array(self._library.encode(text, add_special_tokens=False).ids, np.int32) + np.int32(FIRST)

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.name, "merges": [list(pair) for pair in self.merges]}


class _Table:
    """Tokens in the order of their making. Two merges can spell the same bytes; they are then one token."""

    def __init__(self) -> None:
        self.pieces = [bytes([byte]) for byte in range(256)]
        self.tokens = {piece: token for token, piece in enumerate(self.pieces)}
        self.merges: list[tuple[int, int]] = []
        self.seen: set[tuple[int, int]] = set()

    def merge(self, left: int, right: int) -> None:
        piece = self.pieces[left] + self.pieces[right]
        if piece not in self.tokens:
            self.tokens[piece] = len(self.pieces)
            self.pieces.append(piece)
        self.merges.append((left, right))
        self.seen.add((left, right))


def letters() -> list[str]:
    """The visible character by which the library's byte level writes each byte (the alphabet of GPT-2)."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


def _require() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise UserError("the tokenizer 'bpe' needs the tokenizers library; pip install \"minilong[text]\"") from None
