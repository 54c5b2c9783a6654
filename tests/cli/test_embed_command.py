"""`minilong embed`: vectors are trained, asked, drawn, exported; bad input is one line, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from minilong.cli import main

TRAIN = ["--width", "8", "--min-count", "1", "--epochs", "3"]


def call(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["embed", *map(str, arguments)], prog_name="minilong", input=stdin)


def done(*arguments: str | Path, stdin: str | None = None) -> Result:
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(0)
    topics = ["The sun and the moon light the sky.", "We ate bread with salt and oil.", "A cat sat by the door."]
    (path / "book.txt").write_text("\n\n".join(" ".join([topics[i]] * 3) for i in rng.integers(0, 3, 60)))
    done("train", path / "book.txt", "--out", path / "words", *TRAIN, "--epochs", "80", "--lr", "0.1")
    return path


@pytest.fixture(scope="module")
def documents(folder: Path) -> Path:
    method = ["--method", "doc2vec", "--lr", "0.1"]
    done("train", folder / "book.txt", "--out", folder / "documents", *method, *TRAIN, "--epochs", "30")
    return folder / "documents"


def test_training_says_what_it_did(folder: Path) -> None:
    result = done("train", folder / "book.txt", "--out", folder / "said", *TRAIN)
    lines = result.stderr.splitlines()
    assert lines[0] == "vocabulary  17 words, 1.3k occurrences, 180 sentences"
    assert "words/s" in lines[1]
    assert lines[-1].endswith(f"saved in {folder / 'said'}")
    assert sorted(p.name for p in (folder / "said").iterdir()) == ["vectors.safetensors", "vocabulary.txt"]
    assert (folder / "said/vocabulary.txt").read_text().startswith("the\t")
    quiet = done("train", folder / "book.txt", "--out", folder / "quiet", *TRAIN, "--quiet")
    assert quiet.output == ""
    for file in ("vocabulary.txt", "vectors.safetensors"):
        assert (folder / "said" / file).read_bytes() == (folder / "quiet" / file).read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--algorithm", "cbow", "--stop-words", "en"],
        ["--negatives", "0", "--keep-case"],
        ["--method", "glove", "--unit", "line"],
        ["--method", "doc2vec", "--algorithm", "dm"],
    ],
    ids=lambda options: "-".join(options).replace("--", ""),
)
def test_each_method_trains_and_is_asked(folder: Path, options: list[str]) -> None:
    out = folder / "-".join(options)
    done("train", folder / "book.txt", "--out", out, *TRAIN, *options)
    found = json.loads(done("nearest", out, "moon", "--count", "3", "--json").stdout)
    assert len(found) == 3
    assert all(-1 <= one["cosine"] <= 1 and one["word"] != "moon" for one in found)


def test_the_vectors_are_asked(folder: Path) -> None:
    vectors = folder / "words"
    assert len(done("nearest", vectors, "sun").stdout.splitlines()) == 10
    assert len(done("analogy", vectors, "sun", "moon", "bread", "--count", "2").stdout.splitlines()) == 2
    (folder / "pairs.tsv").write_text("sun\tmoon\t9\nsun\tbread\t1\nsalt\toil\t8\nsun\tplanet\t5\n")
    said = done("similarity", vectors, folder / "pairs.tsv").stdout
    assert "over 3 pairs; 1 of 4 (25%)" in said
    assert json.loads(done("similarity", vectors, folder / "pairs.tsv", "--json").stdout)["missing"] == 1
    (folder / "questions.txt").write_text(": all\nsun moon bread salt\n")
    assert "section" in done("analogy", vectors, "--file", folder / "questions.txt").stdout
    asked = json.loads(done("analogy", vectors, "--file", folder / "questions.txt", "--json").stdout)
    assert (asked["asked"], asked["missing"]) == (1, 0)


def test_sentences_by_words_and_by_documents(folder: Path, documents: Path) -> None:
    for vectors in (folder / "words", documents):
        found = done("sentences", vectors, folder / "book.txt", "--query", "sun moon sky light", "--count", "1").stdout
        assert "The sun and the moon" in found
        lines = done("sentences", vectors, "-", stdin="The sun.\nUnheard.\n").stdout.splitlines()
        sun, nothing = (json.loads(line) for line in lines)
        assert sun["sentence"] == "The sun."
        assert np.linalg.norm(sun["vector"]) == pytest.approx(1.0, abs=1e-5)
        assert not np.any(nothing["vector"])
    assert "ask with other words" in refused("sentences", documents, folder / "book.txt", "--query", "Unheard")


def test_export_and_the_way_back(folder: Path) -> None:
    done("export", folder / "words", folder / "words.txt")
    assert (folder / "words.txt").read_text().startswith("17 8\nthe ")
    for vectors in (folder / "words", folder / "words.txt"):
        assert (
            done("nearest", vectors, "sun", "--json").stdout
            == done("nearest", folder / "words", "sun", "--json").stdout
        )


def test_a_picture(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    done("plot", folder / "words", "--out", folder / "words.png")
    assert (folder / "words.png").read_bytes().startswith(b"\x89PNG")
    done("plot", folder / "words", "sun", "moon", "oil", "--out", folder / "three.png")


def test_bad_input_is_one_line(folder: Path, documents: Path) -> None:
    book, new = folder / "book.txt", folder / "new"
    assert "exists already" in refused("train", book, "--out", folder / "words")
    assert "no algorithm of word2vec; take skip-gram or cbow" in refused(
        "train", book, "--out", new, "--algorithm", "dm"
    )
    glove = refused("train", book, "--out", new, "--method", "glove", "--negatives", "3")
    assert "--negatives does not belong to glove" in glove
    assert "no word occurs 10000 times" in refused("train", book, "--out", new, "--min-count", "10000")
    assert "no file" in refused("train", folder / "absent.txt", "--out", new)
    assert "did you mean" in refused("nearest", folder / "words", "sunn")
    assert "holds no vectors.safetensors" in refused("nearest", folder, "sun")
    assert "documents only" in refused("nearest", documents, "sun")
    assert "give three words, or --file" in refused("analogy", folder / "words")
    assert "not a finite number" in refused("train", book, "--out", new, "--lr", "inf")
    assert not new.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_interrupt_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder / "book.txt"), "--out", str(tmp_path / "out"), "--epochs", "10000", "--min-count", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "minilong", "embed", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("vocabulary")
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == "minilong: error: interrupted"
    assert not list(tmp_path.iterdir())
