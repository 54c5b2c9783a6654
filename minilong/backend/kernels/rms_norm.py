"""Root mean square normalisation over the last axis and its rule (`eq:rms-norm`)."""

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


def rms_norm(xp: Any, x: Array, gain: Array, eps: float) -> tuple[Array, Array]:
    """x (..., n) and gain (n) of one type -> y, and of each row 1 / sqrt(mean of squares + eps).

    The latter is float32, or float64 for float64. Raises TypeError, ValueError.
    """
    x = xp.ascontiguousarray(x)
    n, rows, kind = x.shape[-1], math.prod(x.shape[:-1]), accumulated(x.dtype)
    (gain,) = vectors(xp, n, x.dtype, gain)
    y, inverse = xp.empty(x.shape, x.dtype), xp.empty((rows,), kind)
    blocks, block = teams(rows, n, EACH[kind])
    arguments = (x, gain, kind(eps), y, inverse, np.int64(rows), np.uint32(n))
    defines = (aligned(n, x, gain, y),)
    launch(xp, "rms_norm.cu", "rms_norm", x.dtype, (blocks,), block, arguments, defines=defines)
    return y, inverse


def rms_norm_vjp(xp: Any, g: Array, x: Array, gain: Array, inverse: Array) -> tuple[Array, Array]:
    """The cotangents of x and gain by that of y; the latter float32, or float64 for float64.

    The sums over rows are added in a fixed order: the same arrays give the same bits.
    """
    gx, sums = norm_vjp(xp, "rms_norm_vjp", 1, g, x, gain, (inverse,))
    return gx, sums[0]
