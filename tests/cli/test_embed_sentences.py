"""`minilong embed sentences`: by word vectors, by runs of every kind; search, files, and bad input in one line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from calling import call, refused
from click.testing import Result

from minilong.train.arrays import arrays_from_bytes, metadata_from_bytes

SENTENCES = ["The cat sat.", "The dog ran!", "It is a cat.", "She saw the dog."]


def sentences(*arguments: str | Path, given: str | None = None) -> Result:
    result = call("embed", "sentences", *arguments, given=given)
    assert result.exit_code == 0, result.output
    return result


wrong = partial(refused, "embed", "sentences")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences")
    (path / "book.txt").write_text("\n\n".join(SENTENCES * 30))
    for task in ("roberta", "t5", "lm"):
        result = call(
            "train", path / "book.txt", "--preset", "tiny", "--task", task, "--steps", "1", "--threads", "1",
            "--quiet", "--out", path / task,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    width = ["--width", "8", "--min-count", "1", "--epochs", "3"]
    for method in ("glove", "doc2vec"):
        result = call("embed", "train", path / "book.txt", "--out", path / method, "--method", method, *width)
        assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize("of", ["roberta", "t5", "lm", "glove", "doc2vec"])
def test_a_sentence_is_nearest_to_itself(folder: Path, of: str) -> None:
    own = ["--query", "It is a cat.", "--count", "2", "--seed", "3"]
    lines = sentences(folder / of, folder / "book.txt", *own).stdout.splitlines()
    assert len(lines) == 2
    if of != "doc2vec":  # which draws anew for each
        assert lines[0] == "1.000  It is a cat."
    assert all(-1 <= float(line.split()[0]) <= 1 for line in lines)
    given = [json.loads(line) for line in sentences(folder / of, folder / "book.txt").stdout.splitlines()]
    assert [line["sentence"] for line in given] == SENTENCES
    assert np.linalg.norm([line["vector"] for line in given], axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_each_pooling_is_another(folder: Path) -> None:
    for of, poolings in {"roberta": ("mean", "first", "max"), "glove": ("mean", "max", "sif")}.items():
        found = [sentences(folder / of, folder / "book.txt", "--pooling", pooling).stdout for pooling in poolings]
        assert len(set(found)) == 3
    run = folder / "roberta"
    assert sentences(run, "-", "--layer", "0", given="a cat\n").stdout != sentences(run, "-", given="a cat\n").stdout


def test_vectors_are_written(folder: Path) -> None:
    out = folder / "new" / "paragraphs.safetensors"
    said = sentences(folder / "roberta", folder / "book.txt", "--unit", "paragraph", "--out", out)
    assert said.stdout == ""
    assert f"wrote 4 vectors of 32 numbers to {out}" in said.stderr
    vectors = arrays_from_bytes(out.read_bytes(), "it")["vectors"]
    about = metadata_from_bytes(out.read_bytes(), "it")
    assert json.loads(about["sentences"]) == SENTENCES
    assert about["pooling"] == "mean"
    printed = sentences(folder / "roberta", folder / "book.txt").stdout.splitlines()
    assert vectors == pytest.approx(np.array([json.loads(line)["vector"] for line in printed]), abs=1e-6)
    assert not list(out.parent.glob(".*"))


def test_bad_input_is_one_line(folder: Path) -> None:
    book = folder / "book.txt"
    assert "has seen no other token" in wrong(folder / "lm", book, "--pooling", "first")
    assert "a run has tokens; take mean" in wrong(folder / "roberta", book, "--pooling", "sif")
    assert "and no layer 7" in wrong(folder / "roberta", book, "--layer", "7")
    assert "--layer is for the folder of a run" in wrong(folder / "glove", book, "--layer", "1")
    assert "Doc2Vec infers" in wrong(folder / "doc2vec", book, "--pooling", "max")
    assert "leave out one of the two" in refused(
        "embed", "sentences", folder / "glove", book, "--query", "a", "--out", "b"
    )
    assert "ask with other words" in wrong(folder / "glove", book, "--query", "Unheard")
    assert "ask with other words" in wrong(folder / "roberta", book, "--query", " ")
    assert "no file" in wrong(folder / "roberta", folder / "absent.txt")
    assert "cannot be written" in wrong(folder / "glove", book, "--out", book / "x")
