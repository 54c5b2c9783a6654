"""Matrix products. Over two axes they are cuBLAS's; over more, CuPy 14.2's are a trap and are refused altogether."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import events
from .array import ndarray, owned
from .dtypes import BFLOAT16, is_half
from .ufuncs import device, result_into

BATCHED = (
    "a product over more than two axes by CuPy 14.2 casts float16 to float32, fails in bfloat16, ignores TF32 and"
    " copies transposed operands: use minilong.backend.products"
)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b; half types are accumulated in float32 and rounded once."""
    with np.errstate(all="ignore"):
        if a.dtype != b.dtype:
            common = np.result_type(a, b)
            a, b = a.astype(common), b.astype(common)
        if is_half(a.dtype):
            return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32))).astype(a.dtype)
        return np.asarray(np.matmul(a, b))


def matmul(a: Any, b: Any, /, out: Any = None, *, dtype: Any = None, casting: str = "same_kind", **bad: Any) -> Any:
    """cupy.matmul over one or two axes."""
    if bad:
        raise TypeError(f"cupy.matmul: {sorted(bad)} not modelled")
    x, y = device(a, "matmul"), device(b, "matmul")
    if x.ndim > 2 or y.ndim > 2:
        raise NotImplementedError(f"matmul of shapes {x.shape} and {y.shape}: {BATCHED}")
    events.launch("matmul")
    z = product(x, y)
    if dtype is not None:
        z = z.astype(dtype)
    if out is not None and not np.can_cast(z.dtype, out.dtype, casting):  # type: ignore[arg-type]
        raise TypeError(f"matmul: cannot cast {z.dtype} to {out.dtype} by {casting!r}")
    return result_into(z, out)


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """cupy.dot over at most two axes."""
    if not isinstance(a, ndarray) or not isinstance(b, ndarray):
        from .ufuncs import UFUNCS

        return UFUNCS["multiply"](a, b)
    if a.ndim > 2 or b.ndim > 2:
        raise NotImplementedError(f"dot of shapes {a.shape} and {b.shape}: {BATCHED}")
    if a.ndim == 0 or b.ndim == 0:
        from .ufuncs import UFUNCS

        return UFUNCS["multiply"](a, b, out=out)
    events.launch("dot")
    return result_into(product(a._a, b._a), out)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """cupy.tensordot: one product of two axes, after copies."""
    x, y = device(a, "tensordot"), device(b, "tensordot")
    if BFLOAT16 in (x.dtype, y.dtype):
        raise TypeError("tensordot in bfloat16 is not modelled")
    events.launch("tensordot")
    wide = is_half(x.dtype)
    z = np.tensordot(x.astype(np.float32) if wide else x, y.astype(np.float32) if wide else y, axes)
    return owned(np.asarray(z).astype(x.dtype, copy=False))


def einsum(*operands: Any, dtype: Any = None, optimize: Any = False, **bad: Any) -> Any:
    """cupy.einsum of one or two operands, given by a string.

    CuPy turns every sum over an axis of two operands into a product over three axes. That is refused where it is a
    product of matrices; sums of products, such as "...i,...i->...", are let pass except in bfloat16, where it fails.
    """
    if bad:
        raise TypeError(f"Did not understand the following kwargs: {sorted(bad)}")
    text, *arrays = operands
    if not isinstance(text, str):
        raise NotImplementedError("einsum by lists of numbers is not modelled")
    raws = [device(x, "einsum") for x in arrays]
    if len(raws) > 2:
        raise NotImplementedError("einsum of more than two operands: CuPy multiplies pair by pair in the order given")
    if len(raws) == 2:
        _check_contraction(text.replace(" ", ""), raws)
    events.launch("einsum")
    common = np.dtype(dtype) if dtype is not None else np.result_type(*raws)
    wide = np.dtype(np.float32) if is_half(common) else common
    with np.errstate(all="ignore"):
        y = np.einsum(text, *[x.astype(wide, copy=False) for x in raws])
    return owned(np.array(y, common, order="C"))


def _check_contraction(text: str, raws: list[np.ndarray]) -> None:
    left, arrow, result = text.partition("->")
    first, second = left.split(",")
    if not arrow:
        raise NotImplementedError("einsum without -> is not modelled")
    dots = "..." in first and "..." in second
    letters = [set(s.replace(".", "")) for s in (first, second, result)]
    shared = letters[0] & letters[1]
    summed, batch = shared - letters[2], shared & letters[2]
    rows, columns = letters[0] - shared, letters[1] - shared
    if not summed:
        return
    if any(x.dtype == BFLOAT16 for x in raws):
        raise TypeError(f"einsum {text!r}: a sum over two operands fails in bfloat16 on CuPy 14.2")
    if (dots or batch) and (rows & letters[2] or columns & letters[2]):
        raise NotImplementedError(f"einsum {text!r} is a batched product: {BATCHED}")


def outer(a: Any, b: Any, out: Any = None) -> Any:
    """cupy.outer."""
    x, y = device(a, "outer"), device(b, "outer")
    events.launch("outer")
    with np.errstate(all="ignore"):
        return result_into(np.multiply.outer(x.reshape(-1), y.reshape(-1)), out)


def vdot(a: Any, b: Any) -> Any:
    """cupy.vdot."""
    x, y = device(a, "vdot"), device(b, "vdot")
    events.launch("vdot")
    return owned(product(x.reshape(-1).conj(), y.reshape(-1)))


ndarray.__matmul__ = lambda x, y: matmul(x, y)  # type: ignore[attr-defined]
ndarray.__rmatmul__ = lambda x, y: matmul(y, x)  # type: ignore[attr-defined]
ndarray.__imatmul__ = lambda x, y: matmul(x, y, out=x)  # type: ignore[attr-defined]
PRODUCTS = {"matmul": matmul, "dot": dot, "tensordot": tensordot, "einsum": einsum, "outer": outer, "vdot": vdot}
