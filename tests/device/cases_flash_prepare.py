"""The passes before those of flash attention: ranges of segments, and what the backward pass needs of each query."""

from __future__ import annotations

from typing import Any

import numpy as np
from flash_arrays import on_device
from row_arrays import exactly, near
from step_arrays import BFLOAT16, FLOAT32, FLOAT64, normal

from minilong.backend.kernels.launch import launch

MUTANTS = [
    ("offset + tile * query_rows", "tile * query_rows"),
    ("(tile - query_tiles) * key_rows", "tile * key_rows"),
    ("of_queries ? offset + t : s", "s"),
    ("of_queries ? query_rows : key_rows", "query_rows"),
    ("(i64)(blockIdx.x / tiles) * s", "0"),
    ("low = own[j] < low ? own[j] : low;", "low = own[j];"),
    ("high = own[j] > high ? own[j] : high;", "high = own[j];"),
    ("low = other_low < low ? other_low : low;", ""),
    ("high = other_high > high ? other_high : high;", ""),
    ("if (row >= rows) return;", ""),
    ("row / t % heads", "row / t"),
    ("head * g_head", "0"),
    ("batch * y_batch", "0"),
    ("load(g[c]) * load(y[c])", "load(g[c])"),
    ("sum = warp_sum(sum);", ""),
    ("lse[row] == -(acc_t)INFINITE ? (acc_t)INFINITE : lse[row]", "lse[row]"),
    ("* (acc_t)1.4426950408889634", ""),
    ("pairs[2 * row + 1] = sum", "pairs[2 * row + 1] = 0"),
]


def check(xp: Any) -> None:
    """Ranges exactly; sums within the roundings of their type."""
    for queries, keys in ((16, 128), (64, 16)):
        ranges_of_tiles(xp, queries, keys)
    for dtype in (FLOAT32, BFLOAT16, FLOAT64):
        sums_of_queries(xp, dtype)


def ranges_of_tiles(xp: Any, queries: int, keys: int) -> None:
    """The least and the largest of every tile, of 70 queries from the fifth token on and of 100 keys."""
    segments, t, offset = np.random.default_rng(0).integers(-99, 99, (2, 100)).astype(np.int32), 70, 5
    parts = [segments[:, i : min(i + queries, offset + t)] for i in range(offset, offset + t, queries)]
    parts += [segments[:, j : j + keys] for j in range(0, 100, keys)]
    ranges = xp.empty((2, len(parts), 2), np.int32)
    sizes = map(np.int32, (t, 100, offset, queries, keys))
    arguments = (xp.asarray(segments), ranges, *sizes)
    launch(xp, "flash_prepare.cu", "segment_ranges", "float32", (2 * len(parts),), (32,), arguments)
    exact = np.stack([np.stack([part.min(1), part.max(1)], -1) for part in parts], 1)
    np.testing.assert_array_equal(xp.asnumpy(ranges), exact)


def sums_of_queries(xp: Any, dtype: Any) -> None:
    """Logarithms of sums to base 2, infinite where there was no sum, and the products g y."""
    b, h, t, e = 2, 3, 5, 37
    g, y = (normal(i, (b, t, h, e), dtype).transpose(0, 2, 1, 3) for i in range(2))
    wide = FLOAT64 if dtype == FLOAT64 else FLOAT32
    lse = normal(2, (b, h, t), wide)
    lse[0, 1, 2] = -np.inf
    pairs, views = xp.empty((b, h, t, 2), wide), [on_device(xp, x) for x in (g, y)]
    strides = (np.int64(stride // x.itemsize) for x in views for stride in x.strides[:3])
    sizes = (np.int64(b * h * t), *map(np.int32, (h, t, e)))
    blocks = -(-b * h * t // 8)
    arguments = (*views, xp.asarray(lse), pairs, *strides, *sizes)
    launch(xp, "flash_prepare.cu", "query_sums", dtype, (blocks,), (256,), arguments)
    found = xp.asnumpy(pairs)
    assert found[0, 1, 2, 0] == np.inf
    finite = np.isfinite(lse)
    np.testing.assert_allclose(found[finite, 0], lse[finite] / np.log(wide.type(2)), rtol=1e-6)
    products = exactly(g) * exactly(y)
    sums = np.ascontiguousarray(found[..., 1])
    near(xp, xp.asarray(sums), products.sum(-1), wide, np.abs(products).sum(-1))
