"""The stand-in for CuPy computes what CuPy computes: NumPy's numbers, but for half types, memory order and random."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from standin import cupy
from standin.cublas import to_tf32

BF16 = np.dtype(ml_dtypes.bfloat16)
F = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
I = np.array([[2, 0, 1, 1], [0, 3, 2, 0], [1, 1, 0, 3]])
AT = np.array([2, 0, -1, 1])

# Each computes the same on both libraries: f(library, float array, integer array, index array).
ALLOWED: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "arithmetic": lambda xp, x, i, at: (x + 1) * 2.0 - x / 3.0 + 1 / (x * x + 1.0) ** 0.5,
    "integers": lambda xp, x, i, at: (i // 2 + i % 3 - (-i)) * 2 & 3 | 4 ^ i << 1 >> 1,
    "comparisons": lambda xp, x, i, at: (x > 0) & (x <= 1) | ~(x == 0) ^ (x != 1),
    "in place": lambda xp, x, i, at: _in_place(x.copy()),
    "out": lambda xp, x, i, at: xp.exp(x, out=xp.empty_like(x)),
    "out of a wider type": lambda xp, x, i, at: xp.add(x, x, out=xp.empty(x.shape, np.float64)),
    "reductions": lambda xp, x, i, at: x.sum(0) + x.mean(0) - x.max(axis=0) * x.min(axis=0) / x.std(axis=0),
    "reductions kept": lambda xp, x, i, at: xp.sum(x, axis=(0, 1), keepdims=True) - xp.var(x, axis=1, keepdims=True),
    "add.reduce": lambda xp, x, i, at: xp.add.reduce(x, axis=-1, keepdims=True),
    "cumsum": lambda xp, x, i, at: xp.cumsum(x, axis=1),
    "argmax": lambda xp, x, i, at: x.argmax(axis=-1) + xp.argmin(x, axis=1),
    "any and all": lambda xp, x, i, at: (x > 0).any(axis=0) & xp.all(x > -3, axis=0),
    "basic index": lambda xp, x, i, at: x[1:, ::-2][:, None, ..., 0] + x[0, 0] + x[-1, 1:2],
    "integer index": lambda xp, x, i, at: x[:, at] + x[at[:3] % 3],
    "two indices": lambda xp, x, i, at: x[at % 3, at],
    "index of an index": lambda xp, x, i, at: x[at[at] % 3],
    "assignment": lambda xp, x, i, at: _assigned(xp, x.copy(), at),
    "mask": lambda xp, x, i, at: x[x > 0],
    "add.at": lambda xp, x, i, at: _added(xp, x.copy(), at),
    "add.reduceat": lambda xp, x, i, at: xp.add.reduceat(x, xp.asarray(np.array([0, 1])), axis=0),
    "shapes": lambda xp, x, i, at: x.reshape(2, -1).T.swapaxes(0, 1).ravel()[None].squeeze(),
    "views": lambda xp, x, i, at: xp.broadcast_to(xp.moveaxis(x[None], 0, -1), (2, 3, 4, 1)),
    "stack": lambda xp, x, i, at: xp.stack([xp.concatenate([x, x], axis=-1), xp.concatenate([x, -x], 1)], 1),
    "where": lambda xp, x, i, at: xp.where(x > 0, x, 0.0) + xp.where(i > 1, xp.inf, 0.0) + xp.where(i > 0, x, x[0, 0]),
    "clip": lambda xp, x, i, at: xp.clip(x, -0.5, 0.5) + xp.clip(i, 0, 2),
    "take": lambda xp, x, i, at: xp.take(x, at, axis=-1) + xp.take_along_axis(x, i % 4, axis=-1),
    "sort": lambda xp, x, i, at: xp.sort(x, axis=-1) + xp.argsort(i, axis=-1, kind="stable"),
    "repeat, roll, tile": lambda xp, x, i, at: xp.repeat(xp.roll(xp.tile(x, (1, 2)), 1, axis=0), 2, axis=1),
    "triangles": lambda xp, x, i, at: xp.tril(x) + xp.triu(x, 1) + xp.eye(3, 4, dtype=x.dtype),
    "counting out": lambda xp, x, i, at: xp.arange(12).reshape(3, 4) + xp.arange(4) + xp.arange(2, 10, 2.0),
    "made": lambda xp, x, i, at: xp.zeros((3, 4), np.float32) + xp.ones_like(x) + xp.full((4,), 2.0) + xp.zeros_like(i),
    "matmul": lambda xp, x, i, at: x @ x.T @ xp.matmul(x, x.T, out=xp.empty((3, 3), x.dtype)) @ x[:, 0],
    "dot and outer": lambda xp, x, i, at: xp.dot(x[0], x[1]) + xp.outer(x[0], x[1]) + xp.vdot(x[0], x[1]),
    "einsum": lambda xp, x, i, at: xp.einsum("...i,...i->...", x, x) + xp.einsum("ij,kj->i", x, x),
    "einsum as one product": lambda xp, x, i, at: xp.einsum("...j,jk->...k", xp.stack([x, x]), x.T),
    "complex": lambda xp, x, i, at: (x.view("c8") * (1 + 2j)).view("f4") + x.view("c8").imag[0, 0],
    "copyto": lambda xp, x, i, at: _copied(xp, xp.empty_like(x), x),
    "strided": lambda xp, x, i, at: xp.lib.stride_tricks.as_strided(x, (3, 3, 2), (16, 4, 4)),
    "casts": lambda xp, x, i, at: (x * 100).astype(np.int32) + x.astype(np.float64) + i.astype(np.float16),
    "float64 number": lambda xp, x, i, at: x + np.float64(1.5),
    "not a number": lambda xp, x, i, at: xp.log(x) + xp.sqrt(x) + x / (x - x),
    "empty": lambda xp, x, i, at: x[:0].sum(axis=0) + xp.zeros((0, 4)).sum(0) + x[at[:0]].sum(0),
}  # fmt: skip


def _in_place(x: Any) -> Any:
    x += 1
    x *= x
    x[1:] -= x[:-1].copy()
    x /= 3.0
    return x


def _assigned(xp: Any, x: Any, at: Any) -> Any:
    x[:, at] = x * 2.0
    x[0] = 5.0
    x[1, ::2] = x[2, 1::2]
    x[at[:1] % 3] = xp.arange(4)
    x[..., 3] = xp.arange(3)
    return x


def _added(xp: Any, x: Any, at: Any) -> Any:
    xp.add.at(x, (slice(None), at), x[:, :1])
    xp.add.at(x, at % 3, 1.0)
    xp.maximum.at(x, at % 3, 0.25)
    return x


def _copied(xp: Any, y: Any, x: Any) -> Any:
    xp.copyto(y, x)
    return y


@pytest.mark.parametrize("name", ALLOWED)
def test_equals_numpy(name: str) -> None:
    f = ALLOWED[name]
    with np.errstate(all="ignore"):
        want = np.asarray(f(np, F, I, AT))
    got = f(cupy, *(cupy.asarray(x) for x in (F, I, AT)))
    assert isinstance(got, cupy.ndarray)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if name == "add.reduceat":
        assert np.allclose(got.get(), want, rtol=1e-6)
    else:
        assert np.array_equal(got.get(), want, equal_nan=want.dtype.kind in "fc")


def test_reductions_give_arrays_without_axes() -> None:
    x = cupy.asarray(F)
    for y in (x.sum(), cupy.max(x), x[0, 0], x.mean(), x @ x.T @ x[:, 0] @ x[:, 0], cupy.count_nonzero(x)):
        assert type(y) is cupy.ndarray
        assert y.ndim == 0
        assert not isinstance(y, np.generic)


def test_an_element_is_a_view() -> None:
    x = cupy.zeros((2, 3))
    x[1][2][...] = 7.0
    y = x[1, 2]
    y += 1
    assert x.get()[1, 2] == 8.0
    assert x[0, 0].base is not None


def test_results_lie_in_rows() -> None:
    x = cupy.asarray(F).T
    assert not x.flags.c_contiguous
    for y in (x + 1, cupy.exp(x), x.sum(axis=1, keepdims=True), cupy.where(x > 0, x, x), x @ x.T, cupy.stack([x, x])):
        assert y.flags.c_contiguous
    assert cupy.zeros_like(x).flags.f_contiguous  # order "K" is kept where it is asked for
    assert x.astype(np.float64).flags.f_contiguous
    assert x.copy().flags.c_contiguous


def test_views_share_memory_and_copies_do_not() -> None:
    x = cupy.asarray(F)
    for view in (x.T, x[1:], x.reshape(4, 3), x.ravel(), x[:, None], cupy.broadcast_to(x, (2, 3, 4)), x.view(np.int32)):
        assert cupy.may_share_memory(x, view)
        assert view.data.mem is x.data.mem
    for other in (x.copy(), x + 0, x.T.ravel(), x.T.reshape(-1), x.flatten(), cupy.array(x)):
        assert not cupy.may_share_memory(x, other)
    assert cupy.asarray(x) is x
    assert cupy.ascontiguousarray(x) is x
    assert x.data.ptr % 512 == 0
    assert x[1:, 1:].data.ptr - x.data.ptr == 20


def test_an_array_at_a_pointer() -> None:
    for x in (cupy.asarray(F), cupy.asarray(F) + 0, (cupy.asarray(F) + 0).T):
        y = cupy.ndarray((2, 3), np.float32, x.data + 4)
        z = cupy.ndarray((2, 2), np.float32, x.data, strides=(16, 8))
        assert np.array_equal(y.get(), F.reshape(-1)[1:7].reshape(2, 3))
        assert np.array_equal(z.get(), F[:2, ::2])
        y[...] = 0.0
        assert float(x.sum()) != float(F.sum())
        with pytest.raises(TypeError, match="buffer"):
            cupy.ndarray((4, 4), np.float32, x.data)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BF16], ids=str)
def test_half_types_are_summed_in_float32(dtype: np.dtype) -> None:
    column = np.full((100_000, 1), 0.1).astype(dtype)
    exact = column.astype(np.float64).sum()
    x = cupy.asarray(column)
    for total in (x.sum(axis=0), cupy.add.reduce(x, axis=0), cupy.ones((1, 100_000), dtype) @ x):
        assert total.dtype == dtype
        assert abs(float(total) - exact) <= 0.004 * exact  # in its own type the sum stays at 256, or at 32
    a, b = (np.random.default_rng(i).standard_normal((5, 7)).astype(dtype) for i in range(2))
    got = cupy.asarray(a) @ cupy.asarray(b).T
    assert np.array_equal(got.get(), (a.astype(np.float32) @ b.T.astype(np.float32)).astype(dtype))
    if dtype == np.float16:
        assert abs(float(x.mean()) - 0.1) < 1e-4


def test_bfloat16_by_the_loops_of_cupy() -> None:
    x = cupy.asarray(F).astype(BF16)
    assert (x + x).dtype == cupy.exp(x).dtype == x.max(axis=0).dtype == x.sum().dtype == BF16
    assert (x * 2).dtype == BF16
    assert (x * 2.0).dtype == np.float32  # no loop of bfloat16 takes a Python float
    assert cupy.where(x > 0, x, x).dtype == np.float32  # `where` and `clip` have none at all
    assert cupy.clip(x, -1, 1).dtype == np.float32
    assert (x + cupy.asarray(F)).dtype == np.float32
    assert (x > 0).dtype == bool
    y = x.copy()
    y *= 2.0
    assert y.dtype == BF16
    assert np.array_equal(y.get(), (F.astype(BF16) * 2).astype(BF16))
    assert np.array_equal(x.view(np.uint16).get(), F.astype(BF16).view(np.uint16))


def test_reduceat_has_the_rounding_of_a_running_sum() -> None:
    rows = np.ones((4096, 1), np.float32) * 1e4
    rows[-2:] = 1e-3
    got = cupy.add.reduceat(cupy.asarray(rows), cupy.asarray(np.array([0, 4094])), axis=0)
    assert got.get()[1, 0] != 2e-3
    assert np.add.reduceat(rows, [0, 4094], axis=0)[1, 0] == np.float32(2e-3)


def test_random_numbers_differ_from_numpys() -> None:
    ours, numpys = cupy.random.default_rng(3), np.random.default_rng(3)
    got = ours.random((1000,), dtype=np.float32)
    assert got.dtype == np.float32
    assert not np.array_equal(got.get(), numpys.random(1000, dtype=np.float32))
    assert 0.45 < float(got.mean()) < 0.55
    again = cupy.random.default_rng(3).random((1000,), dtype=np.float32)
    assert np.array_equal(again.get(), got.get())
    assert ours.uniform(2, 3, (5,), dtype=np.float32).dtype == np.float32
    assert ours.integers(0, 4, (5,)).dtype == np.int64


def test_new_memory_is_poisoned() -> None:
    for dtype in (np.float32, np.float64, np.float16, BF16, np.complex64):
        x = cupy.empty((3, 5), dtype)
        assert np.isnan(x.get().astype(np.complex128)).all()
    assert (cupy.empty(7, np.int32).get() == 0x5A5A5A5A).all()
    assert cupy.empty(7, bool).get().all()


def test_pool_counts_and_limits() -> None:
    gc.collect()
    pool = cupy.get_default_memory_pool()
    assert pool is cupy.cuda.MemoryPool() or pool.used_bytes() == cupy.cuda.MemoryPool().used_bytes()
    before = pool.used_bytes()
    x = cupy.zeros(1000, np.float32)
    view = x[10:]
    assert pool.used_bytes() - before == 4096  # rounded to 512, as CuPy's
    y = x + 1
    assert pool.used_bytes() - before == 2 * 4096 - 0 * y.size
    del x
    assert pool.used_bytes() - before == 2 * 4096  # the view keeps it
    del view, y
    assert pool.used_bytes() == before
    assert pool.total_bytes() >= before + 8192  # kept for later
    pool.free_all_blocks()
    assert pool.total_bytes() == before
    limit = pool.get_limit()
    with cupy.memory_limit(10_000):
        kept = cupy.zeros(1000, np.float32)
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating"):
            cupy.zeros(2000, np.float32)
        with pytest.raises(MemoryError):
            cupy.concatenate([kept, kept, kept])
        with pytest.raises(MemoryError):
            cupy.asarray(np.zeros(5000, np.float32))
    assert pool.get_limit() == limit
    pool.set_limit(fraction=0.5)
    assert pool.get_limit() == 40 << 30
    pool.set_limit(size=0)
    del kept
    assert pool.used_bytes() == before


def test_peak_of_memory() -> None:
    with cupy.peak_memory() as outer:
        kept = cupy.zeros(256)  # 2048 bytes
        with cupy.peak_memory() as inner:
            for _ in range(3):
                assert (cupy.zeros(512) + 1).size == 512
        assert inner.nbytes == 2 * 4096
        del kept
    assert outer.nbytes == 2048 + 2 * 4096


def test_tf32_keeps_ten_bits() -> None:
    x = np.array([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -3.14159265, 0.0, np.inf], np.float32)
    want = [1.0, 1 + 2**-10, 1 + 2**-10, 1.0, -3.140625, 0.0, np.inf]
    assert np.array_equal(to_tf32(x), np.array(want, np.float32))
