"""Element types: bfloat16 beside NumPy's own, and the casts that the two libraries do differently."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16 = np.dtype(np.float16)
HALVES = (FLOAT16, BFLOAT16)


class Differs(AssertionError):
    """CuPy raises nothing here, and gives something else than NumPy, or something undefined."""


def is_half(dtype: np.dtype) -> bool:
    """Whether sums of that type are accumulated in float32."""
    return dtype in HALVES


def check_cast(a: np.ndarray, dtype: Any) -> None:
    """Refuse a cast of numbers to integers that cannot hold them: CuPy saturates, NumPy does not."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu" or a.size == 0 or not (a.dtype.kind == "f" or a.dtype == BFLOAT16):
        return
    wide = a if a.dtype.kind == "f" else a.astype(np.float32)
    info = np.iinfo(dtype)
    low, high = float(info.min) - 1, float(info.max) + 1
    with np.errstate(all="ignore"):
        fits = np.isfinite(wide).all() and (wide > low).all() and (wide < high).all()
        exact = info.bits < 53 or ((wide >= float(info.min)).all() and (wide < high).all())
    if not (fits and exact):
        raise Differs(f"cast of {a.dtype} to {dtype} out of range: CuPy saturates, NumPy does not")


def cast(a: np.ndarray, dtype: Any, order: str = "K") -> np.ndarray:
    """A copy of `a` as `dtype`, warnings off, as a device does it."""
    check_cast(a, dtype)
    with np.errstate(all="ignore"):
        return a.astype(dtype, order=order)  # type: ignore[call-overload,no-any-return]
