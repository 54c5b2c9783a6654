"""Dense attention as one primitive: the same products as `naive`, row by row of the batch, in place.

A batch row's scores stay in the processor's cache, and the weights are the only array of queries x keys that is kept.
"""

from __future__ import annotations

import math
from typing import Any

from minilong.attention.mask import Mask
from minilong.attention.naive import array_of, masked_softmax, naive, repeat_heads
from minilong.autodiff import draws, ops, primitive, real
from minilong.backend import Array, array_module, workspace


def attend_definition(q: Any, k: Any, v: Any, *, scale: float, allowed: Array | None = None) -> Any:
    """masked softmax(scale q k^T) v."""
    return ops.matmul(masked_softmax(ops.matmul(q, ops.swap_last(k)) * scale, allowed), v)


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
    batch = xp.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    t, s = q.shape[-2], k.shape[-2]
    q, k, v = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (q, k, v))
    y = workspace(xp, (*batch, t, v.shape[-1]), q.dtype)
    weights = workspace(xp, (*batch, t, s), q.dtype)
    if allowed is not None:
        hidden = xp.zeros(allowed.shape, q.dtype)
        hidden[~allowed] = -xp.inf
        hidden = xp.broadcast_to(hidden, (*batch, t, s))
    for i in range(batch[0]) if batch else (...,):
        p = weights[i]
        xp.matmul(q[i] * scale, k[i].swapaxes(-1, -2), out=p)
        if allowed is not None:
            p += hidden[i]
        top = p.max(axis=-1, keepdims=True, initial=-xp.finfo(p.dtype).max)  # finite even where nothing is allowed
        p -= top
        xp.exp(p, out=p)
        p *= 1.0 / xp.maximum(p.sum(axis=-1, keepdims=True), xp.finfo(p.dtype).tiny)
        xp.matmul(p, v[i], out=y[i])
    return y, weights


@attend.vjp
def attend_vjp(g: Array, q: Array, k: Array, v: Array, y: Array, weights: Array, *, scale: float) -> tuple[Array, ...]:
    xp, batch = array_module(g), g.shape[:-2]
    wide_q, wide_k, wide_v = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (q, k, v))
    gq, gk, gv = (workspace(xp, x.shape, g.dtype) for x in (wide_q, wide_k, wide_v))
    along = xp.einsum("...i,...i->...", g, y)[..., None]
    for i in range(batch[0]) if batch else (...,):
        p = weights[i]
        xp.matmul(p.swapaxes(-1, -2), g[i], out=gv[i])
        gs = g[i] @ wide_v[i].swapaxes(-1, -2)
        gs -= along[i]
        gs *= p
        xp.matmul(gs, wide_k[i], out=gq[i])
        xp.matmul(gs.swapaxes(-1, -2), wide_q[i], out=gk[i])
        gq[i] *= scale
        gk[i] *= scale
    return ops.reduce_to(gq, q.shape), ops.reduce_to(gk, k.shape), ops.reduce_to(gv, v.shape)


def dense(q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None) -> Any:
    """Attention as `naive` defines it, fused. A bias is differentiated there, so with one this is `naive`."""
    if bias is not None:
        return naive(q, k, v, mask=mask, scale=scale, bias=bias)
    k, v = repeat_heads(k, q.shape[-3]), repeat_heads(v, q.shape[-3])
    allowed = (mask or Mask()).dense(array_of(q), q.shape[-2], k.shape[-2])
    return attend(q, k, v, scale=1 / math.sqrt(q.shape[-1]) if scale is None else scale, allowed=allowed)
