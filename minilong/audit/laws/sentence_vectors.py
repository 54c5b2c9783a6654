"""Laws of vectors of sentences: pooling, means in which frequent words count less, and what all sentences share."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.embeddings.pooling import POOLINGS, common_direction, pool, smooth_means, without

kind("sentence-vector", "pool(states, present, pooling)", "States (b, t, d), where no padding is (b, t) -> (b, d).")
kind("smooth-mean", "means(matrix, counts, texts, rare)", "Word vectors (V, d), counts, rows of each text -> (n, d).")
kind("common-direction", "without(vectors)", "Vectors (n, d) -> the same less their common direction, at length 1.")

subject("sentence-vector", "pool", code=pool, equation="eq:sentence-vector")(pool)
subject("smooth-mean", "smooth_means", code=smooth_means, equation="eq:smooth-mean")(smooth_means)


@subject("common-direction", "without", code=without, equation="eq:common-direction")
def our_rest(vectors: Any) -> Any:
    """Ours, by our common direction."""
    return without(vectors, common_direction(vectors))


def padded(r: Numbers, *, b: int, t: int, d: int, pooling: str) -> Case:
    """States of rows that have at least one token each, which need not stand together; none is near zero."""
    present = r.chance(0.6, b, t)
    present[np.arange(b), r.integers(0, t, b)] = True
    states = r.nonzero(b, t, d) + np.array([4.0] + [0.0] * (d - 1))  # so that no mean is nearly zero
    return {"states": states, "present": present, "pooling": pooling}


PADDED = cases(padded, b=(1, 2, 3), t=(3, 1, 2, 5), d=(2, 1, 5), pooling=POOLINGS)
SHARP = 64.0
"""How much a rounding error can grow where a vector is divided by its length, which is at least 1 here."""


@law("sentence-vector", "padding", serves="eq:sentence-vector", cases=PADDED)
def padding(f: F, c: Case, measure: Measure) -> None:
    """What stands at padding changes nothing, and neither do more columns of it, on either side."""
    x, seen, pooling = c["states"], c["present"], c["pooling"]
    right = f(x.copy(), seen.copy(), pooling)
    other = np.where(seen[..., None], x, -9 * x + 50)
    measure.close(f(other, seen.copy(), pooling), right, bound(SHARP, x.shape[1]), "a vector")
    wide = np.pad(other, ((0, 0), (2, 3), (0, 0)), constant_values=77)
    measure.close(f(wide, np.pad(seen, ((0, 0), (2, 3))), pooling), right, bound(SHARP, x.shape[1]), "a vector")


@law("sentence-vector", "alone", serves="eq:sentence-vector", cases=PADDED)
def alone(f: F, c: Case, measure: Measure) -> None:
    """A row's vector is the same alone, without padding, as among others."""
    together = f(c["states"].copy(), c["present"].copy(), c["pooling"])
    for row, (x, seen) in enumerate(zip(c["states"], c["present"], strict=True)):
        own = x[seen][None]
        single = f(own.copy(), np.ones(own.shape[:2], bool), c["pooling"])
        measure.close(together[row], single[0], bound(SHARP, x.shape[0]), "the vector of a row")


@law("sentence-vector", "order", serves="eq:sentence-vector", cases=PADDED)
def order(f: F, c: Case, measure: Measure) -> None:
    """Mean and maximum do not depend on the order of the states; the first is that of the first place alone."""
    x, seen, pooling = c["states"], c["present"], c["pooling"]
    turned = np.arange(x.shape[1])[::-1]
    if pooling == "first":
        later = seen & (np.cumsum(seen, axis=1) > 1)
        other = np.where(later[..., None], -3 * x - 20, x)
        measure.close(f(other, seen.copy(), pooling), f(x.copy(), seen.copy(), pooling), 0.0, "the first state")
    else:
        found = f(x[:, turned].copy(), seen[:, turned].copy(), pooling)
        measure.close(found, f(x.copy(), seen.copy(), pooling), bound(SHARP, x.shape[1]), "a vector")


