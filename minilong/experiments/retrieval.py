"""What vectors of sentences find: those of trained encoders beside means of word vectors, Doc2Vec, and TF-IDF.

Two searches in text that no training has read (`retrieval_tasks.py`): the passage that follows a passage, and the
second half of a sentence by its first. Everything learnt is learnt from the same text, by the shipped presets and
defaults; TF-IDF counts the searched texts themselves. Each method is shown with several ways to pool, and with and
without what all of its vectors share, so that no method loses by a pooling that another one is spared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import minilong
from minilong.data.corpora import read_texts, split_text
from minilong.embeddings.pooling import common_direction, pool_words, smooth_means, without
from minilong.embeddings.search import Retrieved, ranks
from minilong.embeddings.sentence_vectors import run_vectors
from minilong.embeddings.vectors import normalised
from minilong.errors import UserError
from minilong.experiments.cells import Cell
from minilong.experiments.retrieval_tasks import Search, searches
from minilong.experiments.training import digest, rounded
from minilong.keys import Key
from minilong.models.build import build
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun, load
from minilong.train.presets import layered
from minilong.train.session import start

NAME = "retrieval"
HELD_OUT = 0.2
ENCODERS = ("roberta", "mlm", "t5")
WORDS = ("glove", "word2vec")
Encode = Callable[[Sequence[str]], np.ndarray]
Variants = dict[str, Encode]


@dataclass(frozen=True)
class Sizes:
    """What a run of the experiment trains and asks. steps: of encoders (0: those of the preset). epochs: of words and
    documents. words: of a passage; a sentence that is halved has half as many, or more. most: candidates."""

    steps: int = 0
    width: int = 100
    epochs: int = 30
    words: int = 40
    most: int = 1000

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))


QUICK = Sizes(steps=4, width=8, epochs=1, words=12, most=60)
"""Seconds instead of minutes: the machinery works, the numbers mean nothing."""


def cells(texts: Sequence[str], sizes: Sizes, seeds: int, runs: Sequence[str] = ()) -> list[Cell]:
    """One cell for each method and seed, the long ones first; runs: folders of trained runs to compare as they are."""
    contents = read_texts(texts)
    _, held_out = parts(contents)
    for name, search in searches(held_out, sizes.words, sizes.most).items():
        if len(search.queries) < 10:
            raise UserError(
                f"the held-out end of the text has {len(search.queries)} queries of {name!r}; give more text"
            )
    shared = {"texts": list(texts), "digest": digest(contents), "version": minilong.__version__, **sizes.settings()}
    once = [("tf-idf", "", 0.1), *(("run", str(run), 0.5) for run in runs)]
    drawn = [*((name, "", 8.0) for name in ENCODERS), *((name, "", 1.0) for name in (*WORDS, "doc2vec"))]
    found = []
    for seed in range(1, seeds + 1):
        for method, run, weight in [*drawn, *(once if seed == 1 else [])]:
            settings = {**shared, "method": method, "seed": seed} | ({"run": run} if run else {})
            name = f"{Path(run).name if run else method}, seed {seed}"
            found.append(Cell(name, f"{__name__}:compute", settings, weight))
    return found


def parts(contents: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is learnt of some texts, and their ends, which are searched."""
    both = [split_text(content, HELD_OUT) for content in contents]
    return [learnt for learnt, _ in both], [held_out for _, held_out in both]


