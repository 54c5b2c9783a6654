"""Our text format and gensim's are one, and from the same words both find the same neighbours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.embeddings.text_format import read_text_vectors, write_text
from minilong.embeddings.vectors import Vectors

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def keyed_vectors() -> Any:
    """gensim's class of vectors, whose import warns of other libraries."""
    pytest.importorskip("gensim")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gensim.models import KeyedVectors

    return KeyedVectors


def test_gensim_reads_what_we_write_and_answers_alike(keyed_vectors: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours = Vectors(tuple(f"w{i}" for i in range(40)), rng.normal(size=(40, 6)).astype(np.float32))
    write_text(ours, tmp_path / "ours.txt")
    theirs = keyed_vectors.load_word2vec_format(str(tmp_path / "ours.txt"))
    assert np.array_equal(theirs.vectors, ours.matrix)
    for word in ("w0", "w7"):
        assert [w for w, _ in theirs.most_similar(word, topn=5)] == [w for w, _ in ours.nearest(word, 5)]
    analogy = theirs.most_similar(positive=["w2", "w3"], negative=["w1"], topn=5)
    assert [w for w, _ in analogy] == [w for w, _ in ours.analogy("w1", "w2", "w3", 5)]
    assert [c for _, c in analogy] == pytest.approx([c for _, c in ours.analogy("w1", "w2", "w3", 5)], abs=1e-5)


def test_we_read_what_gensim_writes(keyed_vectors: Any, tmp_path: Path) -> None:
    theirs = keyed_vectors(vector_size=3)
    theirs.add_vectors(["the", "今"], np.array([[0.1, -2.5e-8, 3], [1, 2, 1e20]], np.float32))
    theirs.save_word2vec_format(str(tmp_path / "theirs.txt"))
    ours = read_text_vectors(tmp_path / "theirs.txt")
    assert ours.words == ("the", "今")
    assert np.array_equal(ours.matrix, theirs.vectors)
