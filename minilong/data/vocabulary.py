"""What all tokenizers share: special ids, decoding by pieces of bytes, and the strict reading of their files.

A tokenizer is a table of pieces, one byte string per id, and a way to cut a text into ids. Everything else (decoding,
decoding while ids stream in, the size) follows from the table, so it is here once. The pieces of special ids are empty:
no text encodes to them and they decode to nothing. In our own tokenizers they come first; a pretrained one has them
where its makers put them, so each tokenizer says which ids they are, by role.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minilong.errors import UserError, did_you_mean

Ids = NDArray[np.int32]

SPECIALS = ("<pad>", "<bos>", "<eos>", "<separator>")
PAD, BOS, EOS, SEPARATOR = range(4)
FIRST = len(SPECIALS)  # the id of the first piece that stands for text


@dataclass(frozen=True)
class Control:
    """A text that means an id where a template writes it. special: the id stands for no text. left, right: the white
    space on this side belongs to it."""

    text: str
    id: int
    special: bool
    left: bool = False
    right: bool = False


class Tokenizer(Protocol):
    """A cut of text into ids: `encode` and `decode`, special ids by role, and what a run folder needs to rebuild it.

    Those of our own are reversible; a pretrained one that lowers letters or drops spaces is not.
    """

    @property
    def name(self) -> str:
        """The kind, as configurations name it."""
        ...

    @property
    def pad(self) -> int:
        """Fills rows up; nothing looks at it."""
        return PAD

    @property
    def bos(self) -> int:
        """Begins a row."""
        return BOS

    @property
    def eos(self) -> int:
        """Ends an answer."""
        return EOS

    @property
    def separator(self) -> int:
        """Stands between two documents, and behind the parts of a row."""
        return SEPARATOR

    @property
    def mask(self) -> int | None:
        """Stands for a token that is to be restored; None where there is none."""
        return None

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids with which a model says that its text is over; none in our own runs, whose texts go on."""
        return ()

    @property
    def specials(self) -> tuple[int, ...]:
        """All ids that stand for no text, increasing."""
        return tuple(range(FIRST))

    @property
    def prefix(self) -> tuple[int, ...]:
        """Special ids that the model expects before a text that stands alone."""
        return ()

    @property
    def suffix(self) -> tuple[int, ...]:
        """Special ids that it expects behind one."""
        return ()

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes (whole characters or parts of one) that each id stands for; empty for special ids."""
        ...

    @property
    def size(self) -> int:
        """The number of ids, special ones included."""
        return len(self.pieces)

    def encode(self, text: str) -> Ids:
        """The ids of a text, `(n,)` int32, none of them special: what looks like a special token stays text."""
        ...

    def encode_whole(self, text: str) -> Ids:
        """The ids of a text that stands alone, `prefix` before and `suffix` behind it."""
        return np.concatenate([self.prefix, self.encode(text), self.suffix]).astype(np.int32)

    @property
    def controls(self) -> tuple[Control, ...]:
        """What a chat template may write to mean an id, not a text; none in our own tokenizers."""
        return ()

    def encode_template(self, text: str, foreign: Sequence[tuple[int, int]] = ()) -> Ids:
        """The ids of a text that a template wrote: `controls` become their ids, except in the spans (start, stop) that
        are `foreign`, which came from a user and stay text."""
        return self.encode(text)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of ids. Special ids vanish, bytes that are not UTF-8 become U+FFFD; an id out of range raises."""
        pieces = self.pieces
        numbers = [int(number) for number in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(pieces):
            raise ValueError(f"ids run from {min(numbers)} to {max(numbers)}, the vocabulary from 0 to {self.size - 1}")
        return b"".join([pieces[number] for number in numbers]).decode("utf-8", "replace")

    def stream_decoder(self, *, continues: bool = False) -> StreamDecoder:
        """A decoder for ids that come one at a time. continues: they go on with a text, so that a space which a
        tokenizer puts before every text is a space here."""
        return StreamDecoder(self.pieces)

    def to_dict(self) -> dict[str, object]:
        """The tokenizer as JSON values; `tokenizer_from_dict` is the inverse."""
        ...


class StreamDecoder:
    """Turns ids into text as they come: a character is given out once all of its bytes are there, never half of it.

    What all `push` calls and a last `flush` return, joined, is what `decode` returns for the same ids. lead: bytes that
    are dropped where the text begins with them.
    """

    def __init__(self, pieces: Sequence[bytes], lead: bytes = b"") -> None:
        self._pieces = pieces
        self._lead = lead
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that this id completes, which may be empty."""
        if not 0 <= id < len(self._pieces):
            raise ValueError(f"id {id} is outside the vocabulary of {len(self._pieces)}")
        piece = self._pieces[id]
        if piece and self._lead:
            piece, self._lead = piece.removeprefix(self._lead), b""
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """What is left: U+FFFD for a character that never became whole. The decoder then starts afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


def to_utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text; `UserError` for half of a surrogate pair, which comes of undecodable arguments."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"character {error.start + 1} of the text is U+{code:04X}, which no UTF-8 text can hold; take it out"
        ) from None


def take_fields(data: dict[str, object], wanted: dict[str, type], source: str) -> list[object]:
    """The values of the wanted keys, each of its type; a missing, unknown or mistyped key is a `UserError`."""
    for key in data:
        if key not in wanted:
            raise UserError(f"{source} has an unknown key {key!r}{did_you_mean(str(key), wanted)}; it is damaged")
    for key, kind in wanted.items():
        if key not in data:
            raise UserError(f"{source} has no key {key!r}; it is damaged")
        if type(data[key]) is not kind:
            raise UserError(f"{source}: {key!r} is {_type(data[key])}, not {kind.__name__}; it is damaged")
    return [data[key] for key in wanted]


def _type(value: object) -> str:
    return type(value).__name__
