"""Word and document vectors beside gensim's, on one corpus, in one process: `python -m bench.gensim_beside [--help]`.

Needs the extra `bench` (gensim), whose test data hold articles of Wikipedia, the word pairs (WordSim-353) and the
documents of Lee et al. 2005 with people's judgements. Both sides get the same lists of words, the same settings and the
same seeds in turn, on one thread unless a line says otherwise. gensim takes words, minilong the numbers of them: making
these is timed, too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click
import numpy as np
from threadpoolctl import threadpool_limits

from bench.gensim_documents import DOCUMENT_CASES, chapters, compare_documents, lee
from bench.gensim_side import Speed, best, head, row, score, timed
from bench.gensim_texts import words_of
from bench.glove_reference import reference
from minilong.embeddings.cooccurrence import count_pairs
from minilong.embeddings.descent import Settings
from minilong.embeddings.glove import GloveSettings, train_glove
from minilong.embeddings.models import train_vectors
from minilong.embeddings.vectors import Vectors
from minilong.text.corpus import WordCorpus, read_corpus

Words = list[list[str]]
OWN = Settings(size=1, batch=1024, shared=5)
"""Drawn words that no other centre shares, as many as there are negatives: nearer to the paper, and slower."""
WORD_CASES: dict[str, tuple[dict[str, Any] | None, Settings]] = {
    "skip-gram, negatives": ({"sg": 1}, Settings()),
    "skip-gram, not shared": (None, OWN),
    "cbow, negatives": ({"sg": 0}, Settings(method="cbow", lr=0.075)),
    "skip-gram, tree": ({"sg": 1, "hs": 1, "negative": 0}, Settings(negatives=0)),
    "cbow, tree": ({"sg": 0, "hs": 1, "negative": 0}, Settings(method="cbow", negatives=0, lr=0.075)),
}
"""What gensim is told (nothing: it is not asked again), and what minilong; all else is the same on both sides."""
CASES = (*WORD_CASES, "speed", "glove", *DOCUMENT_CASES)
PROBES = ("king", "france", "water", "computer")


def gensim_model(sentences: Words, seed: int, **settings: Any) -> Any:
    """gensim's Word2Vec with its vocabulary, untrained."""
    from gensim.models import Word2Vec

    model = Word2Vec(vector_size=100, window=5, min_count=5, workers=1, seed=seed, **settings)
    model.build_vocab(sentences)
    return model


def compare_words(
    name: str, sentences: Words, corpus: WordCorpus, pairs: Sequence[str], seeds: int, epochs: int
) -> None:
    """One case of word vectors on both sides: scores on each file of pairs, and neighbours with the last seed."""
    theirs, ours = WORD_CASES[name]
    found: dict[str, tuple[list[list[float]], list[Speed]]] = {}
    words = epochs * corpus.tokens
    last: dict[str, Vectors] = {}
    for seed in range(1, seeds + 1):
        made: dict[str, tuple[Vectors, Speed]] = {}
        if theirs is not None:
            model = gensim_model(sentences, seed, **theirs)
            _, speed = timed(partial(model.train, sentences, total_examples=model.corpus_count, epochs=epochs), words)
            made["gensim"] = Vectors(tuple(model.wv.index_to_key), model.wv.vectors), speed
        trained, speed = timed(partial(train_vectors, corpus, replace(ours, seed=seed, epochs=epochs)), words)
        made["minilong"] = Vectors(corpus.vocabulary.words, trained.tables["words"]), speed
        for side, (vectors, speed) in made.items():
            scores, speeds = found.setdefault(side, ([], []))
            scores.append([score(vectors.words, vectors.matrix, path) for path in pairs])
            speeds.append(speed)
            last[side] = vectors
        click.echo(f"{name}: {seed} of {seeds} seeds", err=True)
    for side, (scores, speeds) in found.items():
        for k, path in enumerate(pairs):
            row(name if k == 0 else f"  {os.path.basename(path)}", side, [s[k] for s in scores], speeds)
    for side, vectors in last.items():
        near = "; ".join(f"{w}: {', '.join(n for n, _ in vectors.nearest(w, 4))}" for w in PROBES if w in vectors)
        click.echo(f"{'':26} {side:16} {near}")


