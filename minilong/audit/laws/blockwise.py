"""Blockwise attention, its log-sum-exp, and the merging of parts (`specs/blockwise.md`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import minilong.attention as kernels
from minilong.attention import Blockwise, DistanceBias, Mask
from minilong.attention.blocks import Blocks
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.blockwise_cases import (
    NAMES,
    arguments,
    drawn,
    log_sum_exp,
    rounding,
    rounding_lse,
    scores,
    table,
    weights,
    wide,
)
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone

INPUTS = "q (b, h, t, d), k (b, g, s, d), v (b, g, s, e), mask a Mask, blocks, values (h, m) or None with least: a bias"

kind(
    "blockwise-attention",
    "blockwise_attention(q, k, v, scale, mask, blocks, values, least)",
    f"{INPUTS} -> (b, h, t, e): attention computed block by block.",
)
kind(
    "log-sum-exp",
    "log_sum_exp(q, k, v, scale, mask, blocks, values, least)",
    f"{INPUTS} -> (b, h, t): the logarithm of the sum of the exponentials of what each query sees.",
)
kind(
    "merge-attention",
    "merge_attention(y, a, z, b)",
    "Outputs y, z (..., e) over two sets of keys, a, b (...) their log-sum-exps -> [output, log-sum-exp] over both.",
)


def bias_of(values: Any, least: int) -> DistanceBias | None:
    """The bias of a case."""
    return None if values is None else DistanceBias(values, least)


def blockwise_of(blocks: Blocks) -> Blockwise:
    """The kernel with a case's blocks."""
    return Blockwise(blocks.threads, blocks.rows, blocks.columns)


@subject("blockwise-attention", "blockwise", code=Blockwise.__call__, equation="eq:blockwise-attention")
def ours(q: Any, k: Any, v: Any, scale: float, mask: Mask, blocks: Blocks, values: Any, least: int) -> Any:
    return blockwise_of(blocks)(q, k, v, mask=mask, scale=scale, bias=bias_of(values, least))


@subject("blockwise-attention", "auto by size", code=kernels.Auto.__call__, equation="eq:blockwise-attention")
def ours_auto(q: Any, k: Any, v: Any, scale: float, mask: Mask, blocks: Blocks, values: Any, least: int) -> Any:
    kernel = kernels.Auto(blockwise_of(blocks), limit=12 * blocks.rows)
    return kernel(q, k, v, mask=mask, scale=scale, bias=bias_of(values, least))


@subject("log-sum-exp", "Blockwise.with_lse", code=Blockwise.with_lse, equation="eq:log-sum-exp")
def ours_lse(q: Any, k: Any, v: Any, scale: float, mask: Mask, blocks: Blocks, values: Any, least: int) -> Any:
    return blockwise_of(blocks).with_lse(q, k, v, mask=mask, scale=scale, bias=bias_of(values, least))[1]


@subject("merge-attention", "merge", code=kernels.merge, equation="eq:merge-attention")
def ours_merge(y: Any, a: Any, z: Any, b: Any) -> Any:
    return list(kernels.merge((y, a), (z, b)))


# The output


@law("blockwise-attention", "definition", serves=("eq:blockwise-attention", "eq:attention", "eq:mask"), cases=drawn())
def equals_definition(f: F, c: Case, measure: Measure) -> None:
    """For every mask, bias, size and block the result is the softmax of all visible scores, times the values."""
    measure.close(call(f, *arguments(c)), weights(c) @ wide(c["q"], c["v"]), rounding(c), "attention")


@law("blockwise-attention", "any-blocks", serves="eq:blockwise-attention", cases=drawn())
def any_blocks(f: F, c: Case, measure: Measure) -> None:
    """Blocks of one query and one key, and one block for all, give the same."""
    found = call(f, *arguments(c))
    for rows, columns in ((1, 1), (100, 100), (2, 3)):
        other = call(f, *arguments({**c, "blocks": Blocks(rows=rows, columns=columns)}))
        measure.close(found, other, rounding(c), f"attention in blocks of {rows} x {columns}")


@law("blockwise-attention", "chunks", serves="eq:blockwise-attention", cases=drawn())
def chunks(f: F, c: Case, measure: Measure) -> None:
    """Queries one at a time, each at its offset, give what they give together: decoding is the full pass."""
    together = call(f, *arguments(c))
    for i in range(c["q"].shape[-2]):
        mask = replace(c["mask"], offset=c["mask"].offset + i)
        alone = call(f, *arguments({**c, "q": c["q"][..., i : i + 1, :], "mask": mask}))
        measure.close(alone, together[..., i : i + 1, :], rounding(c), f"query {i} alone")


@law("blockwise-attention", "hidden-keys", serves=("eq:blockwise-attention", "eq:mask"), cases=drawn())
def hidden_keys(f: F, c: Case, measure: Measure) -> None:
    """Changing what no query of a sequence sees changes nothing beyond rounding, however large it becomes."""
    before = call(f, *arguments(c))
    unseen = np.logical_not(np.any(table(c), axis=(1, 2)))
    k, v = c["k"].copy(), c["v"].copy()
    for b in range(len(k)):
        hidden = np.broadcast_to(unseen[min(b, len(unseen) - 1)], k.shape[-2:-1])
        k[b][:, hidden], v[b][:, hidden] = 1e6, -1e6
    measure.close(call(f, *arguments({**c, "k": k, "v": v})), before, rounding(c), "attention with hidden keys changed")


