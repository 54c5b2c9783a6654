"""`ndarray`: an array on the stand-in's device. Arithmetic is in `ufuncs.py`, methods are bound in `methods.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from . import events
from .dtypes import check_cast
from .indexing import check_unique, host_key, is_basic, is_mask
from .memory import EXPOSED, Memory, allocate

HOST_ALLOWED = frozenset({"shape", "ndim", "size", "result_type", "may_share_memory", "shares_memory", "iscomplexobj"})
"""Functions of NumPy that look at an array's outside only, and make no array."""


class MemoryPointer:
    """What `x.data` is: `ptr`, the address of the first element, and `mem`, the allocation."""

    __slots__ = ("mem", "ptr")

    def __init__(self, mem: Memory, ptr: int) -> None:
        self.mem, self.ptr = mem, ptr
        EXPOSED.add(mem)

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr + offset)

    __radd__ = __add__


class ndarray:
    """A device array. `_a`: its elements, a NumPy array; `_m`: the allocation that they lie in, which views share."""

    __slots__ = ("__weakref__", "_a", "_m")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _a: np.ndarray
    _m: Memory

    def __new__(
        cls,
        shape: Any = (),
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Any = None,
        order: str = "C",
    ) -> ndarray:
        if memptr is None:
            return owned_by(*allocate(shape, dtype, order))
        memory, start = memptr.mem, memptr.ptr - memptr.mem.address
        return owned_by(np.ndarray(shape, dtype, memory.bytes(), start, strides, order), memory)  # type: ignore[call-overload]

    # What it looks like from outside

    dtype = property(lambda x: x._a.dtype)
    ndim = property(lambda x: x._a.ndim)
    size = property(lambda x: x._a.size)
    nbytes = property(lambda x: x._a.nbytes)
    itemsize = property(lambda x: x._a.itemsize)
    strides = property(lambda x: x._a.strides)
    flags = property(lambda x: x._a.flags)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        view = self._a.reshape(shape)
        if not np.may_share_memory(view, self._a) and self._a.size:
            raise AttributeError("incompatible shape for in-place modification")
        self._a = view

    @property
    def data(self) -> MemoryPointer:
        """The address of the first element, and the allocation."""
        return MemoryPointer(self._m, int(self._a.__array_interface__["data"][0]))

    @property
    def device(self) -> Any:
        from .device import Device

        return Device(0)

    @property
    def base(self) -> Any:
        """An array of the same allocation where this is a view of a part of it."""
        return None if self._a.nbytes == self._m.nbytes else owned_by(self._a, self._m)

    T = property(lambda x: owned_by(x._a.T, x._m))
    mT = property(lambda x: owned_by(x._a.mT, x._m))

    @property
    def real(self) -> ndarray:
        return owned_by(self._a.real, self._m) if self._a.dtype.kind == "c" else self

    @property
    def imag(self) -> ndarray:
        return owned_by(self._a.imag, self._m) if self._a.dtype.kind == "c" else owned(np.zeros_like(self._a))

    def __len__(self) -> int:
        return len(self._a)

    # What NumPy may do with it: nothing

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, function: Any, types: Any, args: Any, kw: Any) -> Any:
        if function.__name__ in HOST_ALLOWED:
            return function(*(x._a if isinstance(x, ndarray) else x for x in args), **kw)
        raise TypeError(f"numpy.{function.__name__} of a device array: use the array's own library")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kw: Any) -> Any:
        if method == "__call__" and len(inputs) == 2 and not kw and isinstance(inputs[0], np.generic):
            from .ufuncs import UFUNCS  # a NumPy number on the left of an operator: no array of the host's

            return UFUNCS[ufunc.__name__](*inputs)
        raise TypeError(f"numpy.{ufunc.__name__} of a device array: use the array's own library")

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("a device array is not pickled: it would be copied to the host")

    # What makes the host wait

    def get(
        self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        events.sync(".get()")
        if out is None:
            return np.array(self._a, order="C" if order == "C" else order)  # type: ignore[call-overload,no-any-return]
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError("get(out=): type or shape differs")
        out[...] = self._a
        return out

    def item(self, *at: int) -> Any:
        events.sync(".item()")
        return self._a.item(*at)

    def tolist(self) -> Any:
        events.sync(".tolist()")
        return self._a.tolist()

    def __float__(self) -> float:
        events.sync("float()")
        return float(self._one())

    def __int__(self) -> int:
        events.sync("int()")
        return int(self._one())

    def __complex__(self) -> complex:
        events.sync("complex()")
        return complex(self._one())

    def __bool__(self) -> bool:
        events.sync("bool()")
        return bool(self._one())

    def _one(self) -> Any:
        if self._a.size != 1:
            raise ValueError("the truth value, or number, of an array with other than one element is ambiguous")
        return self._a.reshape(())[()]

    def __repr__(self) -> str:
        events.sync("repr()")
        return repr(self._a)

    def __str__(self) -> str:
        events.sync("str()")
        return str(self._a)

    def __format__(self, spec: str) -> str:
        events.sync("format()")
        return format(self._one() if spec else self._a, spec)

    def __iter__(self) -> Iterator[ndarray]:
        if self._a.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        if self._a.ndim == 1:
            events.sync("iteration over numbers")
        return (owned_by(self._a[i, ...], self._m) for i in range(len(self._a)))

    def __contains__(self, _: object) -> NoReturn:
        raise TypeError("`in` of a device array compares each element on the host")

    # Copies

    def __copy__(self) -> ndarray:
        events.launch("copy")
        return owned(self._a.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.__copy__()

    # Elements

    def __getitem__(self, key: Any) -> ndarray:
        a = self._a
        if is_basic(key):
            part = a[key]
            if type(part) is not np.ndarray or part.base is None:  # a number: CuPy gives a view of no axes
                part = a[(*key, ...)] if isinstance(key, tuple) else a[key, ...]
            return owned_by(part, self._m)
        raw = host_key(key, a.shape)
        events.launch("getitem")
        if is_mask(raw):
            events.sync("boolean mask index")
        return owned(np.asarray(a[raw]))

    def __setitem__(self, key: Any, value: Any) -> None:
        a = self._a
        if isinstance(value, ndarray):
            source: Any = value._a
            check_cast(source, a.dtype)
        elif isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        elif isinstance(value, list | tuple):
            raise TypeError("a list of the host's in a device assignment")
        else:
            source = value
        events.launch("setitem")
        if not is_basic(key):
            key = host_key(key, a.shape)
            if is_mask(key):  # even of a number: CuPy counts the elements on the host
                events.sync("boolean mask assignment")
            check_unique(key, a.shape)
        with np.errstate(all="ignore"):
            a[key] = source


def owned_by(a: np.ndarray, memory: Memory) -> ndarray:
    """A device array on elements that lie in that allocation."""
    x = object.__new__(ndarray)
    x._a, x._m = a, memory
    return x


def owned(a: np.ndarray) -> ndarray:
    """A device array on elements that NumPy has just allocated."""
    x = object.__new__(ndarray)
    x._a = a
    owner = a if a.base is None else a.base if isinstance(a.base, np.ndarray) else a
    x._m = Memory(owner, owner.nbytes)
    return x


def sharing(a: np.ndarray, *inputs: ndarray) -> ndarray:
    """A device array on a result that may be a view of one of the inputs."""
    for x in inputs:
        if np.may_share_memory(a, x._a):
            return owned_by(a, x._m)
    return owned(a)


def guarded(a: np.ndarray) -> ndarray:
    """A device array on a copy of `a` that lies between guards."""
    order = "F" if a.flags.f_contiguous and not a.flags.c_contiguous else "C"
    elements, memory = allocate(a.shape, a.dtype, order)
    elements[...] = a
    return owned_by(elements, memory)


def raw(x: Any, where: str) -> Any:
    """What NumPy computes with in place of `x`: a device array's elements, or a number. Host arrays are refused."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise TypeError(f"{where}: Unsupported type <class 'numpy.ndarray'> (a host array in a device call)")
    if isinstance(x, list | tuple):
        return type(x)(raw(i, where) for i in x)
    return x
