"""Vectors in word2vec's text format: a line with the numbers of words and of components, then a line for each word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minilong.embeddings.vectors import Vectors
from minilong.errors import UserError
from minilong.train.files import Disk, write_file


def write_text(vectors: Vectors, path: Path) -> None:
    """Write `V d`, then a word and its components a line, parted by spaces: read back, they are the same float32.

    UserError for a word with white space in it, which the format cannot hold.
    """
    lines = [f"{len(vectors)} {vectors.matrix.shape[1]}"]
    for word, row in zip(vectors.words, vectors.matrix.astype(np.float32).tolist(), strict=True):
        if not word or word.split() != [word]:
            raise UserError(f"the word {word!r} has white space in it, which word2vec's text format cannot hold")
        lines.append(" ".join([word, *(f"{x:.9g}" for x in row)]))
    write_file(Disk(), path, ("\n".join(lines) + "\n").encode("utf-8"))


def read_text_vectors(path: Path) -> Vectors:
    """The vectors of a file in the text format. UserError, naming the line, for anything else.

    Every line must have the promised components, finite, and a word of its own; the promised words must all be there.
    """
    lines = _lines(path)
    first = next(lines, "")
    head = first.split()
    if len(head) != 2 or not all(part.isascii() and part.isdigit() for part in head) or "0" in head:
        raise UserError(f"line 1 of {str(path)!r} is {first[:60]!r}; it must give the numbers of words and components")
    count, width = map(int, head)
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    for number, line in enumerate(lines, 2):
        word, *parts = line.rstrip(" ").split(" ")
        at = f"line {number} of {str(path)!r}"
        if len(parts) != width:
            raise UserError(f"{at} has {len(parts)} numbers behind its word, and the first line promises {width}")
        if not word or word in words:
            raise UserError(f"{at} {'repeats the word ' + repr(word) if word else 'has no word'}; take it out")
        words[word] = number
        rows.append(_numbers(parts, at))
        if len(words) > count:
            raise UserError(f"{at} is one too many: the first line promises {count} words; correct it")
    if len(words) < count:
        raise UserError(
            f"{str(path)!r} ends after {len(words)} words, and its first line promises {count}; it is cut off"
        )
    return Vectors(tuple(words), np.stack(rows))


def _numbers(parts: list[str], at: str) -> np.ndarray:
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise UserError(f"{at} has a part that is no number; parts are parted by single spaces") from None
    if not all(math.isfinite(x) and abs(x) < 3e38 for x in values):
        raise UserError(f"{at} has a number that is not finite, or beyond single precision; take the line out")
    return np.array(values, np.float32)


def _lines(path: Path) -> Iterator[str]:
    """Lines in constant memory; UserError where the file is missing or no UTF-8."""
    try:
        with path.open("r", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except FileNotFoundError:
        raise UserError(f"no file {str(path)!r}; give the path of vectors in word2vec's text format") from None
    except IsADirectoryError:
        raise UserError(f"{str(path)!r} is a folder; give a file in word2vec's text format") from None
    except UnicodeDecodeError:
        raise UserError(f"{str(path)!r} is not UTF-8; word2vec's binary format is not read, save it as text") from None
