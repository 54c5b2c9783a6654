"""Arrays and comparisons for the kernels of a training step."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
TYPES = (FLOAT32, FLOAT16, BFLOAT16, FLOAT64)

UNIT = {FLOAT32: 2.0**-24, FLOAT16: 2.0**-11, BFLOAT16: 2.0**-8, FLOAT64: 2.0**-53}
"""Half the distance of neighbours at 1: the relative error of one rounding."""


def wide(dtype: Any) -> np.dtype[Any]:
    """The type that sums and products are made in."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def normal(seed: int, shape: int | tuple[int, ...], dtype: Any = FLOAT32) -> np.ndarray:
    """Normal numbers of a type."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same_bits(xp: Any, device: Any, host: np.ndarray) -> None:
    """Type, shape and every bit are equal."""
    got = xp.asnumpy(device)
    assert (got.dtype, got.shape) == (host.dtype, host.shape)
    assert got.tobytes() == np.ascontiguousarray(host).tobytes()


def close(xp: Any, device: Any, exact: np.ndarray, dtype: Any, bound: Any) -> None:
    """Type and shape are as said, and no element is farther from the exact one than `bound`, in C order."""
    assert (device.dtype, device.shape) == (dtype, exact.shape)
    assert device.flags.c_contiguous
    got = xp.asnumpy(device).astype(np.float64)
    worst = np.abs(got - exact) - bound
    assert np.all(worst <= 0), f"{worst.max()} beyond the bound"  # a NaN is not <= 0
