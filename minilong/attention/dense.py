"""Dense attention as one primitive: the same products as `naive`, some rows of the batch at a time, in place.

Their scores stay in the processor's cache, and the weights are the only array of queries x keys that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minilong.attention.bias import as_scores
from minilong.attention.layout import bounded, row_sums, token_major
from minilong.attention.mask import Mask
from minilong.attention.naive import array_of, grouped, masked_softmax
from minilong.autodiff import draws, ops, primitive, real
from minilong.backend import Array, array_module, workspace
from minilong.backend.products import matmul
from minilong.backend.workers import granted_threads, share_out

AREA = 1 << 17
"""Scores that are computed at a time."""

LARGE = 1 << 20
"""Numbers in keys and values that are worth a second thread: reading them takes several times what starting it does."""


def attend_definition(q: Any, k: Any, v: Any, *, scale: float, allowed: Array | None = None) -> Any:
    """masked softmax(scale q k^T) v."""
    return ops.matmul(masked_softmax(ops.matmul(q, ops.swap_last(k)) * scale, allowed), v)


def attend_biased_definition(q: Any, k: Any, v: Any, bias: Any, *, scale: float, allowed: Array | None = None) -> Any:
    """masked softmax(scale q k^T + bias) v."""
    return ops.matmul(masked_softmax(ops.matmul(q, ops.swap_last(k)) * scale + bias, allowed), v)


@primitive(
    eq="eq:attention",
    shapes="(t,d),(s,d),(s,e)->(t,e)",
    domain=real(-2, 2),
    aux=("weights",),
    ref=attend_definition,
    draw=draws.visible,
)
def attend(xp: Any, q: Array, k: Array, v: Array, *, scale: float, allowed: Array | None = None) -> tuple[Array, Array]:
    """attention over dense scores; allowed: booleans that broadcast to (..., t, s)"""
    return _forward(xp, q, k, v, None, scale, allowed)


@attend.vjp
def attend_vjp(g: Array, q: Array, k: Array, v: Array, y: Array, weights: Array, *, scale: float) -> tuple[Array, ...]:
    return _backward(g, q, k, v, y, weights, scale, None)


@primitive(
    eq="eq:biased-attention",
    shapes="(t,d),(s,d),(s,e),(t,s)->(t,e)",
    domain=real(-2, 2),
    aux=("weights",),
    ref=attend_biased_definition,
    draw=draws.visible,
)
def attend_biased(
    xp: Any, q: Array, k: Array, v: Array, bias: Array, *, scale: float, allowed: Array | None = None
) -> tuple[Array, Array]:
    """attention over dense scores with a bias added to them"""
    return _forward(xp, q, k, v, bias, scale, allowed)


@attend_biased.vjp
def attend_biased_vjp(
    g: Array, q: Array, k: Array, v: Array, bias_shape: Any, y: Array, weights: Array, *, scale: float
) -> tuple[Array, ...]:
    return _backward(g, q, k, v, y, weights, scale, bias_shape)


def _forward(
    xp: Any, q: Array, k: Array, v: Array, bias: Array | None, scale: float, allowed: Array | None
) -> tuple[Array, Array]:
    leads = [x.shape[:-2] for x in (q, k, v)] + ([] if bias is None else [bias.shape[:-2]])
    batch = leads[0] if all(lead == leads[0] for lead in leads) else xp.broadcast_shapes(*leads)
    t, s = q.shape[-2], k.shape[-2]
    q, k, v = (_broadcast(xp, x, batch) for x in (q, k, v))
    y = token_major(xp, batch, t, v.shape[-1], q.dtype)
    weights = workspace(xp, (*batch, t, s), q.dtype)
    added = None if bias is None else bias.astype(q.dtype, copy=False)
    if allowed is not None:
        hidden = xp.where(allowed, 0.0, -xp.inf).astype(q.dtype)
        added = hidden if added is None else added + hidden
    if added is not None:
        added = xp.broadcast_to(added, (*batch, t, s))
    ones = xp.ones(s, q.dtype)
    few = t < 8  # then reading the keys for their norms costs more than it saves
    tiny, least = float(xp.finfo(q.dtype).tiny), float(xp.finfo(q.dtype).min)

    def work(rows: Iterator[Any]) -> None:
        for i in rows:
            p = weights[i]
            matmul(xp, q[i] * scale, k[i].swapaxes(-1, -2), out=p)
            if added is not None:
                p += added[i]
            if few or bias is not None or not bounded(xp, q[i], k[i], scale):
                p -= xp.maximum(xp.max(p, axis=-1, keepdims=True), least)  # finite even where nothing is allowed
            xp.exp(p, out=p)
            p *= (1.0 / xp.maximum(row_sums(xp, p, ones), tiny))[..., None]
            matmul(xp, p, v[i], out=y[i])

    rows = _rows(weights)
    if len(rows) == 1:
        work(iter(rows))
    else:
        share_out(work, rows, None if math.prod(batch) * s * (q.shape[-1] + v.shape[-1]) >= LARGE else 1)
    return y, weights


def _broadcast(xp: Any, x: Array, batch: tuple[int, ...]) -> Array:
    return x if x.shape[:-2] == batch else xp.broadcast_to(x, (*batch, *x.shape[-2:]))


def _backward(
    g: Array, q: Array, k: Array, v: Array, y: Array, weights: Array, scale: float, bias_shape: Any
) -> tuple[Array, ...]:
    """Cotangents of q, k, v, and of the bias if its shape is given: that of the scores, summed where it broadcast."""
    xp, batch = array_module(g), g.shape[:-2]
    wide_q, wide_k, wide_v = (_broadcast(xp, x, batch) for x in (q, k, v))
    gq, gk, gv = (token_major(xp, batch, x.shape[-2], x.shape[-1], g.dtype) for x in (wide_q, wide_k, wide_v))
    along = xp.einsum("...i,...i->...", g, y)[..., None]
    gb, shared = _bias_sums(xp, weights, bias_shape)
    for i in _rows(weights):
        p = weights[i]
        matmul(xp, p.swapaxes(-1, -2), g[i], out=gv[i])
        gs = matmul(xp, g[i], wide_v[i].swapaxes(-1, -2))
        gs -= along[i]
        gs *= p
        if gb is not None and shared:
            gb += gs.sum(axis=0, keepdims=True)
        elif gb is not None:
            gb[i] = gs
        matmul(xp, gs, wide_k[i], out=gq[i])
        matmul(xp, gs.swapaxes(-1, -2), wide_q[i], out=gk[i])
        gq[i] *= scale
        gk[i] *= scale
    found = ops.reduce_to(gq, q.shape), ops.reduce_to(gk, k.shape), ops.reduce_to(gv, v.shape)
    return found if gb is None else (*found, ops.reduce_to(gb, bias_shape))


def _rows(weights: Array) -> list[Any]:
    """Batch rows that are computed at a time: as many as have scores that fill a cache, and some for each thread."""
    if weights.ndim == 2:
        return [...]
    count = min(AREA // max(1, math.prod(weights.shape[1:])), -(-len(weights) // granted_threads()))
    return [slice(i, i + max(1, count)) for i in range(0, len(weights), max(1, count))]


def _bias_sums(xp: Any, weights: Array, bias_shape: Any) -> tuple[Array | None, bool]:
    """Room for the scores' cotangents, and whether all batch rows add to the same: then it is that of one row."""
    if bias_shape is None:
        return None, False
    rows = weights.ndim - len(bias_shape)
    shared = weights.ndim > 2 and (rows > 0 or bias_shape[0] == 1)
    return xp.zeros((1, *weights.shape[1:]) if shared else weights.shape, weights.dtype), shared


def dense(q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None) -> Any:
    """Attention as `naive` defines it, fused. Key heads that are shared are not repeated."""
    mask = mask or Mask()
    t, s, each = q.shape[-2], k.shape[-2], q.shape[-3] // k.shape[-3]
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    allowed = mask.dense(array_of(q), t, s) if type(mask) is not Mask or mask.hides(s) else None
    inputs = grouped(q, k, v)
    if allowed is not None and allowed.ndim > 2 and each > 1:
        allowed = allowed[..., None, :, :]
    if bias is None:
        y = attend(*inputs, scale=scale, allowed=allowed)
    else:
        scores = as_scores(bias, t, s, mask.offset)
        if each > 1 and len(scores.shape) > 2:
            groups = k.shape[-3] if scores.shape[-3] > 1 else 1
            scores = ops.reshape(scores, shape=(*scores.shape[:-3], groups, -1, *scores.shape[-2:]))
        y = attend_biased(*inputs, scores, scale=scale, allowed=allowed)
    return y if each == 1 else ops.reshape(y, shape=(*y.shape[:-4], q.shape[-3], *y.shape[-2:]))
