"""Word and document vectors beside gensim's, on one corpus, in one process: `python bench/gensim_beside.py [--help]`.

Needs the extra `bench` (gensim), whose test data hold the default corpus (106 articles of Wikipedia), the word pairs
(WordSim-353) and the documents of Lee et al. 2005 with people's judgements. Both sides get the same lists of words, the
same settings and the same seeds in turn, on one thread unless --threads says otherwise. gensim takes words, minilong
the numbers of them: making these is timed, too.
"""

from __future__ import annotations

import bz2
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from minilong.embeddings.cooccurrence import count_pairs
from minilong.embeddings.descent import Settings
from minilong.embeddings.glove import GloveSettings, train_glove
from minilong.embeddings.models import train_vectors
from minilong.embeddings.pairs import agreement
from minilong.embeddings.vectors import Vectors, normalised
from minilong.text.corpus import WordCorpus, read_corpus
from minilong.text.pieces import units
from minilong.text.sentences import sentences_of
from minilong.text.words import tokenizer

WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WORD_CASES = {
    "skip-gram, negatives": ({"sg": 1}, Settings()),
    "skip-gram, tree": ({"sg": 1, "hs": 1, "negative": 0}, Settings(negatives=0)),
    "cbow, negatives": ({"sg": 0}, Settings(method="cbow", lr=0.075)),
}
"""What gensim is told, and what minilong; all else is the same on both sides."""

DOCUMENT_CASES = {
    "dbow": ({"dm": 0}, Settings(method="dbow")),
    "dm, mean": ({"dm": 1, "dm_mean": 1}, Settings(method="dm", lr=0.075)),
    "dm, concatenation": ({"dm": 1, "dm_concat": 1}, Settings(method="dm-concat")),
}


def wikipedia() -> Iterator[str]:
    """Sentences of the whole articles in gensim's test data."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    pages = extract_pages(io.BytesIO(bz2.decompress(Path(datapath(WIKIPEDIA)).read_bytes())), ("0",))
    for _, text, _ in pages:
        if not text.lower().startswith("#redirect"):
            yield from sentences_of([filter_wiki(text)])


def timed(work: Callable[[], Any], words: float) -> tuple[Any, tuple[float, float]]:
    """A result, and words a second of the clock and of processor time: on a shared machine the second is steadier."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, (words / (time.perf_counter() - clock), words / (time.process_time() - processor))


def row(name: str, side: str, scores: Sequence[float], speeds: Sequence[tuple[float, float]]) -> None:
    """A line of the table: the mean score with the range over seeds, and the median speeds."""
    spread = f"{min(scores):.3f} to {max(scores):.3f}"
    clock, processor = median(speeds)
    click.echo(f"{name:22} {side:10} {statistics.fmean(scores):7.3f}  {spread:16} {clock:10,.0f} {processor:10,.0f}")


