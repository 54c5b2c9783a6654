"""Layer normalisation over the last axis and its rule (`eq:layer-norm`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.norm_vjp import norm_vjp, vectors
from minilong.backend.kernels.rows import accumulated, aligned, teams

EACH = {np.float32: 16, np.float64: 4}
"""Elements that a thread keeps in registers."""


def layer_norm(xp: Any, x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """x (..., n), gain (n) and bias (n) of one type -> y, and of each row its mean and 1 / sqrt(variance + eps).

    The mean is float64 for any type: rounded to float32, that of a row far from zero would be off by some of its
    spread. The other is float32, or float64 for float64. Raises TypeError, ValueError.
    """
    x = xp.ascontiguousarray(x)
    n, rows, kind = x.shape[-1], math.prod(x.shape[:-1]), accumulated(x.dtype)
    gain, bias = vectors(xp, n, x.dtype, gain, bias)
    y, mean, inverse = xp.empty(x.shape, x.dtype), xp.empty((rows,), np.float64), xp.empty((rows,), kind)
    blocks, block = teams(rows, n, EACH[kind])
    arguments = (x, gain, bias, kind(eps), y, mean, inverse, np.int64(rows), np.uint32(n))
    defines = (aligned(n, x, gain, bias, y),)
    launch(xp, "layer_norm.cu", "layer_norm", x.dtype, (blocks,), block, arguments, defines=defines)
    return y, mean, inverse


def layer_norm_vjp(xp: Any, g: Array, x: Array, gain: Array, mean: Array, inverse: Array) -> tuple[Array, Array, Array]:
    """The cotangents of x, gain and bias by that of y; the latter two float32, or float64 for float64.

    The sums over rows are added in a fixed order: the same arrays give the same bits.
    """
    gx, sums = norm_vjp(xp, "layer_norm_vjp", 2, g, x, gain, (mean, inverse))
    return gx, sums[0], sums[1]