@law("sentence-vector", "length", serves="eq:sentence-vector", cases=PADDED)
def length(f: F, c: Case, measure: Measure) -> None:
    """Vectors have length 1, so that their products are cosines, from -1 to 1; a row without a token is zero."""
    found = f(c["states"].copy(), c["present"].copy(), c["pooling"])
    measure.close(np.sum(found**2, axis=1), np.ones(len(found)), bound(8, found.shape[1]), "a squared length")
    nothing = f(c["states"].copy(), np.zeros_like(c["present"]), c["pooling"])
    measure.close(nothing, np.zeros(found.shape), 0.0, "the vector of no token")


@law("sentence-vector", "direction", serves="eq:sentence-vector", cases=PADDED)
def direction(f: F, c: Case, measure: Measure) -> None:
    """The mean lies along the sum of the states as they are; the maximum is nowhere less than any state."""
    x, seen = c["states"], c["present"]
    if c["pooling"] == "first":
        return
    found = f(x.copy(), seen.copy(), c["pooling"])
    for row, inside in zip(found, (s[p] for s, p in zip(x, seen, strict=True)), strict=True):
        u = inside.sum(axis=0) if c["pooling"] == "mean" else inside.max(axis=0)
        measure.close(row * np.linalg.norm(u), u, bound(8 + 8 * largest(u), len(inside)), "a vector at its length")


@mutant("sentence-vector", "padding counted", kills=("padding", "alone"), met="Hugging Face: hidden.mean(1), no mask")
def counted(states: Any, present: Any, pooling: str) -> Any:
    return pool(states, np.ones_like(present), pooling) * present.any(axis=1)[:, None]


@mutant(
    "sentence-vector", "first from the wrong end", kills="order", met="plausible: [CLS] of a model that puts it last"
)
def wrong_end(states: Any, present: Any, pooling: str) -> Any:
    return pool(states[:, ::-1], present[:, ::-1], pooling)


@mutant("sentence-vector", "norm over the batch", kills=("alone", "length"), met="plausible: normalize(x, axis=0)")
def wrong_axis(states: Any, present: Any, pooling: str) -> Any:
    found = pool(states, present, pooling)
    return found / np.maximum(np.sqrt(np.sum(found**2, axis=0)), 1e-12)


@mutant("sentence-vector", "largest of zeros", kills=("direction",), met="plausible: (states * mask).max(1)")
def largest_of_zeros(states: Any, present: Any, pooling: str) -> Any:
    if pooling != "max":
        return pool(states, present, pooling)
    zeros = np.pad(np.where(present[..., None], states, 0), ((0, 0), (0, 1), (0, 0)))
    return pool(zeros, np.pad(present, ((0, 0), (0, 1)), constant_values=True), pooling) * present.any(1)[:, None]


@mutant("sentence-vector", "mean of unit states", kills="direction", met="plausible: normalised before it is pooled")
def unit_states(states: Any, present: Any, pooling: str) -> Any:
    size = np.linalg.norm(states, axis=-1, keepdims=True)
    return pool(states / size if pooling == "mean" else states, present, pooling)


@mutant("sentence-vector", "not a number for nothing", kills="length", met="plausible: 0 / 0 for an empty text")
def nothing_divided(states: Any, present: Any, pooling: str) -> Any:
    found = pool(states, present, pooling)
    found[~present.any(axis=1)] = np.nan
    return found


def worded(r: Numbers, *, words: int, d: int, texts: int) -> Case:
    """Word vectors, how often each occurs, and the words of each text."""
    counts = r.integers(1, 50, words)
    rows = [r.integers(0, words, int(n)) for n in r.integers(0, 6, texts)]
    return {"matrix": r.normal(words, d), "counts": counts, "texts": rows, "rare": 0.05}


WORDED = cases(worded, words=(3, 1, 7), d=(2, 1, 5), texts=(2, 1, 4))


