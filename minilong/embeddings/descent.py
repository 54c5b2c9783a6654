"""Training by gradient descent over a corpus: batches of blocks, two halves of which can be worked on side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minilong.backend.workers import grant_threads, one_blas_thread, share_out
from minilong.embeddings.blocks import Blocks, blocks
from minilong.embeddings.methods import BagOfWords, Concatenation, Mean, Method, SkipGram
from minilong.embeddings.outputs import Output
from minilong.embeddings.rows import RowGradient, capped_step
from minilong.errors import Diverged
from minilong.keys import Key
from minilong.text.corpus import WordCorpus, keep_probability

METHODS: dict[str, Method] = {
    "skip-gram": SkipGram(),
    "cbow": Mean(document=False),
    "dm": Mean(document=True),
    "dm-concat": Concatenation(),
    "dbow": BagOfWords(),
}
STRETCH = 1 << 16
"""Words of the corpus whose blocks are mixed."""
STEPS = 100
"""Steps of an epoch, at least, where there are words enough."""
INTERVAL = 0.5
"""Seconds between two reports."""
DIVERGED = "the training diverged: the loss is no longer a finite number; take a lower --lr"


@dataclass(frozen=True)
class Settings:
    """How word or document vectors are trained.

    negatives: wrong words for each prediction; 0: hierarchical softmax. sample: the share of the corpus from which on a
    word is thinned out; 0: none. lr falls linearly to final_lr. size: centres a block. batch: blocks a batch, fewer
    where an epoch would have less than `STEPS`. shared: drawn words a block. cap: losses of a row that may add up in a
    batch.
    """

    method: str = "skip-gram"
    width: int = 100
    window: int = 5
    negatives: int = 5
    epochs: int = 5
    lr: float = 0.025
    final_lr: float = 0.0001
    sample: float = 1e-3
    seed: int = 1
    size: int = 32
    batch: int = 32
    shared: int = 32
    cap: float = 256.0


@dataclass(frozen=True)
class Progress:
    """Where a training is: words of the corpus passed, all to pass, mean loss of a prediction in nats, seconds."""

    words: int
    total: int
    loss: float
    seconds: float


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reports nothing."""


def descend(
    corpus: WordCorpus,
    tables: dict[str, np.ndarray],
    output: Output,
    settings: Settings,
    *,
    learned: Sequence[str],
    threads: int = 1,
    report: Report = silent,
) -> None:
    """Train the `learned` ones of `tables` in place.

    threads: at most two are used; no number depends on it. Raises Diverged where the loss is no number.
    """
    method = METHODS[settings.method]
    key = Key.of(settings.seed).fold("descent")
    begin = shown = time.perf_counter()
    total = settings.epochs * corpus.tokens
    with grant_threads(min(threads, 2)), one_blas_thread():
        for done, some, rng in _batches(corpus, method, settings, key):
            drawn = output.draw(len(some), rng)
            lr = settings.lr + (settings.final_lr - settings.lr) * done / total
            now = time.perf_counter()
            if now - shown > INTERVAL or shown == begin:
                shown = now
                loss, count = method.loss(tables, some, drawn, output)
                if not np.isfinite(loss):
                    raise Diverged(DIVERGED)
                report(Progress(done, total, loss / max(count, 1.0), now - begin))
            _step(method, tables, some, drawn, output, lr, settings.cap, learned)
    if not all(np.isfinite(tables[name]).all() for name in learned):
        raise Diverged(DIVERGED)
    report(Progress(total, total, float("nan"), time.perf_counter() - begin))


def _batches(
    corpus: WordCorpus, method: Method, settings: Settings, key: Key
) -> Iterator[tuple[int, Blocks, np.random.Generator]]:
    """Words passed before, blocks, and a generator, for every batch of every epoch."""
    keep = keep_probability(corpus.vocabulary.counts, settings.sample)
    window = 0 if method.windows == "none" else settings.window
    shape = {"shrink": method.windows == "shrunk", "mix": method.windows == "none"}
    together = max(1, min(settings.batch, corpus.tokens // (settings.size * STEPS)))
    done = 0
    for epoch in range(settings.epochs):
        first = 0
        for number, ids in enumerate(corpus.stretches(STRETCH)):
            rng = key.fold("epoch", epoch, "stretch", number).generator()
            here = blocks(ids, keep, window, settings.size, rng, first=first, **shape)
            order = rng.permutation(len(here))
            words = int(np.count_nonzero(ids >= 0))
            for start in range(0, len(here), together):
                passed = done + words * start // len(here)
                yield passed, here[order[start : start + together]], rng
            done += words
            first += ids.size - words


def _step(
    method: Method,
    tables: dict[str, np.ndarray],
    some: Blocks,
    drawn: np.ndarray,
    output: Output,
    lr: float,
    cap: float,
    learned: Sequence[str],
) -> None:
    """One batch. Its two halves, and then its tables, are shared among threads."""
    middle = (len(some) + 1) // 2
    halves = [slice(0, middle), slice(middle, len(some))][: len(some)]
    found: list[dict[str, RowGradient]] = [{} for _ in halves]

    def work(parts: Iterator[int]) -> None:
        for part in parts:
            here = halves[part]
            found[part] = method.gradients(tables, some[here], drawn[here], output)

    def update(names: Iterator[str]) -> None:
        for name in names:
            capped_step(tables[name], [part[name] for part in found], lr, cap)

    share_out(work, range(len(halves)))
    share_out(update, [name for name in learned if name in found[0]])
