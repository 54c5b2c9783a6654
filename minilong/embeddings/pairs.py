"""Files of word pairs and of analogies: how well vectors agree with people's judgements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from minilong.embeddings.vectors import Vectors
from minilong.errors import UserError
from minilong.text.pieces import units


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of cosines with judgements over `pairs`; `missing` pairs have a word that is not known."""

    spearman: float
    pairs: int
    missing: int


@dataclass(frozen=True)
class Answers:
    """Analogies answered right, by section of the file; `missing` questions have a word that is not known."""

    sections: tuple[tuple[str, int, int], ...]
    missing: int

    @property
    def right(self) -> int:
        """Right answers."""
        return sum(right for _, right, _ in self.sections)

    @property
    def asked(self) -> int:
        """Questions whose words are known."""
        return sum(asked for _, _, asked in self.sections)


def agreement(vectors: Vectors, path: str) -> Agreement:
    """Compare with a file of lines `word<TAB>word<TAB>number`.

    Lines that begin with # and blank ones are passed over; commas or spaces may stand for tabs. A word that is not
    known as it is written is looked up in small letters. UserError, naming the line, for one that is no such pair, and
    where fewer than 2 pairs are known.
    """
    cosines, judged, missing = [], [], 0
    for number, line in _lines(path):
        parts = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        if len(parts) < 3 or not _is_number(parts[2]):
            raise UserError(f"line {number} of {path!r} is {line!r}; write two words and a number, parted by tabs")
        rows = [_row(vectors, word.strip()) for word in parts[:2]]
        if None in rows:
            missing += 1
            continue
        a, b = (vectors.unit[row] for row in rows)
        cosines.append(float(a @ b))
        judged.append(float(parts[2]))
    if len(judged) < 2:
        raise UserError(f"{len(judged)} of {len(judged) + missing} pairs of {path!r} are in the vocabulary; give 2")
    if len(set(judged)) == 1 or len(set(cosines)) == 1:
        raise UserError(f"all known pairs of {path!r} are judged alike; there is nothing to rank")
    return Agreement(float(spearmanr(cosines, judged).statistic), len(judged), missing)


def answer(vectors: Vectors, path: str, *, most: int = 30_000) -> Answers:
    """Answer a file of analogies: lines of four words, and `: NAME` before each section.

    Only the first `most` words of the vocabulary, the commonest, are known and can be answers.
    """
    known = Vectors(vectors.words[:most], vectors.matrix[:most])
    sections: list[tuple[str, int, int]] = []
    name, missing = "all", 0
    rows: list[list[int]] = []

    def close() -> None:
        if rows:
            sections.append((name, _right(known, np.array(rows)), len(rows)))
            rows.clear()

    for number, line in _lines(path):
        if line.startswith(":"):
            close()
            name = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise UserError(
                f"line {number} of {path!r} has {len(words)} words; write four, as in: man king woman queen"
            )
        found = [_row(known, word) for word in words]
        if None in found:
            missing += 1
        else:
            rows.append([row for row in found if row is not None])
    close()
    return Answers(tuple(sections), missing)


def _right(vectors: Vectors, rows: np.ndarray, together: int = 256) -> int:
    """How many questions (n, 4) have their last word as the answer to the first three."""
    right = 0
    for start in range(0, len(rows), together):
        a, b, c, d = rows[start : start + together].T
        cosines = (vectors.unit[b] - vectors.unit[a] + vectors.unit[c]) @ vectors.unit.T
        each = np.arange(a.size)
        for given in (a, b, c):
            cosines[each, given] = -np.inf
        right += int(np.count_nonzero(cosines.argmax(axis=1) == d))
    return right


def _lines(path: str) -> Iterator[tuple[int, str]]:
    text = "".join(units([path], "text"))
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _row(vectors: Vectors, word: str) -> int | None:
    return vectors.index.get(word, vectors.index.get(word.lower()))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
