"""Scaled dot-product attention under a boolean mask: what `eq:attention` and `eq:masked-softmax` say of any kernel.

The wrong kernels that these laws must find are in `attention_mutants.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import minilong.attention as kernels
from minilong.audit.draw import BATCHES, SIZES, Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.backend import Array

kind(
    "attention",
    "attention(q, k, v, mask)",
    "q (..., t, d), k (..., s, d), v (..., s, e), mask (t, s) of booleans, True = may attend -> (..., t, e)",
    public=True,
)


@dataclass(frozen=True, eq=False)
class Given(kernels.Mask):
    """A mask that is a table of booleans already."""

    table: Array | None = None

    def dense(self, xp: Any, queries: int, keys: int) -> Array | None:
        return self.table


@subject("attention", "naive", code=kernels.naive, equation="eq:attention")
def ours_naive(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return kernels.naive(q[None], k[None], v[None], mask=Given(table=mask))[0]


@subject("attention", "dense", code=kernels.dense, equation="eq:attention")
def ours_dense(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return kernels.dense(q[None], k[None], v[None], mask=Given(table=mask))[0]


# Cases

SEEING = ("all", "causal", "random", "window", "prefix", "one")
MASKS = (*SEEING, "blind rows", "none")


def table(r: Numbers, sort: str, t: int, s: int) -> np.ndarray:
    """Who may attend, (t, s). Only laws about queries that see nothing draw such masks, so only those fail of them."""
    behind = np.arange(t)[:, None] + max(s - t, 0) - np.arange(s)
    width, ends, one = r.integers(1, 4, 1), r.integers(1, s + 1, 1), r.integers(0, s, t, 1)
    kinds = {
        "all": np.ones((t, s), bool),
        "causal": behind >= 0,
        "window": (behind >= 0) & (behind < width),
        "prefix": np.broadcast_to(np.arange(s) < ends, (t, s)),
        "one": np.arange(s) == one,
        "none": np.zeros((t, s), bool),
    }
    mask = np.array(kinds.get(sort, r.chance(0.6, t, s)))
    if sort in SEEING:
        mask[~mask.any(axis=-1), -1] = True
    else:
        mask &= r.chance(0.5, t, 1)
    return mask


def make(r: Numbers, batch: tuple[int, ...], t: int, s: int, d: int, e: int, sort: str, spread: float) -> Case:
    """Queries, keys, values, mask. Half the time the values lie far from zero, where a lost weight shows."""
    return {
        "q": r.normal(*batch, t, d, spread=spread),
        "k": r.normal(*batch, s, d),
        "v": r.normal(*batch, s, e) + float(r.integers(0, 2)),
        "mask": table(r, sort, t, s),
    }


SHAPES: dict[str, Any] = {"batch": BATCHES, "t": SIZES, "s": SIZES, "d": (1, 2, 3, 4, 8), "e": (1, 2, 3)}
anything = cases(make, **SHAPES, sort=MASKS, spread=(1.0, 0.0, 30.0, 1000.0))
seeing = cases(make, **SHAPES, sort=SEEING, spread=(1.0, 0.0, 30.0, 1000.0))
moderate = cases(make, **SHAPES, sort=SEEING, spread=(1.0,))
extreme = cases(make, **SHAPES, sort=SEEING, spread=(1000.0,))
blind = cases(make, **SHAPES, sort=("none", "blind rows"), spread=(1.0, 1000.0))
single = cases(make, **SHAPES, sort=("one",), spread=(1.0, 30.0, 1000.0))


def arguments(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return case["q"], case["k"], case["v"], case["mask"]


def definition(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The equation, one query at a time, over the keys that it may see."""
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for *b, i in np.ndindex(q.shape[:-1]):
        seen = np.flatnonzero(mask[i])
        if seen.size:
            scores = k[*b, seen] @ q[*b, i] / math.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            y[*b, i] = weights @ v[*b, seen] / weights.sum()
    return y


