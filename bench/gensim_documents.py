"""Vectors of documents beside gensim's Doc2Vec, on two tasks: judgements of people, and halves of chapters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from scipy.stats import spearmanr

from bench.gensim_side import row, timed
from bench.gensim_texts import NOVELS
from minilong.data.corpora import read_text
from minilong.embeddings.descent import Settings
from minilong.embeddings.models import Model, train_vectors
from minilong.embeddings.vectors import normalised
from minilong.text.corpus import read_corpus
from minilong.text.words import tokenizer

DOCUMENT_CASES = {
    "dbow": ({"dm": 0}, Settings(method="dbow")),
    "dm, mean": ({"dm": 1, "dm_mean": 1}, Settings(method="dm", lr=0.075)),
    "dm, concatenation": ({"dm": 1, "dm_concat": 1}, Settings(method="dm-concat")),
}
"""What gensim is told, and what minilong; all else is the same on both sides."""
WIDTH, EPOCHS = 50, 40


class Task(NamedTuple):
    """Documents to train on, the words of new ones, and the score of vectors (n, d): of the new ones if there are any,
    else of those trained."""

    name: str
    documents: list[list[str]]
    new: list[list[str]]
    score: Callable[[np.ndarray], float]


def lee() -> Task:
    """Lee et al. 2005: 300 documents to train on, 50 new ones; Spearman of cosines with people's judgements."""
    from gensim.test.utils import datapath

    cut = tokenizer()
    background, documents = (
        [cut(line) for line in Path(datapath(file)).read_text("latin-1").split("\n") if line.strip()]
        for file in ("lee_background.cor", "lee.cor")
    )
    judged = np.loadtxt(datapath("similarities0-1.txt"))
    above = np.triu_indices(len(documents), 1)

    def score(vectors: np.ndarray) -> float:
        unit = normalised(np.asarray(vectors))
        return float(spearmanr((unit @ unit.T)[above], judged[above]).statistic)

    return Task("Lee", background, documents, score)


def chapters() -> Task:
    """The chapters of the shipped novels, each in two halves: how often the half nearest to a first half, of all second
    halves, is its own."""
    cut = tokenizer()
    halves: list[list[str]] = []
    for novel in NOVELS:
        for chapter in re.split(r"^Chapter \d+$", read_text(novel), flags=re.MULTILINE)[1:]:
            words = cut(chapter)
            halves += [words[: len(words) // 2], words[len(words) // 2 :]]

    def score(vectors: np.ndarray) -> float:
        unit = normalised(np.asarray(vectors))
        nearest = (unit[::2] @ unit[1::2].T).argmax(axis=1)
        return float(np.mean(nearest == np.arange(len(unit) // 2)))

    return Task("halves", halves, [], score)


def compare_documents(name: str, task: Task, seeds: int) -> None:
    """One case on both sides: the scores over seeds, and the speeds of training."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    theirs, ours = DOCUMENT_CASES[name]
    corpus = read_corpus(task.documents, 2)
    words = EPOCHS * corpus.tokens
    their_scores, their_speed, our_scores, our_speed = [], [], [], []
    for seed in range(1, seeds + 1):
        model = Doc2Vec(vector_size=WIDTH, window=5, min_count=2, epochs=EPOCHS, seed=seed, workers=1, **theirs)
        tagged = [TaggedDocument(text, [k]) for k, text in enumerate(task.documents)]
        model.build_vocab(tagged)
        _, speed = timed(partial(model.train, tagged, total_examples=model.corpus_count, epochs=EPOCHS), words)
        their_speed.append(speed)
        their_scores.append(task.score(_vectors_of(model, task.new)))
        settings = replace(ours, width=WIDTH, epochs=EPOCHS, seed=seed)
        found, speed = timed(partial(train_vectors, corpus, settings), words)
        our_speed.append(speed)
        our_scores.append(task.score(_our_vectors(found, task.new, seed)))
        click.echo(f"{task.name}, {name}: {seed} of {seeds} seeds", err=True)
    row(f"{task.name}: {name}", "gensim", their_scores, their_speed)
    row(f"{task.name}: {name}", "minilong", our_scores, our_speed)


def _vectors_of(model: Any, new: list[list[str]]) -> np.ndarray:
    """gensim's vectors of new documents, or of those it was trained on."""
    if not new:
        return np.asarray(model.dv.vectors)
    return np.stack([model.infer_vector(text, epochs=50) for text in new])


def _our_vectors(model: Model, new: list[list[str]], seed: int) -> np.ndarray:
    return model.infer(new, epochs=50, seed=seed) if new else model.tables["documents"]
