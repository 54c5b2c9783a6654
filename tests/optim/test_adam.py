"""Adam and AdamW against the recursions of the papers, at block boundaries too; losses that fall to known values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilong import optim
from minilong.autodiff import ops, value_and_grad
from minilong.autodiff.numeric import rounding_bound
from minilong.keys import Key
from minilong.nn import FeedForward, Layout, flatten
from minilong.optim import Adam, AdamState, Schedule, clip
from minilong.train.replicas import PART, Replicas

SIZES = [1, 7, 63, 64, 65, 128, 200]
"""Around the block size that `small_blocks` sets: one block, blocks that just fit, a rest."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "BLOCK", 64)


def published(
    theta: np.ndarray, gradients: np.ndarray, adam: Adam, lrs: list[float], decayed: int, *, corrected: bool = True
) -> np.ndarray:
    """Algorithm 1 of Kingma and Ba 2015, algorithm 2 of Loshchilov and Hutter 2019, as printed."""
    m = v = np.zeros_like(theta)
    shrinks = (np.arange(theta.size) < decayed) * adam.weight_decay
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        if not adam.decoupled:
            g = g + shrinks * theta
        m = adam.beta1 * m + (1 - adam.beta1) * g
        v = adam.beta2 * v + (1 - adam.beta2) * g**2
        m_hat = m / (1 - adam.beta1**t) if corrected else m
        v_hat = v / (1 - adam.beta2**t) if corrected else v
        if adam.decoupled:
            theta = theta - lr * shrinks * theta
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + adam.eps)
    return theta