@law("smooth-mean", "weights", serves="eq:smooth-mean", cases=WORDED)
def weights(f: F, c: Case, measure: Measure) -> None:
    """A text of one word is that word's vector times rare / (rare + its share), so a word that is everything still
    counts, and less than a rare one."""
    share = c["counts"] / c["counts"].sum()
    found = f(c["matrix"].copy(), c["counts"].copy(), [np.array([w]) for w in range(len(share))], c["rare"])
    right = c["matrix"] * (c["rare"] / (c["rare"] + share))[:, None]
    measure.close(found, right, bound(4 + largest(c["matrix"])), "the vector of a word")


@law("smooth-mean", "mean", serves="eq:smooth-mean", cases=WORDED)
def mean_of_words(f: F, c: Case, measure: Measure) -> None:
    """A text is the mean of the texts of its words, each as often as it occurs, in any order; without words it is 0."""
    found = f(c["matrix"].copy(), c["counts"].copy(), [text.copy() for text in c["texts"]], c["rare"])
    for row, text in zip(found, c["texts"], strict=True):
        each = f(c["matrix"].copy(), c["counts"].copy(), [np.array([w]) for w in text[::-1]], c["rare"])
        right = each.mean(axis=0) if len(text) else np.zeros(row.shape)
        measure.close(row, right, bound(4 + 4 * largest(c["matrix"]), 8), "the vector of a text")


@mutant(
    "smooth-mean", "counts for shares", kills="weights", met="plausible: a / (a + n_w), so that only rare words count"
)
def by_counts(matrix: Any, counts: Any, texts: Any, rare: float) -> Any:
    return np.array(
        [sum((rare / (rare + counts[w]) * matrix[w] for w in t), 0 * matrix[0]) / max(len(t), 1) for t in texts]
    )


@mutant("smooth-mean", "distinct words", kills="mean", met="plausible: set(words)")
def distinct(matrix: Any, counts: Any, texts: Any, rare: float) -> Any:
    return smooth_means(matrix, counts, [np.unique(text) for text in texts], rare)


@mutant("smooth-mean", "divided by the weights", kills="weights", met="plausible: np.average(x, weights=w)")
def averaged(matrix: Any, counts: Any, texts: Any, rare: float) -> Any:
    weight = rare / (rare + counts / counts.sum())
    return np.array([np.average(matrix[t], 0, weight[t]) if len(t) else 0 * matrix[0] for t in texts])


def alike(r: Numbers, *, n: int, d: int) -> Case:
    """Vectors that point much the same way, and differ."""
    return {"vectors": 3 * np.eye(d)[0] + r.normal(n, d, spread=0.5) + 0.1 * np.eye(n, d, 1)}


ALIKE = cases(alike, n=(3, 5, 9), d=(3, 2, 5))


@law("common-direction", "the rest", serves="eq:common-direction", cases=ALIKE)
def the_rest(f: F, c: Case, measure: Measure) -> None:
    """What is left of each vector, at its length, is at right angles to the direction that explains most of all."""
    x = c["vectors"]
    values, axes = np.linalg.eigh(x.T @ x)
    if values[-1] - values[-2] < 0.1 * values[-1]:
        return
    left = x - np.outer(x @ axes[:, -1], axes[:, -1])
    size = np.linalg.norm(left, axis=1)
    if size.min(initial=1) < 1e-2:  # a direction that rounding decides
        return
    slack = bound(1e3 * largest(x) ** 2, x.size) / float(size.min())
    measure.close(f(x.copy()), left / size[:, None], slack, "what is left")


@mutant("common-direction", "of centred vectors", kills="the rest", met="PCA: the mean is taken away first")
def of_centred(vectors: Any) -> Any:
    return without(vectors, common_direction(vectors - vectors.mean(axis=0)))


@mutant("common-direction", "the mean taken away", kills="the rest", met="plausible: centred instead")
def mean_taken_away(vectors: Any) -> Any:
    rest = vectors - vectors.mean(axis=0)
    return rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9)


@mutant("common-direction", "the least direction", kills="the rest", met="plausible: eigh is ascending, column 0 taken")
def least(vectors: Any) -> Any:
    return without(vectors, np.linalg.eigh(vectors.T @ vectors)[1][:, 0])
