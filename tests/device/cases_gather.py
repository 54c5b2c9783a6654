"""Rows of a table on the device: all pairs of types, widths with and without vectors, negative and missing indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_arrays import FLOAT16, FLOAT32, TYPES, normal, same_bits

from minilong.backend.kernels.embedding import gather

MUTANTS = [
    ("if (index < 0) index += n;", ""),
    ("index >= 0 && index < n", "index >= 0 && index <= n"),
    ("(there ? index : 0) * width", "(there ? k : 0) * width"),
    ("to = out + k * width", "to = out + (there ? index : 0) * width"),
    ("k < m; k += (i64)gridDim.x * rows", "k < m - 1; k += (i64)gridDim.x * rows"),
    ("j < vectors; j += columns", "j < columns; j += columns"),
    ("if (row >= rows) return;", "if (row > 0) return;"),
    ("width % W == 0 && aligned(table)", "aligned(table)"),
    ("width % W == 0 && aligned(table)", "width % W == 0"),
    ("index >= 0 && index < n", "index < n"),
]


def check(xp: Any) -> None:
    """Each row is the table's, converted with one rounding."""
    for dtype in TYPES:
        for to in TYPES if dtype == FLOAT32 else (dtype,):
            for width, index in ((1, np.int32), (8, np.int64), (13, np.int64), (300, np.int32), (4128, np.int32)):
                if width > 300 and dtype != FLOAT16:
                    continue
                table = normal(width, (5, width), dtype)
                indices = np.array([[3, -1, 0, 3], [4, 1, -5, 2]], index)
                got = gather(xp, xp.asarray(table), xp.asarray(indices), to)
                same_bits(xp, got, table[indices].astype(to))
    for dtype in TYPES:  # a table that begins where no vector does
        memory, indices = normal(1, 97, dtype), np.array([2, 0, -1])
        table = memory[1:].reshape(6, 16)
        same_bits(xp, gather(xp, xp.asarray(memory)[1:].reshape(6, 16), xp.asarray(indices)), table[indices])
    table = xp.asarray(normal(0, (7, 8)))[1:6]  # with rows before and after that are not its own
    got = xp.asnumpy(gather(xp, table, xp.asarray(np.array([5, 0, -6]))))
    assert np.isnan(got).all(axis=1).tolist() == [True, False, True]
    assert gather(xp, table, xp.asarray(np.zeros((0, 2), np.int64))).shape == (0, 2, 8)
