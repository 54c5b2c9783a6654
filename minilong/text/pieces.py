"""Files as pieces of text, one after another in constant memory, and the documents and sentences in them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from minilong.data.corpora import CORPORA, read_text
from minilong.errors import UserError
from minilong.text.sentences import LONGEST, sentences_of

PIECE = 1 << 18
"""Bytes read at once."""

UNITS = ("sentence", "line", "paragraph", "text")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"\n")


def find_text(source: str) -> Path:
    """The file of a path, or of the shipped text of that name. UserError, with the remedy, where there is none."""
    path = Path(source)
    if source and path.is_file():
        return path
    if source in CORPORA and CORPORA[source].kind == "text":
        return CORPORA[source].path
    read_text(source)
    raise UserError(f"{source!r} is no regular file; write it to one first")


def pieces_of(source: str, size: int = PIECE) -> Iterator[str]:
    """The text of a file or shipped text in pieces of at most `size` bytes: UTF-8, lines ended by line feeds.

    UserError for what is no such text, when the piece is reached.
    """
    path = find_text(source)
    decode = codecs.getincrementaldecoder("utf-8")("strict")
    done, kept, anything = 0, "", False
    with path.open("rb") as file:
        while data := file.read(size):
            if (nul := data.find(b"\0")) >= 0:
                raise UserError(f"{source!r} is binary (a NUL at byte offset {done + nul}); give a UTF-8 text file")
            text = kept + _decoded(decode, data, source, done, final=False)
            done += len(data)
            kept = "\r" if text.endswith("\r") else ""  # its line feed may be the next piece's first
            text = text[: len(text) - len(kept)].replace("\r\n", "\n").replace("\r", "\n")
            if not anything:
                text = text.removeprefix("\ufeff")
                anything = bool(text)
            yield text
    yield kept.replace("\r", "\n") + _decoded(decode, b"", source, done, final=True)
    if not done:
        raise UserError(f"{source!r} is empty; give a file with text in it")


def _decoded(decode: codecs.IncrementalDecoder, data: bytes, source: str, done: int, *, final: bool) -> str:
    held = len(decode.getstate()[0])
    try:
        return decode.decode(data, final)
    except UnicodeDecodeError as error:
        at = done - held + error.start
        raise UserError(
            f"{source!r} is not UTF-8 (at byte offset {at}); convert it, for example with iconv -t utf-8"
        ) from None


def units(sources: Iterable[str], unit: str = "sentence") -> Iterator[str]:
    """The sentences, lines, paragraphs or whole texts of several sources, in order, none of them empty.

    All but whole texts are read in constant memory; one without an end is cut after some 65,000 characters.
    """
    if unit not in UNITS:
        raise ValueError(f"{unit!r} is none of {', '.join(UNITS)}")
    for source in sources:
        pieces = pieces_of(source)
        if unit == "sentence":
            yield from sentences_of(pieces)
        elif unit == "text":
            yield "".join(pieces)
        else:
            yield from _split(pieces, _LINE if unit == "line" else _PARAGRAPH)


def _split(pieces: Iterable[str], separator: re.Pattern[str]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        held += piece
        *whole, held = _parts(held, separator)
        yield from (part for part in whole if part.strip())
        while len(held) > 2 * LONGEST:
            yield held[:LONGEST]
            held = held[LONGEST:]
    if held.strip():
        yield held


def _parts(text: str, separator: re.Pattern[str]) -> list[str]:
    """Parts between separators; the last separator may still grow, so it goes with the last part."""
    ends = [(match.start(), match.end()) for match in separator.finditer(text) if match.end() < len(text)]
    starts = [0, *(end for _, end in ends)]
    return [text[a:b] for a, b in zip(starts, [*(start for start, _ in ends), len(text)], strict=True)]


def with_progress(items: Iterable[str], report: Callable[[int], None]) -> Iterator[str]:
    """The items as they are, while `report` is told how many bytes of text have passed."""
    passed = 0
    for item in items:
        passed += len(item.encode("utf-8", "surrogatepass"))
        report(passed)
        yield item
