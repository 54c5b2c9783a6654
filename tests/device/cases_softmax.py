"""Softmax and its logarithm on the device against the primitives in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from row_arrays import BUILDS, exactly, narrow_blocks, near, normals, to_device

from minilong.autodiff import fused
from minilong.backend.kernels.softmax import log_softmax, log_softmax_vjp, softmax, softmax_vjp

MUTANTS = [
    ("read<PACKS>(x, n, 0, -INFINITE, v);", "read<PACKS>(x, n, 0, 0, v);"),
    ("read<1>(x, n, p, -INFINITE, w);", "read<1>(x, n, p, 0, w);"),
    ("if (above == -INFINITE) return;", ""),
    ("total *= exponential(top - above);", ""),
    ("team_sum(total * exponential(top - above))", "team_sum(total)"),
    ("acc_t above = team_max(top);", "acc_t above = top;"),
    ("include<LANES>(w, top, total);", ""),
    ("if (LOGARITHM) total = logarithm(total);", ""),
    ("(x - top) - total", "x - total"),
    ("write<PACKS>(y, n, 0, v);", ""),
    ("write<1>(y, n, p, w);", ""),
    ("sum += LOGARITHM ? gs[k] : gs[k] * ys[k]", "sum += gs[k] * ys[k]"),
    ("sum += LOGARITHM ? a[k] : a[k] * b[k]", "sum += a[k]"),
    ("sum = team_sum(sum);", ""),
    ("ys[k] * (gs[k] - sum)", "ys[k] * gs[k] - sum"),
    ("gs[k] - exponential(ys[k]) * sum", "gs[k] - ys[k] * sum"),
    ("b[k] * (a[k] - sum)", "b[k] * a[k] - sum"),
    ("a[k] - exponential(b[k]) * sum", "a[k] - b[k] * sum"),
    ("write<1>(gx, n, p, a);", ""),
    ("(i64)blockIdx.x * blockDim.y + threadIdx.y", "(i64)blockIdx.x * blockDim.y"),
    ("(pack * LANES + lane) * blockDim.x + threadIdx.x", "(pack * LANES + lane) * 32 + threadIdx.x"),
]


def check(xp: Any) -> None:
    """Values and cotangents, of rows that a block can keep and longer ones; hidden elements (-inf) as well."""
    with narrow_blocks():
        for dtype, shape in BUILDS:
            x, g = normals(shape[-1], dtype, shape, shape)
            compare(xp, np.sort(x * dtype.type(3)), g)
            hide(xp, x, g)


def compare(xp: Any, x: np.ndarray, g: np.ndarray) -> None:
    """Softmax, its logarithm and both rules, for finite x and the cotangent g."""
    y = probabilities(xp, x, g)
    exact = fused.log_softmax(exactly(x))
    far = np.abs(exactly(x) - exactly(x).max(-1, keepdims=True))
    near(xp, log_softmax(xp, xp.asarray(x)), exact, x.dtype, 1 + far)
    (want,) = fused.log_softmax_vjp(exactly(g), exactly(y))  # of any array: y need not be a logarithm of probabilities
    grown = np.exp(exactly(y)) * np.abs(exactly(g)).sum(-1, keepdims=True)
    near(xp, log_softmax_vjp(xp, *to_device(xp, g, y)), want, x.dtype, np.abs(exactly(g)) + grown)


def probabilities(xp: Any, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Softmax, as the device computes it; checked with its rule."""
    exact = fused.softmax(exactly(x))
    y = softmax(xp, xp.asarray(x))
    near(xp, y, exact, x.dtype, exact, 32)
    host: np.ndarray = xp.asnumpy(y)
    p = exactly(host)
    (want,) = fused.softmax_vjp(exactly(g), p)
    size = p * (np.abs(exactly(g)) + (p * np.abs(exactly(g))).sum(-1, keepdims=True))
    near(xp, softmax_vjp(xp, xp.asarray(g), y), want, x.dtype, size)
    return host


def hide(xp: Any, x: np.ndarray, g: np.ndarray) -> None:
    """-inf gives 0 exactly, and no NaN where all that a thread sees at first is hidden; a row of -inf gives NaN."""
    n = x.shape[-1]
    x = x.copy()
    x[..., : n - n // 4 - 1] = -np.inf
    x[..., -1] = 2
    y = probabilities(xp, x, g)
    assert not y[..., : n - n // 4 - 1].any()
    shown = log_softmax(xp, xp.asarray(x))
    assert np.all(xp.asnumpy(shown[..., : n - n // 4 - 1]) == -np.inf)
    x[0] = -np.inf
    assert np.all(np.isnan(xp.asnumpy(softmax(xp, xp.asarray(x)))[0]))
