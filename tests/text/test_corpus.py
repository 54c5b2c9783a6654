"""Files in pieces and the corpus of word numbers: right, strict, and in constant memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minilong.errors import UserError
from minilong.text.corpus import END, WordCounts, keep_probability, read_corpus
from minilong.text.pieces import pieces_of, units, with_progress


def test_pieces_join_to_the_text_whatever_their_size(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffnaïve\r\n今天\r🙂\n\r".encode())
    for size in (1, 2, 3, 5, 100):
        assert "".join(pieces_of(str(path), size)) == "naïve\n今天\n🙂\n\n"


def test_a_shipped_text_is_read_by_its_name() -> None:
    assert next(units(["persuasion"])).startswith("Persuasion")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"abc\x00", "binary .a NUL at byte offset 3"),
        (b"ab\xff\xfe", "not UTF-8 .at byte offset 2"),
        ("今".encode()[:2], "not UTF-8 .at byte offset 0"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(pieces_of(str(path), 1))


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'sanguo'"):
        list(units(["sanguu"]))
    with pytest.raises(UserError, match="is a folder"):
        list(units([str(tmp_path)]))


def test_units(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One. Two\nthree.\n\n\nFour\n")
    found = {unit: [u.strip() for u in units([str(path)] * 2, unit)] for unit in ("sentence", "line", "paragraph")}
    assert found["sentence"] == ["One.", "Two\nthree.", "Four"] * 2
    assert found["line"] == ["One. Two", "three.", "Four"] * 2
    assert found["paragraph"] == ["One. Two\nthree.", "Four"] * 2
    assert list(units([str(path)], "text")) == [path.read_text()]
    told: list[int] = []
    assert list(with_progress(["é", "b"], told.append)) == ["é", "b"]
    assert told == [2, 3]


def test_words_are_numbered_by_frequency() -> None:
    corpus = read_corpus([["b", "a", "c"], [], ["a", "b", "a"]], 2)
    assert corpus.vocabulary.words == ("a", "b")
    assert corpus.vocabulary.counts.tolist() == [3, 2]
    assert corpus.ids.tolist() == [1, 0, END, END, 0, 1, 0, END]
    assert (corpus.units, corpus.tokens) == (3, 5)


def test_stretches_end_with_units_where_they_can() -> None:
    corpus = read_corpus([["a"] * 3, ["b"] * 2, ["a"] * 9], 1)
    parts = [part.tolist() for part in corpus.stretches(8)]
    assert [len(part) for part in parts] == [7, 8, 2]
    assert [number for part in parts for number in part] == corpus.ids.tolist()


def test_rare_words_are_forgotten_where_there_are_too_many() -> None:
    def text() -> Iterator[list[str]]:
        for i in range(1000):
            yield ["the", f"once{i}", "of"]

    corpus = read_corpus(text(), 1, most=100)
    assert corpus.vocabulary.words[:2] == ("of", "the")
    assert len(corpus.vocabulary) <= 101
    assert corpus.tokens == np.count_nonzero(corpus.ids != END)
    assert corpus.vocabulary.counts[0] == 1000


@pytest.mark.parametrize(("units", "message"), [([["a"]], "no word occurs 2 times"), ([[]], "the text has no words")])
def test_a_text_without_words_is_refused(units: list[list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_corpus(units, 2)


def test_a_long_text_needs_no_more_memory(tmp_path: Path) -> None:
    """Four times the text, of the same words: the peak grows by less than a third of what is added to the file."""

    def peak(lines: int) -> tuple[int, int]:
        path = tmp_path / f"{lines}.txt"
        with path.open("w") as file:
            for i in range(lines):
                file.write(f"The cat number {i % 50} sat on the mat and looked at the dog by the door. It slept.\n")
        tracemalloc.start()
        corpus = read_corpus((s.split() for s in units([str(path)])), 1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert corpus.tokens == 18 * lines
        return found, path.stat().st_size

    (small, size), (large, larger) = peak(15_000), peak(60_000)
    assert larger - size > 3_500_000
    assert large - small < 0.3 * (larger - size), f"{small} bytes at {size}, {large} at {larger}"


def test_thinning_keeps_rare_words() -> None:
    p = keep_probability(np.array([900, 99, 1]), 0.01)
    assert p[2] == 1.0
    assert p[0] == pytest.approx((0.01 / 0.9) ** 0.5 + 0.01 / 0.9)
    assert keep_probability(np.array([5, 5]), 0.0).tolist() == [1.0, 1.0]


def test_a_vocabulary_repeats_nothing() -> None:
    with pytest.raises(ValueError, match="1 distinct"):
        WordCounts(("a", "a"), np.array([1, 1]))