def problem(n: int, steps: int = 50) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Parameters, gradients of very different sizes (some zero), and a rate for each step."""
    rng = np.random.default_rng(n)
    gradients = rng.standard_normal((steps, n)) * 10.0 ** rng.integers(-6, 4, n)
    gradients[:, rng.random(n) < 0.1] = 0.0
    return rng.standard_normal(n), gradients, [0.01 * (1 + math.sin(s)) for s in range(steps)]


def run(adam: Adam, theta: np.ndarray, gradients: np.ndarray, lrs: list[float], decayed: int | None) -> np.ndarray:
    theta = theta.copy()
    state = adam.init(theta)
    for g, lr in zip(gradients, lrs, strict=True):
        adam.step(state, theta, g, lr, decayed=decayed)
    assert state.steps == len(lrs)
    return theta


KINDS = [
    Adam(),
    Adam(weight_decay=0.1),
    Adam(weight_decay=0.1, decoupled=True),
    Adam(beta1=0.5, beta2=0.7, eps=1e-3, weight_decay=2.0, decoupled=True),
    Adam(beta1=0.0, beta2=0.99),
]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("adam", KINDS, ids=str)
def test_equals_the_published_recursion(adam: Adam, n: int) -> None:
    theta, gradients, lrs = problem(n)
    for decayed in {0, 1, n // 2, min(64, n), n}:
        found = run(adam, theta, gradients, lrs, decayed)
        right = published(theta, gradients, adam, lrs, decayed)
        np.testing.assert_allclose(found, right, rtol=0, atol=rounding_bound(np.float64, 4.0, 50))
    everything = run(adam, theta, gradients, lrs, None)
    np.testing.assert_array_equal(everything, run(adam, theta, gradients, lrs, n))


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_equals_the_published_recursion_at_the_real_block_size(offset: int) -> None:
    n = 2 * optim.BLOCK + offset
    theta, gradients, lrs = problem(n, steps=3)
    adam = Adam(weight_decay=0.1, decoupled=True)
    found = run(adam, theta, gradients, lrs, optim.BLOCK + 5)
    right = published(theta, gradients, adam, lrs, optim.BLOCK + 5)
    np.testing.assert_allclose(found, right, rtol=0, atol=rounding_bound(np.float64, 4.0, 3))


def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, gradients, lrs = problem(333)
    results = []
    for block in (1 << 15, 333, 64, 1):
        monkeypatch.setattr(optim, "BLOCK", block)
        results.append(run(KINDS[2], theta, gradients[:5], lrs[:5], 100))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_bias_correction_matters() -> None:
    """The recursion without its correction is far from it: the comparison above would find that mistake."""
    theta, gradients, lrs = problem(64)
    right = published(theta, gradients, Adam(), lrs, 0)
    assert np.abs(published(theta, gradients, Adam(), lrs, 0, corrected=False) - right).max() > 1e-2


@pytest.mark.parametrize("adam", [Adam(beta2=0.95), Adam(decoupled=True)], ids=str)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_the_first_step_has_the_size_of_the_rate(adam: Adam, size: float) -> None:
    """m^ / sqrt(v^) = sign of the gradient at the first step, whatever its scale."""
    g = size * np.array([1.0, -2.0, 0.5])
    theta = np.zeros(3)
    adam.step(adam.init(theta), theta, g, 0.01)
    np.testing.assert_allclose(theta, -0.01 * np.sign(g), rtol=3e-4)


@pytest.mark.parametrize("decoupled", [False, True])
def test_only_the_first_parameters_decay(decoupled: bool) -> None:
    theta, g = np.full(10, 2.0), np.zeros(10)
    adam = Adam(weight_decay=0.5, decoupled=decoupled)
    adam.step(adam.init(theta), theta, g, 0.1, decayed=4)
    expected = 2.0 * (1 - 0.1 * 0.5) if decoupled else 2.0 - 0.1  # in the gradient, decay is one more gradient
    np.testing.assert_allclose(theta[:4], expected, rtol=1e-7)
    np.testing.assert_array_equal(theta[4:], 2.0)


def test_decoupled_decay_is_not_scaled_by_the_gradients() -> None:
    """What AdamW is for: with decay in the gradient, parameters with large gradients hardly decay."""
    results = {}
    for decoupled in (False, True):
        adam, theta = Adam(weight_decay=0.1, decoupled=decoupled), np.ones(2)
        state = adam.init(theta)
        for step in range(100):
            adam.step(state, theta, np.array([1e3, 1e-3]) * (-1) ** step, 0.01)
        results[decoupled] = theta
    plain = [run(Adam(), np.ones(2), np.array([[1e3, 1e-3], [-1e3, -1e-3]] * 50), [0.01] * 100, 0)]
    shrunk = 1 - results[True] / plain[0]
    np.testing.assert_allclose(shrunk, 1 - (1 - 0.001) ** 100, rtol=0.1)
    assert abs(1 - results[False][0] / plain[0][0]) < 1e-3
    assert 1 - results[False][1] / plain[0][1] > 0.1


@pytest.mark.parametrize("adam", KINDS, ids=str)
def test_the_gradient_is_left_as_it_is(adam: Adam) -> None:
    theta, gradients, _ = problem(50)
    g = gradients[0]
    before = g.copy()
    g.flags.writeable = False
    adam.step(adam.init(theta), theta, g, 0.1)
    np.testing.assert_array_equal(g, before)


def test_float32_stays_float32_and_close_to_float64() -> None:
    theta, gradients, lrs = problem(100)
    right = run(KINDS[2], theta, gradients, lrs, 50)
    single = theta.astype(np.float32)
    state = KINDS[2].init(single)
    assert all(a.dtype == np.float32 for a in (state.first, state.second))
    for g, lr in zip(gradients.astype(np.float32), lrs, strict=True):
        KINDS[2].step(state, single, g, lr, decayed=50)
    assert single.dtype == state.first.dtype == state.second.dtype == np.float32
    np.testing.assert_allclose(single, right, rtol=0, atol=rounding_bound(np.float32, 1.0, 50))


def test_a_state_taken_over_goes_on_as_if_never_stopped() -> None:
    theta, gradients, lrs = problem(100, steps=10)
    adam, whole = KINDS[2], theta.copy()
    state = adam.init(whole)
    for s in range(10):
        if s == 4:
            state = AdamState(state.first.copy(), state.second.copy(), state.steps)
        adam.step(state, whole, gradients[s], lrs[s], decayed=50)
    np.testing.assert_array_equal(whole, run(adam, theta, gradients, lrs, 50))


# Losses that fall to a known value

OPTIMISERS = {"adam": Adam(), "adamw": Adam(weight_decay=0.01, decoupled=True)}
SCHEDULES = ["cosine", "linear", "constant"]


def descend(
    adam: Adam, schedule: Schedule, theta: np.ndarray, gradient: Callable[[], np.ndarray], decayed: int
) -> None:
    state = adam.init(theta)
    for step in range(schedule.steps):
        g = gradient()
        clip(g, 10.0)
        adam.step(state, theta, g, schedule(step), decayed=decayed)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_least_squares_falls_to_its_optimum(name: str, kind: str) -> None:
    """The minimum of |A x - b|^2 / n is known from the normal equations; every optimiser and schedule reaches it."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 8)), rng.standard_normal(60)
    best = np.linalg.lstsq(a, b)[0]
    theta = np.full(8, 3.0)
    schedule = Schedule(0.05, 1500, warmup=50, kind=kind, final=0.01)
    descend(OPTIMISERS[name], schedule, theta, lambda: 2 * a.T @ (a @ theta - b) / 60, decayed=0)

    def loss(x: np.ndarray) -> float:
        return float(np.mean((a @ x - b) ** 2))

    assert loss(np.full(8, 3.0)) > 10
    assert loss(theta) == pytest.approx(loss(best), abs=1e-6)
    np.testing.assert_allclose(theta, best, atol=1e-3)


