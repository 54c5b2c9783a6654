"""Matrix products: NumPy's own on the CPU, one call to cuBLAS on a GPU.

On a GPU every floating-point product goes through `gemmEx` or `gemmStridedBatchedEx` here and not through
`cupy.matmul`, which copies transposed operands, computes batches of float16 in float32 and those of bfloat16 not at
all. A product of half precision is summed in float32 and rounded once, to its own type or to that of `out`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.product_plan import Layout, needs_copy, plan, result_shape

CODES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
"""cudaDataType of what is multiplied here. Products of other types, whole numbers say, are the array library's."""

SUM_FLOAT32, SUM_FLOAT64, SUM_TF32 = 68, 70, 77
"""cublasComputeType: what is summed in; the last rounds operands of float32 to ten bits first."""

SUMS_IN_FULL = 16
"""Math mode in which the parts of a long sum are added in the type they were computed in, not in that of the result."""

ANY_ALGORITHM = -1

_FACTORS: tuple[Any, Any] = (np.array([1, 0], np.float32), np.array([1, 0], np.float64))
_ADDRESSES = tuple((x.ctypes.data, x.ctypes.data + x.itemsize) for x in _FACTORS)
"""Where one and zero lie in the types of sums: cuBLAS reads alpha and beta from the host's memory during the call."""

_tf32: ContextVar[bool] = ContextVar("minilong_tf32", default=False)


@contextmanager
def allow_tf32(allowed: bool = True) -> Iterator[None]:
    """Let products of float32 round their operands to ten bits (TF32) inside, on a card that can; never unless asked.

    Holds for the calling thread only, as `grant_threads` does. It is a property of a run, to be named in its results.
    """
    token = _tf32.set(allowed)
    try:
        yield
    finally:
        _tf32.reset(token)


def tf32_allowed() -> bool:
    """Whether products of float32 may round their operands here."""
    return _tf32.get()


def matmul(xp: Any, a: Array, b: Array, out: Array | None = None, *, add: bool = False) -> Array:
    """a b over the last two axes, the others broadcast: (..., m, k), (..., k, n) -> (..., m, n); vectors as in NumPy.

    add: `out += a b`. On a GPU `out` has the type of the product, or float32 where that is float16 or bfloat16, and may
    be a view. An operand is copied only where neither its rows nor its columns are contiguous, the result only where
    that is so of `out` or `out` shares memory with an operand. Raises ValueError for shapes that do not fit, TypeError
    for another type of `out`.
    """
    if add and out is None:
        raise ValueError("a product is added to an `out`")
    if xp.__name__ != "numpy":
        if a.dtype != b.dtype:
            dtype = np.promote_types(a.dtype, b.dtype)
            a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
        if _code(a.dtype) is not None:
            return _product(xp, a, b, out, add)
    if not add:
        return xp.matmul(a, b, out=out)
    out += xp.matmul(a, b)
    return out


def _product(xp: Any, a: Array, b: Array, out: Array | None, add: bool) -> Array:
    """The product of two device arrays of one type in CODES."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("a matrix product needs arrays of one axis or more")
    vectors = (a.ndim == 1, b.ndim == 1)
    a = a[None] if vectors[0] else a
    b = b[:, None] if vectors[1] else b
    shape = result_shape(a.shape, b.shape)
    if out is None:
        c = xp.empty(shape, a.dtype)
    else:
        c = out[_WIDER[vectors]] if any(vectors) else out
        if c.shape != shape:
            raise ValueError(f"an `out` of shape {out.shape} for a product of shape {shape}")
        if c.dtype != a.dtype and (a.itemsize != 2 or c.dtype != np.float32):
            raise TypeError(f"a product of {a.dtype} cannot be written as {c.dtype}")
    _write(xp, a, b, c, add, fresh=out is None)
    if out is not None:
        return out
    return c[_NARROWER[vectors]] if any(vectors) else c


_WIDER = {(True, False): (..., None, slice(None)), (False, True): (..., None), (True, True): (..., None, None)}
_NARROWER = {(True, False): (..., 0, slice(None)), (False, True): (..., 0), (True, True): (..., 0, 0)}
"""How the result of a vector becomes a matrix of one row or column, and loses that axis again."""


def _write(xp: Any, a: Array, b: Array, c: Array, add: bool, fresh: bool) -> None:
    """c = a b or c += a b, with the copies that this needs. fresh: c shares no memory with the operands."""
    if c.size == 0:
        return
    if a.shape[-1] == 0:
        if not add:
            c[...] = 0
        return
    a = xp.ascontiguousarray(a) if needs_copy(*layout(a)) else a
    b = xp.ascontiguousarray(b) if needs_copy(*layout(b)) else b
    if fresh or not (needs_copy(*layout(c)) or overlap(c, a) or overlap(c, b)):
        _call(xp, a, b, c, add)
        return
    apart = c.copy(order="C") if add else xp.empty(c.shape, c.dtype)
    _call(xp, a, b, apart, add)
    c[...] = apart


def _call(xp: Any, a: Array, b: Array, c: Array, add: bool) -> None:
    """c = a b or c += a b on the current stream, by cuBLAS."""
    cublas, handle = _library(xp), xp.cuda.device.get_cublas_handle()
    p = plan(layout(a), layout(b), layout(c))
    code = _code(a.dtype)
    compute = SUM_FLOAT64 if a.itemsize == 8 else SUM_TF32 if a.itemsize == 4 and _tf32.get() else SUM_FLOAT32
    one, zero = _ADDRESSES[compute == SUM_FLOAT64]
    first, second = (b, a) if p.swapped else (a, b)
    batched = p.batch > 1
    multiply, count = (cublas.gemmStridedBatchedEx, (p.batch,)) if batched else (cublas.gemmEx, ())
    form_a, form_b, form_c = (
        (code, ld, step) if batched else (code, ld)
        for code, ld, step in ((code, p.ld_a, p.step_a), (code, p.ld_b, p.step_b), (_code(c.dtype), p.ld_c, p.step_c))
    )
    shape = (p.trans_a, p.trans_b, p.m, p.n, p.k)
    cublas.setMathMode(handle, SUMS_IN_FULL)
    for i, j, o in p.starts:
        at_a, at_b = first.data.ptr + i * a.itemsize, second.data.ptr + j * a.itemsize
        at_c = c.data.ptr + o * c.itemsize
        operands = (one, at_a, *form_a, at_b, *form_b, one if add else zero, at_c, *form_c)
        multiply(handle, *shape, *operands, *count, compute, ANY_ALGORITHM)


@cache
def _library(xp: Any) -> Any:
    """CuPy's binding of cuBLAS, which belongs to `xp`; loaded when the first product needs it."""
    return import_module("cupy_backends.cuda.libs").cublas


@cache
def _code(dtype: Any) -> int | None:
    return CODES.get(dtype.name)


def layout(x: Array) -> Layout:
    """Shape and strides of an array, these in elements."""
    size = x.itemsize
    return x.shape, tuple([stride // size for stride in x.strides])


def overlap(x: Array, y: Array) -> bool:
    """Whether the stretches of memory from the first to the last element of two arrays meet."""
    (x_first, x_end), (y_first, y_end) = _stretch(x), _stretch(y)
    return x_first < y_end and y_first < x_end


def _stretch(x: Array) -> tuple[int, int]:
    reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    first: int = x.data.ptr
    return first + sum(r for r in reach if r < 0), first + sum(r for r in reach if r > 0) + x.itemsize
