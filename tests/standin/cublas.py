"""`cupy_backends.cuda.libs.cublas`: the products of cuBLAS on raw pointers, with its arguments and its refusals."""

from __future__ import annotations

import ctypes
from typing import Any, NoReturn

import numpy as np

from . import events
from .dtypes import BFLOAT16
from .memory import memory_at

CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C = 0, 1, 2
CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE = 0, 1
CUBLAS_DEFAULT_MATH, CUBLAS_TENSOR_OP_MATH, CUBLAS_PEDANTIC_MATH, CUBLAS_TF32_TENSOR_OP_MATH = 0, 1, 2, 3
CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16
CUBLAS_GEMM_DFALT = CUBLAS_GEMM_DEFAULT = -1
CUBLAS_GEMM_DEFAULT_TENSOR_OP = CUBLAS_GEMM_DFALT_TENSOR_OP = 99
CUBLAS_COMPUTE_16F, CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_PEDANTIC = 64, 68, 69
CUBLAS_COMPUTE_32F_FAST_16F, CUBLAS_COMPUTE_32F_FAST_16BF, CUBLAS_COMPUTE_32F_FAST_TF32 = 74, 75, 77
CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_64F_PEDANTIC = 70, 71

TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: BFLOAT16}
"""cudaDataType."""