def compute(settings: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Train one method, and search: for each way to pool and each search, `at_1`, `at_10` and `reciprocal`, and what
    chance reaches."""
    contents = read_texts(settings["texts"])
    if digest(contents) != settings["digest"]:
        raise UserError("the text has changed since the experiment began; start it anew with another --out")
    sizes = Sizes(**{key: settings[key] for key in vars(Sizes())})
    learnt, held_out = parts(contents)
    method, seed = settings["method"], settings["seed"]
    if method in ENCODERS:
        variants = _encoder(method, settings["texts"], sizes, seed, report)
    elif method == "run":
        variants = _pooled(load(Path(settings["run"])))
    elif method == "doc2vec":
        variants = _documents(learnt, sizes, seed)
    elif method == "tf-idf":
        variants = {"words": tf_idf}
    else:
        variants = _words(method, learnt, sizes, seed)
    asked = searches(held_out, sizes.words, sizes.most)
    found = {
        name: {task: vars(Retrieved.of(places(encode, search))) for task, search in asked.items()}
        for name, encode in variants.items()
    }
    chance = {task: vars(Retrieved.by_chance(len(s.candidates) - (s.own is not None))) for task, s in asked.items()}
    counts = {task: [len(s.queries), len(s.candidates)] for task, s in asked.items()}
    result: dict[str, Any] = rounded({"variants": found, "chance": chance, "counts": counts})
    return result


def places(encode: Encode, search: Search) -> np.ndarray:
    """The places of the right answers, by the cosines of vectors. Candidates and queries are encoded together, each
    text once, so that what they share is told from all of them."""
    index = {text: row for row, text in enumerate(dict.fromkeys([*search.candidates, *search.queries]))}
    every = encode(tuple(index))
    queries, candidates = ([index[text] for text in texts] for texts in (search.queries, search.candidates))
    return ranks(every[queries] @ every[candidates].T, search.right, search.own)


def less_common(encode: Encode, texts: Sequence[str]) -> np.ndarray:
    """The vectors of an encoding, less their common direction."""
    every = encode(texts)
    return without(every, common_direction(every))


def _pooled(loaded: LoadedRun) -> Variants:
    """Ways to pool a run's states."""
    mean = lru_cache(maxsize=1)(partial(run_vectors, loaded))  # of the search at hand, for two ways
    found: Variants = {"mean": mean, "mean, less common": partial(less_common, mean)}
    if loaded.config.model.kind == "encoder":
        found["first"] = partial(run_vectors, loaded, pooling="first")
    found["max"] = partial(run_vectors, loaded, pooling="max")
    half = loaded.config.model.layers // 2
    found[f"mean of layer {half}"] = partial(run_vectors, loaded, layer=half)
    return found


def _encoder(name: str, texts: Sequence[str], sizes: Sizes, seed: int, report: Callable[[float], None]) -> Variants:
    """A preset, trained on all but the ends of the texts, and the same model before it has learnt anything."""
    config = encoder_config(name, texts, sizes, seed)
    with tempfile.TemporaryDirectory() as folder:
        session = start(config, Path(folder) / "run")
        tokenizer = session.source.tokenizer
        session.run(lambda progress: report(progress.step / progress.steps), lambda: False)
        loaded = load(Path(folder) / "run")
    fresh = build(config.model, tokenizer.size, Key.of(seed))
    untrained = LoadedRun(config, fresh, tokenizer, 0)
    return {**_pooled(loaded), "untrained mean": partial(run_vectors, untrained)}


def encoder_config(name: str, texts: Sequence[str], sizes: Sizes, seed: int) -> RunConfig:
    """The preset with the experiment's texts, held-out share and seed, on one thread."""
    options = {"text": tuple(texts), "validation": HELD_OUT, "seed": seed, "threads": 1}
    return layered(preset=name, options=options | ({"steps": sizes.steps} if sizes.steps else {}))


def _words(method: str, learnt: Sequence[str], sizes: Sizes, seed: int) -> Variants:
    """Word vectors: means, with and without stop words, smooth means."""
    from minilong.text.words import stop_words, tokenizer

    words, matrix, counts = train_words(method, learnt, sizes, seed)
    index, cut, grammar = {word: i for i, word in enumerate(words)}, tokenizer(), stop_words("en") | stop_words("zh")
    unit = normalised(matrix)

    def rows(texts: Sequence[str], stop: frozenset[str] = frozenset()) -> list[np.ndarray]:
        return [np.array([index[w] for w in cut(text) if w in index and w not in stop], np.int64) for text in texts]

    def mean(texts: Sequence[str]) -> np.ndarray:
        return pool_words(unit, rows(texts), "mean")

    def smooth(texts: Sequence[str]) -> np.ndarray:
        return smooth_means(matrix, counts, rows(texts))

    return {
        "mean": mean,
        "mean, less common": partial(less_common, mean),
        "mean without stop words": lambda texts: pool_words(unit, rows(texts, grammar), "mean"),
        "SIF": partial(less_common, smooth),
    }


def train_words(
    method: str, learnt: Sequence[str], sizes: Sizes, seed: int
) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """Words, vectors (V, d) and counts, by the defaults of `minilong embed train`."""
    from minilong.embeddings.cooccurrence import count_pairs
    from minilong.embeddings.descent import Settings
    from minilong.embeddings.glove import GloveSettings, train_glove
    from minilong.embeddings.models import train_vectors
    from minilong.text.corpus import read_corpus
    from minilong.text.sentences import split_sentences
    from minilong.text.words import tokenizer

    cut = tokenizer()
    corpus = read_corpus((cut(sentence) for text in learnt for sentence in split_sentences(text)), min_count=5)
    if method == "glove":
        glove = GloveSettings(sizes.width, sizes.epochs, seed=seed)
        matrix = train_glove(count_pairs(corpus, 10), glove).vectors
    else:
        matrix = train_vectors(corpus, Settings(width=sizes.width, epochs=sizes.epochs, seed=seed)).tables["words"]
    return corpus.vocabulary.words, matrix, corpus.vocabulary.counts


def _documents(learnt: Sequence[str], sizes: Sizes, seed: int) -> Variants:
    """Doc2Vec of passages as long as those that are searched; the vectors of these are inferred."""
    from minilong.embeddings.descent import Settings
    from minilong.embeddings.models import train_vectors
    from minilong.experiments.retrieval_tasks import passages
    from minilong.text.corpus import read_corpus
    from minilong.text.words import tokenizer

    cut = tokenizer()
    corpus = read_corpus((cut(part) for text in learnt for part in passages(text, sizes.words)), min_count=2)
    settings = Settings(method="dbow", width=sizes.width, epochs=2 * sizes.epochs, seed=seed)
    model = train_vectors(corpus, settings)

    def inferred(texts: Sequence[str]) -> np.ndarray:
        return normalised(model.infer([cut(text) for text in texts], seed=seed))

    return {"inferred": inferred, "inferred, less common": partial(less_common, inferred)}


def tf_idf(texts: Sequence[str]) -> np.ndarray:
    """Vectors (n, V) of length 1: (1 + ln count) ln(n / texts that have the word), counted in the texts themselves."""
    from minilong.text.words import tokenizer

    cut = tokenizer()
    words = [cut(text) for text in texts]
    index = {word: i for i, word in enumerate(dict.fromkeys(w for own in words for w in own))}
    counts = np.zeros((len(texts), len(index)), np.float32)
    for row, own in enumerate(words):
        np.add.at(counts[row], [index[word] for word in own], 1)
    rare = np.log(len(texts) / np.count_nonzero(counts, axis=0))
    weighed = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * rare
    return normalised(weighed.astype(np.float32))
