"""Cosine search: the nearest of many vectors to each of some queries, block by block, and how good such a search is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilong.embeddings.vectors import normalised

BLOCK = 8192
"""Vectors that are compared at once."""


def nearest_rows(
    queries: np.ndarray, matrix: np.ndarray, count: int, *, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of matrix (n, d) of largest cosine to each query (q, d), and the cosines, best first: (q, k) each.

    `eq:cosine-search`. k is count, or n where that is less. Of equal cosines the earlier row comes first. Memory: q
    times block cosines, whatever n is.
    """
    if count < 1 or block < 1:
        raise ValueError(f"count {count}, block {block}: give at least 1")
    towards = normalised(np.asarray(queries))
    rows = np.zeros((len(towards), 0), np.int64)
    cosines = np.zeros((len(towards), 0), towards.dtype)
    for start in range(0, len(matrix), block):
        part = normalised(np.asarray(matrix[start : start + block]))
        found = np.clip(towards @ part.T, -1, 1)
        numbers = np.broadcast_to(np.arange(start, start + len(part)), found.shape)
        cosines, rows = np.concatenate([cosines, found], axis=1), np.concatenate([rows, numbers], axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        cosines, rows = np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return rows, cosines


def ranks(scores: np.ndarray, right: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """The place of the right answer among all candidates, from 1 on (`eq:rank`): scores (q, n), right (q,) -> (q,).

    Candidates that score the same share the mean of their places, so that a constant score is worth a guess. own (q,):
    the candidate that is the query itself, which is left out.
    """
    rows = np.arange(len(scores))
    others = np.ones(scores.shape, bool)
    others[rows, right] = False
    if own is not None:
        others[rows, own] = False
    reached = scores[rows, right][:, None]
    better = np.count_nonzero((scores > reached) & others, axis=1)
    equal = np.count_nonzero((scores == reached) & others, axis=1)
    return np.asarray(1 + better + equal / 2)


@dataclass(frozen=True)
class Retrieved:
    """Shares of queries whose answer is among the first 1 and the first 10, and the mean of 1 / place."""

    at_1: float
    at_10: float
    reciprocal: float

    @staticmethod
    def of(places: np.ndarray) -> Retrieved:
        """From the places of the right answers, `eq:retrieval`."""
        return Retrieved(float(np.mean(places <= 1)), float(np.mean(places <= 10)), float(np.mean(1 / places)))

    @staticmethod
    def by_chance(candidates: int) -> Retrieved:
        """What an order drawn at random is expected to reach (`eq:retrieval`)."""
        return Retrieved.of(np.arange(1, candidates + 1))
