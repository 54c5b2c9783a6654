"""Rows of whole sentences: two neighbours, or two strangers (BERT), and as many as fit (RoBERTa).

A text is cut behind full stops and at empty lines, by rule alone: the sentences only say where a row may begin and end.
Line breaks inside a sentence are spaces, so that a wrapped line reads as it is spoken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from minilong.data.masking import Row
from minilong.data.vocabulary import BOS, SEPARATOR, Ids
from minilong.errors import UserError
from minilong.keys import Key

END = re.compile(
    # In spaced scripts: a space follows.
    r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!?]+[\"'”’)\]]*(?=\s)"
    r"|[。！？]+[”’」』）》]*"
    r"|\n\s*\n"
)
EDGE = {"pair": 3, "row": 2}
"""Special tokens of a row: [begin] A [separator] B [separator], or [begin] sentences [separator]."""


def sentences(text: str) -> list[str]:
    """The sentences of a text. Joined they are the text with each run of white space as one space; a sentence begins
    with the space that stands before it."""
    ends = [0, *(match.end() for match in END.finditer(text)), len(text)]
    found: list[str] = []
    gap = ""
    for begin, end in pairwise(ends):
        piece = text[begin:end]
        words = piece.split()
        if piece[:1].isspace():
            gap = " "
        if words:
            found.append((gap if found else "") + " ".join(words))
            gap = " " if piece[-1:].isspace() else ""
    return found


def encoded_sentences(text: str, encode: Callable[[str], Ids], longest: int) -> list[Ids]:
    """The tokens of each sentence; one of more than `longest` tokens comes in several pieces."""
    ids = [encode(sentence) for sentence in sentences(text)]
    return [row[at : at + longest] for row in ids for at in range(0, len(row), longest)]


def full_rows(documents: Sequence[Sequence[Ids]], context: int) -> list[Row]:
    """Rows of as many whole sentences as `context` tokens hold (RoBERTa's full sentences); where a row goes on in the
    next document, a separator stands between. Sentences have at most `context` - 2 tokens."""
    rows: list[Row] = []
    parts: list[Ids] = []
    held, room = 0, context - EDGE["row"]
    for number, document in enumerate(documents):
        for place, sentence in enumerate(document):
            glue = [np.array([SEPARATOR], np.int32)] if parts and number and not place else []
            if held + len(glue) + len(sentence) > room:
                rows.append(_row(parts))
                parts, held, glue = [], 0, []
            parts += [*glue, sentence]
            held += len(glue) + len(sentence)
    return [*rows, _row(parts)] if parts else rows


def sentence_pairs(documents: Sequence[Sequence[Ids]], context: int, key: Key) -> list[Row]:
    """Rows of two parts of whole sentences, A and B (`eq:sentence-pair`): of each two rows, B follows A in one, and
    in the other begins at a random sentence elsewhere. Every sentence but a document's last is in some A or B.

    A function of the key. Sentences have at most (context - 3) // 2 tokens. UserError where there is no other sentence
    to draw.
    """
    numbers = key.fold("pairs").generator()
    starts = [(d, s) for d, document in enumerate(documents) for s in range(len(document))]
    number_of = {place: i for i, place in enumerate(starts)}
    rows: list[Row] = []
    room, coin = context - EDGE["pair"], 0
    for d, document in enumerate(documents):
        at = 0
        while (end := _fill(document, at, room)) - at > 1:
            if len(rows) % 2 == 0:
                coin = int(numbers.integers(2))
            follows = coin ^ (len(rows) % 2)
            cut = int(numbers.integers(at + 1, end))
            first = np.concatenate(document[at:cut])
            if follows:
                second = np.concatenate(document[cut:end])
                at = end
            else:
                other, b = starts[_another(numbers, len(starts), number_of[d, at], number_of[d, cut])]
                left = room - len(first)
                stop = max(b + 1, _fill(documents[other], b, left))
                second = np.concatenate(documents[other][b:stop])[:left]
                at = cut
            rows.append(_pair(first, second, follows))
    if not rows:
        raise UserError(
            f"the text has too few sentences for pairs of {context} tokens; give more text, or lower --context"
        )
    return rows


def _another(numbers: np.random.Generator, count: int, first: int, following: int) -> int:
    """A sentence that is neither in A (from `first` on) nor `following`, by number."""
    others = count - (following + 1 - first)
    if others < 1:
        raise UserError("the text has too few sentences to pair one with a stranger; give more text")
    drawn = int(numbers.integers(others))
    return drawn if drawn < first else drawn + following + 1 - first


def _fill(document: Sequence[Ids], at: int, room: int) -> int:
    """Where to stop so that the sentences from `at` on have `room` tokens at most."""
    for end in range(at, len(document)):
        room -= len(document[end])
        if room < 0:
            return end
    return len(document)


def _row(parts: Sequence[Ids]) -> Row:
    return Row(np.array([BOS, *_flat(parts), SEPARATOR], np.int32))


def _pair(first: Ids, second: Ids, follows: int) -> Row:
    ids = np.array([BOS, *first, SEPARATOR, *second, SEPARATOR], np.int32)
    return Row(ids, second=len(first) + 2, follows=follows)


def _flat(parts: Sequence[Ids]) -> Iterator[int]:
    for part in parts:
        yield from part.tolist()
