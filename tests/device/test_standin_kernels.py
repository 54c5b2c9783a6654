"""Kernels and products of the stand-in for CuPy: guards around memory, launches that CUDA refuses, cuBLAS."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import cublas, cupy

CODE = """
extern "C" __global__ void scale(const float* x, float* y, long long n, float by) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] * by;
}
extern "C" __global__ void copy_from(const float* x, float* y, int first, int n) {
  for (int i = first + threadIdx.x; i < first + n; i += blockDim.x) y[i] = x[i];
}
extern "C" __global__ void reverse(float* y, int n) {
  DYNAMIC_SHARED(float, s);
  s[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
"""


@pytest.fixture(scope="module")
def module() -> Any:
    return cupy.RawModule(code=CODE, options=("-std=c++17", "-DDTYPE=0"))


def numbers(n: int) -> Any:
    return cupy.asarray(np.arange(n, dtype=np.float32))


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_runs_a_kernel(module: Any, order: str) -> None:
    x, y = numbers(100), cupy.empty(100, np.float32)
    with cupy.thread_order(order), cupy.counting() as counts, cupy.no_sync(h2d=False):
        module.get_function("scale")((2,), (64,), (x, y, np.int64(100), np.float32(2)))
    assert (y.get() == 2 * np.arange(100)).all()
    assert (counts.launches, counts.names["scale"]) == (1, 1)
    cupy.check_guards()


def test_runs_in_place_and_on_views_of_memory_without_guards(module: Any) -> None:
    x = numbers(10) + 1  # NumPy's memory
    with cupy.memory_limit(0), cupy.peak_memory() as peak:
        module.get_function("scale")((1,), (32,), (x[2:], x[2:], np.int64(3), np.float32(10)))
    assert peak.nbytes == 0
    assert x.get().tolist() == [1, 2, 30, 40, 50, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("first, n", [(0, 101), (-1, 101), (-100, 300), (99, 2)])
def test_writing_beyond_an_array_is_seen(module: Any, first: int, n: int) -> None:
    for x, y in itertools.product((numbers(100), numbers(100) + 1), repeat=2):
        if x is not y:
            with pytest.raises(cupy.GuardError, match="kernel copy_from wrote beyond the ends of argument 2 of 4"):
                module.get_function("copy_from")((1,), (32,), (x, y, np.int32(first), np.int32(n)))
    cupy.check_guards()  # the guards were mended: one mistake is told once


def test_broken_guards_are_found_later() -> None:
    x = numbers(10)
    pointer = x.data.mem.owner
    at = x.data.ptr - pointer.__array_interface__["data"][0] + x.nbytes
    pointer[at] ^= 1
    with pytest.raises(cupy.GuardError, match="an array of 40 bytes"):
        cupy.check_guards()
    del x
    gc.collect()
    with pytest.raises(cupy.GuardError, match="when it was freed"):
        cupy.check_guards()
    cupy.check_guards()


def test_refuses_launches_that_cuda_refuses_or_misreads(module: Any) -> None:
    x, y = numbers(64), cupy.empty(64, np.float32)
    scale, reverse = module.get_function("scale"), module.get_function("reverse")
    good = (x, y, np.int64(64), np.float32(2))
    for error, kernel, grid, block, args, shared in (
        (TypeError, scale, (1,), (64,), (x, y, 64, np.float32(2)), 0),  # a Python number
        (TypeError, scale, (1,), (64,), (x, y, np.int32(64), np.float32(2)), 0),
        (TypeError, scale, (1,), (64,), (x, y, np.int64(64), 2.0), 0),
        (TypeError, scale, (1,), (64,), (x.astype(np.float64), *good[1:]), 0),
        (TypeError, scale, (1,), (64,), good[:3], 0),
        (TypeError, scale, (1,), (64,), (np.zeros(64, np.float32), *good[1:]), 0),
        (TypeError, scale, (1,), (64,), [*good], 0),
        (TypeError, scale, [1], (64,), good, 0),
        (TypeError, scale, (64 / 64,), (64,), good, 0),
        (ValueError, scale, (0,), (64,), good, 0),
        (ValueError, scale, (1,), (2048,), good, 0),
        (ValueError, scale, (1, 65536), (64,), good, 0),
        (ValueError, reverse, (1,), (64,), (x, np.int32(64)), 50_000),
    ):
        with pytest.raises(error):
            kernel(grid, block, args, shared_mem=shared)
    with pytest.raises(KeyError, match="scale"):
        module.get_function("scales")((1,), (64,), good)
    reverse.max_dynamic_shared_size_bytes = 60_000
    reverse((1,), (64,), (x, np.int32(64)), shared_mem=50_000)
    assert x.get()[0] == 63
    with pytest.raises(ValueError, match="shared memory"):
        reverse.max_dynamic_shared_size_bytes = 300_000
    with pytest.raises(TypeError, match="tuple of str"):
        cupy.RawModule(code=CODE, options=["-DDTYPE=0"])
    with pytest.raises(TypeError, match="no parameter"):
        cupy.RawModule(code=CODE, flags=())


# cuBLAS

HANDLE = cupy.cuda.device.get_cublas_handle()
CODES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}


class Call:
    """One call of gemmStridedBatchedEx: row-major C = A B is column-major C' = B' A'."""

    def __init__(self, dtype: Any = np.float32, batch: int = 2, m: int = 3, k: int = 4, n: int = 5) -> None:
        rng = np.random.default_rng(0)
        self.dtype = np.dtype(dtype)
        self.a, self.b = (rng.standard_normal(s).astype(dtype) for s in ((batch, m, k), (batch, k, n)))
        self.A, self.B, self.C = cupy.asarray(self.a), cupy.asarray(self.b), cupy.empty((batch, m, n), dtype)
        double = self.dtype == np.float64
        self.scale = np.float64 if double else np.float32
        self.arguments: dict[str, Any] = {
            "handle": HANDLE, "transa": 0, "transb": 0, "m": n, "n": m, "k": k, "alpha": 1.0,
            "A": self.B.data.ptr, "Atype": CODES[self.dtype.name], "lda": n, "strideA": k * n,
            "B": self.A.data.ptr, "Btype": CODES[self.dtype.name], "ldb": k, "strideB": m * k, "beta": 0.0,
            "C": self.C.data.ptr, "Ctype": CODES[self.dtype.name], "ldc": n, "strideC": m * n, "batchCount": batch,
            "computeType": cublas.CUBLAS_COMPUTE_64F if double else cublas.CUBLAS_COMPUTE_32F, "algo": -1,
        }  # fmt: skip

    def __call__(self, **changed: Any) -> np.ndarray:
        arguments = self.arguments | changed
        alpha, beta = (np.array([arguments[name]], self.scale) for name in ("alpha", "beta"))
        arguments |= {"alpha": alpha.ctypes.data, "beta": beta.ctypes.data}
        cublas.gemmStridedBatchedEx(*arguments.values())
        return self.C.get()


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda t: np.dtype(t).name
)
def test_gemm_of_all_types(dtype: Any) -> None:
    call = Call(dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    want = call.a.astype(wide) @ call.b.astype(wide)
    assert np.array_equal(call(), want.astype(dtype))  # NaN in C is not read where beta is 0
    assert np.array_equal(
        call(alpha=2.0, beta=0.5), (2 * want + wide(0.5) * want.astype(dtype).astype(wide)).astype(dtype)
    )
    assert np.array_equal(call(k=0, beta=0.0), np.zeros_like(want))


def test_gemm_by_a_stride_of_nothing_repeats_a_matrix() -> None:
    call = Call()
    assert np.allclose(call(strideA=0), call.a @ call.b[:1], atol=1e-6)


@given(st.booleans(), st.booleans(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_gemm_of_transposed_operands(first: bool, second: bool, m: int, k: int, n: int) -> None:
    call = Call(m=m, k=k, n=n)
    changed: dict[str, Any] = {}
    kept = []
    for flag, name, matrix, (rows, columns) in (
        (second, "A", call.b, (k, n)),
        (first, "B", call.a, (m, k)),
    ):
        if flag:
            kept.append(cupy.asarray(np.ascontiguousarray(matrix.swapaxes(1, 2))))
            changed |= {f"trans{name.lower()}": 1, name: kept[-1].data.ptr, f"ld{name.lower()}": rows}
            assert columns >= 1
    assert np.allclose(call(**changed), call.a @ call.b, atol=1e-5)


def test_gemm_writes_heads_between_one_another() -> None:
    call = Call()
    whole = cupy.empty((3, 2, 5), np.float32)  # rows, heads, columns
    call(C=whole.data.ptr, ldc=10, strideC=5)
    assert np.allclose(whole.get().transpose(1, 0, 2), call.a @ call.b, atol=1e-6)


def test_gemm_by_tf32_rounds() -> None:
    call = Call()
    exact, rounded = call(), call(computeType=cublas.CUBLAS_COMPUTE_32F_FAST_TF32)
    assert not np.array_equal(exact, rounded)
    assert np.allclose(exact, rounded, atol=5e-3)
    for full_sums in (0, cublas.CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION):
        cublas.setMathMode(HANDLE, cublas.CUBLAS_TF32_TENSOR_OP_MATH | full_sums)
        assert np.array_equal(call(), rounded)
    cublas.setMathMode(HANDLE, cublas.CUBLAS_DEFAULT_MATH)
    assert np.array_equal(call(), exact)


WRONG: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (cublas.CUBLASError, "lda", {"lda": 4}),
    (cublas.CUBLASError, "ldb", {"ldb": 3}),
    (cublas.CUBLASError, "ldc", {"ldc": 4}),
    (cublas.CUBLASError, "transa", {"transa": 3}),
    (cublas.CUBLASError, "compute type", {"computeType": 0}),
    (cublas.CUBLASError, "compute type", {"computeType": cublas.CUBLAS_COMPUTE_64F}),
    (cublas.CUBLASError, "compute type", {"Ctype": 2}),
    (cublas.CUBLASError, "types", {"Atype": 3}),
    (cublas.CUBLASError, "algorithm", {"algo": 7}),
    (cublas.CUBLASError, "handle", {"handle": 0}),
    (cublas.CUBLASError, "overlap", {"strideC": 0}),
    (cublas.CUBLASError, "overlap", {"strideC": 5, "ldc": 5}),
    (cublas.CUBLASError, "negative", {"m": -1}),
    (TypeError, "integers", {"m": np.int64(5)}),
    (TypeError, "integers", {"strideA": 20.0}),
    (cupy.GuardError, "A reaches", {"strideA": 21}),
    (cupy.GuardError, "C reaches", {"batchCount": 3}),
    (cupy.GuardError, "B reaches", {"ldb": 5}),
    (cupy.GuardError, "C reaches", {"ldc": 6}),
    (cupy.GuardError, "no live array", {"A": 64}),
]


@pytest.mark.parametrize("error, match, changed", WRONG, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_gemm_refuses(error: type[Exception], match: str, changed: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        Call()(**changed)


def test_gemm_on_freed_memory_is_refused() -> None:
    call = Call()
    pointer = (call.A + 1).data.ptr  # of a temporary, which is gone
    gc.collect()
    with pytest.raises(cupy.GuardError, match="temporary"):
        call(B=pointer)


@pytest.fixture(autouse=True)
def guards_hold() -> Iterator[None]:
    yield
    cupy.check_guards()
