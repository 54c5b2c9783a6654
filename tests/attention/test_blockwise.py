"""Blockwise attention at sizes with many blocks: threads, types, memory, refusals, and what `auto` chooses."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilong.attention import KERNELS, Auto, Blockwise, DistanceBias, Mask, auto, blockwise, dense, naive
from minilong.autodiff import grad, ops, vjp
from minilong.backend.workers import one_blas_thread, share_out

SMALL = Blockwise(rows=16, columns=24)


def arrays(
    n: int, *, heads: int = 4, groups: int = 4, batch: int = 1, d: int = 8, dtype: Any = np.float64
) -> list[Any]:
    """Queries, keys, values and a cotangent of the output."""
    rng = np.random.default_rng(n)
    shapes = ((batch, heads, n, d), (batch, groups, n, d), (batch, groups, n, d), (batch, heads, n, d))
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def everything(kernel: Callable[..., Any], xs: list[Any], mask: Mask, values: Any = None) -> list[Any]:
    """Output and cotangents, that of the bias too if there is one."""
    if values is None:
        y, pull = vjp(lambda q, k, v: kernel(q, k, v, mask=mask), *xs[:3])
    else:
        y, pull = vjp(lambda q, k, v, b: kernel(q, k, v, mask=mask, bias=DistanceBias(b, -3)), *xs[:3], values)
    return [y, *pull(xs[3])]


MASKS = {
    "all": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=33),
    "both sides": Mask(window=20),
    "sinks": Mask(causal=True, window=17, sinks=5),
    "padding": Mask(key_lengths=np.array([0, 61])),
    "packed": Mask(causal=True, segments=np.repeat([[0, 1, 2, 3], [5, 5, 6, 6]], [30, 31, 12, 28], axis=1)),
    "mixed segments": Mask(segments=np.random.default_rng(0).integers(0, 3, (1, 101))),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("biased", [False, True])
def test_equals_the_definition_over_many_blocks(name: str, biased: bool) -> None:
    xs = arrays(101, heads=4, groups=2, batch=2)
    values = np.random.default_rng(1).standard_normal((4, 40)) if biased else None
    right = everything(naive, xs, MASKS[name], values)
    for kernel in (SMALL, dense, Auto(SMALL, limit=10)):
        for found, expected in zip(everything(kernel, xs, MASKS[name], values), right, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("groups", [1, 3])
def test_threads_change_no_bit(groups: int) -> None:
    xs = arrays(601, heads=3, groups=groups, dtype=np.float32)
    values = np.random.default_rng(1).standard_normal((3, 100)).astype(np.float32)
    one, two = (everything(Blockwise(threads, 64, 96), xs, Mask(causal=True), values) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)
    right = everything(naive, [x.astype(np.float64) for x in xs], Mask(causal=True), values.astype(np.float64))
    for a, b in zip(two, right, strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 1e-5 * max(1.0, np.abs(b).max())


@pytest.mark.parametrize("size", [1.0, 8.0, 1000.0])
def test_scores_of_any_size(size: float) -> None:
    """Bounded scores take no shift, larger ones a running maximum; both are the softmax, in single precision too."""
    for dtype, bound in ((np.float64, 1e-9), (np.float32, 2e-2)):
        xs = arrays(101, dtype=dtype)
        xs[0] *= dtype(size)
        right = everything(naive, [x.astype(np.float64) for x in xs], Mask(causal=True))
        for found, expected in zip(everything(SMALL, xs, Mask(causal=True)), right, strict=True):
            assert np.abs(found - expected).max() <= bound * max(1.0, np.abs(expected).max())


def test_scores_that_rise_along_the_keys_are_rescaled() -> None:
    q, k, v, _ = arrays(101, d=1)
    q[:], k[..., 0] = 1.0, np.linspace(-500, 500, 101)
    np.testing.assert_allclose(SMALL(q, k, v), naive(q, k, v), rtol=0, atol=1e-12)
    np.testing.assert_allclose(SMALL(q, -k, v), naive(q, -k, v), rtol=0, atol=1e-12)


def test_second_derivatives_come_from_the_definition() -> None:
    q, k, v, g = arrays(7, heads=2, groups=1, d=3)

    def penalty(kernel: Any, x: Any) -> Any:
        inner = grad(lambda q: ops.sum(kernel(q, k, v, mask=Mask(causal=True)) * g))(x)
        return ops.sum(inner * inner)

    found, right = (
        grad(lambda x, kernel=kernel: penalty(kernel, x))(q) for kernel in (Blockwise(rows=2, columns=3), naive)
    )
    np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12)


def peak(f: Callable[[], Any]) -> tuple[float, Any]:
    """Largest number of bytes allocated meanwhile, in MiB, and the result."""
    tracemalloc.start()
    result = f()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20, result


def extra(n: int, threads: int = 1) -> float:
    """Memory of forward and backward beyond output and cotangents, in MiB."""
    xs = arrays(n, d=8, dtype=np.float32)
    kernel = Blockwise(threads, rows=64, columns=128)
    most, results = peak(lambda: everything(kernel, xs, Mask(causal=True)))
    return most - sum(x.nbytes for x in results) / 2**20


def test_memory_is_linear_in_the_length() -> None:
    once, twice = extra(4096), extra(8192)
    assert once < 2.0  # one table of the scores of one head would take 64 MiB
    assert twice - once < 0.75  # what grows: the log-sum-exp, norms of the keys, the mask's line by distance


def test_memory_of_two_threads_is_that_of_one_twice() -> None:
    assert extra(2048, threads=2) < 2.2 * extra(2048) + 0.1


def test_shared_key_heads_are_not_repeated() -> None:
    q, k, v, _ = arrays(2048, heads=8, groups=1, d=64, dtype=np.float32)
    most, y = peak(lambda: Blockwise(rows=64, columns=128)(q[:, :, :1], k, v))
    assert most - y.nbytes / 2**20 < 0.45  # the keys alone take 0.5 MiB
    most, y = peak(lambda: dense(q[:, :, :1], k, v))
    assert most - y.nbytes / 2**20 < 0.45


def test_blocks_that_the_mask_empties_are_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    visited = []
    real = np.exp
    monkeypatch.setattr(np, "exp", lambda x, **out: visited.append(x.size) or real(x, **out))
    xs = arrays(1000, heads=1, groups=1)
    SMALL(*xs[:3], mask=Mask(causal=True, window=50, sinks=4))
    assert sum(visited) <= 1000 * (50 + 16 + 4)
    visited.clear()
    SMALL(*xs[:3], mask=Mask(key_lengths=np.array([100])))
    assert sum(visited) == 1000 * 100
    visited.clear()
    SMALL(*xs[:3], mask=Mask(causal=True, segments=np.repeat([[0, 1]], 500, axis=1)))
    assert sum(visited) <= 2 * 500 * (500 + 16) / 2 + 500 * 16


def test_what_is_refused_is_named() -> None:
    q, k, v, _ = arrays(5)

    class Odd(Mask):
        pass

    with pytest.raises(ValueError, match="give a DistanceBias, or use dense"):
        blockwise(q, k, v, bias=np.zeros((4, 5, 5)))
    with pytest.raises(TypeError, match="not a Odd; use dense"):
        blockwise(q, k, v, mask=Odd())
    with pytest.raises(ValueError, match="no multiple of 3 key heads"):
        blockwise(q, k[:, :3], v[:, :3])
    with pytest.raises(ValueError, match=r"need queries \(batch, heads, t, d\)"):
        blockwise(q[0], k[0], v[0], mask=Mask(key_lengths=np.array([3])))
    with pytest.raises(ValueError, match="for 2 sequences"):
        blockwise(q, k, v, mask=Mask(key_lengths=np.array([3, 4])))
    with pytest.raises(ValueError, match="at least one thread, row and column"):
        Blockwise(threads=0)
    with pytest.raises(ValueError, match=r"need \(heads, distances\)"):
        DistanceBias(np.zeros(3))


def test_auto_chooses_by_size_and_by_what_it_is_given() -> None:
    q, k, _, _ = arrays(64)
    long = np.zeros((1, 8, 1024, 1))
    assert auto.choice(q, k) is dense
    assert auto.choice(long, long) is auto.blockwise
    assert auto.choice(long, long, bias=np.zeros((8, 1, 1))) is dense
    assert auto.choice(long, long, bias=DistanceBias(np.zeros((8, 3)))) is auto.blockwise
    assert KERNELS["auto"] is auto
    assert KERNELS["blockwise"] is blockwise


def test_no_query_no_key_no_sequence() -> None:
    q, k, v, g = arrays(5)
    assert SMALL(q[:, :, :0], k, v).shape == (1, 4, 0, 8)
    assert SMALL(q[:0], k[:0], v[:0]).shape == (0, 4, 5, 8)
    y, *cotangents = everything(SMALL, [q, k[:, :, :0], v[:, :, :0], g], Mask())
    assert not y.any()
    assert not cotangents[0].any()
    assert SMALL.with_lse(q, k[:, :, :0], v[:, :, :0])[1].max() == -np.inf


class Library:
    """A matrix library that remembers what its threads were set to."""

    num_threads = 4

    def __init__(self) -> None:
        self.calls: list[int] = []

    def set_num_threads(self, n: int) -> None:
        self.calls.append(n)
        self.num_threads = n


def test_the_matrix_library_is_held_to_one_thread_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr("minilong.backend.workers._blas", lambda: (library,))
    with one_blas_thread():
        assert library.num_threads == 1
        with one_blas_thread():  # a caller has limited it already: nothing to do, nothing to restore
            assert library.calls == [1]
        assert library.num_threads == 1
    assert library.calls == [1, 4]


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(items: Any) -> None:
        for item in items:
            if item == 3:
                raise KeyError(item)

    with pytest.raises(KeyError):
        share_out(work, list(range(8)), 2)


@pytest.mark.parametrize(
    ("heads", "shape"),
    [(1, (256, 512)), (2, (128, 512)), (3, (128, 512)), (4, (128, 512)), (8, (128, 256)), (32, (32, 256))],
)
def test_heads_that_share_keys_take_enough_queries_in_bounded_memory(heads: int, shape: tuple[int, int]) -> None:
    blocks = Blockwise()
    rows, columns = blocks.shape(heads, 2048, 2048, Mask(causal=True))
    assert (rows, columns) == shape
    assert heads * rows * columns <= 2 * blocks.area
