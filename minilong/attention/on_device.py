"""Attention on a GPU: blockwise by flash kernels, dense by batched products and the softmax kernel.

See `autodiff/device.py` for what a form is, and `backend/kernels/flash.py` for the algorithm.
"""

from __future__ import annotations

import math
from typing import Any

from minilong.attention.blocks import Blocks
from minilong.attention.blockwise import attend_blocks
from minilong.attention.dense import attend, attend_biased
from minilong.attention.mask import Mask
from minilong.attention.naive import far
from minilong.autodiff import ops
from minilong.autodiff.device import on_device
from minilong.backend import Array, array_module, beside
from minilong.backend.kernels import flash
from minilong.backend.kernels.flash_plan import WIDEST
from minilong.backend.kernels.softmax import softmax, softmax_vjp
from minilong.backend.products import matmul


def flash_takes(q: Array, k: Array, v: Array, *, mask: Mask, values: Array | None = None, **_: Any) -> bool:
    """Whether the flash kernels compute this: heads not too wide, leading axes (b, h) or (b, g, r), or fewer."""
    if max(q.shape[-1], v.shape[-1]) > WIDEST or type(mask) is not Mask or k.shape[:-2] != v.shape[:-2]:
        return False
    lead, keys = q.shape[:-2], k.shape[:-2]
    if values is not None and math.prod(values.shape[:-1]) not in (1, math.prod(lead[1:])):
        return False
    if len(lead) == 3:  # key heads that are shared: (b, g, r) and (b, g, 1)
        return bool(keys == (*lead[:2], 1))
    return len(lead) < 3 and bool(lead == keys)


@on_device(attend_blocks, aux=("lse",), takes=flash_takes)
def attend_flash(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    mask: Mask,
    blocks: Blocks,
    values: Array | None = None,
    least: int = 0,
) -> tuple[Array, Array]:
    """attention by tiles that never leave the chip; lse (..., t) in float32"""
    y, lse = flash.flash_attention(xp, *_stacked(q, k, v), **_keywords(q, scale, mask, values, least))
    return y.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])


@attend_flash.vjp
def attend_flash_vjp(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    *,
    scale: float,
    mask: Mask,
    values: Array | None = None,
    least: int = 0,
) -> tuple[Array, ...]:
    xp = array_module(g)
    (g4, _, _), (y4, _, _), stacked = _stacked(g, k, v), _stacked(y, k, v), _stacked(q, k, v)
    found = flash.flash_attention_vjp(
        xp, g4, *stacked, y4, lse.reshape(g4.shape[:-1]), **_keywords(q, scale, mask, values, least)
    )
    return tuple(x.reshape(like.shape) for x, like in zip(found, (q, k, v), strict=True))


def _stacked(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """As (b, h, t, d) and (b, g, s, d): views."""
    lead = q.shape[:-2]
    if len(lead) == 3:
        return q.reshape(lead[0], lead[1] * lead[2], *q.shape[-2:]), k[:, :, 0], v[:, :, 0]
    missing = (1,) * (2 - len(lead))
    q, k, v = (x.reshape(*missing, *x.shape) for x in (q, k, v))
    return q, k, v


def _keywords(q: Array, scale: float, mask: Mask, values: Array | None, least: int) -> dict[str, Any]:
    return {
        "scale": scale,
        "causal": mask.causal,
        "window": mask.window,
        "sinks": mask.sinks,
        "offset": mask.offset,
        "key_lengths": beside(q, mask.key_lengths),
        "segments": beside(q, mask.segments),
        "values": None if values is None else beside(q, values).reshape(-1, values.shape[-1]),
        "least": least,
    }


@on_device(attend, aux=("weights",))
def attend_dense(
    xp: Any, q: Array, k: Array, v: Array, *, scale: float, allowed: Array | None = None
) -> tuple[Array, Array]:
    """attention over dense scores"""
    return _forward(xp, q, k, v, None, scale, allowed)


@attend_dense.vjp
def attend_dense_vjp(g: Array, q: Array, k: Array, v: Array, weights: Array, *, scale: float) -> tuple[Array, ...]:
    return _backward(g, q, k, v, weights, scale, None)


@on_device(attend_biased, aux=("weights",))
def attend_dense_biased(
    xp: Any, q: Array, k: Array, v: Array, bias: Array, *, scale: float, allowed: Array | None = None
) -> tuple[Array, Array]:
    """attention over dense scores with a bias added to them"""
    return _forward(xp, q, k, v, bias, scale, allowed)


@attend_dense_biased.vjp
def attend_dense_biased_vjp(
    g: Array, q: Array, k: Array, v: Array, bias_shape: Any, weights: Array, *, scale: float
) -> tuple[Array, ...]:
    return _backward(g, q, k, v, weights, scale, bias_shape)


def _forward(
    xp: Any, q: Array, k: Array, v: Array, bias: Array | None, scale: float, allowed: Array | None
) -> tuple[Array, Array]:
    scores = matmul(xp, _times(q, scale), k.swapaxes(-1, -2))
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    if allowed is None:
        weights = softmax(xp, scores)
    else:  # a query that sees no key: equal scores, of which nothing is left
        weights = softmax(xp, xp.where(allowed, scores, far(scores.dtype)).astype(scores.dtype))
        weights *= allowed
    return matmul(xp, weights, v), weights


def _times(x: Array, number: float) -> Array:
    """The product in the type of x: a number makes bfloat16 into float32."""
    return (x * number).astype(x.dtype, copy=False)


def _backward(
    g: Array, q: Array, k: Array, v: Array, weights: Array, scale: float, bias_shape: Any
) -> tuple[Array, ...]:
    xp = array_module(g)
    of_weights = ops.reduce_to(matmul(xp, g, v.swapaxes(-1, -2)), weights.shape)  # which values may broadcast
    gs = softmax_vjp(xp, of_weights, weights)
    gq = _times(matmul(xp, gs, k), scale)
    gk = _times(matmul(xp, gs.swapaxes(-1, -2), q), scale)
    gv = matmul(xp, weights.swapaxes(-1, -2), g)
    found = ops.reduce_to(gq, q.shape), ops.reduce_to(gk, k.shape), ops.reduce_to(gv, v.shape)
    return found if bias_shape is None else (*found, ops.reduce_to(gs, bias_shape))
