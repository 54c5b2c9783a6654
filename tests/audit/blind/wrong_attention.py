"""Attention and softmax as people have written them, each with one fault. `test_blind.py` says which law finds it."""

import math

import numpy as np


def softmax_over_keys(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_query_sees_all(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A single query is the newest token while decoding, so the mask is left out: but a window still hides keys."""
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if q.shape[-2] > 1:
        scores = np.where(mask, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = e.sum(axis=-1, keepdims=True)
    return (e / np.where(total > 0, total, 1.0)) @ v


def small_penalty(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Masked scores lose 10,000, which is a lot only where scores are small; rows that see nothing are zeroed."""
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    scores = scores + (1.0 - mask) * -10000.0
    return softmax_over_keys(scores) @ v * mask.any(axis=-1, keepdims=True)


def width_of_values(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Divides by the root of the values' width: the same as the keys' in most models."""
    d = v.shape[-1]
    scores = np.einsum("...td,...sd->...ts", q, k) / math.sqrt(d)
    weights = softmax_over_keys(np.where(mask, scores, np.finfo(scores.dtype).min))
    return np.einsum("...ts,...se->...te", weights * mask.any(axis=-1)[:, None], v)


def masked_by_product(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Multiplies the scores by the mask: a masked key has the score 0, not none."""
    scores = (q @ np.swapaxes(k, -1, -2)) * mask / math.sqrt(q.shape[-1])
    return np.where(mask.any(axis=-1)[:, None], softmax_over_keys(scores) @ v, 0.0)


def stale_accumulator(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blocks of keys with a running softmax; where the maximum grows, the sum is rescaled and the output is not."""
    block = 64
    q = q / math.sqrt(q.shape[-1])
    top = np.full((*q.shape[:-1], 1), -np.inf)
    total = np.zeros_like(top)
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2], block):
        keys = slice(start, start + block)
        scores = np.where(mask[:, keys], q @ np.swapaxes(k[..., keys, :], -1, -2), -np.inf)
        new = np.maximum(top, scores.max(axis=-1, keepdims=True))
        safe = np.where(np.isfinite(new), new, 0.0)
        e = np.exp(scores - safe)
        total = total * np.exp(top - safe) + e.sum(axis=-1, keepdims=True)
        out = out + e @ v[..., keys, :]
        top = new
    return out / np.where(total > 0, total, 1.0)


def last_block_dropped(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Queries go in chunks of 32; what remains after the whole chunks is forgotten, except where there is no other."""
    chunk = 32
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for i in range(max(1, q.shape[-2] // chunk)):
        rows = slice(i * chunk, (i + 1) * chunk)
        scores = q[..., rows, :] @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        allowed = mask[rows]
        weights = softmax_over_keys(np.where(allowed, scores, -1e300))
        out[..., rows, :] = np.where(allowed.any(axis=-1)[:, None], weights @ v, 0.0)
    return out


def one_maximum_for_all(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Takes one maximum from all scores: a row far below it comes out as zeros."""
    scores = np.where(mask, q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    top = scores.max()
    e = np.exp(scores - (top if np.isfinite(top) else 0.0))
    total = e.sum(axis=-1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0) @ v


def scaled_in_place(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scales the caller's queries: the second call with the same array gives another answer."""
    q /= math.sqrt(q.shape[-1])
    scores = np.where(mask, q @ np.swapaxes(k, -1, -2), -1e300)
    return np.where(mask.any(axis=-1)[:, None], softmax_over_keys(scores) @ v, 0.0)


def softmax_in_place(x: np.ndarray) -> np.ndarray:
    """The usual lines with `-=`: they overwrite the caller's logits."""
    x -= x.max(axis=-1, keepdims=True)
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_clipped(x: np.ndarray) -> np.ndarray:
    """No overflow thanks to a clip, which makes all logits beyond it equal."""
    e = np.exp(np.clip(x, -500.0, 500.0))
    return e / np.sum(e, axis=-1, keepdims=True)


def softmax_second_axis(x: np.ndarray) -> np.ndarray:
    """`axis=1` is the last axis of a matrix, and of nothing else."""
    if x.ndim == 1:
        x = x[None]
        return softmax_second_axis(x)[0]
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def softmax_in_blocks(x: np.ndarray) -> np.ndarray:
    """A running maximum over blocks of 256 logits; the sum so far is not rescaled when it grows."""
    top = np.full((*x.shape[:-1], 1), -np.inf)
    total = np.zeros_like(top)
    for start in range(0, x.shape[-1], 256):
        block = x[..., start : start + 256]
        top = np.maximum(top, block.max(axis=-1, keepdims=True))
        total = total + np.exp(block - top).sum(axis=-1, keepdims=True)
    return np.exp(x - top) / total
