"""Which array library holds the data, and the few operations in which the libraries differ.

The data decide: `array_module(x, y)` is the namespace that the arrays belong to. There is no default that can be
switched and no silent transfer; arrays of two libraries in one operation are an error.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # a numpy.ndarray or a cupy.ndarray: the two share no base class
"""An array of either library. Spelled as a name so that signatures say what is meant."""


def is_array(x: object) -> bool:
    """Whether `x` is an array of a library known here (a NumPy scalar counts: reductions return it)."""
    if isinstance(x, np.ndarray | np.generic):
        return True
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(*arrays: object) -> Any:
    """The library (`numpy` or `cupy`) that the arrays belong to; Python numbers belong to any.

    Raises TypeError where NumPy and CuPy arrays are mixed, since that would hide a transfer between devices.
    """
    cupy: ModuleType | None = sys.modules.get("cupy")  # never imported here: no CuPy array exists before its import
    if cupy is None:
        return np
    on_device = [isinstance(x, cupy.ndarray) for x in arrays]
    if not any(on_device):
        return np
    for x, device in zip(arrays, on_device, strict=True):
        if not device and isinstance(x, np.ndarray) and x.ndim > 0:
            raise TypeError("NumPy and CuPy arrays in one operation; move one with cupy.asarray or to_host first")
    return cupy


def to_host(x: Array) -> np.ndarray:
    """`x` as a NumPy array: a copy from the device, or `x` itself."""
    return x if isinstance(x, np.ndarray) else np.asarray(x.get() if hasattr(x, "get") else x)


def scatter_rows(xp: Any, indices: Array, rows: Array, n: int) -> Array:
    """Sum of the rows that share an index: `out[i] = sum of rows[k] over k with indices[k] = i`.

    indices (m,), rows (m, d) -> (n, d). Deterministic: rows of one index are added in their order, by sorted segments.
    `numpy.add.at` gives the same sums and is several times slower on two axes.
    """
    out = xp.zeros((n, rows.shape[1]), rows.dtype)
    if len(indices) == 0:
        return out
    indices = indices % n  # a gather counts negative indices from the end, and so must its transpose
    order = xp.argsort(indices, kind="stable")
    ranked = indices[order]
    first = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), ranked[1:] != ranked[:-1]]))
    out[ranked[first]] = xp.add.reduceat(rows[order], first, axis=0)
    return out


def special(xp: Any) -> Any:
    """The library's module of special functions (loaded on first use: SciPy's takes a tenth of a second)."""
    if xp.__name__ == "numpy":
        import scipy.special

        return scipy.special
    import cupyx.scipy.special

    return cupyx.scipy.special


def workspace(xp: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uninitialised memory to be written before it is read. Tests replace it by memory full of NaN."""
    return xp.empty(shape, dtype)
