"""The sum of a vector on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from row_arrays import exactly, near, normals
from step_arrays import FLOAT32, FLOAT64

from minilong.backend.kernels.total import total

MUTANTS = [
    ("i += blockDim.x", "i += blockDim.x + 1"),
    ("sum += x[i]", "sum = x[i]"),
    ("scale * sum", "sum"),
    ("sum = block_sum(sum);", ""),
]


def check(xp: Any) -> None:
    """Vectors shorter and longer than the block."""
    for n, dtype in ((0, FLOAT32), (1, FLOAT64), (1000, FLOAT32), (5001, FLOAT32)):
        (x,) = normals(n, dtype, (n,))
        near(
            xp, total(xp, xp.asarray(x), 0.5), 0.5 * np.asarray(exactly(x).sum()), dtype, 0.5 * np.abs(exactly(x)).sum()
        )
