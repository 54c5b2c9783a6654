"""Kernels over rows: softmax and normalisation, and how rows are shared out to threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases_layer_norm
import cases_rms_norm
import cases_softmax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_arrays import (
    COLUMNS,
    DTYPES,
    LEADING,
    all_refuse,
    alone,
    exactly,
    narrow_blocks,
    near,
    normals,
    same_in_any_order,
    to_device,
)
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES, same_bits

from minilong.backend.kernels import norm_vjp as norm_vjp_module
from minilong.backend.kernels.layer_norm import layer_norm, layer_norm_vjp
from minilong.backend.kernels.rms_norm import rms_norm, rms_norm_vjp
from minilong.backend.kernels.rows import accumulated, aligned, alike, teams
from minilong.backend.kernels.softmax import log_softmax, log_softmax_vjp, softmax, softmax_vjp

CASES: dict[str, Callable[[Any], None]] = {
    "layer_norm": cases_layer_norm.check,
    "rms_norm": cases_rms_norm.check,
    "softmax": cases_softmax.check,
}


def results(x: Any, g: Any, gain: Any) -> dict[str, Any]:
    """What each operation makes of the same rows, by its name."""
    found: dict[str, Any] = {"softmax": softmax(cupy, x), "log_softmax": log_softmax(cupy, x)}
    found["softmax_vjp"] = softmax_vjp(cupy, g, found["softmax"])
    found["log_softmax_vjp"] = log_softmax_vjp(cupy, g, found["log_softmax"])
    found["layer_norm"], mean, inverse = layer_norm(cupy, x, gain, gain, 1e-5)
    gradients = layer_norm_vjp(cupy, g, x, gain, mean, inverse)
    found.update(mean=mean, inverse=inverse, **{f"layer_norm_vjp {i}": c for i, c in enumerate(gradients)})
    found["rms_norm"], inverse = rms_norm(cupy, x, gain, 1e-5)
    found.update({f"rms_norm_vjp {i}": c for i, c in enumerate(rms_norm_vjp(cupy, g, x, gain, inverse))})
    return found


# Equality with the plain operations


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", ("ascending", "descending", "random"))
def test_equal_to_the_plain_operation_in_any_order_of_threads(name: str, order: str) -> None:
    with cupy.thread_order(order, seed=7):
        CASES[name](cupy)


@given(st.integers(0, 99), DTYPES, LEADING, COLUMNS)
def test_softmax(seed: int, dtype: Any, leading: tuple[int, ...], n: int) -> None:
    x, g = normals(seed, dtype, (*leading, n), (*leading, n))
    cases_softmax.compare(cupy, x, g)


@given(st.integers(0, 99), DTYPES, LEADING, COLUMNS, st.sampled_from((0, 3, 1e4, 1e6)))
def test_layer_norm(seed: int, dtype: Any, leading: tuple[int, ...], n: int, far: float) -> None:
    x, g, gain, bias = normals(seed, dtype, (*leading, n), (*leading, n), (n,), (n,))
    if dtype != BFLOAT16:  # whose numbers are too coarse to have a spread there
        x += dtype.type(far)
    cases_layer_norm.compare(cupy, x, g, gain, bias)


@given(st.integers(0, 99), DTYPES, LEADING, COLUMNS)
def test_rms_norm(seed: int, dtype: Any, leading: tuple[int, ...], n: int) -> None:
    cases_rms_norm.compare(cupy, *normals(seed, dtype, (*leading, n), (*leading, n), (n,)))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_rows_that_exceed_a_full_block(dtype: Any) -> None:
    """512 threads with 32 elements each end at 16384, in the other operations before."""
    x, g, gain, bias = normals(0, dtype, (2, 17000), (2, 17000), (17000,), (17000,))
    cases_softmax.compare(cupy, x, g)
    cases_layer_norm.compare(cupy, x, g, gain, bias)
    cases_rms_norm.compare(cupy, x, g, gain)


def test_sums_are_made_in_float32_at_least() -> None:
    assert [accumulated(dtype) for dtype in TYPES] == [np.float32, np.float32, np.float32, np.float64]
    many = np.full((4000, 8), 0.1, np.float16)  # their sum in float16 stops at 256
    x, g, gain = to_device(cupy, many, many, np.ones(8, np.float16))
    _, mean, inverse = layer_norm(cupy, x, gain, gain, 1e-5)
    g_bias = layer_norm_vjp(cupy, g, x, gain, mean, inverse)[2]
    near(cupy, g_bias, exactly(many).sum(0), FLOAT32, 400)


# Determinism, launches, waiting


def test_every_result_has_the_same_bits_in_any_order_of_threads() -> None:
    for rows, n in ((70, 264), (3, 2500)):
        arrays = to_device(cupy, *normals(1, FLOAT32, (rows, n), (rows, n), (n,)))
        with narrow_blocks():
            same_in_any_order(cupy, lambda arrays=arrays: results(*arrays))


def test_nothing_waits_and_launches_are_few() -> None:
    x, g, gain = to_device(cupy, *normals(0, FLOAT16, (3, 40), (3, 40), (40,)))
    _, mean, inverse = layer_norm(cupy, x, gain, gain, 1e-5)
    for launches, operation in (
        (1, lambda: softmax(cupy, x)),
        (1, lambda: softmax_vjp(cupy, g, x)),
        (1, lambda: log_softmax(cupy, x)),
        (1, lambda: log_softmax_vjp(cupy, g, x)),
        (1, lambda: layer_norm(cupy, x, gain, gain, 1e-5)),
        (2, lambda: layer_norm_vjp(cupy, g, x, gain, mean, inverse)),
        (1, lambda: rms_norm(cupy, x, gain, 1e-5)),
        (2, lambda: rms_norm_vjp(cupy, g, x, gain, inverse)),
    ):
        assert alone(cupy, operation) == launches


# Sizes and layouts


def test_a_team_adds_up_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_vjp_module, "MOST_BLOCKS", 2)
    x, g, gain, bias = normals(0, FLOAT32, (300, 72), (300, 72), (72,), (72,))
    cases_layer_norm.compare(cupy, x, g, gain, bias)
    cases_rms_norm.compare(cupy, x, g, gain)


@pytest.mark.parametrize("dtype", (FLOAT32, BFLOAT16), ids=str)
def test_inputs_need_not_be_contiguous(dtype: Any) -> None:
    """Every second row, reversed columns, and transposes give what their copies give."""
    whole, others = (cupy.asarray(a) for a in normals(5, dtype, (6, 80), (80, 3)))
    views = whole[::2, ::-1], others.T, others[:, 0]
    assert not any(a.flags.c_contiguous for a in views)
    want = results(*map(cupy.ascontiguousarray, views))
    for name, value in results(*views).items():
        same_bits(cupy, value, cupy.asnumpy(want[name]))


def test_memory_that_begins_anywhere() -> None:
    """One element after a multiple of 16 bytes rows are read singly; the sums differ in their order only."""
    n = 512
    flat, g, gain = (cupy.asarray(a) for a in normals(2, FLOAT32, (1 + 2 * n,), (2, n), (n,)))
    x = flat[1:].reshape(2, n)
    assert aligned(n, x) == "WIDE=0"
    straight = results(x.copy(), g, gain)
    for name, value in results(x, g, gain).items():
        exact = exactly(cupy.asnumpy(straight[name]))
        near(cupy, value, exact, value.dtype, 10 if value.dtype == FLOAT32 else 1e9)  # the mean of float32 numbers
    assert aligned(n, x.copy()) == "WIDE=1"


@pytest.mark.parametrize(
    "dtype, n, word", [(FLOAT32, 8, 1), (FLOAT32, 6, 0), (FLOAT16, 12, 0), (BFLOAT16, 8, 1), (FLOAT64, 2, 1)]
)
def test_rows_are_read_16_bytes_at_a_time_where_they_may_be(dtype: Any, n: int, word: int) -> None:
    x = cupy.empty((4, n), dtype)
    assert aligned(n, x) == aligned(n, x[1:]) == f"WIDE={word}"
    assert aligned(n, x, cupy.empty((9,), dtype)[1:]) == "WIDE=0"


@pytest.mark.parametrize(
    "rows, n, each, want",
    [
        (9, 1024, 32, (3, (32, 4))),
        (9, 1025, 32, (9, (64, 1))),
        (9, 16384, 32, (9, (512, 1))),
        (9, 50000, 32, (9, (512, 1))),
        (1, 1, 4, (1, (32, 4))),
        (0, 7, 4, (0, (32, 4))),
    ],
)
def test_a_row_has_a_warp_or_a_block(rows: int, n: int, each: int, want: tuple[int, tuple[int, int]]) -> None:
    assert teams(rows, n, each) == want


def test_no_rows_and_no_columns() -> None:
    x, gain = cupy.empty((2, 0, 5), np.float32), cupy.ones(5, np.float32)
    for name, value in results(x, x, gain).items():
        sums = name in ("layer_norm_vjp 1", "layer_norm_vjp 2", "rms_norm_vjp 1")
        assert value.shape in (((5,),) if sums else ((2, 0, 5), (0,))), name
        assert not cupy.asnumpy(value).any()
    x = cupy.empty((3, 0), np.float32)
    for name, value in results(x, x, x[0]).items():
        assert value.size == 0 or name in ("mean", "inverse")


# What is refused: a kernel would take it on trust


def test_unlike_arrays_are_refused() -> None:
    x, half = cupy.empty((2, 8), np.float32), cupy.empty((2, 8), np.float16)
    gain = cupy.empty((8,), np.float32)
    all_refuse(
        cupy,
        TypeError,
        lambda: alike(cupy, x, half),
        lambda: softmax_vjp(cupy, half, x),
        lambda: log_softmax_vjp(cupy, x, half),
        lambda: layer_norm(cupy, half, gain, gain, 1e-5),
        lambda: rms_norm(cupy, half, gain, 1e-5),
        lambda: layer_norm_vjp(cupy, half, x, gain, gain, gain),
        lambda: rms_norm_vjp(cupy, half, half, gain, gain),
    )
    all_refuse(
        cupy,
        ValueError,
        lambda: alike(cupy, x, x[:1]),
        lambda: softmax_vjp(cupy, x[:1], x),
        lambda: layer_norm(cupy, x, gain, gain[:1], 1e-5),
        lambda: rms_norm(cupy, x, gain[None], 1e-5),
        lambda: rms_norm_vjp(cupy, x, x, gain[1:], gain),
    )
