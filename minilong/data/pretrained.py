"""Tokenizers of pretrained models: the text of a `tokenizer.json`, which the `tokenizers` library applies.

The library cuts; what the ids stand for is our table, as in every tokenizer here, so decoding needs no library. Text
that looks like a special token stays text: the library is told to leave special tokens alone, and where a vocabulary
can spell one nevertheless, the text is cut inside its name. Only `encode_template` writes special ids, and there the
parts that came from a user are kept apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minilong.data.pieces import Table, table_of
from minilong.data.roles import Roles
from minilong.data.tokenizer_folder import json_of_folder
from minilong.data.tokenizer_gguf import json_of_gguf
from minilong.data.vocabulary import Control, Ids, StreamDecoder, Tokenizer, take_fields, to_utf8
from minilong.errors import UserError

if TYPE_CHECKING:
    import tokenizers as library

JOINT = "\U0010fffd\U0010fffc"
"""Where texts are encoded together but must not join: two private characters, known to the library as a token."""


@dataclass(frozen=True)
class PretrainedTokenizer(Tokenizer):
    """`text`: a whole `tokenizer.json`. vocabulary: how many ids the model has, where it has more than the tokenizer:
    those behind stand for nothing. UserError for a file that the library refuses, or whose ids do not fit."""

    text: str
    roles: Roles
    vocabulary: int = 0

    name: ClassVar[str] = "pretrained"

    def __post_init__(self) -> None:
        used = len(self._table.pieces)
        if self.vocabulary and self.vocabulary < used:
            raise UserError(
                f"the tokenizer has {used:,} ids and the model {self.vocabulary:,}: they are not of one model; "
                "take both from the same place"
            )
        beyond = [id for id in (*vars(self.roles).values(), *self.roles.ends) if type(id) is int and id >= self.size]
        if beyond:
            raise UserError(f"the tokenizer has {self.size:,} ids and a special one is {beyond[0]}; it is damaged")

    def sized(self, vocabulary: int) -> PretrainedTokenizer:
        """The tokenizer for a model with so many ids. UserError where it has more."""
        return replace(self, vocabulary=vocabulary)

    @property
    def size(self) -> int:
        return self.vocabulary or len(self._table.pieces)

    @property
    def pad(self) -> int:
        return _first(self.roles.pad, self.roles.eos, 0)

    @property
    def bos(self) -> int:
        return _first(self.roles.bos, self.roles.eos, self.pad)

    @property
    def eos(self) -> int:
        return _first(self.roles.eos, self.roles.separator, self.pad)

    @property
    def separator(self) -> int:
        return _first(self.roles.separator, self.eos)

    @property
    def mask(self) -> int | None:
        return self.roles.mask

    @property
    def unknown(self) -> int | None:
        """Stands for what the vocabulary lacks; None where it can spell everything."""
        return self._table.unknown

    @property
    def ends(self) -> tuple[int, ...]:
        return self.roles.ends

    @cached_property
    def specials(self) -> tuple[int, ...]:
        own = {control.id for control in self.controls if control.special}
        return tuple(sorted(own | set(range(len(self._table.pieces), self.size))))

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        return self._table.pieces + (b"",) * (self.size - len(self._table.pieces))

    @property
    def prefix(self) -> tuple[int, ...]:
        return self._around[0]

    @property
    def suffix(self) -> tuple[int, ...]:
        return self._around[1]

    @cached_property
    def controls(self) -> tuple[Control, ...]:
        """All added tokens but those of white space alone, which templates write as text; the longest first."""
        found = [
            Control(token.content, id, bool(token.special), bool(token.lstrip), bool(token.rstrip))
            for id, token in self._library.get_added_tokens_decoder().items()
            if token.content != JOINT and not token.content.isspace()
        ]
        return tuple(sorted(found, key=lambda control: (-len(control.text), control.text)))

    def encode(self, text: str) -> Ids:
        return self._join([text], [])

    def encode_template(self, text: str, foreign: Sequence[tuple[int, int]] = ()) -> Ids:
        parts, glue, at = [], [], 0
        for start, stop, id in self._meant(text, foreign):
            parts.append(text[at:start])
            glue.append(id)
            at = stop
        return self._join([*parts, text[at:]], glue)

    def decode(self, ids: Any) -> str:
        return super().decode(ids).removeprefix(self._table.lead.decode())

    def stream_decoder(self, *, continues: bool = False) -> StreamDecoder:
        return StreamDecoder(self.pieces, b"" if continues else self._table.lead)

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.name, "text": self.text, "roles": self.roles.to_dict(), "vocabulary": self.vocabulary}

    @staticmethod
    def from_dict(data: dict[str, object], source: str) -> PretrainedTokenizer:
        """What `to_dict` wrote, the kind aside."""
        text, roles, vocabulary = take_fields(data, {"text": str, "roles": dict, "vocabulary": int}, source)
        return PretrainedTokenizer(str(text), Roles.from_dict(roles, source), vocabulary)  # type: ignore[arg-type]

    def _meant(self, text: str, foreign: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int | None]]:
        """Where a template's text is cut: controls that it wrote, each (start, stop, id); and foreign spans that the
        library would take for a token, behind their first character (None)."""
        at = 0
        for start, stop in [*sorted(foreign), (len(text), len(text))]:
            for match in self._pattern.finditer(text, at, max(start, at)):
                yield match.start(), match.end(), self._ids[match[match.lastindex or 0]]
            if stop - start == 1 or text[start:stop] in self._shown:
                yield start + 1, start + 1, None
            at = max(at, stop)

    def _join(self, parts: Sequence[str], glue: Sequence[int | None]) -> Ids:
        """The ids of texts that do not join, with the ids `glue` between them (None: nothing)."""
        for part in parts:
            to_utf8(part)
            if JOINT in part:
                raise UserError("the text holds U+10FFFD U+10FFFC, which minilong keeps for itself; take them out")
        ids = np.array(self._library.encode(JOINT.join(parts), add_special_tokens=False).ids, np.int32)
        if np.isin(ids, self._forbidden).any():
            inside = [list(_cut(part, self._surfaces)) for part in parts]
            if all(len(cut) == 1 for cut in inside):
                raise UserError("the tokenizer makes a special token of the text; take out what looks like one")
            between: list[int | None] = []
            for number, cut in enumerate(inside):
                between += [None] * (len(cut) - 1) + list(glue[number : number + 1])
            return self._join([part for cut in inside for part in cut], between)
        places = np.flatnonzero(ids == self._joint)
        ids[places] = [-1 if id is None else id for id in glue]
        return ids[ids >= 0]

    @cached_property
    def _library(self) -> library.Tokenizer:
        return _open(self.text)

    @cached_property
    def _joint(self) -> int:
        id = self._library.token_to_id(JOINT)
        assert id is not None  # `_open` put it there
        return id

    @cached_property
    def _table(self) -> Table:
        names = {id: name for name, id in self._library.get_vocab().items() if name != JOINT}
        special = {control.id for control in self.controls if control.special}
        return table_of(names, {control.id: control.text for control in self.controls}, special, json.loads(self.text))

    @cached_property
    def _forbidden(self) -> Ids:
        """Special ids that no text may become; that of an unknown character is the model's business."""
        return np.array([id for id in self.specials if id != self._table.unknown], np.int32)

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the file's own template adds to a text."""
        whole = self._library.encode("a")
        text = [number for number, added in enumerate(whole.special_tokens_mask) if not added]
        first, last = (text[0], text[-1] + 1) if text else (len(whole.ids), len(whole.ids))
        return tuple(whole.ids[:first]), tuple(whole.ids[last:])

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {control.text: control.id for control in self.controls}

    @cached_property
    def _shown(self) -> frozenset[str]:
        """Controls that stand for text, which the library finds in any text."""
        return frozenset(control.text for control in self.controls if not control.special)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Any control, with the white space that belongs to it."""
        space = r"\s*"
        each = [space * c.left + f"({re.escape(c.text)})" + space * c.right for c in self.controls]
        return re.compile("|".join(each) or "(?!)")

    @cached_property
    def _surfaces(self) -> re.Pattern[str]:
        """The text of any special token that can be cut."""
        return re.compile("|".join(re.escape(c.text) for c in self.controls if c.special and len(c.text) > 1) or "(?!)")


def read_tokenizer_folder(path: Path) -> PretrainedTokenizer:
    """The tokenizer of a model's folder: `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`. UserError
    where there is none, or it is damaged."""
    text, roles = json_of_folder(Path(path))
    return PretrainedTokenizer(text, roles)


def tokenizer_from_gguf(metadata: Mapping[str, object]) -> PretrainedTokenizer:
    """The tokenizer of a GGUF file, from its metadata. UserError for what is damaged or of an unknown kind."""
    document, roles = json_of_gguf(metadata)
    return PretrainedTokenizer(json.dumps(document, ensure_ascii=False), roles)


def _first(*ids: int | None) -> int:
    return next(id for id in ids if id is not None)


def _cut(text: str, surfaces: re.Pattern[str]) -> Iterator[str]:
    """The text in pieces, each name of a special token cut behind its first character."""
    at = 0
    for match in surfaces.finditer(text):
        yield text[at : match.start() + 1]
        at = match.start() + 1
    yield text[at:]


def _open(text: str) -> library.Tokenizer:
    try:
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Encoder
    except ImportError:
        raise UserError(
            'the tokenizer of a pretrained model needs the tokenizers library; pip install "minilong[text]"'
        ) from None
    try:
        encoder = Encoder.from_str(text)
        encoder.no_truncation()
        encoder.no_padding()
        encoder.encode_special_tokens = True
        encoder.add_tokens([AddedToken(JOINT, normalized=False)])
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises plain exceptions, and its panics are not even those
        raise UserError(
            f"the tokenizer is refused by the tokenizers library ({str(error)[:120]}); it is damaged"
        ) from None
    return encoder
