"""Sums of gradients by row of a table, and the step that they make.

A batch meets a common word many times. Summing by row is a product with a sparse matrix of ones, without sorting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class RowGradient:
    """Gradients of rows of a table: `rows` (n,) with repetitions, `values` (n, d), and how many losses each stands for.

    mass (n,): the sum of the weights of all losses that the row meets here.
    """

    rows: np.ndarray
    values: np.ndarray
    mass: np.ndarray


def sum_rows(parts: Sequence[RowGradient]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct rows (u,), ascending, the sum of their gradients (u, d) and of their masses (u,)."""
    rows, inverse = np.unique(np.concatenate([p.rows for p in parts]), return_inverse=True)
    inverse = inverse.astype(np.int32)  # what the sparse matrix takes without looking for its largest
    mass = np.bincount(inverse, np.concatenate([p.mass for p in parts]), rows.size)
    total: np.ndarray | None = None
    start = 0
    for part in parts:
        n = part.rows.size
        ones = np.ones(n, part.values.dtype)
        picks = sparse.csc_array(
            (ones, inverse[start : start + n], np.arange(n + 1, dtype=np.int32)), shape=(rows.size, n)
        )
        share = picks @ part.values
        total = share if total is None else total + share
        start += n
    assert total is not None
    return rows, total, mass


def capped_step(table: np.ndarray, parts: Sequence[RowGradient], lr: float, cap: float) -> None:
    """Gradient descent on the rows that occur, in place: lr min(1, cap / mass) times the sum, `eq:capped-step`.

    The gradients of a batch are all taken at its start. A row that meets thousands of losses there would overshoot
    where single steps settle; the cap is how many losses may add up.
    """
    rows, total, mass = sum_rows(parts)
    factor = lr * np.minimum(1.0, cap / np.maximum(mass, cap))
    total *= factor.astype(total.dtype)[:, None]
    table[rows] -= total