def median(speeds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of both speeds."""
    return statistics.median(s for s, _ in speeds), statistics.median(s for _, s in speeds)


def score(words: Sequence[str], matrix: np.ndarray, pairs: str) -> float:
    """Spearman's correlation over word pairs."""
    return agreement(Vectors(tuple(words), np.asarray(matrix, np.float32)), pairs).spearman


def compare_words(
    name: str, sentences: list[list[str]], corpus: WordCorpus, pairs: str, seeds: int, epochs: int, threads: int
) -> None:
    """One case of word vectors on both sides."""
    from gensim.models import Word2Vec

    theirs, ours = WORD_CASES[name]
    their_scores, their_speed, our_scores, our_speed = [], [], [], []
    for seed in range(1, seeds + 1):
        model = Word2Vec(vector_size=100, window=5, min_count=5, workers=threads, seed=seed, epochs=epochs, **theirs)
        model.build_vocab(sentences)
        words = epochs * corpus.tokens
        _, speed = timed(partial(model.train, sentences, total_examples=model.corpus_count, epochs=epochs), words)
        their_scores.append(score(model.wv.index_to_key, model.wv.vectors, pairs))
        their_speed.append(speed)
        settings = replace(ours, seed=seed, epochs=epochs)
        found, speed = timed(partial(train_vectors, corpus, settings, threads=threads), words)
        our_scores.append(score(corpus.vocabulary.words, found.tables["words"], pairs))
        our_speed.append(speed)
    row(name, "gensim", their_scores, their_speed)
    row(name, "minilong", our_scores, our_speed)
    clock, processor = (a / b for a, b in zip(median(our_speed), median(their_speed), strict=True))
    click.echo(f"{'':22} {'of gensim':10} {'':25} {clock:10.2f} {processor:10.2f}")


def glove(corpus: WordCorpus, pairs: str, seeds: int) -> None:
    """GloVe, which gensim has not."""
    counts, (speed, _) = timed(partial(count_pairs, corpus, 10), corpus.tokens)
    click.echo(f"GloVe: {len(counts):,} pairs counted at {speed:,.0f} words/s; below, speeds are in pairs/s")
    scores, speeds = [], []
    for seed in range(1, seeds + 1):
        settings = GloveSettings(seed=seed)
        found, both = timed(partial(train_glove, counts, settings), settings.epochs * len(counts))
        scores.append(score(corpus.vocabulary.words, found.vectors, pairs))
        speeds.append(both)
    row("GloVe", "minilong", scores, speeds)


def compare_documents(name: str, seeds: int) -> None:
    """One case of document vectors on both sides: Lee's 50 documents, inferred, against people's judgements."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument
    from gensim.test.utils import datapath

    cut = tokenizer()
    background, documents = (
        [cut(line) for line in Path(datapath(file)).read_text("latin-1").split("\n") if line.strip()]
        for file in ("lee_background.cor", "lee.cor")
    )
    judged = np.loadtxt(datapath("similarities0-1.txt"))
    above = np.triu_indices(len(documents), 1)

    def judge(vectors: np.ndarray) -> float:
        unit = normalised(np.asarray(vectors))
        return float(spearmanr((unit @ unit.T)[above], judged[above]).statistic)

    theirs, ours = DOCUMENT_CASES[name]
    corpus = read_corpus(background, 2)
    their_scores, their_speed, our_scores, our_speed = [], [], [], []
    for seed in range(1, seeds + 1):
        model = Doc2Vec(vector_size=50, window=5, min_count=2, epochs=40, seed=seed, workers=1, **theirs)
        tagged = [TaggedDocument(text, [k]) for k, text in enumerate(background)]
        model.build_vocab(tagged)
        words = 40 * corpus.tokens
        _, speed = timed(partial(model.train, tagged, total_examples=model.corpus_count, epochs=40), words)
        their_speed.append(speed)
        their_scores.append(judge(np.stack([model.infer_vector(text, epochs=50) for text in documents])))
        settings = replace(ours, width=50, epochs=40, seed=seed)
        found, speed = timed(partial(train_vectors, corpus, settings), words)
        our_speed.append(speed)
        our_scores.append(judge(found.infer(documents, epochs=50, seed=seed)))
    row(name, "gensim", their_scores, their_speed)
    row(name, "minilong", our_scores, our_speed)


@click.command()
@click.option(
    "--text", multiple=True, help="Files with a sentence a line [Wikipedia in gensim's test data, and Jane Austen]."
)
@click.option("--pairs", help="Word pairs with judgements [WordSim-353].")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option("--case", type=click.Choice([*WORD_CASES, "glove", *DOCUMENT_CASES]), multiple=True, help="[all]")
def main(
    text: tuple[str, ...], pairs: str | None, seeds: int, epochs: int, threads: int, case: tuple[str, ...]
) -> None:
    """Train on both sides and print scores (Spearman; mean and range over seeds) and words a second."""
    from gensim.test.utils import datapath

    cut, named = tokenizer(), ("pride_and_prejudice", "persuasion")
    found = units(text, "line") if text else (s for source in (wikipedia(), units(named)) for s in source)
    sentences = [words for words in map(cut, found) if words]
    corpus, (speed, _) = timed(partial(read_corpus, sentences, 5), sum(map(len, sentences)))
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    click.echo(f"{corpus.tokens:,} words of {len(corpus.vocabulary):,}, numbered at {speed:,.0f} words/s; load {load}")
    click.echo(f"{'':22} {'':10} {'score':>7}  {'seeds':16} {'words/s':>10} {'of a CPU':>10}")
    chosen = case or (*WORD_CASES, "glove", *DOCUMENT_CASES)
    judged = pairs or datapath("wordsim353.tsv")
    with threadpool_limits(1):
        for name in chosen:
            if name in WORD_CASES:
                compare_words(name, sentences, corpus, judged, seeds, epochs, threads)
            elif name == "glove":
                glove(corpus, judged, seeds)
            else:
                compare_documents(name, seeds)


if __name__ == "__main__":
    main()
