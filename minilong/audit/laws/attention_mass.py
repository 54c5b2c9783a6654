"""Laws of sums of attention by key, on which caches decide what they keep; and wrong sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.memory.scores import attention_mass

kind("attention-mass", "attention_mass(q, k, scale)", "q (b, h, t, d), k (b, g, n, d), causal -> (b, g, n)")

subject("attention-mass", "attention_mass", code=attention_mass, equation="eq:attention-mass")(attention_mass)


@subject("attention-mass", "some rows at a time", code=attention_mass, equation="eq:attention-mass")
def ours_by_rows(q: Any, k: Any, scale: float) -> Any:
    return attention_mass(q, k, scale, area=2 * k.shape[-2] * q.shape[0] * q.shape[1])


def make(r: Numbers, n: int, t: int, g: int, shared: int, b: int, scale: float) -> Case:
    q, k = r.normal(b, g * shared, n, 2, spread=1.5), r.normal(b, g, n, 2, spread=1.5)
    return {"q": q[:, :, -min(t, n) :], "k": k, "scale": scale}


masses = cases(make, n=(3, 1, 2, 5, 8), t=(1, 2, 8), g=(1, 2), shared=(1, 2), b=(1, 2), scale=(1.0, 0.5))


@law("attention-mass", "column-sums", serves="eq:attention-mass", cases=masses)
def column_sums(f: F, c: Case, measure: Measure) -> None:
    """The sums over queries, and over the query heads of each key head, of causal attention's weights."""
    q, k, scale = c["q"], c["k"], c["scale"]
    (b, h, t, _), (g, n) = q.shape, k.shape[1:3]
    expected = np.zeros((b, g, n))
    for head in range(h):
        scores = scale * q[:, head] @ k[:, head * g // h].swapaxes(-1, -2)
        scores = np.where(np.arange(n) <= np.arange(n - t, n)[:, None], scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        expected[:, head * g // h] += (p / p.sum(axis=-1, keepdims=True)).sum(axis=-2)
    condition = (1 + abs(scale) * largest(q) * largest(k) * q.shape[-1]) * h * t
    measure.close(call(f, c["q"], c["k"], c["scale"]), expected, bound(condition, n + t), "the sum of a key")


@law("attention-mass", "total", serves="eq:attention-mass", cases=masses)
def total(f: F, c: Case, measure: Measure) -> None:
    """All keys of a key head together receive 1 from each query of each of its query heads."""
    found, queries = (
        call(f, c["q"], c["k"], c["scale"]).sum(axis=-1),
        c["q"].shape[1] // c["k"].shape[1] * c["q"].shape[2],
    )
    measure.close(found, np.full(found.shape, float(queries)), bound(queries, c["k"].shape[-2] + queries), "the total")


def tables(q: Any, k: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores (b, g, r, t, n), and whether a query sees a key."""
    (b, h, t, d), (g, n) = q.shape, k.shape[1:3]
    scores = scale * q.reshape(b, g, h // g, t, d) @ k[:, :, None].swapaxes(-1, -2)
    return scores, np.arange(n) <= np.arange(n - t, n)[:, None]


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    y: np.ndarray = p / p.sum(axis=-1, keepdims=True)
    return y


# Mutants


@mutant("attention-mass", "sums of queries", kills="column-sums",
        met="plausible: attn.sum(-1) for attn.sum(-2), which is 1 for each query")  # fmt: skip
def by_query(q: Any, k: Any, scale: float) -> Any:
    scores, seen = tables(q, k, scale)
    p = softmax(np.where(seen, scores, -np.inf)).sum(axis=(2, -1))
    y = np.zeros((*k.shape[:2], k.shape[2]))
    y[..., k.shape[2] - q.shape[2] :] = p
    return y


@mutant("attention-mass", "softmax before the mask", kills=("column-sums", "total"),
        met="plausible: weights over all keys, those of later ones set to zero afterwards")  # fmt: skip
def before_mask(q: Any, k: Any, scale: float) -> Any:
    scores, seen = tables(q, k, scale)
    return np.where(seen, softmax(scores), 0.0).sum(axis=(2, 3))


@mutant("attention-mass", "query heads of the wrong key head", kills="column-sums",
        met="plausible: repeat_kv by tile for repeat, so that head h goes to key head h mod g")  # fmt: skip
def tiled(q: Any, k: Any, scale: float) -> Any:
    h, g = q.shape[1], k.shape[1]
    order = np.arange(h).reshape(h // g, g).T.ravel()
    return attention_mass(q[:, order], k, scale)


@mutant("attention-mass", "mean of the query heads' scores", kills="column-sums",
        met="plausible: query heads averaged before the softmax, not after")  # fmt: skip
def averaged(q: Any, k: Any, scale: float) -> Any:
    scores, seen = tables(q, k, scale)
    p = softmax(np.where(seen, scores.mean(axis=2, keepdims=True), -np.inf))
    return p.sum(axis=(2, 3)) * scores.shape[2]


@mutant("attention-mass", "keys ahead of a later piece", kills="column-sums",
        met="H2O's code: a causal mask of queries alone, where there are earlier keys")  # fmt: skip
def without_offset(q: Any, k: Any, scale: float) -> Any:
    scores, _ = tables(q, k, scale)
    seen = np.arange(k.shape[2]) <= np.arange(q.shape[2])[:, None]
    return softmax(np.where(seen, scores, -np.inf)).sum(axis=(2, 3))
