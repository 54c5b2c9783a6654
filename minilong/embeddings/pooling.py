"""From the vectors of a text's tokens to one vector of the text, and the weights that mend a mean of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minilong.embeddings.vectors import normalised

POOLINGS = ("mean", "first", "max")
"""The mean of all tokens; the first one (BERT's [CLS], where a row begins with it); the largest of each component."""

RARE = 1e-3
"""Of `smooth_means`: a word of this share of the text has half the weight of one that is hardly ever there."""


def pool(states: np.ndarray, present: np.ndarray, pooling: str) -> np.ndarray:
    """One vector for each row, of length 1 (`eq:sentence-vector`): states (b, t, d), present (b, t) -> (b, d).

    present is false at padding. A row without a token is zero. ValueError for an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r}; choose one of {', '.join(POOLINGS)}")
    seen = np.asarray(present, bool)
    some = seen.any(axis=1, keepdims=True)
    if pooling == "mean":
        count = np.maximum(seen.sum(axis=1), 1)[:, None].astype(states.dtype)
        found = np.where(seen[..., None], states, 0).sum(axis=1) / count
    elif pooling == "first":
        found = states[np.arange(len(states)), seen.argmax(axis=1)]
    else:
        found = np.where(seen[..., None], states, -np.inf).max(axis=1, initial=-np.inf)
    return normalised(np.where(some, found, 0))


def pool_words(matrix: np.ndarray, texts: Sequence[np.ndarray], pooling: str) -> np.ndarray:
    """`pool` of word vectors: texts, the words of each as rows of matrix (V, d) -> (n, d)."""
    found = np.zeros((len(texts), matrix.shape[1]), matrix.dtype)
    for row, words in enumerate(texts):
        if len(words):
            found[row] = pool(matrix[words][None], np.ones((1, len(words)), bool), pooling)[0]
    return found


def smooth_means(matrix: np.ndarray, counts: np.ndarray, texts: Sequence[np.ndarray], rare: float = RARE) -> np.ndarray:
    """Means (n, d) of word vectors in which a word of share p weighs rare / (rare + p) (`eq:smooth-mean`).

    texts: the words of each, as rows of matrix (V, d); counts (V,): how often each occurs. Without words: zero.
    """
    weight = (rare / (rare + counts / counts.sum())).astype(matrix.dtype)
    found = np.zeros((len(texts), matrix.shape[1]), matrix.dtype)
    for row, words in enumerate(texts):
        if len(words):
            found[row] = weight[words] @ matrix[words] / len(words)
    return found


def common_direction(vectors: np.ndarray) -> np.ndarray:
    """The direction (d,) that some vectors (n, d) share most: the first right singular vector (`eq:common-direction`).

    Zero where all vectors are.
    """
    if not np.any(vectors):
        return np.zeros(vectors.shape[1], vectors.dtype)
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    return np.asarray(axes[:, -1], vectors.dtype)


def without(vectors: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Vectors (n, d) less their part along a direction (d,) of length 1, at length 1 (`eq:common-direction`)."""
    return normalised(vectors - np.outer(vectors @ direction, direction))