def test_adamw_falls_to_the_optimum_of_the_loss_with_decay() -> None:
    """Where a gradient g is constant in sign, AdamW rests where lr = lr decay theta, that is theta = 1 / decay."""
    theta = np.zeros(3)
    adam = Adam(weight_decay=0.5, decoupled=True)
    descend(adam, Schedule(0.05, 800, kind="constant"), theta, lambda: np.array([-1.0, -7.0, 0.3]), decayed=3)
    np.testing.assert_allclose(theta, [2.0, 2.0, -2.0], rtol=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_network_of_two_layers_learns_exclusive_or(name: str, kind: str) -> None:
    """Mean squared error of parity of three bits: 0.25 for the best constant, below 0.001 when learned."""
    vector, net, layout = flatten(FeedForward.create(Key.of(1), 3, 16, activation="gelu", init="he"))
    bits = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float32) * 2 - 1
    wanted = np.zeros((8, 3), np.float32)
    wanted[:, 0] = bits.prod(1) > 0

    def loss(f: Any) -> Any:
        error = f(bits) - wanted
        return ops.sum(error * error) / 8

    def gradient() -> np.ndarray:
        return layout.gather(value_and_grad(loss)(net)[1], np.empty_like(vector))

    first = float(loss(net))
    descend(OPTIMISERS[name], Schedule(0.02, 400, warmup=20, kind=kind), vector, gradient, layout.decayed)
    assert first > 0.25
    assert float(loss(net)) < 0.001


def test_settings_are_fields_with_the_papers_defaults() -> None:
    assert dataclasses.asdict(Adam()) == {
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decoupled": False,
    }


@pytest.mark.parametrize("decoupled", [False, True])
def test_parts_among_threads_change_no_bit(decoupled: bool) -> None:
    size = 2 * PART + 12345
    rng = np.random.default_rng(1)
    gradient = rng.standard_normal(size).astype(np.float32)
    kind = Adam(weight_decay=0.1, decoupled=decoupled)
    whole, parts = (np.ones(size, np.float32) for _ in range(2))
    alone, shared = kind.init(whole), kind.init(parts)
    with Replicas(3, Layout((), (), (), 0, 0)) as replicas:
        for lr in (0.1, 0.01):
            kind.step(alone, whole, gradient, lr, decayed=PART + 7)
            kind.step(shared, parts, gradient, lr, decayed=PART + 7, each=replicas.each)
    assert alone.steps == shared.steps == 2
    for one, other in ((whole, parts), (alone.first, shared.first), (alone.second, shared.second)):
        np.testing.assert_array_equal(one, other)
