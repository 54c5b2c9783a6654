"""What all kernels share: conversions between storage types, and reductions over warps and blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from minilong.backend.kernels.launch import launch

SOURCE = str(Path(__file__).with_name("reductions.cu"))
TYPES = tuple(np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64))

MUTANTS = [
    ("offset = 16; offset > 0; offset >>= 1) x +=", "offset = 8; offset > 0; offset >>= 1) x +="),
    ("x = other > x || other != other ? other : x;", "x = other > x ? other : x;"),
    ("x = other > x || other != other ? other : x;", "x = other;"),
    ("i = 0; i < (int)(blockDim.x >> 5); i++) total", "i = 1; i < (int)(blockDim.x >> 5); i++) total"),
    ("i = 1; i < (int)(blockDim.x >> 5); i++) top", "i = 2; i < (int)(blockDim.x >> 5); i++) top"),
    ("parts[i] > top || parts[i] != parts[i] ? parts[i]", "parts[i] > top ? parts[i]"),
    ("0x7fffu + ((x >> 16) & 1u)", "0x8000u"),
    ("0x7fffu + ((x >> 16) & 1u)", "0x7fffu"),
    ("if ((x & 0x7fffffffu) > 0x7f800000u) return (u16)((x >> 16) | 0x40u);", ""),
]


def check(xp: Any) -> None:
    """Reductions of one to 32 warps, with and without a NaN; conversions of numbers near ties, infinities, NaN."""
    for dtype in TYPES:
        wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        for threads in (32, 64, 1024):
            reductions(xp, dtype, wide, threads)
        rounding(xp, dtype, wide)


def reductions(xp: Any, dtype: Any, wide: Any, threads: int) -> None:
    """Small integers, whose sums are exact in any order; a NaN in the last lane of the second half's maximum."""
    rng = np.random.default_rng(threads)
    x = rng.integers(-8, 9, (2, threads)).astype(np.float64)
    for missing in (False, True):
        if missing:
            x[1, -1] = np.nan
        warps, block = (xp.zeros((threads, 4), wide) for _ in range(2))
        launch(xp, SOURCE, "reductions", dtype, (1,), (threads,), (xp.asarray(x.astype(dtype)), warps, block))
        for got, parts in ((warps, x.reshape(2, -1, 32)), (block, x.reshape(2, 1, threads))):
            want = np.repeat(np.concatenate([parts.sum(-1), parts.max(-1)]).T, parts.shape[-1], axis=0)
            np.testing.assert_array_equal(xp.asnumpy(got), want)


def rounding(xp: Any, dtype: Any, wide: Any) -> None:
    """To the nearest, ties to even, as ml_dtypes and NumPy round."""
    bits = np.random.default_rng(0).integers(0, 2**32, 3000, dtype=np.uint32)
    ties = bits[:1000] & np.uint32(0xFFFF0000) | np.uint32(0x8000)  # between two numbers of bfloat16
    halves = bits[1000:2000].astype(np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        middles = (halves.astype(np.float32) * np.float32(1 + 2.0**-11)).view(np.uint32)
        x = np.concatenate([bits, ties, middles, np.uint32([0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF])])
        x = x.view(np.float32).astype(wide)
        want = x.astype(dtype)
        y, back = xp.zeros(x.shape, dtype), xp.zeros(x.shape, wide)
        arguments = (xp.asarray(x), y, back, np.int32(x.size))
        launch(xp, SOURCE, "rounded", dtype, (-(-x.size // 128),), (128,), arguments)
        got = xp.asnumpy(y)
        same = (got.view(f"u{dtype.itemsize}") == want.view(f"u{dtype.itemsize}")) | (np.isnan(got) & np.isnan(want))
        assert same.all()
        np.testing.assert_array_equal(xp.asnumpy(back), got.astype(wide))
