"""`minilong bench retrieval`: all methods in one go, kept, and shown anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import call, refused

from minilong.data.corpora import read_text
from minilong.experiments.retrieval import ENCODERS, WORDS


def test_a_quick_run_compares_all_methods(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "book.txt").write_text(read_text("persuasion")[:30_000])
    quick = ["--quick", "--jobs", "2", "--out", tmp_path / "out"]
    result = call("bench", "retrieval", tmp_path / "book.txt", *quick)
    assert result.exit_code == 0, result.output
    assert "7 methods, 2 at once" in result.stderr
    assert "chance" in result.stdout
    assert "the best of all is" in result.stdout
    kept = json.loads((tmp_path / "out/results.json").read_text())
    assert {c["settings"]["method"] for c in kept["cells"]} == {*ENCODERS, *WORDS, "doc2vec", "tf-idf"}
    again = call("bench", "retrieval", tmp_path / "book.txt", *quick)
    assert "7 are there from before" in again.stderr
    assert again.stdout == result.stdout == call("bench", "retrieval", "--replot", "--out", tmp_path / "out").stdout
    assert "cannot be given; leave it out" in refused("bench", "retrieval", *quick, "--replot")
