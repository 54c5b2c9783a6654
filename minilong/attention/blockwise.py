"""Exact attention in memory that grows with the length, not with its square: forward and backward block by block.

Read `blockwise_forward.py` and `blockwise_backward.py` for the two sweeps, `reach.py` for which blocks there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention.bias import by_distance
from minilong.attention.blocks import Blocks
from minilong.attention.blockwise_backward import sweep_backward
from minilong.attention.blockwise_forward import sweep_forward
from minilong.attention.layout import Layout
from minilong.attention.mask import Mask
from minilong.attention.naive import masked_softmax
from minilong.attention.reach import reach_of
from minilong.autodiff import ops, primitive, real, stop_gradient
from minilong.autodiff.draws import Shapes
from minilong.backend import Array, array_module


def attend_blocks_definition(
    q: Any, k: Any, v: Any, *, scale: float, mask: Mask, blocks: Blocks, values: Any = None, least: int = 0
) -> Any:
    """masked softmax(scale q k^T + bias) v, whatever the blocks."""
    scores = ops.matmul(q, ops.swap_last(k)) * scale
    if values is not None:
        scores = scores + by_distance(values, queries=q.shape[-2], keys=k.shape[-2], start=mask.offset - least)
    allowed = mask.dense(array_module(stop_gradient(v)), *scores.shape[-2:])
    if allowed is not None and allowed.ndim > 2:  # (batch, 1, t, s), but there may be an axis of groups as well
        allowed = allowed.reshape(len(allowed), *(1,) * (len(scores.shape) - 3), *allowed.shape[-2:])
    return ops.matmul(masked_softmax(scores, allowed), v)


def attend_blocks_biased_definition(
    q: Any, k: Any, v: Any, values: Any, *, scale: float, mask: Mask, blocks: Blocks, least: int
) -> Any:
    """The same with the bias among the inputs, so that it has a cotangent."""
    return attend_blocks_definition(q, k, v, scale=scale, mask=mask, blocks=blocks, values=values, least=least)


def _draw(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`mask`, `scale` and `blocks`; some queries may see no key."""
    window = [None, 1, 2, 3][rng.integers(4)]
    offset = int(rng.integers(-2, 4))
    return {
        "mask": Mask(causal=bool(rng.integers(2)), window=window, sinks=int(window is not None), offset=offset),
        "scale": float(rng.uniform(0.3, 1.0)),
        "blocks": Blocks(rows=int(rng.integers(1, 4)), columns=int(rng.integers(1, 4))),
    }


def _draw_biased(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    return {**_draw(rng, shapes), "least": int(rng.integers(-3, 3))}


@primitive(
    eq="eq:blockwise-attention",
    shapes="(t,d),(s,d),(s,e)->(t,e)",
    domain=real(-2, 2),
    aux=("lse",),
    ref=attend_blocks_definition,
    draw=_draw,
)
def attend_blocks(
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
    """attention block by block, with a constant distance bias or none

    lse (..., t): the logarithm of each query's sum of exponentials.
    """
    layout = Layout.of(xp, q, k, v, values)
    reach = reach_of(xp, mask, layout, least)
    return sweep_forward(xp, layout, reach, scale, blocks)


@attend_blocks.vjp
def attend_blocks_vjp(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    *,
    scale: float,
    mask: Mask,
    blocks: Blocks,
    values: Array | None = None,
    least: int = 0,
) -> tuple[Array, ...]:
    xp = array_module(g)
    layout = Layout.of(xp, q, k, v, values)
    reach = reach_of(xp, mask, layout, least)
    gq, gk, gv, _ = sweep_backward(xp, layout, reach, g, y, lse, scale, blocks)
    return ops.reduce_to(gq, q.shape), ops.reduce_to(gk, k.shape), ops.reduce_to(gv, v.shape)


@primitive(
    eq="eq:biased-blockwise-attention",
    shapes="(t,d),(s,d),(s,e),(m)->(t,e)",
    domain=real(-2, 2),
    aux=("lse",),
    ref=attend_blocks_biased_definition,
    draw=_draw_biased,
)
def attend_blocks_biased(
    xp: Any, q: Array, k: Array, v: Array, values: Array, *, least: int, scale: float, mask: Mask, blocks: Blocks
) -> tuple[Array, Array]:
    """attention block by block with a differentiable distance bias: values by distance from `least` on"""
    layout = Layout.of(xp, q, k, v, values)
    reach = reach_of(xp, mask, layout, least)
    return sweep_forward(xp, layout, reach, scale, blocks)


@attend_blocks_biased.vjp
def attend_blocks_biased_vjp(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    values: Array,
    y: Array,
    lse: Array,
    *,
    least: int,
    scale: float,
    mask: Mask,
    blocks: Blocks,
) -> tuple[Array, ...]:
    xp = array_module(g)
    layout = Layout.of(xp, q, k, v, values)
    reach = reach_of(xp, mask, layout, least)
    gq, gk, gv, gb = sweep_backward(xp, layout, reach, g, y, lse, scale, blocks, least=least)
    return (
        ops.reduce_to(gq, q.shape),
        ops.reduce_to(gk, k.shape),
        ops.reduce_to(gv, v.shape),
        ops.reduce_to(gb, values.shape),
    )
