"""The sum of a vector, in an order that is always the same: one launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.rows import accumulated


def total(xp: Any, x: Array, scale: float) -> Array:
    """scale times the sum of x, float32 or float64; 0-d, on the device. Raises TypeError for other types."""
    kind = accumulated(x.dtype)
    if x.dtype != kind:
        raise TypeError(f"a sum of {x.dtype}; float32 or float64 is needed")
    out = xp.empty((), kind)
    arguments = (xp.ascontiguousarray(x), kind(scale), out, np.int64(x.size))
    launch(xp, "total.cu", "total", x.dtype, (1,), (1024,), arguments)
    return out
