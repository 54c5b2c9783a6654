"""Batch normalisation for sequences: statistics of valid positions, a running state that is a value."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import vjp
from minilong.autodiff.numeric import directional, rounding_bound
from minilong.nn import BatchNorm, BatchState

ATOL = rounding_bound(np.float64, 10.0, 20)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4)) * 2 + 1
VALID = np.arange(5) < np.array([5, 2, 4])[:, None]
LAYER = BatchNorm(RNG.standard_normal(4), RNG.standard_normal(4))
STATE = BatchState(RNG.standard_normal(4), RNG.random(4) + 0.5, 3)


def formula(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (x - mean) / np.sqrt(variance + 1e-5) * LAYER.gain + LAYER.bias


def test_normalises_by_the_statistics_of_valid_positions() -> None:
    rows = X[VALID]
    y, _ = LAYER.train(X, STATE, VALID)
    np.testing.assert_allclose(y, formula(X, rows.mean(0), rows.var(0)), rtol=0, atol=ATOL)
    plain, _ = LAYER.train(X, STATE)
    flat = X.reshape(-1, 4)
    np.testing.assert_allclose(plain, formula(X, flat.mean(0), flat.var(0)), rtol=0, atol=ATOL)


def test_padding_is_ignored_in_values_state_and_gradients() -> None:
    other = np.where(VALID[..., None], X, 777.0)
    g = RNG.standard_normal(X.shape) * VALID[..., None]
    results = []
    for x in (X, other):
        states: list[BatchState] = []

        def run(a: Any, states: list[BatchState] = states) -> Any:
            y, state = LAYER.train(a, STATE, VALID)
            states.append(state)
            return y

        y, pull = vjp(run, x)
        results.append((np.where(VALID[..., None], y, 0), pull(g)[0], states[0].mean, states[0].variance))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.all(results[0][1][~VALID] == 0)


def test_padding_of_another_length_changes_nothing() -> None:
    wide = np.concatenate([X, np.full((3, 4, 4), -9.0)], axis=1)
    valid = np.concatenate([VALID, np.zeros((3, 4), bool)], axis=1)
    y, state = LAYER.train(X, STATE, VALID)
    y2, state2 = LAYER.train(wide, STATE, valid)
    np.testing.assert_allclose(y2[:, :5], y, rtol=0, atol=ATOL)
    np.testing.assert_allclose(state2.mean, state.mean, rtol=0, atol=ATOL)
    np.testing.assert_allclose(state2.variance, state.variance, rtol=0, atol=ATOL)


def test_running_state_is_a_new_value() -> None:
    before = BatchState(STATE.mean.copy(), STATE.variance.copy(), STATE.batches)
    rows = X[VALID]
    _, after = LAYER.train(X, STATE, VALID)
    np.testing.assert_array_equal(STATE.mean, before.mean)
    np.testing.assert_array_equal(STATE.variance, before.variance)
    assert (STATE.batches, after.batches) == (3, 4)
    np.testing.assert_allclose(after.mean, 0.9 * STATE.mean + 0.1 * rows.mean(0), rtol=0, atol=ATOL)
    np.testing.assert_allclose(after.variance, 0.9 * STATE.variance + 0.1 * rows.var(0, ddof=1), rtol=0, atol=ATOL)
    _, faster = replace(LAYER, momentum=0.5).train(X, STATE, VALID)
    np.testing.assert_allclose(faster.mean, 0.5 * STATE.mean + 0.5 * rows.mean(0), rtol=0, atol=ATOL)


def test_the_state_holds_arrays_even_inside_a_derivative() -> None:
    """A state that held tensors would keep the graph of every batch alive."""
    states = []

    def run(layer: BatchNorm, x: Any) -> Any:
        y, state = layer.train(x, STATE, VALID)
        states.append(state)
        return y

    vjp(run, LAYER, X)
    assert isinstance(states[0].mean, np.ndarray)
    assert isinstance(states[0].variance, np.ndarray)


def test_evaluation_uses_the_running_state_and_each_position_alone() -> None:
    y = LAYER.evaluate(X, STATE)
    np.testing.assert_allclose(y, formula(X, STATE.mean, STATE.variance), rtol=0, atol=ATOL)
    np.testing.assert_array_equal(LAYER.evaluate(X[1:2, 3:4], STATE), y[1:2, 3:4])


def test_evaluation_after_many_batches_is_close_to_training() -> None:
    state, rng = BatchState.create(4), np.random.default_rng(1)
    for _ in range(200):
        _, state = LAYER.train(rng.standard_normal((8, 16, 4)) * 3 + 2, state)
    np.testing.assert_allclose(state.mean, 2, atol=0.3)
    np.testing.assert_allclose(state.variance, 9, rtol=0.15)


def test_gradient_by_differences() -> None:
    g, rng = RNG.standard_normal(X.shape), np.random.default_rng(2)
    xs = [LAYER.gain, LAYER.bias, X]
    vs = [rng.standard_normal(x.shape) for x in xs]

    def f(gain: Any, bias: Any, x: Any) -> Any:
        return BatchNorm(gain, bias).train(x, STATE, VALID)[0]

    _, pull = vjp(f, *xs)
    right = directional(f, xs, vs, g)
    assert abs(sum(float(np.sum(c * v)) for c, v in zip(pull(g), vs, strict=True)) - right.value) <= right.bound


def test_float32_stays_float32() -> None:
    layer, x = BatchNorm.create(4), X.astype(np.float32)
    y, state = layer.train(x, BatchState.create(4), VALID)
    assert y.dtype == state.mean.dtype == state.variance.dtype == np.float32
    assert layer.evaluate(x, state).dtype == np.float32
    assert [f.name for f in fields(state)] == ["mean", "variance", "batches"]


def test_too_few_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="1 valid positions; a variance needs at least 2"):
        LAYER.train(X, STATE, np.arange(15).reshape(3, 5) == 7)


def test_causal_models_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"causal model: .* every token would see later ones; use 'layer' or 'rms'"):
        BatchNorm.create(4, causal=True)
    # The reason holds: an early position's output depends on a later one.
    later = X.copy()
    later[:, -1] += 1.0
    assert np.abs(LAYER.train(later, STATE)[0][:, 0] - LAYER.train(X, STATE)[0][:, 0]).max() > 1e-3
