"""Keys of device arrays: integers, slices, and index arrays that are on the device themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dtypes import Differs

_PLAIN = (int, slice, type(None), type(...), np.integer)


def is_basic(key: Any) -> bool:
    """Whether a key holds integers, slices, None and `...` only."""
    if type(key) is tuple:
        return all(isinstance(k, _PLAIN) and k is not True and k is not False for k in key)
    return isinstance(key, _PLAIN) and key is not True and key is not False


def host_key(key: Any, shape: tuple[int, ...]) -> Any:
    """The key with the elements of its device arrays. TypeError where an index array lies on the host."""
    if isinstance(key, tuple):
        return tuple(_part(k) for k in key)
    return _part(key)


def _part(k: Any) -> Any:
    from .array import ndarray

    if isinstance(k, ndarray):
        if k._a.dtype.kind not in "iub":
            raise IndexError("arrays used as indices must be of integer or boolean type")
        return k._a
    if isinstance(k, np.ndarray | list | range) or k is True or k is False:
        raise TypeError(f"an index array on the host, {type(k).__name__}: CuPy copies it to the device each time")
    if not isinstance(k, _PLAIN):
        raise IndexError(f"no index: {type(k).__name__}")
    return k


def is_mask(key: Any) -> bool:
    """Whether an array of truth values is among the indices: the shape of the result depends on data."""
    parts = key if isinstance(key, tuple) else (key,)
    masks = [k for k in parts if isinstance(k, np.ndarray) and k.dtype.kind == "b"]
    if masks and sum(isinstance(k, np.ndarray) for k in parts) > 1:
        raise ValueError("currently, CuPy only supports slices that consist of one boolean array.")
    return bool(masks)


def check_unique(key: Any, shape: tuple[int, ...]) -> None:
    """Refuse an assignment that names an element twice: which value stays is undefined on a device."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if ... in [k for k in parts if not isinstance(k, np.ndarray)]:
        i = next(i for i, k in enumerate(parts) if k is ...)
        named = sum(k is not None for k in parts) - 1
        parts[i : i + 1] = [slice(None)] * (len(shape) - named)
    axis, arrays, sizes = 0, [], []
    for k in parts:
        if k is None:
            continue
        if isinstance(k, np.ndarray) and k.dtype.kind == "b":
            return
        if isinstance(k, np.ndarray):
            arrays.append(k % shape[axis] if shape[axis] else k)
            sizes.append(shape[axis])
        axis += 1
    if not arrays or any(k.size == 0 for k in arrays):
        return
    flat = np.ravel_multi_index(np.broadcast_arrays(*arrays), sizes).reshape(-1)
    if np.unique(flat).size < flat.size:
        raise Differs("duplicate indices in an assignment: which value stays is undefined on CuPy")
