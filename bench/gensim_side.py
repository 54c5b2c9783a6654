"""Times, scores and lines of the table that the comparisons with gensim share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np

from minilong.embeddings.pairs import agreement
from minilong.embeddings.vectors import Vectors

Speed = tuple[float, float]
"""Words a second of the clock, and of processor time: on a shared machine the second is steadier."""


def timed(work: Callable[[], Any], words: float) -> tuple[Any, Speed]:
    """A result, and the speed."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, (words / (time.perf_counter() - clock), words / (time.process_time() - processor))


def median(speeds: Sequence[Speed]) -> Speed:
    """Of both."""
    return statistics.median(s for s, _ in speeds), statistics.median(s for _, s in speeds)


def best(speeds: Sequence[Speed]) -> Speed:
    """Of both."""
    return max(s for s, _ in speeds), max(s for _, s in speeds)


def row(name: str, side: str, scores: Sequence[float], speeds: Sequence[Speed]) -> None:
    """A line of the table: the mean score with the range over seeds, and the median speeds."""
    spread = f"{min(scores):.3f} to {max(scores):.3f}"
    clock, processor = median(speeds)
    click.echo(f"{name:26} {side:16} {statistics.fmean(scores):7.3f}  {spread:16} {clock:10,.0f} {processor:10,.0f}")


def head() -> None:
    """The line above the table."""
    click.echo(f"{'':26} {'':16} {'score':>7}  {'seeds':16} {'a second':>10} {'of a CPU':>10}")


def score(words: Sequence[str], matrix: np.ndarray, pairs: str) -> float:
    """Spearman's correlation over word pairs."""
    return agreement(Vectors(tuple(words), np.asarray(matrix, np.float32)), pairs).spearman
