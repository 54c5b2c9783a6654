"""Rows of a table, and its transpose: sums of rows that share an index, the same to the last bit in every run."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.grid import BLOCKS, THREADS
from minilong.backend.kernels.launch import CODES, launch

CHUNK, LANES = 64, 8
"""As in the kernels: sorted rows that a block adds up, and the threads that share the parts of a segment."""


def gather(xp: Any, table: Array, indices: Array, dtype: Any = None) -> Array:
    """table[indices] (`eq:embedding`), in the type asked for: table (n, d), indices (...) -> (..., d).

    indices are int32 or int64; a negative one counts from the end, and one that is out of range gives a row of NaN.
    """
    table, indices = xp.ascontiguousarray(table), xp.ascontiguousarray(indices)
    n, width = table.shape
    out = xp.empty((*indices.shape, width), table.dtype if dtype is None else dtype)
    name = {4: "gather_int", 8: "gather_long"}[indices.dtype.itemsize]
    grid = (min(-(-out.size // THREADS), BLOCKS),)
    arguments = (table, indices, out, np.int64(n), np.int64(indices.size), np.int64(width))
    defines = (f"OUT={CODES[str(out.dtype)]}",)
    launch(xp, "gather.cu", name, table.dtype, grid, (THREADS,), arguments, defines=defines)
    return out


def scatter_rows(xp: Any, indices: Array, rows: Array, n: int) -> Array:
    """Sum of the rows that share an index: `out[i] = sum of rows[k] over k with indices[k] = i`.

    indices (m,), rows (m, d) -> (n, d) in float32, or float64 of float64. Indices count modulo n. Deterministic: the
    rows are sorted by their index, keeping their order; chunks of 64 sorted rows are summed apart, since one index may
    own most of them; what crosses the chunks is then joined in a fixed order.
    """
    width = rows.shape[1]
    wide = np.dtype(np.float64 if rows.dtype == np.float64 else np.float32)
    out = xp.zeros((n, width), wide)
    m = len(indices)
    if m == 0 or width == 0:
        return out
    rows, keys = xp.ascontiguousarray(rows), xp.remainder(indices, n, dtype=np.int32)
    order = xp.argsort(keys, kind="stable")
    chunks = -(-m // CHUNK)
    parts = xp.empty((chunks, 2, width), wide)
    each = 2 if rows.dtype == np.float64 else 4
    threads = min(THREADS, -(-width // (32 * each)) * 32)
    grid = (chunks, -(-width // (threads * each)))
    sizes = (np.int64(m), np.int64(width))
    launch(xp, "embedding.cu", "sum_chunks", rows.dtype, grid, (threads,), (keys, order, rows, *sizes, parts, out))
    grid = (chunks, -(-width // (32 * each)))
    launch(xp, "embedding.cu", "join_chunks", rows.dtype, grid, (32, LANES), (keys, order, *sizes, parts, out))
    return out
