"""The comparison with gensim compares what it says: its reference of GloVe, its tasks, its tables."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("gensim")

from bench.gensim_beside import main
from bench.gensim_documents import Task, chapters, compare_documents
from bench.gensim_texts import words_of
from bench.glove_reference import reference
from minilong.embeddings.cooccurrence import Cooccurrence, count_pairs
from minilong.embeddings.glove import GloveSettings, train_glove
from minilong.text.corpus import read_corpus

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]


def loop(counts: Cooccurrence, width: int, epochs: int, seed: int) -> np.ndarray:
    """The reference once more, in Python."""
    pairs = [(int(i), int(j), float(x)) for i, j, x in zip(*counts.part(slice(None)), strict=True)]
    pairs += [(j, i, x) for i, j, x in pairs if i != j]
    rng = np.random.default_rng(seed)
    w, c = ((rng.random((counts.size, width + 1)) - 0.5) / (width + 1) for _ in range(2))
    ws, cs = np.ones_like(w), np.ones_like(c)
    for _ in range(epochs):
        for i, j, x in (pairs[k] for k in rng.permutation(len(pairs))):
            pull = min(1.0, (x / 100) ** 0.75) * (w[i, :-1] @ c[j, :-1] + w[i, -1] + c[j, -1] - math.log(x))
            gw, gc = pull * np.append(c[j, :-1], 1), pull * np.append(w[i, :-1], 1)
            w[i] -= 0.05 * gw / np.sqrt(ws[i])
            c[j] -= 0.05 * gc / np.sqrt(cs[j])
            ws[i] += gw**2
            cs[j] += gc**2
    return w[:, :-1] + c[:, :-1]


def test_the_reference_of_glove_is_the_papers_and_ours_comes_near() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    rng = np.random.default_rng(0)
    corpus = read_corpus([[f"w{i}" for i in np.minimum(rng.geometric(0.15, 30), 20)] for _ in range(40)], 1)
    counts = count_pairs(corpus, 4)
    assert np.allclose(reference(counts, 5, 3, 1), loop(counts, 5, 3, 1), rtol=0, atol=1e-12)
    theirs = reference(counts, 8, 100, 1)
    ours = train_glove(counts, GloveSettings(width=8, epochs=100, batch=16)).vectors
    agree = np.corrcoef((theirs @ theirs.T).ravel(), (ours @ ours.T).ravel())[0, 1]
    assert agree > 0.9, agree


def test_no_sentence_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("The cat sat.\nA dog.\nthe cat sat\nword\n")
    assert words_of([str(tmp_path / "text")], dictionaries=False) == [["the", "cat", "sat"], ["a", "dog"]]


def test_halves_of_chapters_are_told_apart_by_what_they_share() -> None:
    task = chapters()
    assert len(task.documents) == 2 * (61 + 24)
    assert not any("chapter" in half[:2] for half in task.documents)
    chapter = np.repeat(np.eye(85), 2, axis=0)
    assert task.score(chapter) == 1.0
    assert task.score(np.roll(chapter, 1, axis=0)) < 0.05


def test_a_case_is_printed_for_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["the king and the queen of france", "water and bread for the king", "a computer for the queen"] * 30
    (tmp_path / "text").write_text("\n".join(f"{line} {k % 7}" for k, line in enumerate(lines)))
    (tmp_path / "pairs").write_text("king\tqueen\t9\nking\twater\t2\nking\tcomputer\t1\n")
    given = ["--text", str(tmp_path / "text"), "--pairs", str(tmp_path / "pairs"), "--seeds", "1", "--epochs", "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(main, [*given, "--case", "cbow, negatives", "--case", "speed", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert [line.split()[2] for line in result.stdout.splitlines() if line.startswith("cbow")] == ["gensim", "minilong"]
    assert "king: " in result.output
    assert "of gensim by the clock" in result.output
    compare_documents("dbow", Task("same", [["a", "b"], ["b", "a"]] * 5, [], lambda vectors: float(len(vectors))), 1)
    assert capsys.readouterr().out.count("10.000 to 10.000") == 2
