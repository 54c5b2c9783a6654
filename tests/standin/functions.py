"""CuPy's other functions: reductions, shapes, selection, sorting. What is not listed is refused as not modelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import events
from .array import ndarray, owned, owned_by, raw, sharing
from .creation import CREATION
from .dtypes import BFLOAT16, check_cast, is_half
from .products import PRODUCTS
from .table import TABLE
from .ufuncs import UFUNCS, device, result_into, total, ufunc

REDUCTIONS = ("mean", "std", "var", "max", "min", "amax", "amin", "any", "all", "nansum", "nanmax", "nanmin",
              "count_nonzero", "cumsum", "cumprod", "trace")  # fmt: skip
VIEWS = ("transpose", "swapaxes", "moveaxis", "rollaxis", "expand_dims", "squeeze", "broadcast_to", "flip", "fliplr",
         "flipud", "rot90", "diagonal", "ravel", "atleast_1d", "atleast_2d", "atleast_3d", "real", "imag")  # fmt: skip
COPIES = ("diff", "roll", "tile", "tril", "triu", "pad", "diag", "isclose", "take_along_axis", "searchsorted",
          "digitize", "lexsort", "around", "round", "meshgrid")  # fmt: skip
SYNCING = ("nonzero", "flatnonzero", "argwhere", "unique", "bincount")
"""The shape of the result depends on the data: the host waits for it."""

HALF_IN_FLOAT32 = frozenset({"mean", "std", "var", "nansum", "cumsum", "cumprod", "trace"})
IN_BFLOAT16 = frozenset({*VIEWS, "max", "min", "amax", "amin", "any", "all", "nansum", "nanmax", "nanmin",
                         "diff", "roll", "tile", "take_along_axis"})  # fmt: skip
"""Functions that are known to take bfloat16."""

RENAMED = {"flip": {"a": "m"}, "fliplr": {"a": "m"}, "flipud": {"a": "m"}, "rot90": {"a": "m"},
           "take_along_axis": {"a": "arr"}}  # fmt: skip
"""Parameters that NumPy calls otherwise."""


def _plain(name: str, kind: str) -> Callable[..., Any]:
    f, renamed = getattr(np, name), RENAMED.get(name, {})
    first = TABLE["cupy"][name]["params"].split(", ")[0]

    def call(*args: Any, **kw: Any) -> Any:
        if kind == "sync":
            events.sync(f"{name}()")
        if kind != "view":
            events.launch(name)
        out = kw.pop("out", None)
        if first in kw:
            args = (kw.pop(first), *args)
        inputs = [x for x in args if isinstance(x, ndarray)]
        if not inputs and name != "lexsort":
            raise TypeError(f"cupy.{name}: Unsupported type {type(args[0])}")
        if name not in IN_BFLOAT16 and any(x.dtype == BFLOAT16 for x in inputs):
            raise TypeError(f"cupy.{name} of bfloat16 is not supported, or not modelled")
        args = tuple(raw(x, name) for x in args)
        kw = {renamed.get(key, key): raw(x, name) for key, x in kw.items()}
        narrow = None
        if name in HALF_IN_FLOAT32 and is_half(args[0].dtype) and kw.get("dtype") is None:
            narrow, args = args[0].dtype, (args[0].astype(np.float32), *args[1:])
        with np.errstate(all="ignore"):
            y = f(*args, **kw)
        if kind == "view":
            return owned_by(y, inputs[0]._m) if np.may_share_memory(y, inputs[0]._a) else sharing(y, *inputs)
        if isinstance(y, tuple | list):
            return type(y)(owned(np.asarray(part)) for part in y)
        y = np.asarray(y, narrow)
        if name in REDUCTIONS and not y.flags.c_contiguous:
            y = y.copy("C")
        return result_into(y, out)

    call.__name__ = name
    return call


def argmax(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    events.launch("argmax")
    return result_into(np.argmax(device(a, "argmax"), axis, keepdims=keepdims).astype(dtype or np.int64), out)


def argmin(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    events.launch("argmin")
    return result_into(np.argmin(device(a, "argmin"), axis, keepdims=keepdims).astype(dtype or np.int64), out)


def _chosen(mask: Any, x: Any, y: Any, order: str = "C", out: Any = None) -> Any:
    z = np.where(mask, x, y)
    if out is not None:
        out[...] = z
        return out
    return np.ascontiguousarray(z) if z.ndim else z


def _clipped(a: Any, low: Any, high: Any, order: str = "C", out: Any = None) -> Any:
    return np.minimum(np.maximum(a, low, order="C"), high, out=out, order="C")


WHERE = ufunc("where", TABLE["loops"]["where"], _chosen)
CLIP = ufunc("clip", TABLE["loops"]["clip"], _clipped)


def sum_(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    return total(np.add, a, axis, dtype, out, keepdims)


def prod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    return total(np.multiply, a, axis, dtype, out, keepdims)


def reshape(a: Any, newshape: Any, order: str = "C", *, copy: Any = None) -> ndarray:
    if isinstance(newshape, ndarray):
        raise TypeError("a shape on the device")
    x = device(a, "reshape")
    y = x.reshape(newshape, order=order)  # type: ignore[call-overload]
    if y.size and np.may_share_memory(x, y):
        return owned_by(y, a._m)
    events.launch("reshape (a copy)")
    return owned(np.ascontiguousarray(y) if y.ndim else y)


def concatenate(tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    parts = [device(x, "concatenate") for x in tup]
    events.launch("concatenate")
    y = np.concatenate(parts, axis, dtype=dtype, casting=casting)
    return result_into(np.ascontiguousarray(y), out)


def stack(tup: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    parts = [device(x, "stack") for x in tup]
    events.launch("stack")
    return result_into(np.ascontiguousarray(np.stack(parts, axis, dtype=dtype, casting=casting)), out)


def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    return concatenate([x if x.ndim > 1 else x.reshape(1, -1) for x in tup], 0, dtype=dtype, casting=casting)


def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    axis = 0 if tup[0].ndim == 1 else 1
    return concatenate(tup, axis, dtype=dtype, casting=casting)


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[ndarray]:
    return [owned_by(y, ary._m) for y in np.split(device(ary, "split"), raw(indices_or_sections, "split"), axis)]


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[ndarray]:
    parts = np.array_split(device(ary, "array_split"), raw(indices_or_sections, "array_split"), axis)
    return [owned_by(y, ary._m) for y in parts]


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if not isinstance(condition, np.generic):
        device(condition, "where")
    if x is None:
        return MODELLED["nonzero"](condition)
    return WHERE(condition.astype(bool, copy=False), x, y)


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    if a_min is None or a_max is None:
        if a_min is None and a_max is None:
            raise ValueError("array_clip: must set either max or min")
        return UFUNCS["maximum"](a, a_min, out=out) if a_max is None else UFUNCS["minimum"](a, a_max, out=out)
    return CLIP(a, a_min, a_max, out=out)


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    x = device(a, "take")
    if isinstance(indices, list | tuple | np.ndarray):
        raise TypeError("take: indices on the host: CuPy copies them to the device each time")
    events.launch("take")
    return result_into(np.ascontiguousarray(np.take(x, raw(indices, "take"), axis)), out)


def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    target = device(dst, "copyto")
    source = raw(src, "copyto")
    if isinstance(source, np.ndarray):
        check_cast(source, target.dtype)
    events.launch("copyto")
    with np.errstate(all="ignore"):
        np.copyto(target, source, casting=casting, where=True if where is None else device(where, "copyto"))


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    if isinstance(repeats, ndarray | list | tuple | np.ndarray):
        if isinstance(repeats, np.ndarray):
            raise TypeError("repeat: counts of NumPy's")
        events.sync("repeat() by an array of counts")
    events.launch("repeat")
    return owned(np.repeat(device(a, "repeat"), raw(repeats, "repeat"), axis))


def _sortable(a: Any, where: str) -> np.ndarray:
    x = device(a, where)
    if x.dtype == BFLOAT16 or x.ndim == 0:
        raise TypeError(f"{where}: arrays of {x.dtype} with {x.ndim} axes are not sorted")
    return x


def argsort(a: Any, axis: Any = -1, kind: Any = None) -> Any:
    if kind not in (None, "stable"):
        raise ValueError("unsupported kind: only 'stable' sort is available")
    events.launch("argsort")
    return owned(np.argsort(_sortable(a, "argsort"), axis, kind="stable"))


def sort(a: Any, axis: Any = -1, kind: Any = None) -> Any:
    if kind not in (None, "stable"):
        raise ValueError("unsupported kind: only 'stable' sort is available")
    events.launch("sort")
    return owned(np.sort(_sortable(a, "sort"), axis, kind="stable"))


def argpartition(a: Any, kth: Any, axis: Any = -1) -> Any:
    events.launch("argpartition")
    return owned(np.argpartition(_sortable(a, "argpartition"), kth, axis))


def partition(a: Any, kth: Any, axis: Any = -1) -> Any:
    events.launch("partition")
    return owned(np.partition(_sortable(a, "partition"), kth, axis))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    events.launch("array_equal")
    return owned(np.asarray(np.array_equal(device(a1, "array_equal"), device(a2, "array_equal"), equal_nan)))


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    events.launch("allclose")
    return owned(np.asarray(np.allclose(device(a, "allclose"), raw(b, "allclose"), rtol, atol, equal_nan)))


def broadcast_arrays(*args: Any) -> list[ndarray]:
    shape = np.broadcast_shapes(*(x.shape for x in args))
    return [owned_by(np.broadcast_to(x._a, shape), x._m) for x in args]


def result_type(*args: Any) -> np.dtype:
    return np.result_type(*(x.dtype if isinstance(x, ndarray) else x for x in args))


def shares(a: Any, b: Any, max_work: Any = None) -> bool:
    return a._m is b._m and bool(np.may_share_memory(a._a, b._a))


OF_HOST = ("broadcast_shapes", "can_cast", "promote_types", "finfo", "iinfo", "isscalar")
OUTSIDE = {
    "ndim": lambda a: a.ndim if isinstance(a, ndarray) else np.ndim(a),
    "shape": lambda a: a.shape if isinstance(a, ndarray) else np.shape(a),
    "size": lambda a, axis=None: np.size(a._a if isinstance(a, ndarray) else a, axis),
    "iscomplexobj": lambda x: x.dtype.kind == "c",
    "isfortran": lambda a: a.flags.fnc,
    "may_share_memory": shares,
    "shares_memory": shares,
}
MODELLED: dict[str, Callable[..., Any]] = {
    **{name: _plain(name, "copy") for name in (*REDUCTIONS, *COPIES)},
    **{name: _plain(name, "view") for name in VIEWS},
    **{name: _plain(name, "sync") for name in SYNCING},
    "sum": sum_,
    **{
        f.__name__: f
        for f in (
            prod, argmax, argmin, reshape, concatenate, stack, vstack, hstack, split, array_split, where, clip, take,
            copyto, repeat, argsort, sort, argpartition, partition, array_equal, allclose, broadcast_arrays,
            result_type,
        )
    },
    **{name: getattr(np, name) for name in OF_HOST}, **OUTSIDE, **CREATION, **PRODUCTS,
}  # fmt: skip
