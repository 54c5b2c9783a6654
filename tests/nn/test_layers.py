"""The layers against their formulas; initial weights against their variances; dropout as a function of its key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from minilong.autodiff import checkpoint, vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.autodiff.tree import leaves
from minilong.keys import Key
from minilong.nn import Dropout, Embedding, FeedForward, LayerNorm, Linear, RMSNorm, flatten
from minilong.nn.init import INITIALISERS, he, normal, xavier

ATOL = rounding_bound(np.float64, 10.0, 16)


def double(layer: Any, seed: int = 0) -> Any:
    """The layer in float64, every parameter moved, so that no bias is zero and no gain one."""
    vector, made, _ = flatten(layer, np.float64)
    vector += 0.3 * np.random.default_rng(seed).standard_normal(vector.size)
    return made


def draw(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer = double(Linear.create(Key.of(0), 5, 7, bias=bias))
    x = draw(2, 3, 5)
    right = np.einsum("bti,io->bto", x, layer.weight) + (layer.bias if bias else 0)
    np.testing.assert_allclose(layer(x), right, rtol=0, atol=ATOL)
    assert (layer.bias is not None) == bias


def test_embedding_and_its_transpose() -> None:
    layer = double(Embedding.create(Key.of(0), 11, 4))
    ids = np.array([[0, 10, 3], [3, 3, 7]])
    np.testing.assert_array_equal(layer(ids), layer.table[ids])
    x = draw(2, 3, 4)
    np.testing.assert_allclose(layer.logits(x), x @ layer.table.T, rtol=0, atol=ATOL)


def test_layer_norm() -> None:
    layer, x = double(LayerNorm.create(6)), draw(2, 3, 6)
    centred = x - x.mean(-1, keepdims=True)
    right = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * layer.gain + layer.bias
    np.testing.assert_allclose(layer(x), right, rtol=0, atol=ATOL)
    np.testing.assert_allclose(LayerNorm.create(6)(x * 5 + 3).mean(-1), 0, atol=ATOL)


def test_rms_norm() -> None:
    layer, x = double(RMSNorm.create(6)), draw(2, 3, 6)
    right = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * layer.gain
    np.testing.assert_allclose(layer(x), right, rtol=0, atol=ATOL)


FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", FORMULAS)
def test_feed_forward(activation: str) -> None:
    layer, x = double(FeedForward.create(Key.of(0), 4, 9, activation=activation)), draw(2, 3, 4)
    hidden = FORMULAS[activation](x @ layer.up.weight + layer.up.bias)
    np.testing.assert_allclose(layer(x), hidden @ layer.down.weight + layer.down.bias, rtol=0, atol=ATOL)


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu(bias: bool) -> None:
    layer, x = double(FeedForward.create(Key.of(0), 4, 9, activation="swiglu", bias=bias)), draw(2, 3, 4)
    up, gate = (x @ part.weight + (part.bias if bias else 0) for part in (layer.up, layer.gate))
    right = (FORMULAS["silu"](gate) * up) @ layer.down.weight + (layer.down.bias if bias else 0)
    np.testing.assert_allclose(layer(x), right, rtol=0, atol=ATOL)


# Initial weights


@pytest.mark.parametrize("fan_in,fan_out", [(300, 500), (500, 300)])
def test_variances_of_initial_weights(fan_in: int, fan_out: int) -> None:
    """Variance of 150,000 draws: within 5 of its own deviations (kurtosis 3 at most)."""
    tolerance = 5 * math.sqrt(2 / (fan_in * fan_out))
    for f, variance in ((xavier, 2 / (fan_in + fan_out)), (he, 2 / fan_in), (normal, 0.02**2)):
        w = f(Key.of(1), fan_in, fan_out)
        assert w.shape == (fan_in, fan_out)
        assert w.dtype == np.float32
        assert w.var() == pytest.approx(variance, rel=tolerance)
        assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    assert np.abs(xavier(Key.of(1), fan_in, fan_out)).max() <= math.sqrt(6 / (fan_in + fan_out))


def test_he_keeps_the_scale_through_relu_layers_and_xavier_halves_it() -> None:
    x = draw(64, 400)
    ratio = {}
    for name in ("he", "xavier"):
        y = x
        for i in range(6):
            y = np.maximum(y @ INITIALISERS[name](Key.of(i), 400, 400), 0)
        ratio[name] = float((y**2).mean() / (x**2).mean())
    assert 0.6 < ratio["he"] < 1.6
    assert 0.6 < ratio["xavier"] * 2**6 < 1.6


def test_initial_weights_are_functions_of_the_key_and_gain_scales_them() -> None:
    a, b, other = (Linear.create(Key.of(s), 5, 7).weight for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.all(a != other)
    np.testing.assert_allclose(Linear.create(Key.of(1), 5, 7, gain=0.5).weight, a / 2, rtol=1e-7)
    assert np.all(Linear.create(Key.of(1), 5, 7).bias == 0)


def test_rows_of_an_embedding_have_norm_one_in_the_mean() -> None:
    table = Embedding.create(Key.of(1), 2000, 64).table
    assert np.mean(np.sum(table**2, axis=1)) == pytest.approx(1.0, rel=5 * math.sqrt(2 / table.size))


# Dropout


def test_dropout_acts_only_with_a_key() -> None:
    x = draw(4, 5)
    assert Dropout(0.5)(x, None) is x
    assert Dropout(0.0)(x, Key.of(1)) is x
    assert np.any(Dropout(0.5)(x, Key.of(1)) != x)


def test_dropout_is_a_function_of_its_key() -> None:
    x, drop = draw(40, 50), Dropout(0.3)
    np.testing.assert_array_equal(drop(x, Key.of(1)), drop(x, Key.of(1)))
    assert np.any(drop(x, Key.of(1)) != drop(x, Key.of(2)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate: float) -> None:
    ones = np.ones(200_000, np.float32)
    y = Dropout(rate)(ones, Key.of(3))
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - rate))}
    deviation = math.sqrt(rate / (1 - rate) / y.size)
    assert abs(y.mean(dtype=np.float64) - 1) < 5 * deviation


def test_dropout_masks_the_cotangent_with_the_same_elements() -> None:
    x = draw(30, 20)
    y, pull = vjp(lambda a: Dropout(0.4)(a, Key.of(4)), x)
    g = draw(30, 20, seed=9)
    np.testing.assert_array_equal(pull(g)[0] == 0, y == 0)
    assert 0.3 < (y == 0).mean() < 0.5


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_dropout_rates_that_cannot_work_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        Dropout(rate)


def test_dropout_within_checkpoint_is_identical() -> None:
    """The recomputed forward pass sees the same elements: values and gradients keep every bit."""
    layer, x, key = double(FeedForward.create(Key.of(0), 4, 16, dropout=0.5)), draw(3, 5, 4), Key.of(5)
    g = draw(3, 5, 4, seed=2)

    def differentiated(f: Any) -> tuple[np.ndarray, FeedForward]:
        y, pull = vjp(lambda m: f(m, x), layer)
        return y, pull(g)[0]

    def drop(m: FeedForward, a: Any) -> Any:
        return m(a, key)

    (value, gradient), (value2, gradient2) = differentiated(drop), differentiated(checkpoint(drop))
    np.testing.assert_array_equal(value, value2)
    assert np.any(value != layer(x))
    np.testing.assert_array_equal(gradient.up.weight, gradient2.up.weight)
    np.testing.assert_array_equal(gradient.down.weight, gradient2.down.weight)
    assert np.any(gradient.up.weight != 0)


# Types and purity


@pytest.mark.parametrize(
    "layer",
    [
        Linear.create(Key.of(0), 4, 4),
        Linear.create(Key.of(0), 4, 4, bias=False),
        LayerNorm.create(4),
        RMSNorm.create(4),
        *(FeedForward.create(Key.of(0), 4, 8, activation=a) for a in (*FORMULAS, "swiglu")),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{getattr(layer, 'activation', '')}",
)
def test_layers_are_pure_and_keep_float32(layer: Any) -> None:
    vector, made, _ = flatten(layer)
    vector.flags.writeable = False
    x = draw(2, 3, 4).astype(np.float32)
    x.flags.writeable = False
    y, pull = vjp(lambda m, a: m(a), made, x)
    g, gx = pull(np.ones_like(y))
    assert y.shape == x.shape
    assert y.dtype == gx.dtype == np.float32
    assert all(a.dtype == np.float32 and np.all(np.isfinite(a)) for a in leaves(g))
    np.testing.assert_array_equal(made(x), y)
