"""Universal functions, with CuPy's loops: which types it computes in, and which it has no loop for."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from . import events
from .array import ndarray, owned, raw
from .dtypes import BFLOAT16, HALVES, is_half
from .indexing import host_key, is_mask
from .table import TABLE

AT = {
    "add": "int32 int64 float16 float32 float64 uint32 uint64",
    "subtract": "int32 uint32",
    "maximum": "int32 int64 float32 float64 uint32 uint64",
    "minimum": "int32 int64 float32 float64 uint32 uint64",
    "bitwise_and": "int32 int64 uint32 uint64",
    "bitwise_or": "int32 int64 uint32 uint64",
    "bitwise_xor": "int32 int64 uint32 uint64",
}
"""Types that `ufunc.at` takes (CuPy's own messages)."""

_WEAK = (bool, int, float, complex)
_SCORE = {bool: 0, int: 1, float: 2, complex: 2}
_KIND = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}
_FITS = {bool: "biufcV", int: "iufcV", float: "fc", complex: "c"}


def _dtype(char: str) -> np.dtype:
    return BFLOAT16 if char == "E" else np.dtype(char)


def find_loop(loops: list[Any], key: tuple[Any, ...]) -> Any:
    """CuPy's rule: the first loop that all inputs can be cast to safely. Of a Python number only the kind counts, where
    it is of no higher kind than the arrays (NEP 50); bfloat16 is of a kind that a Python float does not fit."""
    strong = [_KIND.get(k.kind, 3) for k in key if isinstance(k, np.dtype)]
    weak = [_SCORE[k] for k in key if not isinstance(k, np.dtype)]
    ignore = bool(strong and weak and max(strong) >= max(weak))
    for loop in loops:
        for given, taken in zip(key, loop[0], strict=True):
            if ignore and not isinstance(given, np.dtype):
                fits = taken.kind in _FITS[given]
            else:
                fits = np.can_cast(np.dtype(given), taken)
            if not fits:
                break
        else:
            return loop
    return None


class ufunc:
    """One universal function. `out`, `dtype` and `casting` are all that CuPy's take."""

    __slots__ = ("__name__", "_cache", "_f", "_loops", "at_allowed", "nargs", "nin", "nout", "types")

    def __init__(self, name: str, entry: dict[str, Any], compute: Any) -> None:
        self.__name__, self._f = name, compute
        self.types = entry["types"].split()
        self.nin, self.nout = (len(part) for part in self.types[0].split("->"))
        self.nargs, self.at_allowed = self.nin + self.nout, entry.get("at", False)
        invalid = entry.get("invalid", "").split()
        self._loops = [(*([_dtype(c) for c in part] for part in t.split("->")), t not in invalid) for t in self.types]
        self._cache: dict[Any, Any] = {}

    name = property(lambda f: f"cupy_{f.__name__}")

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.__name__}'>"

    def _resolve(self, key: tuple[Any, ...], dtype: Any) -> Any:
        """The loop for these types: (types to convert the inputs to or None, types of the results)."""
        if dtype is None:
            loop = find_loop(self._loops, key)
        else:
            wanted = np.dtype(dtype)
            loop = next((x for x in self._loops if all(t == wanted for t in x[1])), None)
        if loop is None or not loop[2]:
            names = ", ".join(getattr(k, "name", None) or k.__name__ for k in key)
            raise TypeError(f"cupy.{self.__name__}: no loop for the types ({names}) in CuPy: it has {self.types}")
        special = BFLOAT16 in loop[0] or BFLOAT16 in key or dtype is not None
        return (loop[0] if special else None), loop[1]

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind", **bad: Any) -> Any:
        if bad:
            raise TypeError(f"cupy.{self.__name__}: Wrong arguments {sorted(bad)}: CuPy knows out, dtype, casting")
        if len(args) != self.nin:
            if len(args) != self.nargs or out is not None or self.nout != 1:
                raise TypeError(f"cupy.{self.__name__}: wrong number of arguments, {len(args)}")
            *args, out = args  # type: ignore[assignment]
        inputs, key = [], []
        for a in args:
            if isinstance(a, ndarray):
                inputs.append(a._a)
                key.append(a._a.dtype)
            elif type(a) in _WEAK:
                inputs.append(a)
                key.append(type(a))
            elif isinstance(a, np.generic):
                inputs.append(a)
                key.append(a.dtype)
            else:
                raise TypeError(f"cupy.{self.__name__}: Unsupported type {type(a)}")
        tag = (*key, dtype)
        found = self._cache.get(tag)
        if found is None:
            found = self._cache[tag] = self._resolve(tuple(key), dtype)
        convert, result = found
        events.launch(self.__name__)
        with np.errstate(all="ignore"):
            if convert is not None:
                inputs = [
                    a.astype(t, copy=False) if isinstance(a, np.ndarray) else np.asarray(a, t)
                    for a, t in zip(inputs, convert, strict=True)
                ]
            if out is not None:
                return self._into(out, inputs, result, casting)
            y = self._f(*inputs, order="C")
        if self.nout > 1:
            return tuple(owned(self._as(np.asarray(part), t)) for part, t in zip(y, result, strict=True))
        if type(y) is not np.ndarray:
            y = np.asarray(y)
        if y.dtype != result[0]:
            y = self._as(y, result[0])
        return owned(y)

    def _as(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return y if y.dtype == dtype else y.astype(dtype)

    def _into(self, out: Any, inputs: list[Any], result: list[np.dtype], casting: str) -> Any:
        if not isinstance(out, ndarray):
            raise TypeError(f"cupy.{self.__name__}: Output arguments type must be cupy.ndarray, not {type(out)}")
        if self.nout != 1:
            raise ValueError(f"Cannot use 'out' in cupy.{self.__name__}")
        if not np.can_cast(result[0], out._a.dtype, casting):  # type: ignore[arg-type]
            raise TypeError(f"cupy.{self.__name__}: cannot cast {result[0]} to {out.dtype} by {casting!r}")
        if out._a.dtype == result[0]:
            self._f(*inputs, out=out._a)
        else:
            out._a[...] = self._as(np.asarray(self._f(*inputs)), result[0])
        return out

    # Methods

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.__name__}.reduce` is not supported yet")
        return total(self._f, array, axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.__name__}.accumulate` is not supported yet")
        a = device(array, self.__name__)
        events.launch(f"{self.__name__}.accumulate")
        with np.errstate(all="ignore"):
            wide = dtype is None and is_half(a.dtype)
            y = self._f.accumulate(a, axis, dtype=np.float32 if wide else dtype)
        return result_into(y.astype(a.dtype) if wide else y, out)

    def reduceat(self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        """CuPy's: differences of a running sum, so its rounding errors are those of the whole sum."""
        if self.__name__ != "add":
            raise NotImplementedError(f"`cupy_{self.__name__}.reduceat` is not supported yet")
        a, at = device(array, "add.reduceat"), device(indices, "add.reduceat")
        events.launch("add.reduceat")
        if at.size and not ((at >= 0).all() and (at < a.shape[axis]).all()):
            raise IndexError("add.reduceat: an index out of range")
        narrow = a.dtype if dtype is None and is_half(a.dtype) else None
        with np.errstate(all="ignore"):
            running = np.add.accumulate(a, axis, dtype=np.float32 if narrow is not None else dtype)
            running = running if narrow is None else running.astype(narrow)
            start = np.zeros_like(running.take([0], axis)) if a.shape[axis] else running
            running = np.concatenate([start, running], axis)
            ends = np.append(at[1:], a.shape[axis])
            y = running.take(ends, axis) - running.take(at, axis)
            single = (at >= ends).reshape(-1, *[1] * (a.ndim - axis % a.ndim - 1))
            y = np.where(single, a.take(at, axis), y)
        return result_into(y, out)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if not self.at_allowed:
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        target = device(a, f"{self.__name__}.at")
        if target.dtype.name not in AT[self.__name__].split():
            raise TypeError(f"cupy.{self.__name__}.at only supports {AT[self.__name__]}, not {target.dtype.name}")
        events.launch(f"{self.__name__}.at")
        value = raw(b, f"{self.__name__}.at")
        if isinstance(value, np.ndarray):
            value = value.astype(target.dtype, copy=False)
        key = host_key(indices, target.shape)
        if is_mask(key):
            events.sync("boolean mask index")
        with np.errstate(all="ignore"):
            self._f.at(target, key, value)

    def outer(self, A: Any, B: Any, **kw: Any) -> Any:
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kw)


