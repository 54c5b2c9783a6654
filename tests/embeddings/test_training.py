"""Training word and document vectors: what is learnt, and that threads and seeds do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from minilong.embeddings.cooccurrence import count_pairs
from minilong.embeddings.descent import METHODS, Progress, Settings, descend
from minilong.embeddings.glove import GloveSettings, train_glove
from minilong.embeddings.huffman import huffman
from minilong.embeddings.models import Model, train_vectors
from minilong.embeddings.vectors import Vectors
from minilong.errors import Diverged, UserError
from minilong.text.corpus import WordCorpus, read_corpus

TOPICS = (("sun", "moon", "star", "sky", "night"), ("bread", "salt", "oil", "wine", "cheese"))
SMALL = Settings(width=12, window=3, epochs=12, lr=0.05, sample=0, size=8, batch=8, shared=8)


@pytest.fixture(scope="module")
def corpus() -> WordCorpus:
    """Documents of one of two topics, whose words never meet."""
    rng = np.random.default_rng(0)
    return read_corpus([[TOPICS[k % 2][i] for i in rng.integers(0, 5, 25)] for k in range(60)], 1)


def apart(vectors: Vectors) -> bool:
    """Whether the four nearest words of each word are those of its topic."""
    return all(
        {word for word, _ in vectors.nearest(word, 4)} == set(topic) - {word} for topic in TOPICS for word in topic
    )


def changed(**changes: object) -> Settings:
    return Settings(**{**SMALL.__dict__, **changes})


@pytest.mark.parametrize("negatives", [5, 0])
@pytest.mark.parametrize("method", ["skip-gram", "cbow"])
def test_words_of_a_topic_come_together(corpus: WordCorpus, method: str, negatives: int) -> None:
    model = train_vectors(corpus, changed(method=method, negatives=negatives))
    assert apart(Vectors(corpus.vocabulary.words, model.tables["words"]))


@pytest.mark.parametrize("method", ["dbow", "dm", "dm-concat"])
def test_documents_of_a_topic_come_together(corpus: WordCorpus, method: str) -> None:
    model = train_vectors(corpus, changed(method=method, epochs=30))
    x = model.tables["documents"] - model.tables["documents"].mean(axis=0)
    first = np.linalg.svd(x, full_matrices=False)[0][:, 0]
    if method == "dbow":
        assert len(set(np.sign(first[::2]))) == len(set(np.sign(first[1::2]))) == 1
        assert np.sign(first[0]) != np.sign(first[1])
    assert np.isfinite(x).all()
    assert set(model.tables) == {"outputs", *METHODS[method].tables}


def test_glove_brings_words_of_a_topic_together(corpus: WordCorpus) -> None:
    counts = count_pairs(corpus, 5)
    losses: list[float] = []
    found = train_glove(
        counts, GloveSettings(width=6, epochs=60, batch=16), report=lambda done, of, loss, seconds: losses.append(loss)
    )
    assert apart(Vectors(corpus.vocabulary.words, found.vectors))
    assert losses[-1] < 0.1


def test_the_number_of_threads_changes_no_bit(corpus: WordCorpus) -> None:
    for method in ("skip-gram", "dm"):
        one, two = (train_vectors(corpus, changed(method=method, epochs=2), threads=n) for n in (1, 2))
        for name, table in one.tables.items():
            assert np.array_equal(table, two.tables[name])


def test_a_seed_repeats_and_another_does_not(corpus: WordCorpus) -> None:
    tables = [train_vectors(corpus, changed(epochs=1, seed=seed)).tables["words"] for seed in (1, 1, 2)]
    assert np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


def test_progress_is_told_and_the_loss_falls(corpus: WordCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilong.embeddings.descent.INTERVAL", 0.0)
    told: list[Progress] = []
    train_vectors(corpus, SMALL, report=told.append)
    assert [p.words for p in told] == sorted(p.words for p in told)
    assert told[-1].words == told[-1].total == SMALL.epochs * corpus.tokens
    losses = [p.loss for p in told[:-1]]
    assert losses[0] == pytest.approx(np.log(2) * 6 - np.log(2) * 5 / 10, rel=0.15)  # one in ten draws is the centre
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_a_diverging_run_ends_in_one_line(corpus: WordCorpus) -> None:
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="lower --lr"):
        train_vectors(corpus, changed(lr=1e30, epochs=400))


def test_a_run_that_diverges_between_two_reports_gives_no_vectors(corpus: WordCorpus) -> None:
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="lower --lr"):
        train_vectors(corpus, changed(lr=1e30, epochs=1))
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="lower --lr"):
        train_glove(count_pairs(corpus, 5), GloveSettings(width=6, epochs=2, lr=1e30))


def test_one_word_is_no_vocabulary() -> None:
    with pytest.raises(UserError, match="one word only"):
        train_vectors(read_corpus([["a", "a"]], 1), SMALL)


def test_an_interrupt_passes_through(corpus: WordCorpus) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_vectors(corpus, SMALL, report=stop)


def test_frozen_tables_stay(corpus: WordCorpus) -> None:
    model = train_vectors(corpus, changed(method="dm", epochs=1))
    tables = {name: table.copy() for name, table in model.tables.items()}
    descend(corpus, tables, model.output, SMALL.__class__(**{**SMALL.__dict__, "method": "dm"}), learned=["documents"])
    for name, table in model.tables.items():
        assert np.array_equal(tables[name], table) == (name != "documents")


def test_only_models_of_documents_infer(corpus: WordCorpus) -> None:
    model = train_vectors(corpus, changed(epochs=1))
    with pytest.raises(ValueError, match="no vectors of documents"):
        model.infer([["sun"]])
    dbow = train_vectors(corpus, changed(method="dbow", epochs=1))
    assert dbow.infer([]).shape == (0, 12)
    assert isinstance(dbow, Model)


def test_the_tree_of_many_words_is_made_at_once() -> None:
    counts = np.maximum(1_000_000 // np.arange(1, 50_001), 1)
    tree = huffman(counts)
    assert tree.lengths[0] <= 4
    assert tree.lengths.max() < 32
    assert tree.nodes.max() == tree.inner - 1 == 49_998
    assert np.sum(0.5 ** tree.lengths.astype(float)) == pytest.approx(1.0)