def rounding(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> float:
    """A score's rounding, that of its largest sum of magnitudes, is a weight's relative error."""
    d, s = q.shape[-1], k.shape[-2]
    scores = largest(np.abs(q) @ np.abs(k).swapaxes(-1, -2)) / math.sqrt(d)
    return bound((1.0 + scores) * largest(v), s + d)


# The equation


@law("attention", "definition", serves=("eq:attention", "eq:masked-softmax"), cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """softmax(q k^T / sqrt(d)) v over the keys that the mask allows, for all shapes, masks and sizes of scores."""
    q, k, v, mask = arguments(case)
    measure.close(call(f, q, k, v, mask), definition(q, k, v, mask), rounding(q, k, v), "attention")


@law("attention", "extreme-scores", serves=("eq:attention", "eq:masked-softmax"), cases=extreme)
def extreme_scores(f: F, case: Case, measure: Measure) -> None:
    """Scores of thousands give finite results, inside the range of the values."""
    q, k, v, mask = arguments(case)
    y = call(f, q, k, v, mask)
    measure.holds(np.all(np.isfinite(y)), f"attention is not finite: {y!r}")
    measure.holds(largest(y) <= largest(v) + rounding(q, k, v), f"attention reaches {largest(y)}, values {largest(v)}")


@law("attention", "padded-width", serves="eq:attention", cases=moderate)
def padded_width(f: F, case: Case, measure: Measure) -> None:
    """Scores are divided by sqrt(d): four times the width, filled with zeros, is the same as half the queries."""
    q, k, v, mask = arguments(case)
    wide_q, wide_k = (np.concatenate([x, np.zeros((*x.shape[:-1], 3 * x.shape[-1]))], axis=-1) for x in (q, k))
    measure.close(call(f, wide_q, wide_k, v, mask), call(f, q / 2, k, v, mask), rounding(q, k, v), "the padded result")


@law("attention", "sharp-limit", serves="eq:attention", cases=moderate)
def sharp_limit(f: F, case: Case, measure: Measure) -> None:
    """With queries long enough, attention picks the value of the best key: the limit of zero temperature."""
    q, k, v, mask = arguments(case)
    far, right, rows = np.zeros_like(q), np.zeros((*q.shape[:-1], v.shape[-1])), np.zeros(q.shape[:-1], bool)
    for *b, i in np.ndindex(q.shape[:-1]):
        seen = np.flatnonzero(mask[i])
        scores = k[*b, seen] @ q[*b, i] / math.sqrt(q.shape[-1])
        gap = np.diff(np.sort(scores))[-1] if seen.size > 1 else 1.0
        if seen.size and gap > 0.1:
            far[*b, i], right[*b, i], rows[*b, i] = q[*b, i] * 50 / gap, v[*b, seen[np.argmax(scores)]], True
    measure.close(call(f, far, k, v, mask)[rows], right[rows], rounding(far, k, v), "the value picked")


@law("attention", "flat-limit", serves="eq:attention", cases=moderate)
def flat_limit(f: F, case: Case, measure: Measure) -> None:
    """With queries of zero, attention is the mean of the values that may be seen."""
    q, k, v, mask = arguments(case)
    share = mask / mask.sum(axis=-1, keepdims=True)
    measure.close(call(f, 0 * q, k, v, mask), share @ v, rounding(0 * q, k, v), "attention of zero queries")


@law("attention", "key-shift", serves="eq:attention", cases=moderate)
def key_shift(f: F, case: Case, measure: Measure) -> None:
    """Adding one vector to all keys adds one number to all scores of a query, and changes nothing."""
    q, k, v, mask = arguments(case)
    moved = k + q[..., :1, :] + 1
    measure.close(call(f, q, moved, v, mask), call(f, q, k, v, mask), rounding(q, moved, v), "with all keys moved, it")


@law("attention", "products-only", serves="eq:attention", cases=moderate)
def products_only(f: F, case: Case, measure: Measure) -> None:
    """Queries and keys count by their products only: c q and k / c, mirrored together, give the same."""
    q, k, v, mask = arguments(case)
    sign = np.where(np.arange(q.shape[-1]) % 2, -4.0, 4.0)
    found = call(f, (q * sign)[..., ::-1], (k / sign)[..., ::-1], v, mask)
    measure.close(found, call(f, q, k, v, mask), rounding(q, k, v), "attention with c q and k / c")


# Rows are convex combinations


def with_unit_values(f: F, case: Case) -> np.ndarray:
    """The weights (..., t, s), which are the result for v = identity."""
    q, k, _, mask = arguments(case)
    s = k.shape[-2]
    return call(f, q, k, np.broadcast_to(np.eye(s), (*k.shape[:-2], s, s)), mask)


@law("attention", "weights", serves=("eq:attention", "eq:masked-softmax"), cases=anything)
def weights(f: F, case: Case, measure: Measure) -> None:
    """The weights, read off v = identity, are non-negative, sum to 1 where a key may be seen, and respect the mask."""
    q, k, _, mask = arguments(case)
    w = with_unit_values(f, case)
    measure.holds(w.shape == (*q.shape[:-1], k.shape[-2]), f"attention of unit values has shape {w.shape}")
    measure.holds(np.all(w >= 0), f"a weight is below 0, or no number: {w!r}")
    measure.holds(np.all(w[..., ~mask] == 0), f"a hidden key has weight: {w!r}")
    right = np.broadcast_to(mask.any(axis=-1).astype(float), q.shape[:-1])
    measure.close(w.sum(axis=-1), right, rounding(q, k, np.ones(1)), "the sum of the weights")


@law("attention", "linear-in-values", serves="eq:attention", cases=moderate)
def linear_in_values(f: F, case: Case, measure: Measure) -> None:
    """The result is the weights times the values, whatever the values are."""
    q, k, v, mask = arguments(case)
    measure.close(call(f, q, k, v, mask), with_unit_values(f, case) @ v, rounding(q, k, v), "attention")


@law("attention", "inside-the-hull", serves="eq:attention", cases=seeing)
def inside_the_hull(f: F, case: Case, measure: Measure) -> None:
    """Each component of a result lies between the least and the greatest of the values that may be seen."""
    q, k, v, mask = arguments(case)
    y, slack = call(f, q, k, v, mask), rounding(q, k, v)
    for i in np.flatnonzero(mask.any(axis=-1)):
        seen, row = v[..., mask[i], :], np.asarray(y[..., i, :])
        inside = (row >= seen.min(axis=-2) - slack) & (row <= seen.max(axis=-2) + slack)
        measure.holds(np.all(inside), f"query {i} gives {row!r}, outside the values that it sees")


@law("attention", "constant-values", serves="eq:attention", cases=seeing)
def constant_values(f: F, case: Case, measure: Measure) -> None:
    """If all values are equal, each query gets that value."""
    q, k, v, mask = arguments(case)
    same = np.array(np.broadcast_to(v[..., :1, :] + 1, v.shape))
    right = np.broadcast_to(same[..., :1, :], (*q.shape[:-1], v.shape[-1]))
    measure.close(call(f, q, k, same, mask), right, rounding(q, k, same), "attention over equal values")


@law("attention", "single-key", serves=("eq:attention", "eq:masked-softmax"), cases=single)
def single_key(f: F, case: Case, measure: Measure) -> None:
    """A query that may see one key gets that key's value."""
    q, k, v, mask = arguments(case)
    right = v[..., np.argmax(mask, axis=-1), :]
    measure.close(call(f, q, k, v, mask), right, bound(largest(v), k.shape[-2]), "attention to a single key")


@law("attention", "blind-queries", serves="eq:masked-softmax", cases=blind)
def blind_queries(f: F, case: Case, measure: Measure) -> None:
    """A query that may see no key gives exact zeros."""
    q, k, v, mask = arguments(case)
    y = call(f, q, k, v, mask)[..., ~mask.any(axis=-1), :]
    measure.holds(np.all(y == 0), f"a query that sees nothing gives {y!r}")


# Which order, who sees whom


@law("attention", "key-permutation", serves="eq:attention", cases=seeing)
def key_permutation(f: F, case: Case, measure: Measure) -> None:
    """Permuting keys, values and the mask's columns together changes nothing: without positions there is no order."""
    q, k, v, mask = arguments(case)
    p = Numbers(k.shape[-2], 0).order(k.shape[-2])
    found = call(f, q, k[..., p, :], v[..., p, :], mask[:, p])
    measure.close(found, call(f, q, k, v, mask), rounding(q, k, v), "attention with the keys permuted")


@law("attention", "query-permutation", serves="eq:attention", cases=seeing)
def query_permutation(f: F, case: Case, measure: Measure) -> None:
    """Permuting queries and the mask's rows permutes the results."""
    q, k, v, mask = arguments(case)
    p = Numbers(q.shape[-2], 0).order(q.shape[-2])
    found = call(f, q[..., p, :], k, v, mask[p])
    measure.close(found, call(f, q, k, v, mask)[..., p, :], rounding(q, k, v), "attention with the queries permuted")


@law("attention", "queries-alone", serves="eq:attention", cases=seeing)
def queries_alone(f: F, case: Case, measure: Measure) -> None:
    """A query's result does not depend on the other queries: decoding one at a time gives the same."""
    q, k, v, mask = arguments(case)
    y = call(f, q, k, v, mask)
    measure.holds(y.shape == (*q.shape[:-1], v.shape[-1]), f"attention has shape {y.shape}")
    for i in range(q.shape[-2]):
        alone = call(f, q[..., i : i + 1, :], k, v, mask[i : i + 1])
        measure.close(y[..., i : i + 1, :], alone, rounding(q, k, v), f"query {i} among the others, beside it alone,")


@law("attention", "batch-alone", serves="eq:attention", cases=seeing)
def batch_alone(f: F, case: Case, measure: Measure) -> None:
    """Axes in front are independent: sequences and heads do not see one another."""
    q, k, v, mask = arguments(case)
    y = call(f, q, k, v, mask)
    measure.holds(y.shape == (*q.shape[:-1], v.shape[-1]), f"attention has shape {y.shape}")
    for b in np.ndindex(q.shape[:-2]):
        measure.close(
            y[b], call(f, q[b], k[b], v[b], mask), rounding(q[b], k[b], v[b]), f"sequence {list(b)}, beside it alone,"
        )


@law("attention", "doubled-keys", serves="eq:attention", cases=moderate)
def doubled_keys(f: F, case: Case, measure: Measure) -> None:
    """Every key and value twice gives the same: only shares count, not the number of keys."""
    q, k, v, mask = arguments(case)
    found = call(f, q, np.repeat(k, 2, axis=-2), np.repeat(v, 2, axis=-2), np.repeat(mask, 2, axis=-1))
    measure.close(found, call(f, q, k, v, mask), rounding(q, k, v), "attention with every key twice")


@law("attention", "hidden-keys", serves=("eq:attention", "eq:mask"), cases=anything)
def hidden_keys(f: F, case: Case, measure: Measure) -> None:
    """Causality: changing a key and its value changes no query that may not see it, not by a bit."""
    q, k, v, mask = arguments(case)
    before = call(f, q, k, v, mask)
    for j in range(k.shape[-2]):
        other_k, other_v = k.copy(), v.copy()
        other_k[..., j, :] = 3 * other_k[..., j, :] + 50
        other_v[..., j, :] -= 100
        after, blind_to_j = call(f, q, other_k, other_v, mask), ~mask[:, j]
        same = np.array_equal(after[..., blind_to_j, :], before[..., blind_to_j, :], equal_nan=True)
        measure.holds(same, f"key {j} changed, and so did a query that may not see it")


@law("attention", "reach", serves=("eq:attention", "eq:mask"), cases=moderate)
def reach(f: F, case: Case, measure: Measure) -> None:
    """A change of a value reaches each query that may see it, by the key's weight."""
    q, k, v, mask = arguments(case)
    before = call(f, q, k, v, mask)
    share = definition(q, k, np.broadcast_to(np.eye(k.shape[-2]), (*k.shape[:-2], *[k.shape[-2]] * 2)), mask)
    for j in range(k.shape[-2]):
        other = v.copy()
        other[..., j, :] += 100
        rise = call(f, q, k, other, mask) - before
        right = np.broadcast_to(100 * share[..., j, None], rise.shape)
        measure.close(rise, right, rounding(q, k, other), f"the change where value {j} grew by 100")


@law("attention", "pure", serves="eq:attention", cases=moderate)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Queries, keys, values and mask are left as they are."""
    leaves_alone(f, dict(case), measure)
