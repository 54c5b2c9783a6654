"""Clipping by the global norm, and learning rates by step."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.autodiff.numeric import rounding_bound
from minilong.optim import Schedule, clip

KINDS = ["cosine", "linear", "constant"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(-6, 6), st.floats(1e-3, 1e3))
def test_clip_bounds_the_norm_and_keeps_the_direction(seed: int, n: int, exponent: int, limit: float) -> None:
    g = np.random.default_rng(seed).standard_normal(n) * 10.0**exponent
    before = g.copy()
    norm = float(np.sqrt(np.sum(before**2)))
    assert clip(g, limit) == pytest.approx(norm, rel=1e-12)
    after = float(np.linalg.norm(g))
    assert after == pytest.approx(min(norm, limit), rel=rounding_bound(np.float64, 1.0, n))
    np.testing.assert_allclose(g * norm, before * after, rtol=1e-12)
    if norm <= limit:
        np.testing.assert_array_equal(g, before)


def test_zero_switches_clipping_off_and_zero_gradients_stay() -> None:
    g = np.array([3e8, 4e8], np.float32)
    assert clip(g, 0.0) == pytest.approx(5e8)
    np.testing.assert_array_equal(g, np.array([3e8, 4e8], np.float32))
    zero = np.zeros(5)
    assert clip(zero, 1.0) == 0.0
    np.testing.assert_array_equal(zero, 0)


def test_clip_in_float32() -> None:
    g = np.full(10_000, 3.0, np.float32)
    assert clip(g, 1.0) == pytest.approx(300.0)
    assert g.dtype == np.float32
    assert np.linalg.norm(g.astype(np.float64)) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e25])  # the last one's square overflows
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_a_gradient_that_diverged_is_told_and_not_hidden(bad: float, limit: float) -> None:
    """The norm is not finite, so that the caller stops; the gradient is not made to look like a small one."""
    g = np.array([1.0, bad, -2.0], np.float32)
    assert not math.isfinite(clip(g, limit))
    np.testing.assert_array_equal(g, np.array([1.0, bad, -2.0], np.float32))


def test_a_small_gradient_is_never_enlarged() -> None:
    g = np.full(4, 1e-9)
    clip(g, 1.0)
    np.testing.assert_array_equal(g, 1e-9)


@given(
    st.sampled_from(KINDS),
    st.floats(1e-6, 10),
    st.integers(0, 50),
    st.integers(2, 300),
    st.floats(0, 1),
)
def test_warm_up_then_down_to_the_final_rate(kind: str, lr: float, warmup: int, after: int, final: float) -> None:
    """Linear warm-up from lr/warmup to lr, no jump at its end, never up again, lr * final at the last step."""
    steps = warmup + after
    schedule = Schedule(lr, steps, warmup, kind, final)
    rates = [schedule(s) for s in range(steps + 3)]
    for s in range(warmup):
        assert rates[s] == pytest.approx(lr * (s + 1) / warmup)
    assert rates[warmup] == pytest.approx(lr)
    end = lr if kind == "constant" else lr * final
    assert rates[steps - 1 :] == pytest.approx([end] * 4, abs=1e-12 * lr)
    falling = rates[warmup:]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(falling))
    steepest = {"cosine": math.pi / 2, "linear": 1.0, "constant": 0.0}[kind] * lr * (1 - final) / (after - 1)
    jumps = [a - b for a, b in pairwise(falling)]
    assert max(jumps) <= steepest * (1 + 1e-9) + 1e-12 * lr


def test_rates_by_hand() -> None:
    cosine = Schedule(1.0, 11, kind="cosine", final=0.0)
    assert [cosine(s) for s in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert cosine(2) == pytest.approx((1 + math.cos(0.2 * math.pi)) / 2)
    linear = Schedule(2.0, 14, warmup=3, kind="linear", final=0.1)
    assert [linear(s) for s in (0, 1, 2, 3, 8, 13, 99)] == pytest.approx([2 / 3, 4 / 3, 2, 2, 1.1, 0.2, 0.2])
    assert [Schedule(3.0, 5, warmup=2, kind="constant")(s) for s in range(6)] == pytest.approx([1.5, 3, 3, 3, 3, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_short_runs(kind: str) -> None:
    """One step, and a warm-up as long as the run or longer: positive, finite, at most lr."""
    for steps, warmup in ((1, 0), (1, 1), (3, 3), (3, 10)):
        rates = [Schedule(0.5, steps, warmup, kind)(s) for s in range(steps)]
        assert all(0 < r <= 0.5 for r in rates)
    assert Schedule(0.5, 1, 0, kind)(0) == 0.5
