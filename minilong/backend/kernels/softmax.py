"""Softmax over the last axis, its logarithm, and their rules (`eq:softmax`, `eq:log-softmax`): one launch each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.rows import accumulated, aligned, alike, teams

EACH = {np.float32: 32, np.float64: 4}
"""Elements that a thread of the forward pass keeps in registers; of the backward pass, half of them of two arrays."""


def softmax(xp: Any, x: Array) -> Array:
    """softmax over the last axis; x (..., n)"""
    return _rows(xp, "softmax", 1, x)


def softmax_vjp(xp: Any, g: Array, y: Array) -> Array:
    """The cotangent of `x` by that of y = softmax(x)."""
    return _rows(xp, "softmax_vjp", 2, g, y)


def log_softmax(xp: Any, x: Array) -> Array:
    """logarithm of the softmax over the last axis; x (..., n)"""
    return _rows(xp, "log_softmax", 1, x)


def log_softmax_vjp(xp: Any, g: Array, y: Array) -> Array:
    """The cotangent of `x` by that of y = log_softmax(x)."""
    return _rows(xp, "log_softmax_vjp", 2, g, y)


def _rows(xp: Any, name: str, share: int, *arrays: Array) -> Array:
    """The kernel `name` of rows of the arrays; a thread keeps 1 / share of `EACH` elements of each."""
    arrays = alike(xp, *arrays)
    x = arrays[0]
    out = xp.empty(x.shape, x.dtype)
    n, rows = x.shape[-1], math.prod(x.shape[:-1])
    blocks, block = teams(rows if n else 0, n, EACH[accumulated(x.dtype)] // share)
    arguments = (*arrays, out, np.int64(rows), np.uint32(n))
    launch(xp, "softmax.cu", name, x.dtype, (blocks,), block, arguments, defines=(aligned(n, *arrays, out),))
    return out