ALLOWED = {
    **{
        (ab, ab, c): (68, 69)
        for ab, c in (("float16", "float16"), ("float16", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"))
    },
    ("float32", "float32", "float32"): (68, 69, 74, 75, 77),
    ("float64", "float64", "float64"): (70, 71),
}
"""(types of A, B, C): compute types, after cuBLAS's table of cublasGemmEx (of that part which a Transformer needs)."""

HANDLE = 0xB1A5
_state = {"math": CUBLAS_DEFAULT_MATH, "pointer": CUBLAS_POINTER_MODE_HOST}


class CUBLASError(RuntimeError):
    """What cuBLAS answers; its status is in the message."""


def _refuse(status: str, why: str) -> NoReturn:
    raise CUBLASError(f"CUBLAS_STATUS_{status}: {why}")


def setMathMode(handle: int, mode: int) -> None:
    _check(handle)
    if mode & ~CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION not in (0, 1, 2, 3):
        _refuse("INVALID_VALUE", f"math mode {mode}")
    _state["math"] = mode


def getMathMode(handle: int) -> int:
    _check(handle)
    return _state["math"]


def setPointerMode(handle: int, mode: int) -> None:
    _check(handle)
    _state["pointer"] = mode


def getPointerMode(handle: int) -> int:
    _check(handle)
    return _state["pointer"]


def setStream(handle: int, stream: int) -> None:
    _check(handle)


def getVersion(handle: int) -> int:
    _check(handle)
    return 120900


def _check(handle: int) -> None:
    if handle != HANDLE:
        _refuse("NOT_INITIALIZED", f"handle {handle!r}: it comes from cupy.cuda.device.get_cublas_handle()")


def gemmEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int, B: int,
    Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C = alpha op(A) op(B) + beta C, column by column: op(A) is m x k, op(B) is k x n, C is m x n."""
    gemmStridedBatchedEx(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
        computeType, algo,
    )  # fmt: skip


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """The same for matrices that lie strideA, strideB, strideC elements apart."""
    _check(handle)
    numbers = (transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc)
    if not all(type(x) is int for x in (*numbers, strideC, batchCount, computeType, algo)):
        raise TypeError("cuBLAS takes integers only: pointers, sizes and codes")
    if transa not in (0, 1) or transb not in (0, 1):
        _refuse("INVALID_VALUE", f"transa {transa}, transb {transb}")
    if any(not 0 <= x < 2**31 for x in (m, n, k, batchCount, lda, ldb, ldc)):
        _refuse("INVALID_VALUE", "a size beyond 32 bits, or negative")
    for name, ld, rows in (("lda", lda, k if transa else m), ("ldb", ldb, n if transb else k), ("ldc", ldc, m)):
        if ld < max(1, rows):
            _refuse("INVALID_VALUE", f"{name} {ld} for {rows} rows")
    if not {Atype, Btype, Ctype} <= set(TYPES):
        _refuse("NOT_SUPPORTED", f"types {Atype}, {Btype}, {Ctype}")
    types = tuple(TYPES[t] for t in (Atype, Btype, Ctype))
    if computeType not in ALLOWED.get(tuple(t.name for t in types), ()):
        _refuse("NOT_SUPPORTED", f"compute type {computeType} for {[t.name for t in types]}")
    if algo not in (-1, 99):
        _refuse("INVALID_VALUE", f"algorithm {algo}")
    if _state["pointer"] != CUBLAS_POINTER_MODE_HOST:
        _refuse("INVALID_VALUE", "the stand-in knows alpha and beta on the host only")
    scale = ctypes.c_double if computeType in (70, 71) else ctypes.c_float
    a, b = scale.from_address(alpha).value, scale.from_address(beta).value
    events.launch("gemm")
    if 0 in (m, n, batchCount):
        return
    c = _matrices(C, types[2], m, n, ldc, strideC, batchCount, False, "C")
    if batchCount > 1 and abs(strideC) < (n - 1) * ldc + m:  # they may lie between one another, as heads do
        places = np.add.outer(np.arange(batchCount) * strideC, np.add.outer(np.arange(n) * ldc, np.arange(m)))
        if np.unique(places).size < places.size:
            _refuse("INVALID_VALUE", "the matrices of C overlap")
    if k == 0:
        c[...] = (b * c.astype(np.float64)).astype(types[2]) if b else 0
        return
    x = _matrices(A, types[0], m, k, lda, strideA, batchCount, bool(transa), "A")
    y = _matrices(B, types[1], k, n, ldb, strideB, batchCount, bool(transb), "B")
    wide = np.float64 if types[2] == np.float64 else np.float32
    x, y = x.astype(wide), y.astype(wide)
    if computeType == 77 or (_state["math"] & 15 == 3 and computeType == 68 and types[0] == np.float32):
        x, y = to_tf32(x), to_tf32(y)
    elif computeType in (74, 75):
        narrow = np.float16 if computeType == 74 else BFLOAT16
        x, y = x.astype(narrow).astype(wide), y.astype(narrow).astype(wide)
    with np.errstate(all="ignore"):
        z = wide(a) * np.matmul(x, y)
        if b:  # where beta is 0, C is not read: it may hold anything
            z += wide(b) * c.astype(wide)
        c[...] = z.astype(types[2])


def _matrices(
    pointer: int, dtype: np.dtype, rows: int, columns: int, ld: int, stride: int, batch: int, swapped: bool, name: str
) -> np.ndarray:
    """The (batch, rows, columns) that cuBLAS sees there. GuardError where they reach beyond a live array."""
    if pointer % dtype.itemsize:
        _refuse("INVALID_VALUE", f"{name} is not aligned to its type")
    inner, outer = (columns, rows) if swapped else (rows, columns)
    memory = memory_at(pointer)
    last = (outer - 1) * ld + inner - 1
    reach = [0, stride * (batch - 1)]
    low = pointer + min(reach) * dtype.itemsize
    high = pointer + (max(reach) + last + 1) * dtype.itemsize
    if low < memory.address or high > memory.address + memory.nbytes:
        from .memory import GuardError

        raise GuardError(f"gemm: {name} reaches {high - memory.address - memory.nbytes} bytes beyond its array")
    flat = np.ctypeslib.as_array(ctypes.cast(low, ctypes.POINTER(ctypes.c_uint8)), (high - low,)).view(dtype)
    start = flat[(pointer - low) // dtype.itemsize :]
    size = dtype.itemsize
    view = np.lib.stride_tricks.as_strided(start, (batch, outer, inner), (stride * size, ld * size, size))
    return view if swapped else view.swapaxes(1, 2)


def to_tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to the ten bits of mantissa that TF32 keeps (to nearest, ties away from zero)."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"cublas.{name} is not modelled by the stand-in")
