"""Rotary positions on the device: one read of x, whatever the order of its axes, and one write."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.grid import BLOCKS, THREADS
from minilong.backend.kernels.launch import launch

OUTER = 65535
"""Most blocks along the second and the third axis of a grid."""


def rotate(xp: Any, x: Array, turn: Array, *, interleaved: bool = True, inverse: bool = False) -> Array:
    """Pairs (a, b) of the last axis turned: (a cos - b sin, a sin + b cos) with turn = cos + i sin (`eq:rotary`).

    x (..., t, d), turn complex, of a shape that broadcasts to (..., t, d/2) -> (..., t, d) in C order. Pairs are
    neighbours (interleaved) or the two halves. inverse: by the opposite angle, which is the rule for the cotangent.
    turn is complex64, and complex128 for float64: half types are turned in float32 and rounded once.
    Raises ValueError where turn has another type or number of angles.
    """
    wide = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    half = turn.shape[-1]
    if x.shape[-1] != 2 * half:
        raise ValueError(f"{half} angles need a last axis of {2 * half}, not {x.shape[-1]}")
    if turn.real.dtype != wide:
        raise ValueError(f"angles of type {turn.dtype} for {x.dtype}")
    y = xp.empty(x.shape, x.dtype)
    if y.size == 0:
        return y
    x, angles = _four_axes(xp, x, xp.ascontiguousarray(turn).view(wide))
    (first, second, positions), stride = x.shape[:3], _strides(angles)
    if positions * half >= 1 << 31:
        raise ValueError(f"{positions} positions of {half} pairs are too many for one launch")
    threads = min(THREADS, -(-positions * half // 32) * 32)
    grid = (min(math.ceil(positions * half / threads), BLOCKS), min(second, OUTER), min(first, OUTER))
    arguments = (
        *(x, *(np.int64(s) for s in _strides(x))),
        *(angles, *(np.int64(s // 2) for s in stride)),
        *(y, np.int32(first), np.int32(second), np.uint32(positions), np.uint32(half)),
        wide.type(-1.0 if inverse else 1.0),
    )
    launch(
        xp, "rotary.cu", "rotate_neighbours" if interleaved else "rotate_halves", x.dtype, grid, (threads,), arguments
    )
    return y


def _four_axes(xp: Any, x: Array, angles: Array) -> tuple[Array, Array]:
    """Both as (first, second, t, d), without a copy unless x has more axes or its last one is no run of memory."""
    if x.strides[-1] != x.itemsize:
        x = xp.ascontiguousarray(x)
    if x.ndim > 4:
        if angles.ndim > 3:
            angles = xp.ascontiguousarray(xp.broadcast_to(angles, x.shape)).reshape(-1, *x.shape[-3:])
        x = x.reshape(-1, *x.shape[-3:])
    x = x[(None,) * (4 - x.ndim)]
    return x, xp.broadcast_to(angles, x.shape)


def _strides(x: Array) -> tuple[int, ...]:
    """Of the three outer axes, in elements."""
    return tuple(stride // x.itemsize for stride in x.strides[:3])
