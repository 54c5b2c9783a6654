"""What kernels over rows are told: how many threads have a row, and whether it can be read 16 bytes at a time.

See `rows.cuh`. A kernel takes its arguments on trust, so shapes and types are checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array

MOST_THREADS = 512
"""Of a block: `ROW_THREADS` of the kernels."""

ROWS_OF_BLOCK = 4
"""Rows that share a block where a warp has one."""


def alike(xp: Any, *arrays: Array) -> tuple[Array, ...]:
    """The arrays, contiguous. Raises TypeError where their types differ, ValueError where their shapes do."""
    first = arrays[0]
    for x in arrays:
        if x.dtype != first.dtype:
            raise TypeError(f"arrays of {first.dtype} and {x.dtype} in one kernel")
        if x.shape != first.shape:
            raise ValueError(f"arrays of shapes {first.shape} and {x.shape}, which must be equal")
    return tuple(xp.ascontiguousarray(x) for x in arrays)


def accumulated(dtype: Any) -> type[np.float32] | type[np.float64]:
    """The type in which kernels add up: `acc_t`."""
    return np.float64 if dtype == np.float64 else np.float32


def aligned(n: int, *arrays: Array) -> str:
    """The macro that lets a kernel read rows of n elements 16 bytes at a time, where all begin at such addresses."""
    wide = n * arrays[0].dtype.itemsize % 16 == 0 and all(x.data.ptr % 16 == 0 for x in arrays)
    return f"WIDE={int(wide)}"


def teams(rows: int, n: int, each: int) -> tuple[int, tuple[int, int]]:
    """Blocks, and a block's threads: a warp for a row where its threads take `each` elements at most, or a block."""
    threads = min(MOST_THREADS, -(-n // (32 * each)) * 32)
    return (-(-rows // ROWS_OF_BLOCK), (32, ROWS_OF_BLOCK)) if threads <= 32 else (rows, (threads, 1))
