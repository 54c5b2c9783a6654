"""Activations in blocks: the same bits whatever the block, and single precision beside double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.autodiff import activations, gelu, gelu_tanh, silu, vjp

KERNELS = [gelu, gelu_tanh, silu]
SIZES = [0, 1, 63, 64, 65, 127, 128, 129, 1000]
"""Around blocks of 64: none, one that just fits, a rest."""


def value_and_slope(f: Any, x: np.ndarray) -> list[np.ndarray]:
    """f(x) and f'(x)."""
    y, pull = vjp(f, x)
    return [np.asarray(y), pull(np.ones_like(x))[0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("f", KERNELS, ids=lambda f: f.name)
def test_blocks_change_no_bit(f: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in SIZES:
        x = (3 * np.random.default_rng(size).standard_normal(size)).astype(dtype)
        whole = value_and_slope(f, x)
        for block in (1, 7, 63, 64, 65, 128, 10_000):
            monkeypatch.setattr(activations, "BLOCK", block)
            for found, right in zip(value_and_slope(f, x), whole, strict=True):
                np.testing.assert_array_equal(found, right, f"{size} elements in blocks of {block}")


def test_the_blocks_are_as_large_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def compute(x: np.ndarray, y: np.ndarray, slope: np.ndarray, scratch: np.ndarray) -> None:
        assert x.size == y.size == slope.size == scratch.size
        sizes.append(x.size)
        y[:], slope[:], scratch[:] = x, 1, np.nan

    monkeypatch.setattr(activations, "BLOCK", 64)
    x = np.arange(130.0).reshape(13, 10)
    y, slope = activations.in_blocks(np, compute, x.T)  # memory in another order
    assert sizes == [64, 64, 2]
    np.testing.assert_array_equal(y, x.T)
    np.testing.assert_array_equal(slope, np.ones((10, 13)))


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 3, 5)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    for f in KERNELS:
        y, slope = value_and_slope(f, x)
        assert y.shape == slope.shape == shape


@pytest.mark.parametrize("f", KERNELS, ids=lambda f: f.name)
def test_single_precision_is_near_to_double_everywhere(f: Any) -> None:
    x = np.linspace(-40, 40, 20_001).astype(np.float32)
    single, double = value_and_slope(f, x), value_and_slope(f, x.astype(np.float64))
    assert all(a.dtype == np.float32 for a in single)
    assert np.all(np.abs(single[0] - double[0]) <= 3e-7 * (0.1 + np.abs(x)))
    assert np.abs(single[1] - double[1]).max() < 3e-6  # near 5 a unit of 1 - tanh(u) is taken x du/dx times, 33
