"""Cross-entropy fused with the projection: what its memory is, what it does not compute, what it refuses."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import (
    affine_cross_entropy,
    cross_entropy,
    linear,
    linear_cross_entropy,
    ops,
    projected,
    token_loss,
    value_and_grad,
    vjp,
)

RNG = np.random.default_rng(3)


def problem(n: int, d: int, classes: int, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, a weight, and targets of which one in five is ignored."""
    x, w = RNG.standard_normal((n, d)).astype(dtype), RNG.standard_normal((d, classes)).astype(dtype)
    targets = RNG.integers(0, classes, n)
    targets[::5] = -100
    return x, w, targets


def peak(f: Callable[[], Any]) -> int:
    """The most bytes that `f` held at once, beyond what was there before."""
    f()
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("classes", [2048, 8192, 16384])
def test_memory_is_one_chunk_of_logits_and_the_gradients(classes: int) -> None:
    x, w, targets = problem(600, 8, classes)
    step = value_and_grad(lambda inputs: token_loss(*inputs, targets=targets))
    rows = projected.chunk_rows(classes)
    predicted = 4 * (rows * classes + x.size + w.size)
    assert 0.95 < peak(lambda: step((x, w))) / predicted < 1.1
    whole = value_and_grad(lambda inputs: cross_entropy(linear(*inputs), targets=targets))
    assert peak(lambda: whole((x, w))) > 4 * 2 * 600 * classes


def test_a_loss_that_is_not_differentiated_makes_no_gradients_and_has_the_same_bits() -> None:
    x, w, targets = problem(40, 64, 3000)
    value, _ = value_and_grad(lambda inputs: token_loss(*inputs, targets=targets, chunk=16))((x, w))
    assert token_loss(x, w, targets=targets, chunk=16) == value
    assert peak(lambda: token_loss(x, w, targets=targets, chunk=16)) < 1.2 * 4 * 16 * 3000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunk", [None, 1, 7, 33, 1000])
@pytest.mark.parametrize("biased", [False, True])
def test_it_equals_the_cross_entropy_of_all_logits(dtype: Any, chunk: int | None, biased: bool) -> None:
    x, w, targets = problem(66, 5, 2 * projected.BLOCK + 3, dtype)  # the weight's gradient is added in three blocks
    b = RNG.standard_normal(w.shape[1]).astype(dtype)
    inputs = (x.reshape(2, 33, 5), w, b) if biased else (x.reshape(2, 33, 5), w)
    targets = targets.reshape(2, 33)

    def unfused(x: Any, w: Any, b: Any = 0.0) -> Any:
        return cross_entropy(linear(x, w) + b, targets=targets)

    value, pull = vjp(lambda *xs: token_loss(*xs, targets=targets, chunk=chunk), *inputs)
    right, right_pull = vjp(unfused, *inputs)
    assert value.dtype == dtype
    assert value == pytest.approx(float(right), rel=1e-5 if dtype == np.float32 else 1e-13)
    for c, expected in zip(pull(dtype(-2.5)), right_pull(dtype(-2.5)), strict=True):
        assert c.dtype == dtype
        np.testing.assert_allclose(c, expected, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)


def test_a_table_gets_a_gradient_in_its_own_layout() -> None:
    x, w, targets = problem(30, 4, 50)
    table = np.ascontiguousarray(w.T)
    _, pull = vjp(lambda t: token_loss(x, ops.transpose(t, order=(1, 0)), targets=targets, chunk=7), table)
    (gradient,) = pull(np.float32(1))
    assert gradient.flags.c_contiguous
    _, (right,) = value_and_grad(lambda inputs: token_loss(x, inputs[0], targets=targets, chunk=7))((w,))
    np.testing.assert_allclose(gradient, right.T, atol=1e-7)


def test_an_ignored_row_is_not_computed() -> None:
    x, w, targets = problem(20, 3, 6)
    broken = np.where((targets == -100)[:, None], np.nan, x).astype(np.float32)
    step = value_and_grad(lambda inputs: token_loss(*inputs, targets=targets, chunk=3))
    (value, gradients), (right, expected) = step((broken, w)), step((x, w))
    assert value == right
    for c, e in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(c, e)


def test_no_rows_and_no_targets_give_zero() -> None:
    x, w, targets = problem(6, 3, 4)
    for rows, marks in ((x[:0], targets[:0]), (x, np.full(6, -100))):
        step = value_and_grad(lambda inputs, marks=marks: token_loss(*inputs, targets=marks))
        value, (for_x, for_w) = step((rows, w))
        assert value == 0
        assert not for_x.any()
        assert not for_w.any()
        assert for_x.shape == rows.shape


@pytest.mark.parametrize(
    ("targets", "message"),
    [([0, 9], r"lie in \[0, 9\], beyond the 4 classes"), ([0, -1], "beyond the 4 classes"), ([0], "have shape")],
)
def test_wrong_targets_are_refused(targets: list[int], message: str) -> None:
    x, w, _ = problem(2, 3, 4)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(x, w, targets=np.array(targets))
    with pytest.raises(ValueError, match=message):
        affine_cross_entropy(x, w, w[0], targets=np.array(targets))
    with pytest.raises(ValueError, match=message):
        token_loss(x, w, targets=np.array(targets))
