"""Laws of cosine search, and of how good a search is."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.embeddings.search import Retrieved, nearest_rows, ranks

kind("cosine-search", "search(queries, matrix, count, block)", "Vectors -> rows and cosines (q, k), best first.")
kind("rank", "ranks(scores, right, own)", "Scores (q, n), the right candidate and the query's own -> places (q,).")
kind("retrieval", "measures(places)", "Places of right answers -> shares among 1 and 10, mean of 1 / place.")


@subject("cosine-search", "nearest_rows", code=nearest_rows, equation="eq:cosine-search")
def our_search(queries: Any, matrix: Any, count: int, block: int) -> Any:
    return nearest_rows(queries, matrix, count, block=block)


subject("rank", "ranks", code=ranks, equation="eq:rank")(ranks)


@subject("retrieval", "Retrieved", code=Retrieved, equation="eq:retrieval")
def our_measures(places: Any) -> Any:
    found = Retrieved.of(places)
    return np.array([found.at_1, found.at_10, found.reciprocal])


def searched(r: Numbers, *, n: int, q: int, d: int, count: int, block: int) -> Case:
    """Vectors of several lengths in directions that all differ, and queries."""
    matrix, queries = (np.round(r.rng.normal(size=(rows, d)), 3) for rows in (n, q))
    return {"queries": queries, "matrix": matrix * r.uniform(0.5, 20, n, 1), "count": count, "block": block}


SEARCHED = cases(searched, n=(5, 1, 2, 9), q=(1, 2, 3), d=(5, 7), count=(2, 1, 20), block=(2, 1, 3, 100))


@law("cosine-search", "best first", serves="eq:cosine-search", cases=SEARCHED)
def best_first(f: F, c: Case, measure: Measure) -> None:
    """The cosines are the largest there are, in descending order, and each is that of its row."""
    unit, towards = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (c["matrix"], c["queries"]))
    every = towards @ unit.T
    rows, cosines = f(c["queries"].copy(), c["matrix"].copy(), c["count"], c["block"])
    best = -np.sort(-every, axis=1)[:, : c["count"]]
    measure.close(cosines, best, bound(16, unit.shape[1]), "the cosines")
    measure.close(np.take_along_axis(every, rows, axis=1), best, bound(16, unit.shape[1]), "the cosines of the rows")


@law("cosine-search", "blocks", serves="eq:cosine-search", cases=SEARCHED)
def blocks(f: F, c: Case, measure: Measure) -> None:
    """The size of a block changes nothing, and no row comes twice."""
    rows, cosines = f(c["queries"].copy(), c["matrix"].copy(), c["count"], c["block"])
    whole = f(c["queries"].copy(), c["matrix"].copy(), c["count"], len(c["matrix"]))
    measure.close(cosines, whole[1], bound(16, c["matrix"].shape[1]), "the cosines")
    repeated = [row for row in rows.tolist() if len(set(row)) < len(row)]
    measure.holds(not repeated, f"rows come twice: {repeated}")


@mutant("cosine-search", "numbers of the block", kills="best first", met="plausible: the block's offset is forgotten")
def local_numbers(queries: Any, matrix: Any, count: int, block: int) -> Any:
    rows, cosines = nearest_rows(queries, matrix, count, block=block)
    return rows % block, cosines


@mutant(
    "cosine-search", "last block left out", kills=("blocks", "best first"), met="plausible: range(0, n - block, block)"
)
def last_left_out(queries: Any, matrix: Any, count: int, block: int) -> Any:
    whole = max(block, len(matrix) - len(matrix) % block)
    return nearest_rows(queries, matrix[:whole], count, block=block)


@mutant("cosine-search", "products", kills="best first", met="dot products: long vectors win")
def products(queries: Any, matrix: Any, count: int, block: int) -> Any:
    scores = queries @ matrix.T
    rows = np.argsort(-scores, axis=1)[:, :count]
    return rows, np.take_along_axis(scores, rows, axis=1)


@mutant("cosine-search", "worst first", kills="best first", met="plausible: argsort is ascending")
def worst_first(queries: Any, matrix: Any, count: int, block: int) -> Any:
    rows, cosines = nearest_rows(queries, matrix, count, block=block)
    return rows[:, ::-1], cosines[:, ::-1]


def scored(r: Numbers, *, q: int, n: int) -> Case:
    """Scores with ties, a right answer for each query, and another candidate that is the query."""
    right = r.integers(0, n, q)
    return {"scores": r.integers(0, 4, q, n) * 1.0, "right": right, "own": (right + r.integers(1, n, q)) % n}


SCORED = cases(scored, q=(1, 2, 4), n=(3, 2, 5, 12))


@law("rank", "bounds", serves="eq:rank", cases=SCORED)
def bounds(f: F, c: Case, measure: Measure) -> None:
    """A candidate above all others is first and one below all is last of n - 1; all alike are in the middle."""
    rows, n = np.arange(len(c["right"])), c["scores"].shape[1]
    for value, place in ((99.0, 1.0), (-99.0, n - 1.0)):
        scores = c["scores"].copy()
        scores[rows, c["right"]] = value
        measure.close(f(scores, c["right"].copy(), c["own"].copy()), np.full(len(rows), place), 0.0, "the place")
    alike = f(np.zeros_like(c["scores"]), c["right"].copy(), c["own"].copy())
    measure.close(alike, np.full(len(rows), n / 2), 0.0, "the place of one that scores as all do")


@law("rank", "sums", serves="eq:rank", cases=SCORED)
def sums(f: F, c: Case, measure: Measure) -> None:
    """The places of all candidates but the query's own add up to 1 + 2 + ... + (n - 1), ties or not; and the query's
    own score says nothing."""
    n = c["scores"].shape[1]
    for scores, own in zip(c["scores"], c["own"], strict=True):
        others = np.delete(np.arange(n), own)
        found = f(np.repeat(scores[None], n - 1, axis=0), others, np.full(n - 1, own))
        measure.close(np.sum(found), np.float64(n * (n - 1) / 2), 0.0, "the sum of places")
    higher = c["scores"].copy()
    higher[np.arange(len(higher)), c["own"]] = 1e3
    args = (c["right"].copy(), c["own"].copy())
    measure.close(f(higher, *args), f(c["scores"].copy(), *args), 0.0, "the place")


@mutant("rank", "ties in one's favour", kills=("bounds", "sums"), met="plausible: count of better scores, plus 1")
def in_favour(scores: Any, right: Any, own: Any) -> Any:
    reached = scores[np.arange(len(scores)), right][:, None]
    other = np.arange(scores.shape[1]) != own[:, None]
    return 1.0 + ((scores > reached) & other).sum(axis=1)


@mutant("rank", "the query found", kills="sums", met="plausible: the query is a candidate, and its own best answer")
def itself(scores: Any, right: Any, own: Any) -> Any:
    return ranks(scores, right)


@mutant("rank", "from zero", kills=("bounds", "sums"), met="plausible: places counted from 0")
def from_zero(scores: Any, right: Any, own: Any) -> Any:
    return ranks(scores, right, own) - 1


def placed(r: Numbers, *, q: int) -> Case:
    """Places, some of them shared."""
    return {"places": r.integers(2, 40, q) / 2}


PLACED = cases(placed, q=(1, 3, 20))


@law("retrieval", "order", serves="eq:retrieval", cases=PLACED)
def measures_in_order(f: F, c: Case, measure: Measure) -> None:
    """0 <= share at 1 <= mean of 1 / place <= 1, share at 1 <= share at 10, and answers that all are first have 1."""
    one, ten, reciprocal = f(c["places"].copy())
    measure.holds(0 <= one <= min(ten, reciprocal) and max(ten, reciprocal) <= 1, f"{one}, {ten}, {reciprocal}")
    measure.close(f(np.ones(3)), np.ones(3), 0.0, "the measures of right answers")


@law("retrieval", "each counts", serves="eq:retrieval", cases=PLACED)
def each_counts(f: F, c: Case, measure: Measure) -> None:
    """The measures are means over queries of the measures of each; a place of 4 has 0, 1 and 1/4."""
    each = np.mean([f(np.array([place])) for place in c["places"]], axis=0)
    measure.close(f(c["places"].copy()), each, bound(4, len(c["places"])), "the measures")
    measure.close(f(np.array([4.0])), np.array([0, 1, 0.25]), 0.0, "the measures of the place 4")


@mutant("retrieval", "one over the mean", kills="each counts", met="plausible: 1 / mean(place)")
def one_over_mean(places: Any) -> Any:
    found = our_measures(places)
    found[2] = 1 / np.mean(places)
    return found


@mutant("retrieval", "below ten", kills="order", met="plausible: places counted from 1, and compared as from 0")
def below(places: Any) -> Any:
    return np.array([np.mean(places < 1), np.mean(places < 10), np.mean(1 / places)])
