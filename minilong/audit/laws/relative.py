"""Transformer-XL's relative term: the product of a query with the projection of its distance to each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.positions import relative_term

kind(
    "relative-term",
    "relative_term(q, projected, keys, offset, least)",
    "q (h, t, d), projected (h, m, d) for the distances least, least + 1, ... -> (h, t, keys): q_i . projected at "
    "distance i + offset - j, by sqrt(d). Free where that distance is below `least`.",
)


@subject("relative-term", "relative term", code=relative_term, equation="eq:relative-term")
def ours(q: Any, projected: Any, keys: int, offset: int, least: int) -> Any:
    return relative_term(q, projected, keys=keys, offset=offset, least=least)


def make(r: Numbers, heads: int, t: int, d: int, memory: int, later: int, more: int, encoder: bool) -> Case:
    """t queries after `memory` keys, `later` keys of the own segment hidden, `more` projections than needed."""
    keys = max(1, memory + t - later)
    least = min(0, memory - keys + 1) if encoder else 0
    return {
        "q": r.nonzero(heads, t, d), "projected": r.nonzero(heads, memory + t - least + more, d), "keys": keys,
        "offset": memory, "least": least,
    }  # fmt: skip


DRAWN = cases(
    make, heads=(1, 2, 3), t=(2, 3, 1, 5, 8), d=(3, 1, 2, 4), memory=(0, 1, 2, 3, 7), later=(0, 1, 3),
    more=(0, 1, 5, 20), encoder=(False, True),
)  # fmt: skip


def term(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's value, zero where it is free."""
    c = {**c, **changes}
    y = call(f, *c.values())
    distance = distances(c)
    return np.where(distance >= c["least"], y, 0.0) if y.shape[-2:] == distance.shape else y


def distances(c: Case) -> np.ndarray:
    """i + offset - j, (t, keys)."""
    return np.asarray(np.arange(c["q"].shape[1])[:, None] + c["offset"] - np.arange(c["keys"]))


def rounding(c: Case) -> float:
    """Sums of d products."""
    return bound(largest(c["q"]) * largest(c["projected"]) * c["q"].shape[-1], c["q"].shape[-1])


@law("relative-term", "direct-index", serves="eq:relative-term", cases=DRAWN)
def direct_index(f: F, c: Case, measure: Measure) -> None:
    """The shifted product is the product with R at each pair's own distance, memory or not."""
    heads, t, d = c["q"].shape
    right = np.zeros((heads, t, c["keys"]))
    for i in range(t):
        for j in range(c["keys"]):
            n = i + c["offset"] - j - c["least"]
            if n >= 0:
                right[:, i, j] = np.einsum("hd,hd->h", c["q"][:, i], c["projected"][:, n]) / np.sqrt(d)
    measure.close(term(f, c), right, rounding(c), "the term")


@law("relative-term", "any-split", serves="eq:relative-term", cases=DRAWN)
def any_split(f: F, c: Case, measure: Measure) -> None:
    """A query alone, at its own offset, has the row that it has among the others."""
    whole = term(f, c)
    for i in range(c["q"].shape[1]):
        alone = term(f, c, q=c["q"][:, i : i + 1], offset=c["offset"] + i)
        measure.close(alone[:, 0], whole[:, i], rounding(c), f"query {i} alone")


@law("relative-term", "memory", serves="eq:relative-term", cases=DRAWN)
def memory(f: F, c: Case, measure: Measure) -> None:
    """Two more memories in front move what there was by two keys, and change none of it."""
    d = c["q"].shape[-1]
    further = np.concatenate([c["projected"], np.ones((len(c["q"]), 2, d))], axis=1)
    more = term(f, c, projected=further, keys=c["keys"] + 2, offset=c["offset"] + 2)
    measure.close(more[..., 2:], term(f, c), rounding(c), "the term of a key, two places on,")


