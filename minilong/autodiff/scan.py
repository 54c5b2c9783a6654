"""A linear recurrence over time with a fixed decay per channel, without a Python step for each position.

y_i = a y_(i-1) + x_i is sequential as written. Here the positions are cut into blocks; all blocks advance together, one
position at a time, each from zero. The last values of the blocks then obey the same recurrence with decay a^BLOCK,
which the same code solves, and what comes in from the left is added with powers of a. So t positions take a few array
operations times log t, two multiplications an element, and no division by a small power.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.autodiff import ops
from minilong.autodiff.core import stop_gradient
from minilong.autodiff.primitive import primitive, real
from minilong.backend import Array, array_module, workspace

BLOCK = 16


@primitive(eq="eq:decay-scan", shapes="(t,n),(n),(n)->(t,n)", domain=(real(-3, 3), real(-0.95, 0.95), real(-3, 3)))
def decay_scan(xp: Any, x: Array, decay: Array, start: Array) -> Array:
    """y_i = decay y_(i-1) + x_i over the positions i, with y_(-1) = start"""
    batch = np.broadcast_shapes(x.shape[:-2], decay.shape[:-1], start.shape[:-1])
    y = workspace(xp, (*batch, *x.shape[-2:]), xp.result_type(x, decay, start))
    y[...] = x
    if x.shape[-2]:
        y[..., 0, :] += decay * start
        _advance(xp, y, decay)
    return y


@decay_scan.vjp
def decay_scan_vjp(g: Any, decay: Any, start: Any, y: Any, x_shape: Any) -> tuple[Any, ...]:
    backward = (..., slice(None, None, -1), slice(None))
    nothing = array_module(stop_gradient(start)).zeros_like(stop_gradient(start))
    s = ops.getitem(decay_scan(ops.getitem(g, key=backward), decay, nothing), key=backward)  # s_i = g_i + decay s_(i+1)
    batch, n = y.shape[:-2], y.shape[-1]
    first = ops.reshape(ops.broadcast_to(start, shape=(*batch, n)), shape=(*batch, 1, n))
    before = ops.concatenate(first, y, axis=-2)
    before = ops.getitem(before, key=(..., slice(0, y.shape[-2]), slice(None)))
    of_decay = ops.reduce_to(ops.sum(s * before, axis=-2), decay.shape)
    earliest = ops.sum(ops.getitem(s, key=(..., slice(0, 1), slice(None))), axis=-2)
    return ops.reduce_to(s, x_shape), of_decay, ops.reduce_to(earliest * decay, start.shape)


def _advance(xp: Any, y: Array, decay: Array) -> None:
    """y (..., t, n) <- its scan from zero, in place."""
    t = y.shape[-2]
    blocks = t // BLOCK
    whole = blocks * BLOCK
    if blocks > 1:
        inside = y[..., :whole, :].reshape(*y.shape[:-2], blocks, BLOCK, y.shape[-1])
        across = decay[..., None, :]
        for i in range(1, BLOCK):
            inside[..., i, :] += across * inside[..., i - 1, :]
        ends = inside[..., -1, :].copy()
        powers = [across]
        for _ in range(1, BLOCK):
            powers.append(powers[-1] * across)
        _advance(xp, ends, powers[-1][..., 0, :])
        for i in range(BLOCK):
            inside[..., 1:, i, :] += powers[i] * ends[..., :-1, :]
    else:
        whole = 1
    for i in range(whole, t):
        y[..., i, :] += decay * y[..., i - 1, :]
