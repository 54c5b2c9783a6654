"""THE definition of attention: every other kernel must equal it. It writes out each step and stores everything."""

from __future__ import annotations

import math
from typing import Any

from minilong.attention.bias import as_scores
from minilong.attention.mask import Mask
from minilong.autodiff import ops, softmax
from minilong.backend import Array, array_module

FAR = -1e30
"""A score that the exponential turns into exactly zero beside any other, in float32 too."""


def far(dtype: Any) -> float:
    """FAR, or what does for it in the range of float16."""
    return -6e4 if str(dtype) == "float16" else FAR


def naive(q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None) -> Any:
    """softmax(q k^T / sqrt(d) + bias) v over the keys that the mask allows (`eq:attention`).

    q (..., h, t, d), k (..., g, s, d), v (..., g, s, e) -> (..., h, t, e). h is a multiple of g: each of the g key
    heads serves h / g query heads (grouped queries; g = 1: multi-query). scale: 1/sqrt(d) unless given. bias: a
    DistanceBias, or what broadcasts to the scores. A query that may see no key gives zeros and receives a zero
    cotangent. Source: Vaswani et al. 2017.
    """
    k, v = repeat_heads(k, q.shape[-3]), repeat_heads(v, q.shape[-3])
    scores = ops.scale(ops.matmul(q, ops.swap_last(k)), by=1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + as_scores(bias, q.shape[-2], k.shape[-2], (mask or Mask()).offset)
    allowed = (mask or Mask()).dense(array_of(q), q.shape[-2], k.shape[-2])
    return ops.matmul(masked_softmax(scores, allowed), v)


def masked_softmax(scores: Any, allowed: Array | None) -> Any:
    """Softmax over the allowed keys of each row, zeros elsewhere; all zeros where none is (`eq:masked-softmax`)."""
    if allowed is None:
        return softmax(scores)
    outside = ops.scale(scores, by=0.0)
    weights = softmax(ops.where(scores, ops.shift(outside, by=far(scores.dtype)), condition=allowed))
    return ops.where(weights, outside, condition=allowed)


def repeat_heads(x: Any, heads: int) -> Any:
    """Each key head as often as there are query heads for it: (..., g, s, d) -> (..., heads, s, d)."""
    *batch, groups, s, d = x.shape
    if groups == heads:
        return x
    if heads % groups:
        raise ValueError(f"attention: {heads} query heads are no multiple of {groups} key heads")
    each = ops.reshape(x, shape=(*batch, groups, 1, s, d))
    wide = ops.broadcast_to(each, shape=(*batch, groups, heads // groups, s, d))
    return ops.reshape(wide, shape=(*batch, heads, s, d))


def grouped(q: Any, k: Any, v: Any) -> tuple[Any, Any, Any]:
    """Arrays whose leading axes broadcast: where key heads are shared, q (..., g, h/g, t, d) and k (..., g, 1, s, d).

    Nothing is repeated: a key head's axis of size 1 stands for all its query heads.
    """
    heads, groups = q.shape[-3], k.shape[-3]
    if groups == heads:
        return q, k, v
    if heads % groups:
        raise ValueError(f"attention: {heads} query heads are no multiple of {groups} key heads")
    return (
        ops.reshape(q, shape=(*q.shape[:-3], groups, heads // groups, *q.shape[-2:])),
        ops.reshape(k, shape=(*k.shape[:-2], 1, *k.shape[-2:])),
        ops.reshape(v, shape=(*v.shape[:-2], 1, *v.shape[-2:])),
    )


def array_of(x: Any) -> Any:
    """The array library under an array or tensor."""
    while hasattr(x, "data") and hasattr(x, "node"):
        x = x.data
    return array_module(x)
