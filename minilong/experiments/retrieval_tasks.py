"""Two searches that a text asks by itself: the passage that follows a passage, and the second half of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minilong.text.sentences import split_sentences
from minilong.text.words import tokenizer

TASKS = {"next": "the passage that follows", "half": "the second half of a sentence"}

_BREAK = re.compile(r"\s+|(?<=[，；：、])")


@dataclass(frozen=True)
class Search:
    """Queries and candidates: `right` (q,) is the candidate that answers each query, `own` (q,) the one that it is
    itself, or None where it is none."""

    queries: tuple[str, ...]
    candidates: tuple[str, ...]
    right: np.ndarray
    own: np.ndarray | None


def searches(texts: Sequence[str], words: int, most: int) -> dict[str, Search]:
    """Both searches in some texts, by name; words: of a passage, and of a sentence that is halved, at least; most:
    candidates."""
    parts = [passages(text, words) for text in texts]
    follows = [
        i for i, (_, last) in enumerate((p, j + 1 == len(own)) for own in parts for j, p in enumerate(own)) if not last
    ]
    candidates = tuple(p for own in parts for p in own)[:most]
    places = np.array([i for i in follows if i + 1 < len(candidates)], np.int64)
    pairs = list(halved(texts, words // 2))[:most]
    return {
        "next": Search(tuple(candidates[i] for i in places), candidates, places + 1, places),
        "half": Search(tuple(a for a, _ in pairs), tuple(b for _, b in pairs), np.arange(len(pairs)), None),
    }


def passages(text: str, words: int) -> list[str]:
    """A text in passages of whole sentences, as few as have so many words; what is left at the end is left out."""
    cut, found, held, count = tokenizer(), [], [], 0
    for sentence in split_sentences(text):
        held.append(" ".join(sentence.split()))
        count += len(cut(sentence))
        if count >= words:
            found.append(" ".join(held))
            held, count = [], 0
    return found


def halved(texts: Sequence[str], words: int) -> Iterator[tuple[str, str]]:
    """The two halves of each sentence of so many words or more, parted at the white space, or the Chinese mark inside a
    sentence, that is nearest to its middle."""
    cut = tokenizer()
    for text in texts:
        for sentence in split_sentences(text):
            whole = " ".join(sentence.split())
            if len(cut(whole)) < words:
                continue
            breaks = [match for match in _BREAK.finditer(whole) if match.start() > 0 and match.end() < len(whole)]
            if breaks:
                at = min(breaks, key=lambda match: abs(match.start() + match.end() - len(whole)))
                yield whole[: at.start()], whole[at.end() :]
