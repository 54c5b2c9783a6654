"""The shim that runs CUDA kernels on the CPU: what CUDA promises holds, and what it leaves undefined is seen."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shim_runs import FLOATS, OPTIONS, TURN, every_order, i32, run, zeros
from standin import shim

pytestmark = pytest.mark.skipif(bool(shim.reason_absent()), reason=shim.reason_absent() or "")


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("order", shim.ORDERS)
@pytest.mark.parametrize("grid,block", [((3, 2, 2), (5, 3, 2)), ((1,), (1024,)), ((7, 1), (33, 1, 1)), ((1, 2), (1,))])
def test_each_thread_has_its_place(grid: Any, block: Any, order: str, on: bool) -> None:
    blocks, threads = int(np.prod(grid)), int(np.prod(block))
    out = np.full(blocks * threads, -1, np.int32)
    with shim.thread_order(order, 1), shim.checked(on):
        run("place", grid, block, out)
    np.testing.assert_array_equal(out.reshape(blocks, threads), np.arange(blocks)[:, None] * 10000 + np.arange(threads))


def turned(text: str, name: str, n: int) -> list[bool]:
    """Whether x turned by one comes out, in the three orders."""
    kernels = shim.compile_kernels(text, OPTIONS)

    def right() -> bool:
        y = zeros(n)
        kernels.launch(name, (1,), (n,), (FLOATS[:n], y))
        return bool((y == np.roll(FLOATS[:n], -1)).all())

    return every_order(right)


def test_a_deleted_barrier_gives_wrong_results_and_is_named_as_a_race() -> None:
    mutants = shim.barriers(TURN)
    assert len(mutants) == 3
    for (line, text), name, n in zip(mutants, ("turn", "turn", "turn_in_warp"), (64, 64, 32), strict=True):
        assert "__sync" in TURN.splitlines()[line - 1]
        assert not all(turned(text, name, n))
        with shim.checked(), pytest.raises(shim.LaunchError, match=r"race on byte .* static shared"):
            turned(text, name, n)
        for on in (False, True):
            with shim.checked(on):
                assert all(turned(TURN, name, n))


def test_a_barrier_is_left_out_at_a_launch() -> None:
    text, lines = shim.numbered_barriers(TURN)
    assert ["__syncthreads" in TURN.splitlines()[line - 1] for line in lines] == [True, True, False]
    assert all(turned(text, "turn", 64))
    for number in (0, 1):
        with shim.without_barrier(number):
            assert not all(turned(text, "turn", 64))
    with shim.without_barrier(2):
        assert all(turned(text, "turn", 64))


@pytest.mark.parametrize("on", [False, True])
def test_shared_memory_begins_as_nan_in_each_block(on: bool) -> None:
    y = zeros(12)
    with shim.checked(on):
        run("leftover", 3, 1, y, shared=8)
    assert np.isnan(y).all()


@given(st.lists(st.floats(-100, 100, width=32), min_size=32, max_size=32), st.integers(0, 40), st.integers(0, 5))
def test_shuffles_read_the_lane_that_cuda_says(values: list[float], by: int, power: int) -> None:
    x, u, width = np.array(values, np.float32), np.arange(32) * np.pi, 2**power
    y, v, lane = zeros(128), zeros(32, np.float64), np.arange(32)
    start = lane // width * width
    run("shuffles", 1, 32, x, y, u, v, i32(by), i32(width))
    sources = [
        start + by % width,
        np.where(lane - start < by, lane, lane - by),
        np.where(lane + by >= start + width, lane, lane + by),
        np.where((lane ^ by) >= start + width, lane, lane ^ by),
    ]
    np.testing.assert_array_equal(y.reshape(4, 32), x[np.array(sources)])
    np.testing.assert_array_equal(v, u[sources[0]])


@given(st.lists(st.integers(0, 3), min_size=32, max_size=32), st.integers(0, 99))
def test_votes(values: list[int], seed: int) -> None:
    x, y = np.array(values, np.int32), zeros(192, np.uint32)
    with shim.thread_order("random", seed):
        run("votes", 1, 32, x, y)

    def mask(yes: np.ndarray) -> int:
        return int((yes.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum())

    got = y.reshape(6, 32)
    assert (got[0] == mask(x != 0)).all()
    assert (got[1] == (x == 2).any() + 2 * (x == 3).any()).all()
    assert (got[2] == (x < 3).all() + 2 * (x < 2).all()).all()
    assert got[3].tolist() == [mask(x == value) for value in x]
    assert (got[4] == np.where(np.arange(32) < 16, mask(x != 0) & 0xFFFF, mask(x != 0) & 0xFFFF0000)).all()
    assert (got[5] == (x == 1).sum() + 100 * (x == 2).any() + 1000 * (x < 2).all()).all()


def test_exchanges_one_after_another() -> None:
    x, lane = np.arange(64, dtype=np.int32) * 7 % 50, np.arange(32)
    expected = x.reshape(2, 32).copy()
    for r in range(50):
        expected = (((lane + 1) * expected % 1000).sum(1, keepdims=True) + lane + [[0], [32]]) % 1000
        if r % 3 == 0:
            expected = expected[:, lane ^ 5]
    for _ in range(5):

        def result() -> np.ndarray:
            y = zeros(64, np.int32)
            run("exchange", 1, 64, x, y, i32(50))
            return y.reshape(2, 32)

        for got in every_order(result):
            np.testing.assert_array_equal(got, expected)


def test_the_value_of_a_lane_that_has_left_is_nan() -> None:
    y = zeros(32)
    run("gone", 1, 32, y)
    assert np.isnan(y[4])
    assert y[5] == 0
    assert (np.delete(y, [4, 5]) == 1).all()


DIVERGENT: list[tuple[str, int, tuple[Any, ...], str]] = [
    ("leaves_early", 64, (i32(3),), "of 64 threads, 61 wait at the barrier of line .*, 3 have left\n.*__syncthreads"),
    ("leaves_late", 64, (i32(60),), "of 64 threads, 60 wait at the barrier of line .*, 4 have left\n.*__syncthreads"),
    ("two_barriers", 64, (), "waits at the barrier of line .*, others at that of line"),
    ("waits_elsewhere", 32, (), "of 32 threads, 1 wait at the barrier of line .*, 31 at the warp collective of line"),
    ("two_masks", 32, (), "lanes 0 and 1 wait with the masks"),
    ("two_collectives", 32, (zeros(1, i32),), "lanes 0 and 1 wait at different collectives"),
    ("not_in_mask", 32, (), "lane 0 is not in its mask fffffffe"),
]


@pytest.mark.parametrize("name,threads,arguments,message", DIVERGENT, ids=[x[0] for x in DIVERGENT])
def test_divergence_is_reported(name: str, threads: int, arguments: tuple[Any, ...], message: str) -> None:
    def refused() -> None:
        with pytest.raises(shim.LaunchError, match=f"kernel {name}.* divergence: "):
            run(name, 2, threads, *arguments)

    every_order(refused)
    with pytest.raises(shim.LaunchError, match=message):
        run(name, 2, threads, *arguments)


def test_conversions_of_half_types() -> None:
    patterns = np.arange(65536, dtype=np.uint16)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 65536, dtype=np.uint32).view(np.float32)
    x[:30000] = patterns[:30000].view(np.float16) * np.float32(1 + 2.0**-11)  # ties
    x[30000:60000] = (patterns[:30000].astype(np.uint32) << 16 | 0x8000).view(np.float32)
    half, bfloat, to_half, to_bfloat = zeros(65536), zeros(65536), zeros(65536, np.uint16), zeros(65536, np.uint16)
    run("converted", 256, 256, patterns, half, bfloat, x, to_half, to_bfloat, i32(65536))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(half, patterns.view(np.float16).astype(np.float32))
        np.testing.assert_array_equal(bfloat, patterns.view(ml_dtypes.bfloat16).astype(np.float32))
        np.testing.assert_array_equal(to_half.view(np.float16), x.astype(np.float16))
        got, expected = to_bfloat.view(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


def test_functions_of_bits() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**32, (2, 64), dtype=np.uint32)
    u, v = rng.integers(0, 2**64, (2, 64), dtype=np.uint64)
    a[0] = 0
    y, w = zeros(384, np.uint32), zeros(64, np.uint64)
    run("bits", 1, 64, a, b, y, u, v, w)
    A, B = [int(n) for n in a], [int(n) for n in b]
    assert y.reshape(6, 64).tolist() == [
        [n.bit_count() for n in A],
        [32 - n.bit_length() for n in A],
        [m * n >> 32 for m, n in zip(A, B, strict=True)],
        [int(f"{n:032b}"[::-1], 2) for n in A],
        [m & 0xFFFF | (n >> 16) << 16 for m, n in zip(A, B, strict=True)],
        [(n << 32 | m) << 7 >> 32 & 0xFFFFFFFF for m, n in zip(A, B, strict=True)],
    ]
    assert w.tolist() == [int(m) * int(n) >> 64 for m, n in zip(u, v, strict=True)]


def test_mutants_are_of_one_place() -> None:
    assert shim.mutant("a + b", "+", "-") == "a - b"
    for text, old, new in (("a + b + c", "+", "-"), ("a", "+", "-"), ("a", "a", "a")):
        with pytest.raises(AssertionError):
            shim.mutant(text, old, new)
    text = "__syncthreads();\nif (x) __syncwarp(mask); else y();"
    assert shim.barriers(text) == [
        (1, ";\nif (x) __syncwarp(mask); else y();"),
        (2, "__syncthreads();\nif (x) ; else y();"),
    ]
    with pytest.raises(ValueError, match="no thread order 'sideways'"):
        shim.thread_order("sideways")
