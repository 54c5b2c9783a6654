"""Laws of asking vectors: near words, analogies, and the picture's two directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.autodiff.numeric import rounding_bound
from minilong.embeddings.plot import principal
from minilong.embeddings.vectors import Vectors

kind("nearest", "nearest(matrix, row)", "Vectors (V, d), a row -> the cosines of all others to it, largest first.")
kind("analogy", "analogy(matrix, a, b, c)", "Vectors, three rows -> cosines of all others to b - a + c, largest first.")
kind("principal", "principal(x)", "Points (n, d) -> their two coordinates of most variance, and the shares of it.")

SINGLE = rounding_bound(np.float32, 3.0)


def named(matrix: Any) -> Vectors:
    """Rows with names."""
    return Vectors(tuple(f"w{row}" for row in range(len(matrix))), matrix.astype(np.float32))


@subject("nearest", "Vectors.nearest", code=Vectors.nearest, equation="eq:nearest")
def our_nearest(matrix: Any, row: int) -> Any:
    return np.array([cosine for _, cosine in named(matrix).nearest(f"w{row}", len(matrix))], np.float32)


@subject("analogy", "Vectors.analogy", code=Vectors.analogy, equation="eq:analogy")
def our_analogy(matrix: Any, a: int, b: int, c: int) -> Any:
    found = named(matrix).analogy(f"w{a}", f"w{b}", f"w{c}", len(matrix))
    return np.array([cosine for _, cosine in found], np.float32)


subject("principal", "principal", code=principal, equation="eq:principal")(principal)


def asked(r: Numbers, *, words: int, d: int) -> Case:
    """Vectors of different lengths, and a row."""
    return {"matrix": r.nonzero(words, d) * r.uniform(0.5, 20, words, 1), "row": int(r.integers(0, words))}


def related(r: Numbers, *, words: int, d: int) -> Case:
    """Vectors and three rows."""
    a, b, c = r.rng.choice(words, 3, replace=False).tolist()
    return {**asked(r, words=words, d=d), "row": a, "b": b, "c": c}


ASKED, RELATED = cases(asked, words=(2, 1, 5, 9), d=(2, 1, 5)), cases(related, words=(4, 3, 9), d=(2, 5))


@law("nearest", "cosines", serves="eq:nearest", cases=ASKED)
def cosines(f: F, c: Case, measure: Measure) -> None:
    """The cosines of all words but the given one, in descending order."""
    unit = c["matrix"] / np.linalg.norm(c["matrix"], axis=1, keepdims=True)
    right = np.sort(np.delete(unit @ unit[c["row"]], c["row"]))[::-1]
    measure.close(f(c["matrix"].copy(), c["row"]), right, SINGLE, "a cosine")


@law("nearest", "length does not count", serves="eq:nearest", cases=ASKED)
def length_does_not_count(f: F, c: Case, measure: Measure) -> None:
    """Longer vectors of the same directions have the same neighbours."""
    longer = c["matrix"] * np.arange(1, len(c["matrix"]) + 1)[:, None]
    measure.close(f(longer, c["row"]), f(c["matrix"].copy(), c["row"]), SINGLE, "a cosine")


@law("analogy", "three left out", serves="eq:analogy", cases=RELATED)
def three_left_out(f: F, c: Case, measure: Measure) -> None:
    """The cosines to b - a + c, of unit vectors, of all words but these three, in descending order."""
    unit = c["matrix"] / np.linalg.norm(c["matrix"], axis=1, keepdims=True)
    towards = unit[c["b"]] - unit[c["row"]] + unit[c["c"]]
    length = float(np.linalg.norm(towards))
    if length < 1e-3:  # nowhere in particular
        return
    right = np.sort(np.delete(unit @ towards / length, [c["row"], c["b"], c["c"]]))[::-1]
    found = f(c["matrix"].copy(), c["row"], c["b"], c["c"])
    measure.close(found, right, SINGLE / min(length, 1.0), "a cosine")


@mutant("nearest", "itself", kills="cosines", met="plausible: the word is its own nearest")
def itself(matrix: Any, row: int) -> Any:
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.sort(unit @ unit[row])[::-1]


@mutant("nearest", "products", kills=("length does not count", "cosines"), met="dot products: long vectors win")
def products(matrix: Any, row: int) -> Any:
    return np.sort(np.delete(matrix @ matrix[row], row))[::-1]


@mutant("analogy", "not normalised", kills="three left out", met="plausible: raw vectors added")
def raw_vectors(matrix: Any, a: int, b: int, c: int) -> Any:
    unit, towards = matrix / np.linalg.norm(matrix, axis=1, keepdims=True), matrix[b] - matrix[a] + matrix[c]
    return np.sort(np.delete(unit @ towards / np.linalg.norm(towards), [a, b, c]))[::-1]


@mutant("analogy", "the other way", kills="three left out", met="plausible: a - b + c")
def the_other_way(matrix: Any, a: int, b: int, c: int) -> Any:
    return our_analogy(matrix, b, a, c)


def points(r: Numbers, *, n: int, d: int) -> Case:
    """Points whose directions differ clearly in variance."""
    return {"x": r.normal(n, d) * 3.0 ** np.arange(d, 0, -1) + r.normal(d)}


POINTS = cases(points, n=(6, 12, 30), d=(2, 3, 5))


@law("principal", "most variance", serves="eq:principal", cases=POINTS)
def most_variance(f: F, c: Case, measure: Measure) -> None:
    """The coordinates are centred and uncorrelated, and their variances are the two largest eigenvalues of the
    covariance, whose shares are told."""
    y, share = f(c["x"].copy())
    values = np.linalg.eigvalsh(np.cov(c["x"].T, bias=True))[::-1]
    slack = bound(largest(c["x"]) ** 2 + 1, c["x"].size)
    covariance = np.cov(y.T, bias=True)
    measure.close(y.mean(axis=0), np.zeros(2), slack, "the mean")
    measure.close(covariance, np.diag(values[:2]), slack, "the covariance")
    measure.close(share, values[:2] / values.sum(), bound(10.0, c["x"].size), "the share")


@mutant("principal", "not centred", kills="most variance", met="plausible: singular vectors of the raw matrix")
def not_centred(x: Any) -> Any:
    _, spread, directions = np.linalg.svd(x, full_matrices=False)
    return x @ directions[:2].T, spread[:2] ** 2 / np.sum(spread**2)


@mutant("principal", "roots for variances", kills="most variance", met="plausible: singular values as shares")
def roots_for_variances(x: Any) -> Any:
    y, share = principal(x)
    return y, np.sqrt(share)
