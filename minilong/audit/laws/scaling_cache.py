"""Dynamic scaling with a cache: a text read in pieces gives what it gives read at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import Mask, dense
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.audit.laws.scaling import growth, plain, powers
from minilong.backend import array_module
from minilong.positions import Scaling, dynamic_attention

kind(
    "dynamic-attention",
    "dynamic_attention(q, k, v, cuts, base, factor, context)",
    "Causal attention of one head, q and k (t, d), v (t, e), rotary positions from 0 under dynamic scaling. The text "
    "is read in pieces that end at `cuts` (increasing, the last one t): what a piece needs of earlier ones is kept.",
)


@subject("dynamic-attention", "dynamic attention", code=dynamic_attention, equation="eq:dynamic-attention")
def ours(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    """Keys are kept unturned; each piece meets those so far."""
    parts = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        piece = dynamic_attention(
            dense, q[None, begin:end], k[None, :end], v[None, :end], positions=np.arange(begin, end), base=base,
            key_positions=np.arange(end), scaling=Scaling("dynamic", factor, context),
            mask=Mask(causal=True, offset=begin),
        )  # fmt: skip
        parts.append(piece[0])
    return array_module(q).concatenate(parts)


def make(r: Numbers, t: int, d: int, e: int, base: float, factor: float, context: int) -> Case:
    """A text, and where it is cut: at one to four places, and at its end."""
    cuts = np.unique(r.integers(1, t + 1, int(r.integers(1, 5)))).tolist()
    return {
        "q": r.normal(t, d), "k": r.normal(t, d), "v": r.normal(t, e), "cuts": [*(c for c in cuts if c < t), t],
        "base": base, "factor": factor, "context": context,
    }  # fmt: skip


SIZES = {"d": (4, 6, 8), "e": (1, 2, 3), "base": (10000.0, 100.0), "factor": (1.0, 2.0, 4.0)}
DRAWN = cases(make, t=(5, 3, 2, 1, 8, 13), context=(2, 1, 4, 6), **SIZES)
LONG = cases(make, t=(5, 8, 13), context=(2, 1, 3), **SIZES)
SHORT = cases(make, t=(5, 3, 2, 1, 8), context=(8, 13, 100), **SIZES)


def run(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's value for a case."""
    return call(f, *{**c, **changes}.values())


def rounding(c: Case) -> float:
    """Scores are rounded with their angles, up to t; weights sum to one."""
    t, d = c["q"].shape
    return bound((1 + largest(c["q"]) * largest(c["k"]) * d) * (1 + t) * (1 + largest(c["v"])), t * d)


