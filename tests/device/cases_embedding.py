"""Sums of rows that share an index, on the device: against sums in float64, with segments in and across the chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_arrays import FLOAT64, TYPES, UNIT, close, normal, wide

from minilong.backend.kernels.embedding import scatter_rows

MUTANTS = [
    ("i += AHEAD", "i += AHEAD + 1"),
    ("bool begun_here = !earlier;", "bool begun_here = true;"),
    ("begun_here && !(last && later)", "begun_here"),
    ("        begun_here = true;", ""),
    ("start > 0 && sorted.key(start - 1) == keys[0]", "false"),
    ("end < m && sorted.key(end) == keys[count - 1]", "false"),
    ("parts + (begun_here ? width : 0)", "parts + (begun_here ? 0 : width)"),
    ("parts += (i64)blockIdx.x * 2 * width;", "parts += (i64)blockIdx.x * width;"),
    ("sorted.key(end) != key || (start > 0 && sorted.key(start - 1) == key)", "sorted.key(end) != key"),
    ("if (sorted.key(middle * CHUNK) == key) last = middle;", "if (sorted.key(middle * CHUNK) != key) last = middle;"),
    ("beyond - last > 1", "beyond - last > 2"),
    ("(c == first)", "0"),
    ("c <= last; c += LANES", "c < last; c += LANES"),
    ("i = 1; i < LANES", "i = 2; i < LANES"),
    ("        sum = {};", ""),
    ("tile += gridDim.y", "tile += 99"),
    ("width % WIDTH == 0 && aligned(rows)", "width % WIDTH == 0"),
    ("column < thread * WIDTH + WIDTH && column < width", "column < thread * WIDTH + 1 && column < width"),
]


def indices_of(kind: str, m: int, n: int) -> np.ndarray:
    """Spread evenly, one index for most rows, or counted from either end."""
    rng = np.random.default_rng(m)
    if kind == "often":
        return np.where(rng.random(m) < 0.9, n // 2, rng.integers(0, n, m))
    return rng.integers(0 if kind == "even" else -n, n, m)


def exact_sums(indices: np.ndarray, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums in float64, and those of the magnitudes."""
    sums = np.zeros((2, n, rows.shape[1]))
    np.add.at(sums[0], indices % n, rows.astype(np.float64))
    np.add.at(sums[1], indices % n, np.abs(rows.astype(np.float64)))
    return sums[0], sums[1]


def check(xp: Any) -> None:
    """Equal within the error of adding up in float32 (float64 for float64)."""
    for dtype in TYPES:
        for kind, m, width in (
            ("even", 0, 3),
            ("even", 1, 4),
            ("even", 64, 5),
            ("negative", 200, 8),
            ("often", 65, 260),
            ("often", 700, 12),
            ("often", 1100, 131),
        ):
            n = 9
            indices, rows = indices_of(kind, m, n), normal(width, (m, width), dtype)
            sums, sizes = exact_sums(indices, rows, n)
            got = scatter_rows(xp, xp.asarray(indices), xp.asarray(rows), n)
            # Within a chunk 64 additions, then a lane's parts and the lanes: each sum passes at most so many.
            additions = 64 + m / 512 + 8 if dtype != FLOAT64 else 2 * m
            close(xp, got, sums, wide(dtype), additions * UNIT[wide(dtype)] * sizes)
        memory, indices = normal(1, 81, dtype), np.array([1, 0, 1, 1, 0])  # rows that begin where no vector does
        sums, sizes = exact_sums(indices, memory[1:].reshape(5, 16), 3)
        got = scatter_rows(xp, xp.asarray(indices), xp.asarray(memory)[1:].reshape(5, 16), 3)
        close(xp, got, sums, wide(dtype), 5 * UNIT[wide(dtype)] * sizes)
