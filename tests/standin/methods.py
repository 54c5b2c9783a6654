"""The methods of `ndarray`: each the function of the same name, checked against CuPy's signature of the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import events
from .array import ndarray, owned, owned_by
from .creation import astype, guarded_as, view
from .functions import MODELLED
from .table import TABLE, VERSION, signature
from .ufuncs import UFUNCS


def reshape(x: ndarray, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
    return MODELLED["reshape"](x, shape[0] if len(shape) == 1 else shape, order)


def transpose(x: ndarray, *axes: Any) -> ndarray:
    return owned_by(x._a.transpose(*axes), x._m)


def ravel(x: ndarray, order: str = "C") -> ndarray:
    y = x._a.ravel(order)  # type: ignore[arg-type]
    return owned_by(y, x._m) if y.size and np.may_share_memory(y, x._a) else owned(y)


def flatten(x: ndarray, order: str = "C") -> ndarray:
    events.launch("flatten")
    return owned(x._a.flatten(order))  # type: ignore[arg-type]


def fill(x: ndarray, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.shape:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    x[...] = value


def sort(x: ndarray, axis: int = -1, kind: Any = None) -> None:
    if not x._a.flags.c_contiguous:
        raise NotImplementedError("Sorting non-contiguous array is not supported.")
    events.launch("sort")
    x._a.sort(axis, kind="stable")


def copy(x: ndarray, order: str = "C") -> ndarray:
    events.launch("copy")
    return guarded_as(x._a, order)


def set_(x: ndarray, arr: Any, stream: Any = None) -> None:
    events.h2d(".set()")
    if not isinstance(arr, np.ndarray) or arr.dtype != x.dtype or arr.shape != x.shape:
        raise TypeError("set: a host array of the same type and shape is needed")
    x._a[...] = arr


def put(x: ndarray, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("put waits for the device in its default mode: assign by index")


OWN = {
    "reshape": reshape, "transpose": transpose, "ravel": ravel, "flatten": flatten, "fill": fill, "sort": sort,
    "copy": copy, "astype": astype, "view": view, "set": set_, "put": put,
    "scatter_add": lambda x, slices, value: UFUNCS["add"].at(x, slices, value),
    "scatter_max": lambda x, slices, value: UFUNCS["maximum"].at(x, slices, value),
    "scatter_min": lambda x, slices, value: UFUNCS["minimum"].at(x, slices, value),
    "conj": UFUNCS["conjugate"], "conjugate": UFUNCS["conjugate"],
}  # fmt: skip


def _method(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    check = signature("ndarray", name).check

    def call(x: ndarray, *args: Any, **kw: Any) -> Any:
        check(args, kw)
        return f(x, *args, **kw)

    call.__name__ = name
    return call


def _refused(name: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"ndarray.{name} is not modelled by the stand-in")

    return call


def _bind() -> None:
    for name, entry in TABLE["ndarray"].items():
        if entry["kind"] != "method" or hasattr(ndarray, name):
            continue
        f = OWN.get(name) or MODELLED.get(name)
        setattr(ndarray, name, _method(name, f) if f is not None else _refused(name))
    for name in dir(np.ndarray):
        if not name.startswith("_") and name not in TABLE["ndarray"]:
            assert not hasattr(ndarray, name), f"CuPy {VERSION} has no ndarray.{name}"


_bind()