def turned(x: np.ndarray, at: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Rows of x as complex pairs, turned."""
    return np.asarray((x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * np.outer(at, theta)))


def frequencies(c: Case, length: int) -> np.ndarray:
    """Those of `eq:dynamic-ntk`."""
    d = c["q"].shape[1]
    slower = powers(d, growth({**c, "length": length})) if length > c["context"] else 1.0
    return np.asarray(plain(d, c["base"]) * slower)


def attended(scores: Any, v: np.ndarray) -> Any:
    """The mean of the values, weighted by the softmax of the scores."""
    weights = np.exp(scores - scores.max())
    return weights @ v / weights.sum()


@law("dynamic-attention", "any-split", serves="eq:dynamic-attention", cases=DRAWN)
def any_split(f: F, c: Case, measure: Measure) -> None:
    """Read in pieces, however cut, the text gives what it gives read at once; one token at a time as well."""
    t = len(c["q"])
    whole = run(f, c, cuts=[t])
    measure.close(run(f, c), whole, rounding(c), f"cut at {c['cuts']}, the result")
    measure.close(run(f, c, cuts=[*range(1, t + 1)]), whole, rounding(c), "token by token, the result")


@law("dynamic-attention", "definition", serves=("eq:dynamic-attention", "eq:dynamic-ntk"), cases=DRAWN)
def definition(f: F, c: Case, measure: Measure) -> None:
    """Query i and all keys it meets are turned with the frequencies of length i + 1."""
    found, d = run(f, c), c["q"].shape[1]
    for i in range(len(c["q"])):
        theta, at = frequencies(c, i + 1), np.arange(i + 1)
        scores = (turned(c["k"][: i + 1], at, theta).conj() @ turned(c["q"][i : i + 1], at[i:], theta)[0]).real
        right = attended(scores / np.sqrt(d), c["v"][: i + 1])
        measure.close(found[i], right, rounding(c), f"row {i}")


@law("dynamic-attention", "within-the-context", serves="eq:dynamic-attention", cases=SHORT)
def within(f: F, c: Case, measure: Measure) -> None:
    """While the text fits into the context, the factor changes nothing, not by a bit."""
    measure.holds(np.array_equal(run(f, c), run(f, c, factor=3 * c["factor"])), "another factor changed the result")


@law("dynamic-attention", "distance-only", serves="eq:dynamic-attention", cases=LONG)
def distance_only(f: F, c: Case, measure: Measure) -> None:
    """A query that meets equal keys, one of them with another value, weighs each by its distance: two queries of one
    frequency see the same. Here: equal keys at all places and one-hot values give the weights of plain distances."""
    t, d = c["q"].shape
    k = np.broadcast_to(c["k"][:1], (t, d)).copy()
    weights = run(f, c, k=k, v=np.eye(t))
    theta = frequencies(c, t)
    pair = turned(c["q"][-1:], np.zeros(1), theta)[0] * turned(k[:1], np.zeros(1), theta)[0].conj()
    scores = (pair * np.exp(1j * np.outer(np.arange(t)[::-1], theta))).sum(axis=1).real / np.sqrt(d)
    measure.close(weights[-1], attended(scores, np.eye(t)), rounding(c), "the last query's weights")


@law("dynamic-attention", "causal", serves="eq:dynamic-attention", cases=DRAWN)
def causal(f: F, c: Case, measure: Measure) -> None:
    """What comes later changes nothing before it: a text read at once is read as its beginning is read alone."""
    t = len(c["q"])
    first = (t + 1) // 2
    alone = run(f, c, q=c["q"][:first], k=c["k"][:first], v=c["v"][:first], cuts=[first])
    measure.close(run(f, c, cuts=[t])[:first], alone, rounding(c), "the beginning of the text")


@law("dynamic-attention", "pure", serves="eq:dynamic-attention", cases=DRAWN)
def pure(f: F, c: Case, measure: Measure) -> None:
    """Queries, keys and values are left as they are: keys in a cache are turned in a copy."""
    leaves_alone(f, dict(c), measure)


# Mutants: each piece with a rule for the length of its queries, and for that with which each key is turned


def pieces(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int, rule: Any) -> np.ndarray:
    """rule(i, j, pieces' ends of i and j) -> lengths for query i and key j."""
    case = {"q": q, "base": base, "factor": factor, "context": context}
    end_of = [next(c for c in cuts if c > i) for i in range(len(q))]
    y = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        scores = np.zeros(i + 1)
        for j in range(i + 1):
            for_query, for_key = rule(i, j, end_of[i], end_of[j])
            a = turned(q[i : i + 1], np.array([i]), frequencies(case, for_query))
            b = turned(k[j : j + 1], np.array([j]), frequencies(case, for_key))
            scores[j] = (a * b.conj()).sum().real / np.sqrt(q.shape[1])
        y[i] = attended(scores, v[: i + 1])
    return y


@mutant(
    "dynamic-attention", "turned-keys-cached", kills=("any-split", "definition", "distance-only"),
    met="HF 25104: keys kept as they were turned for the length of their time",
)  # fmt: skip
def turned_keys_cached(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    return pieces(q, k, v, cuts, base, factor, context, lambda i, j, end_i, end_j: (end_i, end_j))


@mutant(
    "dynamic-attention", "one-length-per-piece", kills=("any-split", "definition", "causal"),
    met="HF's form: all queries of a forward pass have the length at its end; read in pieces, other results",
)  # fmt: skip
def one_length_per_piece(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    return pieces(q, k, v, cuts, base, factor, context, lambda i, j, end_i, end_j: (end_i, end_i))


@mutant(
    "dynamic-attention", "key-by-its-own-length", kills=("definition", "distance-only"),
    met="HF 24653: keys turned when they come; any split agrees, but scores depend on more than the distance",
)  # fmt: skip
def key_by_its_own_length(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    return pieces(q, k, v, cuts, base, factor, context, lambda i, j, end_i, end_j: (i + 1, j + 1))


@mutant(
    "dynamic-attention", "length-of-the-past", kills=("definition", "distance-only"),
    met="plausible: l = i for i + 1; off by one",
)  # fmt: skip
def length_of_the_past(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    return pieces(q, k, v, cuts, base, factor, context, lambda i, j, end_i, end_j: (i, i))


@mutant("dynamic-attention", "static", kills=("within-the-context", "definition"), met="vLLM 5093: scaled throughout")
def static(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    rule = lambda i, j, end_i, end_j: (context * 4 + 1,) * 2  # noqa: E731
    return pieces(q, k, v, cuts, base, 1.0 + factor, context, rule)


@mutant("dynamic-attention", "turned-in-place", kills="pure", met="plausible: the cache's own memory is turned")
def turned_in_place(q: Any, k: Any, v: Any, cuts: list[int], base: float, factor: float, context: int) -> Any:
    y = ours(q, k, v, cuts, base, factor, context)
    k *= -1
    return y
