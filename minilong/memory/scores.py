"""What attention says of keys: how much weight each received, and how votes are pooled over neighbours.

Weights are computed anew from queries and keys, some rows at a time, so that no table of all of them is made and any
kernel may have computed the attention itself.
"""

from __future__ import annotations

import numpy as np

from minilong.backend import Array, array_module
from minilong.backend.products import matmul

AREA = 1 << 20
"""Weights that exist at a time, where one row of them is not more."""


def attention_mass(q: Array, k: Array, scale: float, area: int = AREA) -> Array:
    """Sums of attention weights by key (`eq:attention-mass`): q (b, h, t, d), k (b, g, s, d) -> (b, g, s).

    The keys of the queries are the last t; query i sees those up to its own. Summed over the queries, and over the
    h / g query heads of each key head.
    """
    xp = array_module(q, k)
    (b, h, t, d), (g, s) = q.shape, k.shape[1:3]
    r = h // g
    mass, columns = xp.zeros((b, g, s), q.dtype), k.swapaxes(-1, -2)
    step = max(1, area // max(1, b * h * s))
    for i in range(0, t, step):
        n = min(step, t - i)
        seen = s - t + i + n  # what the last of these queries sees
        rows = (q[:, :, i : i + n] * scale).reshape(b, g, r * n, d)
        p = matmul(xp, rows, columns[..., :seen]).reshape(b, g, r, n, seen)
        if n > 1:
            later = xp.arange(n) > xp.arange(n)[:, None]
            p[..., seen - n :] = xp.where(later, -np.inf, p[..., seen - n :])
        p -= p.max(axis=-1, keepdims=True)
        xp.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        mass[..., :seen] += p.sum(axis=(2, 3))
    return mass


def pooled(votes: Array, kernel: int) -> Array:
    """The mean over `kernel` neighbours (an odd number), with zeros beyond both ends (`eq:snapkv`): (..., n)."""
    xp, n, half = array_module(votes), votes.shape[-1], kernel // 2
    total = votes.copy()
    for shift in range(1, min(half, n - 1) + 1):
        total[..., shift:] += votes[..., : n - shift]
        total[..., : n - shift] += votes[..., shift:]
    return xp.divide(total, kernel)


def largest_rows(score: Array, count: int) -> Array:
    """Where the `count` largest scores stand, by position; of equal ones the first: (..., n) -> (..., count)."""
    xp = array_module(score)
    return xp.sort(xp.argsort(-score, axis=-1, kind="stable")[..., :count], axis=-1)
