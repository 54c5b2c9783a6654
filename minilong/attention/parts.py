"""Attention over keys that are given in parts, one of which is in memory at a time (`eq:attention-by-parts`)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.attention.bias import DistanceBias
from minilong.attention.kernels import blockwise, merge
from minilong.attention.mask import Mask
from minilong.attention.naive import array_of, repeat_heads
from minilong.backend import Array
from minilong.backend.products import matmul


def attention_by_parts(
    q: Array,
    parts: Iterable[tuple[Array, Array]],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    bias: Any = None,
) -> Array:
    """What `naive` gives for the parts side by side: q (b, h, t, d), parts of k (b, g, s, d) and v (b, g, s, e).

    Plain arrays. A part may be overwritten when the next one is asked for. mask: of all keys; padding and segments are
    refused (ValueError). bias: a DistanceBias, or numbers that broadcast to the scores (b, h, t, all keys), or to those
    of the first keys only, where they end at the end of a part.
    """
    mask = mask or Mask()
    if mask.key_lengths is not None or mask.segments is not None:
        raise ValueError("attention by parts: keys of different rows end or begin together; padding needs all keys")
    total, done = None, 0
    for k, v in parts:
        s = k.shape[-2]
        own = replace(mask, offset=mask.offset - done, sinks=max(mask.sinks - done, 0))
        added = bias if bias is None or isinstance(bias, DistanceBias) else bias[..., done : done + s]
        if not isinstance(added, DistanceBias) and added is not None and not added.shape[-1]:
            added = None
        if added is None or isinstance(added, DistanceBias):
            found = blockwise.with_lse(q, k, v, mask=own, scale=scale, bias=added)
        else:
            found = _with_table(q, k, v, own, scale, added)
        total, done = found if total is None else merge(total, found), done + s
    if total is None:
        raise ValueError("attention by parts: there is no part")
    return total[0]


def _with_table(q: Array, k: Array, v: Array, mask: Mask, scale: float | None, bias: Array) -> tuple[Array, Array]:
    """Output and log-sum-exp under a bias that is a table, as `Blockwise.with_lse` gives them without one."""
    xp = array_of(q)
    k, v = repeat_heads(k, q.shape[-3]), repeat_heads(v, q.shape[-3])
    p = matmul(xp, q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k.swapaxes(-1, -2)) + bias
    allowed = mask.dense(xp, q.shape[-2], k.shape[-2])
    if allowed is not None:
        p = xp.where(allowed, p, -np.inf).astype(q.dtype)
    top = xp.maximum(p.max(axis=-1, keepdims=True), float(xp.finfo(p.dtype).min))  # finite where nothing is visible
    p = xp.exp(p - top)
    total = p.sum(axis=-1)
    lse = xp.where(total > 0, top[..., 0] + xp.log(xp.maximum(total, xp.finfo(p.dtype).tiny)), -np.inf)
    y = matmul(xp, p, v) / xp.maximum(total, xp.finfo(p.dtype).tiny)[..., None]
    return y, lse.astype(q.dtype)
