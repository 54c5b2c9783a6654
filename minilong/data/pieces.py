"""The bytes that each id of a pretrained tokenizer stands for, from how its file says that ids become text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from minilong.data.bpe import letters
from minilong.errors import UserError

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPARSE = 4
"""Ids are at most so many times the number of tokens."""


@dataclass(frozen=True)
class Table:
    """pieces: bytes of each id, empty for special ones. lead: what is dropped where a text begins with it. unknown: the
    id that the model gives what it does not know."""

    pieces: tuple[bytes, ...]
    lead: bytes
    unknown: int | None


def table_of(
    names: Mapping[int, str], added: Mapping[int, str], special: Set[int], document: Mapping[str, Any]
) -> Table:
    """The table of a tokenizer: names of its tokens by id, those that were added to the model's as they are. An unknown
    token reads U+FFFD, unless it is used for something else. UserError for a way back that is not known."""
    if not names or max(names) >= SPARSE * len(names) + 1000:
        raise UserError(
            f"the tokenizer has {len(names):,} tokens with ids up to {max(names, default=0):,}; it is damaged"
        )
    model = document["model"]
    unknown = _unknown(model, {name: id for id, name in names.items()})
    spell, lead = _speller(document.get("decoder") or {"type": None})
    pieces = [b""] * (max(names) + 1)
    for id, name in names.items():
        if id not in special:
            pieces[id] = added[id].encode() if id in added else spell(name)
    if unknown is not None and not pieces[unknown]:
        pieces[unknown] = "\ufffd".encode()
    return Table(tuple(pieces), lead, unknown)


def _unknown(model: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    """The id that text can become because it is unknown; bytes leave nothing unknown."""
    if model.get("byte_fallback"):
        return None
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return ids.get(model.get("unk_token") or "")


def _speller(decoder: Mapping[str, Any]) -> tuple[Any, bytes]:
    """How a name becomes bytes, and the lead."""
    kind = decoder.get("type")
    if kind == "ByteLevel":
        back = {letter: byte for byte, letter in enumerate(letters())}

        def byte_level(name: str) -> bytes:
            known = all(letter in back for letter in name)
            return bytes([back[letter] for letter in name]) if known else name.encode()

        return byte_level, b""
    if kind == "WordPiece":
        mark = str(decoder.get("prefix", "##"))
        return lambda name: (name.removeprefix(mark) if name.startswith(mark) else f" {name}").encode(), b" "
    if kind == "Metaspace":
        space = str(decoder.get("replacement", "\u2581"))
        lead = b"" if decoder.get("prepend_scheme") == "never" else b" "
        return lambda name: name.replace(space, " ").encode(), lead
    if kind == "Sequence":
        return _steps([dict(step) for step in decoder["decoders"]])
    if kind is None:
        return lambda name: f" {name}".encode(), b" "
    raise UserError(f"the tokenizer's decoder is {kind!r}, which minilong does not know; it reads no such tokenizer")


def _steps(steps: list[dict[str, Any]]) -> tuple[Any, bytes]:
    """SentencePiece's way back: spaces, bytes, and a space at the start that goes."""
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] or kinds == ["Metaspace"] or kinds == ["WordPiece"]:
        return _speller(steps[0])
    strange = [kind for kind in kinds if kind not in ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")]
    if strange:
        raise UserError(f"the tokenizer's decoder has the step {strange[0]!r}, which minilong does not know")
    swaps = [(str(s["pattern"].get("String")), str(s["content"])) for s in steps if s["type"] == "Replace"]
    swaps += [(str(s.get("replacement", "\u2581")), " ") for s in steps if s["type"] == "Metaspace"]
    fallback = "ByteFallback" in kinds
    strips = any(s["type"] == "Strip" and s.get("content") == " " and s.get("start") == 1 for s in steps)
    strips = strips or any(s["type"] == "Metaspace" and s.get("prepend_scheme") != "never" for s in steps)

    def spell(name: str) -> bytes:
        match = BYTE.fullmatch(name) if fallback else None
        if match:
            return bytes([int(match[1], 16)])
        for old, new in swaps:
            name = name.replace(old, new)
        return name.encode()

    return spell, b" " if strips else b""
