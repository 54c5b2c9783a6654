"""Long inputs: what works in blocks must join the blocks, the last one too. Sizes lie beside the usual block sizes.

The other laws draw small arrays, which fit into one block of 64 keys, 128 tokens or 256 classes: a kernel that joins
its blocks wrongly passes all of them. These laws say nothing new about the equations; they ask at other sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, law, mutant
from minilong.audit.laws import attention, loss, softmax
from minilong.audit.laws.attention_mutants import attend, scores
from minilong.audit.laws.common import F, call
from minilong.audit.laws.loss_mutants import losses_of, mean_kept

LONG = (1, 33, 65, 129, 257, 513, 600)
"""One more than block sizes from 32 to 512, and a length that leaves a remainder to all of them."""


def make_attention(r: Numbers, t: int, s: int, sort: str, spread: float) -> Case:
    """Queries, keys and values of width 2 and 1. The first query likes the last key best: its maximum grows there."""
    case = attention.make(r, (), t, s, 2, 1, sort, spread)
    case["k"][-1] = 3 * np.sign(case["q"][0])
    return case


def make_logits(r: Numbers, rows: int, n: int, spread: float) -> Case:
    """The last logit of each row is among the largest."""
    x = r.normal(rows, n, spread=spread)
    x[:, -1] = 3 * spread
    return {"x": x}


def make_tokens(r: Numbers, n: int, classes: int, dropped: float, spread: float) -> Case:
    """Where tokens are ignored, the last third is as well, as padding would be."""
    case = dict(loss.make(r, n, classes, -100, dropped, spread))
    del case["cut"]
    if dropped and n > 2:
        case["targets"][-(n // 3) :] = -100
        case["targets"][0] = 0
    return case


@law(
    "attention",
    "long",
    serves="eq:attention",
    cases=cases(make_attention, t=LONG, s=LONG, sort=("all", "causal", "random", "window"), spread=(1.0, 30.0)),
    share=0.5,
)
def long_attention(f: F, case: Case, measure: Measure) -> None:
    """Hundreds of queries and keys, of lengths that no block size divides, give what the equation says."""
    q, k, v, mask = attention.arguments(case)
    right = attention.definition(q, k, v, mask)
    measure.close(call(f, q, k, v, mask), right, attention.rounding(q, k, v), "attention")


@law(
    "softmax",
    "long",
    serves="eq:softmax",
    cases=cases(make_logits, rows=(1, 2), n=(*LONG, 1025, 4100), spread=(1.0, 30.0)),
)
def long_rows(f: F, case: Case, measure: Measure) -> None:
    """Thousands of logits, of a number that no block size divides, give what the equation says."""
    x = case["x"]
    measure.close(call(f, x), softmax.definition(x), softmax.rounding(x), "softmax(x)")


@law(
    "cross-entropy",
    "long",
    serves="eq:cross-entropy",
    cases=cases(
        make_tokens,
        n=(1, 2, 33, 65, 129, 300),
        classes=(2, 3, 65, 129, 257, 600),
        dropped=(0.0, 0.3),
        spread=(1.0, 30.0),
    ),
)
def many_tokens(f: F, case: Case, measure: Measure) -> None:
    """Hundreds of tokens and classes, unevenly padded, give the mean over all tokens kept, in whatever chunks."""
    logits, targets, ignore = loss.arguments(case)
    kept = targets != ignore
    right = float(losses_of(logits[kept], targets[kept]).mean())
    measure.close(call(f, logits, targets, ignore), right, loss.rounding(logits), "cross-entropy")


# Mutants


@mutant("attention", "output-not-rescaled", kills=("long",), met="plausible: flash attention in blocks of 64 keys")
def output_not_rescaled(q: Any, k: Any, v: Any, mask: Any) -> Any:
    top, total = np.full((*q.shape[:-1], 1), -1e30), np.zeros((*q.shape[:-1], 1))
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for j in range(0, k.shape[-2], 64):
        here = slice(j, j + 64)
        s = np.where(mask[:, here], scores(q, k[..., here, :]), -np.inf)
        new = np.maximum(top, s.max(axis=-1, keepdims=True))
        e = np.exp(s - new)
        total, y, top = total * np.exp(top - new) + e.sum(axis=-1, keepdims=True), y + e @ v[..., here, :], new
    return y / np.where(total == 0, 1.0, total)


@mutant("attention", "last-queries-lost", kills=("long",), met="plausible: a loop over whole chunks of 32 queries")
def last_queries_lost(q: Any, k: Any, v: Any, mask: Any) -> Any:
    y = attend(q, k, v, mask)
    t = q.shape[-2]
    y[..., max(t // 32 * 32, min(t, 32)) :, :] = 0
    return y


@mutant("softmax", "sum-not-rescaled", kills=("long",), met="plausible: online softmax in blocks of 256, no factor")
def sum_not_rescaled(x: Any) -> Any:
    top, total = np.full((*x.shape[:-1], 1), -np.inf), 0.0
    for j in range(0, x.shape[-1], 256):
        top = np.maximum(top, x[..., j : j + 256].max(axis=-1, keepdims=True))
        total = total + np.exp(x[..., j : j + 256] - top).sum(axis=-1, keepdims=True)
    return np.exp(x - top) / total


@mutant("cross-entropy", "mean-of-chunks", kills=("long",), met="HF 34191's mean of means, in a loss by chunks of 128")
def mean_of_chunks(logits: Any, targets: Any, ignore_index: int) -> Any:
    losses, kept = losses_of(logits, targets), targets != ignore_index
    parts = [slice(j, j + 128) for j in range(0, len(targets), 128)]
    means = [mean_kept(losses[p], kept[p]) for p in parts if kept[p].any()]
    return sum(means) / max(len(means), 1)


@mutant("cross-entropy", "last-classes-lost", kills=("long",), met="plausible: a fused loss over whole blocks of 256")
def last_classes_lost(logits: Any, targets: Any, ignore_index: int) -> Any:
    classes = logits.shape[1]
    summed = logits[:, : max(classes // 256 * 256, min(classes, 256))]
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(summed - top[:, None]).sum(axis=1))
    picked = np.take_along_axis(logits, np.maximum(targets, 0)[:, None], axis=1)[:, 0]
    return mean_kept(log_sum - picked, targets != ignore_index)