@law("blockwise-attention", "blind-queries", serves=("eq:blockwise-attention", "claim:masked-rows"), cases=drawn())
def blind_queries(f: F, c: Case, measure: Measure) -> None:
    """A query that sees no key gives zeros, exactly."""
    y = call(f, *arguments(c))
    blind = np.broadcast_to(~table(c).any(axis=-1), y.shape[:-1])
    measure.holds(np.all(y[blind] == 0), f"queries that see nothing give {y[blind].tolist()}")


@law("blockwise-attention", "pure", serves="eq:blockwise-attention", cases=drawn(spread=1.0))
def pure(f: F, c: Case, measure: Measure) -> None:
    """Queries, keys, values and bias are left as they are."""
    leaves_alone(f, dict(zip(NAMES, arguments(c), strict=True)), measure)


# The log-sum-exp


@law("log-sum-exp", "definition", serves="eq:log-sum-exp", cases=drawn())
def equals_logsumexp(f: F, c: Case, measure: Measure) -> None:
    """The logarithm of the sum of exp(score) over the visible keys; minus infinity where there is none."""
    found, right = call(f, *arguments(c)), log_sum_exp(scores(c))
    measure.holds(found.shape == right.shape, f"the log-sum-exp has shape {found.shape}")
    blind = right == -np.inf
    measure.holds(np.array_equal(found == -np.inf, blind), "another set of queries than the blind ones has -inf")
    measure.close(found[~blind], right[~blind], rounding_lse(c), "the log-sum-exp")


@law("log-sum-exp", "shift", serves="eq:log-sum-exp", cases=drawn(padded=False, packed=False, sinks=0))
def shift(f: F, c: Case, measure: Measure) -> None:
    """Adding one vector u to every key raises each query's log-sum-exp by scale <q, u>, which is its scores' shift."""
    u = np.round(np.linspace(-2, 3, c["q"].shape[-1]), 1)
    moved = {**c, "k": c["k"] + u}
    found, before = call(f, *arguments(moved)), call(f, *arguments(c))
    seen = np.isfinite(before)
    rise = np.broadcast_to(c["scale"] * (c["q"] @ u), before.shape)
    measure.holds(np.array_equal(np.isfinite(found), seen), "other queries see nothing once the keys have moved")
    measure.close(found[seen] - before[seen], rise[seen], 2 * rounding_lse(moved) + rounding_lse(c), "the rise")


@law(
    "log-sum-exp",
    "doubled-keys",
    serves="eq:log-sum-exp",
    cases=drawn(causal=False, window=None, packed=False, padded=False, bias=(0, 1)),
)
def doubled(f: F, c: Case, measure: Measure) -> None:
    """Every key twice adds log 2."""
    twice = {**c, "k": np.repeat(c["k"], 2, axis=-2), "v": np.repeat(c["v"], 2, axis=-2)}
    measure.close(
        call(f, *arguments(twice)), call(f, *arguments(c)) + np.log(2), 2 * rounding_lse(twice), "with every key twice"
    )


# Merging


def parts(r: Numbers, *, rows: int, keys: tuple[int, int, int], e: int, spread: float) -> Case:
    """Scores and values of three sets of keys, some of them empty."""
    return {
        "scores": [r.normal(rows, n, spread=spread) for n in keys],
        "values": [r.normal(n, e) for n in keys],
    }


PARTS = cases(
    parts,
    rows=(1, 2, 3),
    keys=((1, 1, 1), (2, 1, 3), (3, 0, 2), (0, 2, 0), (0, 0, 0), (5, 4, 0)),
    e=(1, 2),
    spread=(1.0, 30.0, 1000.0),
)


def of_part(s: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and log-sum-exp over one set of keys."""
    lse = log_sum_exp(np.concatenate([s, np.full((len(s), 1), -np.inf)], axis=-1))
    return np.exp(s - np.where(lse == -np.inf, 0.0, lse)[:, None]) @ v, lse


def merged(f: F, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The function's two results."""
    out, lse = f(*(np.array(a) for a in (*x, *y)))
    return np.asarray(out), np.asarray(lse)


def same(measure: Measure, found: Any, right: Any, c: Case, what: str) -> None:
    """Equal outputs and log-sum-exps, infinities in the same places."""
    largest_score = 1 + largest(*c["scores"])
    n = 3 + sum(len(v) for v in c["values"])
    measure.close(found[0], right[0], bound(largest_score * (1 + largest(*c["values"])), n), f"the output {what}")
    seen = right[1] > -np.inf
    measure.holds(np.array_equal(found[1] > -np.inf, seen), f"the log-sum-exp {what} is {found[1].tolist()}")
    measure.close(found[1][seen], right[1][seen], bound(largest_score, n), f"the log-sum-exp {what}")


@law("merge-attention", "union", serves="eq:merge-attention", cases=PARTS)
def union(f: F, c: Case, measure: Measure) -> None:
    """Merging attention over two sets of keys gives attention over both."""
    (s, t, _), (v, w, _) = c["scores"], c["values"]
    whole = of_part(np.concatenate([s, t], axis=-1), np.concatenate([v, w]))
    same(measure, merged(f, of_part(s, v), of_part(t, w)), whole, c, "of the union")


@law("merge-attention", "monoid", serves="eq:merge-attention", cases=PARTS)
def monoid(f: F, c: Case, measure: Measure) -> None:
    """Merging is associative and commutative, and attention over no key changes nothing."""
    x, y, z = (of_part(s, v) for s, v in zip(c["scores"], c["values"], strict=True))
    same(measure, merged(f, merged(f, x, y), z), merged(f, x, merged(f, y, z)), c, "in another grouping")
    same(measure, merged(f, x, y), merged(f, y, x), c, "in another order")
    none = np.zeros_like(x[0]), np.full_like(x[1], -np.inf)
    same(measure, merged(f, x, none), x, c, "with nothing")
