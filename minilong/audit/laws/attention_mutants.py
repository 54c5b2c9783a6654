"""Wrong attention: mistakes that were met in code, tutorials and bug reports, and likely ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.law import mutant

TINY = 1e-30
"""Below any sum of weights, which is at least 1; a divisor where there is none."""


def scores(q: Any, k: Any) -> Any:
    return q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])


def share(s: Any, mask: Any) -> Any:
    """Softmax of scores (..., t, s) over what the mask allows, zeros elsewhere."""
    s = np.where(mask, s, -np.inf)
    top = s.max(axis=-1, keepdims=True)
    e = np.where(mask, np.exp(s - np.where(np.isfinite(top), top, 0.0)), 0.0)
    return e / np.maximum(e.sum(axis=-1, keepdims=True), TINY)


def attend(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """The right one."""
    return share(scores(q, k), mask) @ v


# Scale


@mutant("attention", "divided-by-d", kills=("definition", "padded-width"), met="plausible: d for sqrt(d)")
def divided_by_d(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q / math.sqrt(q.shape[-1]), k, v, mask)


@mutant("attention", "unscaled", kills=("definition", "padded-width"), met="plausible: scale forgotten")
def unscaled(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(q @ k.swapaxes(-1, -2), mask) @ v


@mutant("attention", "scaled-by-length", kills=("definition", "doubled-keys"), met="plausible: k.shape[-2] for [-1]")
def scaled_by_length(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(q @ k.swapaxes(-1, -2) / math.sqrt(k.shape[-2]), mask) @ v


@mutant("attention", "scaled-output", kills=("constant-values", "weights", "reach"), met="the article, 3.3")
def scaled_output(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(q @ k.swapaxes(-1, -2), mask) @ v / math.sqrt(q.shape[-1])


@mutant("attention", "cosine", kills=("sharp-limit", "products-only"), met="cosine attention, as in Swin v2")
def cosine(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q / (np.linalg.norm(q, axis=-1, keepdims=True) + 1e-9), k, v, mask)


@mutant("attention", "soft-capped", kills=("sharp-limit", "key-shift"), met="Gemma 2's caps for every model")
def soft_capped(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(5 * np.tanh(scores(q, k) / 5), mask) @ v


@mutant("attention", "distance-scores", kills=("products-only", "key-shift"), met="plausible: a Gaussian kernel")
def distance_scores(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(scores(q, k) - (k * k).sum(axis=-1)[..., None, :] / 2, mask) @ v


# Softmax


@mutant("attention", "over-queries", kills=("weights", "queries-alone"), met="plausible: softmax over dim=-2")
def over_queries(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -1e30)
    e = np.where(mask, np.exp(s - s.max(axis=-2, keepdims=True)), 0.0)
    return e / np.maximum(e.sum(axis=-2, keepdims=True), TINY) @ v


@mutant("attention", "no-maximum", kills=("extreme-scores", "definition"), met="textbook code; exp overflows at 710")
def no_maximum(q: Any, k: Any, v: Any, mask: Any) -> Any:
    e = np.where(mask, np.exp(scores(q, k)), 0.0)
    return e / np.maximum(e.sum(axis=-1, keepdims=True), TINY) @ v


@mutant("attention", "one-maximum", kills=("batch-alone", "constant-values"), met="plausible: max() of all rows")
def one_maximum(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -np.inf)
    e = np.exp(s - max(float(s.max()), -1e300))
    return e / np.maximum(e.sum(axis=-1, keepdims=True), TINY) @ v


@mutant("attention", "plus-one", kills=("weights", "single-key", "flat-limit"), met="'softmax1', attention sinks")
def plus_one(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -np.inf)
    top = np.maximum(s.max(axis=-1, keepdims=True), 0.0)
    e = np.exp(s - top)
    return e / (np.exp(-top) + e.sum(axis=-1, keepdims=True)) @ v


@mutant(
    "attention", "unnormalised", kills=("weights", "doubled-keys", "inside-the-hull"), met="plausible: sum forgotten"
)
def unnormalised(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -1e30)
    return np.where(mask, np.exp(s - s.max(axis=-1, keepdims=True)), 0.0) @ v


@mutant("attention", "linear-kernel", kills=("sharp-limit", "definition"), met="linear attention for softmax")
def linear_kernel(q: Any, k: Any, v: Any, mask: Any) -> Any:
    a, b = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    e = np.where(mask, a @ b.swapaxes(-1, -2), 0.0)
    return e / np.maximum(e.sum(axis=-1, keepdims=True), TINY) @ v


@mutant("attention", "top-keys", kills=("reach", "flat-limit"), met="top-k attention left on in a shared kernel")
def top_keys(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -np.inf)
    least = np.sort(s, axis=-1)[..., -min(2, s.shape[-1]), None]
    rank = np.argsort(np.argsort(-s, axis=-1, kind="stable"), axis=-1)
    return share(s, mask & (s >= least) & (rank < 2)) @ v


@mutant("attention", "centred-values", kills=("constant-values", "single-key"), met="plausible: v normalised")
def centred_values(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v - v.mean(axis=-2, keepdims=True), mask)


@mutant("attention", "value-gate", kills=("linear-in-values",), met="plausible: an activation left on the values")
def value_gate(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, np.maximum(v, 0.0), mask)


@mutant("attention", "float32", kills=("definition",), met="an autocast left on; the result is float64 by name only")
def in_float32(q: Any, k: Any, v: Any, mask: Any) -> Any:
    low_q, low_k, low_v = (x.astype(np.float32) for x in (q, k, v))
    return attend(low_q, low_k, low_v, mask).astype(np.float64)


@mutant("attention", "in-place", kills=("pure",), met="plausible: q *= scale on the caller's queries")
def in_place(q: Any, k: Any, v: Any, mask: Any) -> Any:
    q *= 1 / math.sqrt(q.shape[-1]) if q.shape[-1] > 1 else 0.999
    return share(q @ k.swapaxes(-1, -2), mask) @ v


# Mask


@mutant("attention", "mask-ignored", kills=("hidden-keys", "weights"), met="transformers, attention_interface.md")
def mask_ignored(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v, np.ones_like(mask))


@mutant("attention", "mask-inverted", kills=("hidden-keys", "reach"), met="PyTorch's key_padding_mask: True hides")
def mask_inverted(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v, ~mask)


@mutant("attention", "mask-added", kills=("hidden-keys", "weights"), met="booleans given where a float mask is added")
def mask_added(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return (
        attend(q, k, v + 0.0, np.ones_like(mask)) if mask.all() else share(scores(q, k) + mask, np.ones_like(mask)) @ v
    )


@mutant("attention", "mask-too-weak", kills=("hidden-keys", "weights"), met="plausible: -100 for minus infinity")
def mask_too_weak(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(np.where(mask, scores(q, k), -100.0), mask | mask.any(axis=-1, keepdims=True)) @ v


@mutant("attention", "mask-after-softmax", kills=("weights", "constant-values"), met="plausible: weights * mask")
def mask_after_softmax(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(scores(q, k), np.ones_like(mask)) * mask @ v


@mutant("attention", "mask-transposed", kills=("hidden-keys", "definition"), met="plausible: (s, t) for (t, s)")
def mask_transposed(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v, mask.T if mask.shape[0] == mask.shape[1] else mask)


@mutant(
    "attention", "minus-1e9", kills=("blind-queries", "weights"), met="of burn PR #4697, iree #24175, allennlp #890"
)
def minus_1e9(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(np.where(mask, scores(q, k), -1e9), np.ones_like(mask)) @ v


@mutant("attention", "minus-infinity", kills=("blind-queries",), met="NaN, in the same reports as minus-1e9")
def minus_infinity(q: Any, k: Any, v: Any, mask: Any) -> Any:
    s = np.where(mask, scores(q, k), -np.inf)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


@mutant("attention", "sees-one-ahead", kills=("hidden-keys", "weights"), met="causal off by one: triu(diagonal=2)")
def sees_one_ahead(q: Any, k: Any, v: Any, mask: Any) -> Any:
    ahead = mask.copy()
    ahead[:, 1:] |= mask[:, :-1]
    return attend(q, k, v, ahead)


@mutant("attention", "window-one-short", kills=("reach", "single-key"), met="off by one: vLLM 3385, HF 29623")
def window_one_short(q: Any, k: Any, v: Any, mask: Any) -> Any:
    first = np.cumsum(mask, axis=-1) == 1
    return attend(q, k, v, mask & ~first)


@mutant("attention", "always-causal", kills=("reach", "key-permutation"), met="nanochat #752, #805: hard-coded")
def always_causal(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v, np.tril(mask, max(mask.shape[1] - mask.shape[0], 0)))


@mutant("attention", "window-at-decoding", kills=("queries-alone", "definition"), met="nanochat #452")
def window_at_decoding(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q, k, v, mask if len(mask) > 1 else np.ones_like(mask))


# Order and independence


@mutant("attention", "recency-bias", kills=("key-permutation", "flat-limit"), met="plausible: ALiBi inside a kernel")
def recency_bias(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return share(scores(q, k) + 0.1 * np.arange(k.shape[-2]), mask) @ v


@mutant(
    "attention", "query-position", kills=("query-permutation", "queries-alone"), met="plausible: scaled by log length"
)
def query_position(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return attend(q * np.log(np.e + np.arange(q.shape[-2]))[:, None], k, v, mask)


@mutant("attention", "first-in-batch", kills=("batch-alone", "definition"), met="plausible: one sequence's weights")
def first_in_batch(q: Any, k: Any, v: Any, mask: Any) -> Any:
    w = share(scores(q, k), mask)
    return (w if w.ndim == 2 else np.broadcast_to(w[:1], w.shape)) @ v


@mutant("attention", "last-block-lost", kills=("reach", "key-permutation"), met="plausible: loop over whole blocks")
def last_block_lost(q: Any, k: Any, v: Any, mask: Any) -> Any:
    whole = max(k.shape[-2] // 2 * 2, 1)
    return attend(q, k, v, mask & (np.arange(k.shape[-2]) < whole))


@mutant(
    "attention",
    "blocks-not-rescaled",
    kills=("definition", "doubled-keys"),
    met="plausible: flash attention, no factor",
)
def blocks_not_rescaled(q: Any, k: Any, v: Any, mask: Any) -> Any:
    total, y = np.zeros((*q.shape[:-1], 1)), np.zeros((*q.shape[:-1], v.shape[-1]))
    for j in range(0, k.shape[-2], 2):
        block = slice(j, j + 2)
        s = np.where(mask[:, block], scores(q, k[..., block, :]), -1e30)
        e = np.where(mask[:, block], np.exp(s - s.max(axis=-1, keepdims=True)), 0.0)
        total, y = total + e.sum(axis=-1, keepdims=True), y + e @ v[..., block, :]
    return y / np.maximum(total, TINY)