def device(x: Any, where: str) -> np.ndarray:
    """The elements of a device array; TypeError of anything else."""
    if not isinstance(x, ndarray):
        raise TypeError(f"{where}: Unsupported type {type(x)}")
    return x._a


def result_into(y: Any, out: Any) -> Any:
    """A result as a new device array, or written into `out`."""
    y = np.asarray(y)
    if out is None:
        return owned(y)
    if not isinstance(out, ndarray):
        raise TypeError(f"Output arguments type must be cupy.ndarray, not {type(out)}")
    if out.shape != y.shape:
        raise ValueError(f"output of shape {out.shape} for a result of shape {y.shape}")
    with np.errstate(all="ignore"):
        out._a[...] = y
    return out


def total(f: Any, array: Any, axis: Any, dtype: Any, out: Any, keepdims: bool) -> Any:
    """A sum or product: half types are accumulated in float32 and rounded once."""
    a = device(array, f.__name__)
    events.launch(f"{f.__name__}.reduce")
    with np.errstate(all="ignore"):
        if (dtype is not None and np.dtype(dtype) in HALVES) or (dtype is None and is_half(a.dtype)):
            narrow = a.dtype if dtype is None else np.dtype(dtype)
            y = np.asarray(f.reduce(a, axis, dtype=np.float32, keepdims=keepdims)).astype(narrow)
        else:
            y = f.reduce(a, axis, dtype=dtype, keepdims=keepdims)
    y = np.asarray(y)
    return result_into(y if y.flags.c_contiguous else y.copy("C"), out)


def _not_modelled(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"cupy.{name} is not modelled by the stand-in")

    return refuse


UFUNCS: dict[str, ufunc] = {
    name: ufunc(name, entry, getattr(np, name, None) or _not_modelled(name))
    for name, entry in TABLE["cupy"].items()
    if entry["kind"] == "ufunc"
}

OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = ("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal"), ("eq", "equal")


def _bind() -> None:
    def binary(name: str, f: ufunc) -> None:
        setattr(ndarray, f"__{name}__", lambda x, y: f(x, y))
        setattr(ndarray, f"__r{name}__", lambda x, y: f(y, x))
        setattr(ndarray, f"__i{name}__", lambda x, y: f(x, y, out=x))

    for name, by in OPERATORS.items():
        binary(name, UFUNCS[by])
    for name, by in (*COMPARISONS, ("ne", "not_equal")):
        setattr(ndarray, f"__{name}__", lambda x, y, f=UFUNCS[by]: f(x, y))
    for name, by in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{name}__", lambda x, f=UFUNCS[by]: f(x))


_bind()
