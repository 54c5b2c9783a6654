"""Splitting running text into sentences, English and Chinese, also while the text arrives in pieces.

A sentence ends at a paragraph's end (an empty line), after 。！？； and their like, and after . ! ? where white
space and no small letter follow, unless the full stop belongs to an abbreviation, an initial or a number. Closing
quotes and brackets go with the sentence before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_SPELT = """mr mrs ms messrs mme mlle dr prof rev hon st sr jr capt col lt maj sgt gov sen rep esq bros co corp inc ltd
vs etc eg ie cf al viz nos vol vols chap pp figs eq eqs eds jan feb apr jul aug sep sept oct nov dec approx dept"""
ABBREVIATIONS = frozenset(_SPELT.split())
"""Lower-case, without their stops. A full stop behind one of these ends no sentence."""

CLOSING = "\"'”’)\\]»」』）】》"
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
_END = re.compile(rf"\n[^\S\n]*\n\s*|[。！？；…]+[{CLOSING}]*\s*|[.!?]+[{CLOSING}]*(?=\s)\s*")
_LAST_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*$")
LONGEST = 1 << 16
"""Characters after which a sentence without an end is cut at white space, so that memory stays bounded."""


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without white space around them; none is empty."""
    return list(sentences_of([text]))


def sentences_of(pieces: Iterable[str]) -> Iterator[str]:
    """The sentences of a text that arrives in pieces: the same however it is cut into pieces.

    Holds one sentence and one piece at a time.
    """
    held = ""
    for piece in pieces:
        held += piece
        place = 0
        for end in _ends(held):
            yield from _cut(held[place:end])
            place = end
        held = held[place:]
        while len(held) > 2 * LONGEST:
            end = _end_of_part(held)
            yield from _cut(held[:end])
            held = held[end:]
    place = 0
    for end in _ends(held + "\n\n."):  # what follows an end decides; behind the last one nothing does
        yield from _cut(held[place:end])
        place = end


def _cut(sentence: str) -> Iterator[str]:
    """The sentence without white space around it, in parts if it is too long; nothing if it is empty."""
    while len(sentence) > LONGEST:
        end = _end_of_part(sentence)
        if part := sentence[:end].strip():
            yield part
        sentence = sentence[end:]
    if part := sentence.strip():
        yield part


def _end_of_part(text: str) -> int:
    return text.rfind(" ", 0, LONGEST) + 1 or LONGEST


def _ends(text: str) -> Iterator[int]:
    """Where the next sentences start. An end counts only once the character after it is there."""
    for match in _END.finditer(text):
        if match.end() == len(text):
            return
        mark = match[0].strip()
        if not mark or mark[0] in "。！？；…" or _EMPTY_LINE.search(match[0]) or not _goes_on(text, match, mark):
            yield match.end()


def _goes_on(text: str, match: re.Match[str], mark: str) -> bool:
    """Whether a full stop, question or exclamation mark stands inside a sentence."""
    if text[match.end()].islower():
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - 24), match.start())
    if mark != "." or word is None:
        return False
    last = word[0].rpartition(".")[2]
    initial = len(last) == 1 and last.isupper() and word[0] != "I"
    return initial or word[0].lower().replace(".", "") in ABBREVIATIONS
