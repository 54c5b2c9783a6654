"""Functions that make arrays, from nothing or from the host's."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import events
from .array import guarded, ndarray, owned, owned_by
from .dtypes import cast
from .memory import allocate


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return owned_by(*allocate(shape, dtype, order))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray | np.generic) else np.asarray(fill_value).dtype
    x = empty(shape, dtype, order)
    events.launch("fill")
    with np.errstate(all="ignore"):
        x._a[...] = fill_value._a if isinstance(fill_value, ndarray) else fill_value
    return x


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    if not isinstance(prototype, ndarray):
        raise TypeError(f"empty_like of {type(prototype)}")
    a = prototype._a
    wanted = a.shape if shape is None else shape
    if order == "K":
        order = "F" if shape is None and a.flags.f_contiguous and not a.flags.c_contiguous else "C"
        if shape is None and not a.flags.forc:  # the order of the axes in memory is kept
            like = np.empty_like(a, dtype=dtype)
            x = empty(like.size, like.dtype)
            raw = np.ndarray(like.shape, like.dtype, x._a, 0, like.strides)
            return owned_by(raw, x._m)
    return empty(wanted, a.dtype if dtype is None else dtype, order)


def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    x = empty_like(a, dtype, order, subok, shape)
    x[...] = fill_value
    return x


def zeros_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 1, dtype, order, subok, shape)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    for x in (start, stop, step):
        if isinstance(x, ndarray):
            raise TypeError("arange of a device array: its length would be read on the host")
    events.launch("arange")
    return guarded(np.arange(start, dtype=dtype) if stop is None else np.arange(start, stop, step, dtype=dtype))


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> ndarray:
    if isinstance(start, ndarray) or isinstance(stop, ndarray) or retstep:
        raise NotImplementedError("linspace of device arrays is not modelled")
    events.launch("linspace")
    return owned(np.linspace(start, stop, num, endpoint, dtype=dtype, axis=axis))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, order: str = "C") -> ndarray:
    events.launch("eye")
    return owned(np.eye(N, M, k, dtype))


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> ndarray:
    events.launch("tri")
    return owned(np.tri(N, M, k, dtype))


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0, *,
    blocking: bool = False,
) -> ndarray:  # fmt: skip
    if isinstance(obj, ndarray):
        a = obj._a
        same = dtype is None or np.dtype(dtype) == a.dtype
        fits = order in ("K", "A", None) or (order == "C" and a.flags.c_contiguous)
        fits = fits or (order == "F" and a.flags.f_contiguous)
        if not copy and same and fits and a.ndim >= ndmin:
            return obj
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        events.launch("copy")
        new = cast(a, a.dtype if dtype is None else dtype, order or "K")
        return guarded(new.reshape((1,) * max(0, ndmin - a.ndim) + a.shape))
    if isinstance(obj, list | tuple) and any(isinstance(x, ndarray) for x in obj):
        raise TypeError("an array of a list of device arrays: use stack")
    if copy is False:
        raise ValueError("Unable to avoid copy: the data are on the host")
    host = np.array(obj, dtype, ndmin=ndmin)
    if host.dtype == object:
        raise ValueError("Unsupported dtype object")
    if host.dtype.byteorder == ">":
        host = host.astype(host.dtype.newbyteorder("<"))
    events.h2d("array of the host's")
    column_major = order in ("K", "A") and host.flags.f_contiguous and not host.flags.c_contiguous
    return guarded(np.array(host, order="F" if column_major or order == "F" else "C"))


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy, order or ("K" if isinstance(a, ndarray) else "C"))


def asanyarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    return asarray(a, dtype, order, copy=copy)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and a.ndim == 0:
        a = a.reshape(1)
    return array(a, dtype, None, "C")


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, None, "F")


def copy(a: Any, order: str = "K") -> ndarray:
    events.launch("copy")
    if not isinstance(a, ndarray):
        return array(a, order=order)
    return guarded_as(a._a, order)


def guarded_as(a: np.ndarray, order: str) -> ndarray:
    """A copy in that order of memory."""
    return guarded(np.array(a, order=order))  # type: ignore[call-overload]


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: np.ndarray | None = None, *, blocking: bool = True
) -> np.ndarray:
    """The only function that takes an array of either library, and always gives the host's."""
    if isinstance(a, ndarray):
        return a.get(order=order, out=out)
    return np.asarray(a)


def astype(
    x: ndarray, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: Any = True
) -> ndarray:
    dtype = np.dtype(dtype)
    a = x._a
    if casting is not None and not np.can_cast(a.dtype, dtype, casting):
        raise TypeError(f"Cannot cast array data from {a.dtype} to {dtype} according to the rule {casting!r}")
    if not copy and a.dtype == dtype and (order == "K" or (order == "C" and a.flags.c_contiguous)):
        return x
    events.launch("astype")
    return owned(cast(a, dtype, order))


def view(x: ndarray, dtype: Any = None, type: Any = None) -> ndarray:
    return owned_by(x._a.view() if dtype is None else x._a.view(dtype), x._m)


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    """cupy.lib.stride_tricks.as_strided. Refused where it would reach beyond the array's memory."""
    a = x._a
    shape = a.shape if shape is None else tuple(shape)
    strides = a.strides if strides is None else tuple(strides)
    if all(shape):
        begin = int(a.__array_interface__["data"][0])
        low = begin + sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
        high = begin + sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + a.itemsize
        if low < x._m.address or high > x._m.address + x._m.nbytes:
            raise IndexError("as_strided reaches beyond the array's memory")
    return owned_by(np.lib.stride_tricks.as_strided(a, shape, strides), x._m)


CREATION = {
    f.__name__: f
    for f in (
        empty, full, zeros, ones, empty_like, full_like, zeros_like, ones_like, arange, linspace, eye, tri,
        array, asarray, asanyarray, ascontiguousarray, asfortranarray, copy, asnumpy,
    )
}  # fmt: skip
