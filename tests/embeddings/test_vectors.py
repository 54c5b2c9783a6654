"""Vectors and what is asked of them, files of pairs and analogies, the text format, the folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.embeddings import store
from minilong.embeddings.descent import Settings
from minilong.embeddings.models import train_vectors
from minilong.embeddings.pairs import agreement, answer
from minilong.embeddings.plot import picture
from minilong.embeddings.pooling import pool_words
from minilong.embeddings.text_format import read_text_vectors, write_text
from minilong.embeddings.vectors import Vectors
from minilong.errors import UserError
from minilong.text.corpus import WordCounts, read_corpus

ROYAL = Vectors(
    ("man", "woman", "king", "queen", "apple"),
    np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [-1, -1, 0.1]], np.float32),
)


def test_neighbours_and_analogies() -> None:
    assert [word for word, _ in ROYAL.nearest("king", 2)] == ["man", "queen"]
    assert ROYAL.analogy("man", "woman", "king", 1)[0][0] == "queen"
    assert len(ROYAL.nearest("king", 99)) == 4
    with pytest.raises(UserError, match="did you mean 'queen'"):
        ROYAL.nearest("quean")


def test_the_mean_of_a_sentence() -> None:
    mean, largest = (pool_words(ROYAL.unit, [np.array([0, 1]), np.zeros(0, int)], how) for how in ("mean", "max"))
    assert mean[0] == pytest.approx(np.array([0.5**0.5, 0.5**0.5, 0]))
    assert largest[0] == pytest.approx(np.array([0.5**0.5, 0.5**0.5, 0]))
    assert not mean[1].any()


def test_agreement_with_a_file_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("# words\nMan\tking\t9\nman\twoman\t5\nman\tapple\t1\n\nman\tpear\t3\n")
    found = agreement(ROYAL, str(path))
    assert (found.spearman, found.pairs, found.missing) == (1.0, 3, 1)
    path.write_text("man,king,1\nman,woman,5\n")
    assert agreement(ROYAL, str(path)).spearman == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("man\tking\n", "line 1 of .* write two words and a number"),
        ("man\tking\thigh\n", "write two words and a number"),
        ("man\tking\tnan\n", "write two words and a number"),
        ("man\tpear\t1\n", "0 of 1 pairs"),
        ("man\tking\t1\nman\twoman\t1\n", "judged alike"),
    ],
)
def test_a_bad_file_of_pairs_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        agreement(ROYAL, str(path))


def test_a_file_of_analogies(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text(": royal\nMan woman king queen\nman king woman queen\n: odd\nman woman king apple\nman a b c\n")
    found = answer(ROYAL, str(path))
    assert found.sections == (("royal", 2, 2), ("odd", 0, 1))
    assert (found.right, found.asked, found.missing) == (2, 3, 1)
    path.write_text("man woman\n")
    with pytest.raises(UserError, match="has 2 words; write four"):
        answer(ROYAL, str(path))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_text_format_keeps_every_bit(tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, d: int) -> None:
    path = tmp_path_factory.getbasetemp() / "vectors.txt"
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(n, d)) * 10.0 ** rng.integers(-30, 30, (n, d))).astype(np.float32)
    vectors = Vectors(tuple(["the", "今", "#", "don't"][:n]), matrix)
    write_text(vectors, path)
    again = read_text_vectors(path)
    assert again.words == vectors.words
    assert np.array_equal(again.matrix, matrix)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 of .* must give the numbers"),
        ("2\n", "must give the numbers"),
        ("0 3\n", "must give the numbers"),
        ("1 2\na 1\n", "has 1 numbers behind its word, and the first line promises 2"),
        ("1 2\na 1 2 3\n", "has 3 numbers"),
        ("2 1\na 1\na 2\n", "line 3 .* repeats the word 'a'"),
        ("1 1\n 1\n", "has no word"),
        ("1 1\na x\n", "no number"),
        ("1 1\na nan\n", "not finite"),
        ("1 1\na 1e39\n", "beyond single precision"),
        ("2 1\na 1\n", "ends after 1 words, and its first line promises 2"),
        ("1 1\na 1\nb 1\n", "line 3 .* one too many"),
    ],
)
def test_a_bad_text_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_text_vectors(path)


def test_words_with_white_space_have_no_place_in_the_text_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="white space"):
        write_text(Vectors(("a b",), np.ones((1, 2), np.float32)), tmp_path / "x")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"1 2\na \xff\xff\xff\xff")
    with pytest.raises(UserError, match="binary format is not read"):
        read_text_vectors(path)


# The folder


WORDS = WordCounts(("a", "b"), np.array([3, 1]))


def test_a_folder_comes_back(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    store.save(tmp_path / "v", {"vectors": matrix}, WORDS, {"kind": "glove"})
    found = store.load(tmp_path / "v")
    assert found.vectors.words == WORDS.words
    assert np.array_equal(found.vectors.matrix, matrix)
    assert found.counts.tolist() == [3, 1]
    assert found.about == {"kind": "glove"}
    assert found.model is None
    with pytest.raises(UserError, match="exists already"):
        store.save(tmp_path / "v", {"vectors": matrix}, WORDS, {})


def test_a_place_that_cannot_be_written_is_known_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file', which is no folder"):
        store.check_free(tmp_path / "file" / "deep" / "v")
    store.check_free(tmp_path / "new" / "v")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="may not be written to"):
        store.check_free(tmp_path / "v")


@pytest.mark.parametrize("method", ["dbow", "dm", "dm-concat"])
def test_a_model_of_documents_infers_alike_when_it_comes_back(tmp_path: Path, method: str) -> None:
    corpus = read_corpus([["a", "b", "c", "a"], ["c", "a", "b"]] * 5, 1)
    model = train_vectors(corpus, Settings(method=method, width=4, window=2, epochs=2, size=4, batch=2, shared=4))
    store.save_model(tmp_path / "v", model, {})
    found = store.load(tmp_path / "v")
    assert found.model is not None
    assert np.array_equal(found.model.infer([["a", "c"]]), model.infer([["a", "c"]]))
    assert found.documents is not None
    assert np.array_equal(found.documents, model.tables["documents"])


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(disk: object, path: Path, data: bytes) -> None:
        if path.name == store.WORDS:
            raise KeyboardInterrupt
        path.write_bytes(data)

    monkeypatch.setattr(store, "write_file", full)
    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path / "v", {"vectors": np.ones((2, 3), np.float32)}, WORDS, {})
    assert not list(tmp_path.iterdir())


DAMAGE = {
    "no words": (store.WORDS, None, "is missing"),
    "a word without a count": (store.WORDS, b"a\nb\t1\n", "line 1 of .* is no word with a count"),
    "a word too few": (store.WORDS, b"a\t3\n", "1 words, and vectors of the shape"),
    "a repeated word": (store.WORDS, b"a\t3\na\t1\n", "repeats a word"),
    "no UTF-8": (store.WORDS, b"\xff\t3\nb\t1\n", "not UTF-8"),
    "cut off": (store.ARRAYS, b"\x08\x00", "not a whole safetensors file"),
    "no arrays": (store.ARRAYS, None, "holds no vectors.safetensors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    file, data, message = DAMAGE[name]
    store.save(tmp_path / "v", {"vectors": np.ones((2, 3), np.float32)}, WORDS, {})
    path = tmp_path / "v" / file
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        store.load(tmp_path / "v")


def test_a_model_whose_tables_do_not_fit_is_refused(tmp_path: Path) -> None:
    corpus = read_corpus([["a", "b", "c"]] * 5, 1)
    model = train_vectors(corpus, Settings(method="dbow", width=4, epochs=1))
    about = {name: json.dumps(value) for name, value in model.settings.__dict__.items()}
    tables = {"documents": model.tables["documents"], "outputs": model.tables["outputs"][:2]}
    store.save(tmp_path / "v", tables, corpus.vocabulary, about)
    with pytest.raises(UserError, match="tables do not fit its settings"):
        store.load(tmp_path / "v")
    store.save(tmp_path / "w", tables, corpus.vocabulary, {})
    with pytest.raises(UserError, match="it lacks 'method'"):
        store.load(tmp_path / "w")


def test_a_picture_has_its_words() -> None:
    pytest.importorskip("matplotlib")
    assert picture(ROYAL, ["man", "king", "queen"]).startswith(b"\x89PNG")
    with pytest.raises(UserError, match="give 3 or more"):
        picture(ROYAL, ["man"])