def speed_in_turns(sentences: Words, rounds: int) -> None:
    """Skip-gram with negatives, an epoch of a stretch of the corpus: gensim and minilong take turns."""
    some, total = [], 0
    for sentence in sentences:
        some.append(sentence)
        total += len(sentence)
        if total > 600_000:
            break
    corpus = read_corpus(some, 5)
    sides: dict[str, list[Speed]] = {}
    for _ in range(rounds):
        model = gensim_model(some, 1, sg=1)
        works = {"gensim": partial(model.train, some, total_examples=model.corpus_count, epochs=1)}
        for label, settings, threads in (
            ("minilong", Settings(), 1), ("  2 threads", Settings(), 2), ("  not shared", OWN, 1),
        ):  # fmt: skip
            works[label] = partial(train_vectors, corpus, replace(settings, epochs=1), threads=threads)
        for label, work in works.items():
            sides.setdefault(label, []).append(timed(work, corpus.tokens)[1])
    click.echo(f"speed of skip-gram with negatives, {corpus.tokens:,} words, best of {rounds} turns")
    theirs = best(sides["gensim"])
    for label, speeds in sides.items():
        clock, processor = best(speeds)
        ratios = f"{clock / theirs[0]:.2f} of gensim by the clock, {processor / theirs[1]:.2f} by processor time"
        click.echo(f"{label:26} {clock:10,.0f} words/s, {processor:10,.0f} a CPU second: {ratios}")


def glove(corpus: WordCorpus, pairs: Sequence[str], seeds: int, epochs: int) -> None:
    """GloVe, which gensim has not, beside the paper's algorithm pair by pair in double precision."""
    counts, (speed, _) = timed(partial(count_pairs, corpus, 10), corpus.tokens)
    click.echo(f"GloVe: {len(counts):,} pairs counted at {speed:,.0f} words/s; {epochs} epochs, speeds in pairs/s")
    found: dict[str, tuple[list[np.ndarray], list[Speed]]] = {"reference": ([], []), "minilong": ([], [])}
    for seed in range(1, seeds + 1):
        work: dict[str, Callable[[], Any]] = {
            "reference": partial(reference, counts, 100, epochs, seed),
            "minilong": lambda seed=seed: train_glove(counts, GloveSettings(seed=seed, epochs=epochs)).vectors,
        }
        for side, run in work.items():
            vectors, both = timed(run, epochs * len(counts))
            found[side][0].append(vectors)
            found[side][1].append(both)
    for side, path in itertools.product(found, pairs):
        scores = [score(corpus.vocabulary.words, vectors, path) for vectors in found[side][0]]
        row("GloVe" if path == pairs[0] else f"  {os.path.basename(path)}", side, scores, found[side][1])


@click.command()
@click.option("--text", multiple=True, help="Files with a sentence a line [Wikipedia of gensim, and the novels].")
@click.option("--dictionaries", is_flag=True, help="Add two dictionaries of Debian's (17 MB by apt-get).")
@click.option("--pairs", multiple=True, help="Word pairs with judgements [WordSim-353 and SimLex-999].")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True, help="GloVe takes five times as many.")
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of the comparison of speed."
)
@click.option(
    "--case", type=click.Choice([*WORD_CASES, "speed", "glove", *DOCUMENT_CASES]), multiple=True, help="[all]"
)
def main(
    text: tuple[str, ...], dictionaries: bool, pairs: tuple[str, ...], seeds: int, epochs: int, rounds: int,
    case: tuple[str, ...],
) -> None:  # fmt: skip
    """Train on both sides and print scores (Spearman; mean and range over seeds) and words a second."""
    from gensim.test.utils import datapath

    sentences = words_of(text, dictionaries=dictionaries)
    corpus, (speed, _) = timed(partial(read_corpus, sentences, 5), sum(map(len, sentences)))
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    click.echo(
        f"{corpus.tokens:,} words, {len(corpus.vocabulary):,} distinct, numbered at {speed:,.0f} words/s; {epochs} "
        f"epochs; load {load}"
    )
    head()
    judged = pairs or (datapath("wordsim353.tsv"), datapath("simlex999.txt"))
    with threadpool_limits(1):
        for name in case or CASES:
            if name in WORD_CASES:
                compare_words(name, sentences, corpus, judged, seeds, epochs)
            elif name == "speed":
                speed_in_turns(sentences, rounds)
            elif name == "glove":
                glove(corpus, judged, seeds, 5 * epochs)
            else:
                for task in (lee(), chapters()):
                    compare_documents(name, task, seeds)
    click.echo(f"load at the end {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


if __name__ == "__main__":
    main()
