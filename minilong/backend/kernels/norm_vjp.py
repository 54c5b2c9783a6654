"""The rule of a normalisation with a gain, and where it has one, a bias: two launches. See `norm_vjp.cuh`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.rows import accumulated, aligned, alike, teams

EACH = {np.float32: 8, np.float64: 2}
"""Elements that a thread keeps in registers: of the row, its normalised form, and two sums over rows."""

ROWS_OF_TEAM, MOST_BLOCKS = 16, 1024
"""Rows that a team adds up at least, where there are as many, and blocks at most: the sums of the teams are written
and read again, and should be little beside the rows. Nothing depends on the device, so results do not either."""


def norm_vjp(
    xp: Any, name: str, sums: int, g: Array, x: Array, gain: Array, statistics: tuple[Array, ...]
) -> tuple[Array, Array]:
    """The cotangent of x (..., n), and those of gain and bias (sums, n), in float32 at least.

    name: the kernel, in a file of the same name without `_vjp`; statistics: what the forward pass kept of each row.
    """
    g, x = alike(xp, g, x)
    n, rows = x.shape[-1], math.prod(x.shape[:-1])
    (gain,) = vectors(xp, n, x.dtype, gain)
    kind = accumulated(x.dtype)
    gx, out = xp.empty(x.shape, x.dtype), xp.empty((sums, n), kind)
    blocks, block = teams(rows, n, EACH[kind])
    blocks = min(blocks, -(-rows // (ROWS_OF_TEAM * block[1])), MOST_BLOCKS)
    count = blocks * block[1]
    partial = xp.empty((sums, count, n), kind)
    source, defines = name.removesuffix("_vjp") + ".cu", (aligned(n, g, x, gain, gx),)
    arguments = (g, x, gain, *statistics, gx, partial, np.int64(rows), np.uint32(n))
    launch(xp, source, name, x.dtype, (blocks,), block, arguments, defines=defines)
    arguments = (partial, out, np.int64(count), np.uint32(n))
    launch(xp, source, "column_sums", x.dtype, (-(-n // 32), sums), (32, 32), arguments, defines=defines)
    return gx, out


def vectors(xp: Any, n: int, dtype: Any, *arrays: Array) -> tuple[Array, ...]:
    """A gain and a bias, contiguous. Raises TypeError or ValueError where they are not n elements of `dtype`."""
    for x in arrays:
        if x.dtype != dtype:
            raise TypeError(f"a gain or bias of {x.dtype} for rows of {dtype}")
        if x.shape != (n,):
            raise ValueError(f"a gain or bias of shape {x.shape} for rows of {n}")
    return tuple(xp.ascontiguousarray(x) for x in arrays)
