"""The moving average as a layer: equal to the loop, for any split, in both precisions; its gradient; its refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.autodiff import grad, ops, vjp
from minilong.autodiff.numeric import directional, rounding_bound
from minilong.autodiff.scan import BLOCK, decay_scan
from minilong.nn import MovingAverage

LENGTHS = (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 5 * BLOCK + 3, 2 * BLOCK * BLOCK + 5)


def loop(x: np.ndarray, gamma: Any, h: Any) -> np.ndarray:
    """Position by position."""
    rows = []
    for i in range(x.shape[-2]):
        h = gamma * h + (1 - gamma) * x[..., i, :]
        rows.append(h)
    return np.stack(rows, axis=-2)


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_length_equals_the_loop(t: int, dtype: Any) -> None:
    rng = np.random.default_rng(t)
    x = rng.standard_normal((2, t, 3)).astype(dtype)
    layer = MovingAverage(rng.standard_normal(3).astype(dtype))
    gamma = 1 / (1 + np.exp(-layer.logit.astype(np.float64)))
    y = layer(x)
    assert y.dtype == dtype
    bound = rounding_bound(dtype, 1 + np.max(np.abs(x))) / (1 - gamma.max())
    assert np.max(np.abs(y - loop(x.astype(np.float64), gamma, 0.0))) <= bound


def test_a_stream_in_random_parts_equals_one_pass() -> None:
    rng = np.random.default_rng(0)
    x, layer = rng.standard_normal((2, 200, 3)), MovingAverage(np.array([-1.0, 0.5, 3.0]))
    for _ in range(5):
        state, parts = layer.begin(x), []
        for part in np.split(x, np.sort(rng.choice(np.arange(1, 200), 7, replace=False)), axis=-2):
            y, state = layer.step(state, part)
            parts.append(y)
        assert np.max(np.abs(np.concatenate(parts, axis=-2) - layer(x))) <= rounding_bound(np.float64, 5.0, 20)


def test_the_gradient_of_everything_agrees_with_differences() -> None:
    rng = np.random.default_rng(2)
    xs = [rng.standard_normal(3), rng.standard_normal((2, 40, 3)), rng.standard_normal((2, 3))]
    vs, g = [rng.standard_normal(x.shape) for x in xs], rng.standard_normal((2, 40, 3))

    def f(logit: Any, x: Any, state: Any) -> Any:
        return MovingAverage(logit).step(state, x)[0]

    found = sum(float(np.sum(c * v)) for c, v in zip(vjp(f, *xs)[1](g), vs, strict=True))
    numeric = directional(f, xs, vs, g)
    assert abs(found - numeric.value) <= numeric.bound


def test_a_fixed_gamma_has_no_parameters_and_gamma_zero_is_the_identity() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert np.array_equal(MovingAverage.create(3, 0.0, learned=False)(x), x)
    y = MovingAverage.create(3, 0.75, learned=False)(x)
    assert y.dtype == np.float32
    assert np.array_equal(y[0], x[0] / 4)


def test_learning_moves_gamma_to_that_of_the_target() -> None:
    x = np.random.default_rng(0).standard_normal((64, 2))
    target, layer = loop(x, 0.8, 0.0), MovingAverage.create(2, 0.5)
    layer = MovingAverage(layer.logit.astype(np.float64))
    for _ in range(300):
        step = grad(lambda m: ops.sum((m(x) - target) ** 2.0))(layer)
        layer = MovingAverage(layer.logit - 0.1 * step.logit)
    assert np.allclose(1 / (1 + np.exp(-layer.logit)), 0.8, atol=1e-3)


@pytest.mark.parametrize("gamma", [1.0, -0.5])
def test_a_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        MovingAverage(None, gamma)
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        MovingAverage.create(3, gamma)
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        MovingAverage.create(3, 0.0)


def test_an_empty_sequence_is_empty() -> None:
    empty, decay = np.zeros((2, 0, 3)), np.full(3, 0.5)
    value, pull = vjp(decay_scan, empty, decay, np.ones((2, 3)))
    assert value.shape == (2, 0, 3)
    assert [c.shape for c in pull(value)] == [(2, 0, 3), (3,), (2, 3)]