@law("relative-term", "diagonals", serves="eq:relative-term", cases=DRAWN)
def diagonals(f: F, c: Case, measure: Measure) -> None:
    """Equal queries give terms that depend on the distance only: one value along each diagonal."""
    q = np.broadcast_to(c["q"][:, :1], c["q"].shape).copy()
    found = term(f, c, q=q)
    seen = (distances(c) >= c["least"])[1:, 1:]
    a, b = found[:, 1:, 1:][:, seen], found[:, :-1, :-1][:, seen]
    measure.close(a, b, rounding(c), "the term, one place further along its diagonal,")


@law("relative-term", "pure", serves="eq:relative-term", cases=DRAWN)
def pure(f: F, c: Case, measure: Measure) -> None:
    """Queries and projections are left as they are."""
    leaves_alone(f, dict(c), measure)


# Mutants


def shifted_by(rule: Callable[[int, int], slice], reverse: bool = True) -> Callable[..., Any]:
    """Transformer-XL's trick: pad a column on the left, read the rows as columns, drop a row; `rule` says which."""

    def wrong(q: Any, projected: Any, keys: int, offset: int, least: int) -> Any:
        heads, t, d = q.shape
        needed = max(offset + t - least, keys + t - 1)
        some = np.zeros((heads, needed, d))
        given = projected[:, : offset + t - least]
        some[:, : given.shape[1]] = given[:, ::-1] if reverse else given
        product = q @ some.swapaxes(-1, -2) / np.sqrt(d)
        padded = np.concatenate([np.zeros((heads, t, 1)), product], axis=-1).reshape(heads, needed + 1, t)
        return padded[:, rule(needed, t)].reshape(heads, t, needed)[..., :keys]

    return wrong


mutant(
    "relative-term", "last-row-dropped", kills=("direct-index", "any-split"),
    met="labml 185: `[:-1]` for `[1:]` after the shift",
)(shifted_by(lambda n, t: slice(0, n)))  # fmt: skip
mutant(
    "relative-term", "ascending", kills=("direct-index", "memory"),
    met="plausible: R in ascending order; the shift needs it descending",
)(shifted_by(lambda n, t: slice(1, n + 1), reverse=False))  # fmt: skip


def indexed(rule: Callable[[Any, Any, int, int], Any], by: float = 0.5) -> Callable[..., Any]:
    """The product at another index: rule(i, j, offset, t) -> distance, clipped to what there is; d^-by."""

    def wrong(q: Any, projected: Any, keys: int, offset: int, least: int) -> Any:
        t, d = q.shape[1:]
        n = np.asarray(rule(np.arange(t)[:, None], np.arange(keys), offset, t) - least)
        chosen = projected[:, np.clip(n, 0, projected.shape[1] - 1)]
        return np.einsum("htd,htsd->hts", q, chosen) / d**by

    return wrong


mutant(
    "relative-term", "off-by-one", kills=("direct-index",), met="HF PR 14832 for the mask; here: i - j + 1",
)(indexed(lambda i, j, offset, t: i + offset - j + 1))  # fmt: skip
mutant(
    "relative-term", "sign", kills=("direct-index", "any-split"), met="plausible: j - i for i - j",
)(indexed(lambda i, j, offset, t: j - i + offset))  # fmt: skip
mutant(
    "relative-term", "memory-ignored", kills=("direct-index", "memory", "any-split"),
    met="x-transformers PR 103: key positions not moved by the length of the memory",
)(indexed(lambda i, j, offset, t: i - j))  # fmt: skip
mutant(
    "relative-term", "not-shifted", kills=("direct-index", "diagonals"),
    met="plausible: no shift; every query has the last one's distances",
)(indexed(lambda i, j, offset, t: t - 1 + offset - j + 0 * i + (i % 2)))  # fmt: skip
mutant(
    "relative-term", "not-scaled", kills="direct-index", met="plausible: added after the scores were scaled",
)(indexed(lambda i, j, offset, t: i + offset - j, by=0.0))  # fmt: skip


@mutant("relative-term", "in-place", kills="pure", met="plausible: the scale multiplied into the queries")
def in_place(q: Any, projected: Any, keys: int, offset: int, least: int) -> Any:
    q /= np.sqrt(q.shape[-1]) + 1
    return ours(q, projected, keys, offset, least)
