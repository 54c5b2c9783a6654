"""Kernels of the loss, and elementwise ones: cross-entropy, sums, activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases_activation
import cases_cross_entropy
import cases_total
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_arrays import COLUMNS, DTYPES, LEADING, all_refuse, alone, near, normals, same_in_any_order, to_device
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, TYPES, same_bits, wide

from minilong.backend.kernels.activation import KINDS, activate, activate_vjp, swiglu, swiglu_vjp
from minilong.backend.kernels.cross_entropy import cross_entropy, cross_entropy_gradient, total

CASES: dict[str, Callable[[Any], None]] = {
    "activation": cases_activation.check,
    "cross_entropy": cases_cross_entropy.check,
    "total": cases_total.check,
}


def results(x: Any, g: Any, targets: Any) -> dict[str, Any]:
    """What each operation makes of the same arrays, by its name."""
    found: dict[str, Any] = {}
    found["losses"], found["lse"] = cross_entropy(cupy, x, targets, -1)
    found["total"] = total(cupy, found["losses"], 0.25)
    found["gradient"] = cupy.empty(x.shape, x.dtype)
    cross_entropy_gradient(cupy, x, targets, found["lse"], found["total"], -1, found["gradient"])
    for kind in KINDS:
        found[kind], found[f"{kind}_vjp"] = activate(cupy, kind, x), activate_vjp(cupy, kind, g, x)
    found["swiglu"] = swiglu(cupy, x, g)
    found["swiglu_vjp 0"], found["swiglu_vjp 1"] = swiglu_vjp(cupy, x, g, found["swiglu"])
    return found


# Equality with the plain operations


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", ("ascending", "descending", "random"))
def test_equal_to_the_plain_operation_in_any_order_of_threads(name: str, order: str) -> None:
    with cupy.thread_order(order, seed=7):
        CASES[name](cupy)


@given(st.integers(0, 99), DTYPES, st.integers(0, 5), COLUMNS, st.sampled_from((np.int32, np.int64)))
def test_cross_entropy(seed: int, dtype: Any, rows: int, classes: int, kind: Any) -> None:
    (x,) = normals(seed, dtype, (rows, classes))
    cases_cross_entropy.compare(cupy, x, kind if dtype == FLOAT32 else np.int64)


@given(st.integers(0, 99), DTYPES, st.sampled_from(KINDS), LEADING, COLUMNS)
def test_activations(seed: int, dtype: Any, kind: str, leading: tuple[int, ...], n: int) -> None:
    x, g, up = normals(seed, dtype, *[(*leading, n)] * 3)
    cases_activation.compare(cupy, kind, x, g)
    cases_activation.gated(cupy, g, x, up)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_many_classes(dtype: Any) -> None:
    """More than a block of 512 threads reads at a time."""
    cases_cross_entropy.compare(cupy, normals(0, dtype, (4, 17000))[0], np.int64)


def test_a_hidden_class_has_no_probability() -> None:
    """-inf: its gradient is 0, and its loss infinite where it is the target."""
    x = np.array([[1, -np.inf, 2, -np.inf], [-np.inf, -np.inf, -np.inf, 0]], np.float32)
    logits, targets, one = to_device(cupy, x, np.array([3, 3]), np.ones(1, np.float32))
    losses, lse = cross_entropy(cupy, logits, targets, -1)
    assert cupy.asnumpy(losses).tolist() == [np.inf, 0]
    cross_entropy_gradient(cupy, logits, targets, lse, one, -1, logits)
    p = 1 / (1 + np.exp(1))
    near(cupy, logits, np.array([[p, 0, 1 - p, -1], [0, 0, 0, 0]]), FLOAT32, 1)


def test_a_scalar_has_an_activation() -> None:
    x = cupy.asarray(np.array(-1.0, np.float32))
    for y in (activate(cupy, "silu", x), swiglu(cupy, x, cupy.ones((), np.float32))):
        near(cupy, y, np.array(-1 / (1 + np.exp(1))), FLOAT32, 1)


# Determinism, launches, waiting


def test_every_result_has_the_same_bits_in_any_order_of_threads() -> None:
    x, g = to_device(cupy, *normals(1, FLOAT32, (3, 2500), (3, 2500)))
    targets = cupy.asarray(np.array([7, -1, 0]))
    same_in_any_order(cupy, lambda: results(x, g, targets))


def test_nothing_waits_and_launches_are_few() -> None:
    x, g = to_device(cupy, *normals(0, FLOAT16, (3, 40), (3, 40)))
    targets, factor = to_device(cupy, np.zeros(3, np.int64), np.ones((), np.float32))
    losses, lse = cross_entropy(cupy, x, targets, -1)
    for operation in (
        lambda: cross_entropy(cupy, x, targets, -1),
        lambda: cross_entropy_gradient(cupy, x, targets, lse, factor, -1, cupy.empty(x.shape, x.dtype)),
        lambda: total(cupy, losses, 0.5),
        lambda: activate(cupy, "gelu", x),
        lambda: activate_vjp(cupy, "gelu", g, x),
        lambda: swiglu(cupy, x, g),
        lambda: swiglu_vjp(cupy, g, x, x),
    ):
        assert alone(cupy, operation) == 1


# Sizes and layouts


@pytest.mark.parametrize("dtype", (FLOAT32, BFLOAT16), ids=str)
def test_inputs_need_not_be_contiguous(dtype: Any) -> None:
    """Every second row, reversed columns, and transposes give what their copies give."""
    whole, others = (cupy.asarray(a) for a in normals(5, dtype, (6, 80), (80, 3)))
    views = whole[::2, ::-1], others.T, cupy.asarray(np.array([[3, 0], [5, 0], [79, 0]]))[:, 0]
    assert not any(a.flags.c_contiguous for a in views)
    want = results(*map(cupy.ascontiguousarray, views))
    for name, value in results(*views).items():
        same_bits(cupy, value, cupy.asnumpy(want[name]))
    backwards = views[1][0].astype(wide(dtype))[::-1]
    same_bits(cupy, total(cupy, backwards, 1.0), cupy.asnumpy(total(cupy, backwards.copy(), 1.0)))


def test_no_rows_and_no_classes() -> None:
    x, targets = cupy.empty((0, 5), np.float32), cupy.empty((0,), np.int64)
    for value in results(x, x, targets).values():
        assert not cupy.asnumpy(value).any()
    x = cupy.empty((3, 0), np.float32)
    losses, lse = cross_entropy(cupy, x, cupy.asarray(np.array([0, 5, 0])), 5)
    assert np.isnan(cupy.asnumpy(losses)).tolist() == [True, False, True]
    cross_entropy_gradient(cupy, x, cupy.zeros(3, np.int64), lse, losses[:1], 5, x)


# What is refused: a kernel would take it on trust


def test_unlike_arrays_are_refused() -> None:
    x, half = cupy.empty((2, 8), np.float32), cupy.empty((2, 8), np.float16)
    targets, lse, factor = cupy.zeros(2, np.int64), cupy.empty((2,), np.float64), cupy.ones((), np.float32)
    all_refuse(
        cupy,
        TypeError,
        lambda: swiglu(cupy, x, half),
        lambda: activate_vjp(cupy, "gelu", half, x),
        lambda: cross_entropy(cupy, x, targets.astype(np.uint8), -1),
        lambda: cross_entropy_gradient(cupy, x, targets, lse, factor, -1, half),
        lambda: total(cupy, half[0], 1.0),
    )
    all_refuse(
        cupy,
        ValueError,
        lambda: activate_vjp(cupy, "relu", x[:1], x),
        lambda: activate(cupy, "tanh", x),
        lambda: activate_vjp(cupy, "swiglu", x, x),
        lambda: cross_entropy(cupy, x, targets[:1], -1),
        lambda: cross_entropy_gradient(cupy, x, targets, lse[:1], factor, -1, x),
        lambda: cross_entropy_gradient(cupy, x, targets, lse.astype(np.float32), factor, -1, x),
        lambda: cross_entropy_gradient(cupy, x, targets, lse, lse, -1, x),
        lambda: cross_entropy_gradient(cupy, x, targets, lse, factor, -1, x[:, ::-1]),
    )
