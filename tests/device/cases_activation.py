"""Activations on the device against the primitives in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
from row_arrays import exactly, near, normals, to_device
from step_arrays import BFLOAT16, FLOAT32

from minilong.autodiff import gelu, gelu_tanh, ops, silu, vjp
from minilong.backend.kernels import activation
from minilong.backend.kernels.activation import activate, activate_vjp, swiglu, swiglu_vjp

PLAIN: dict[str, Callable[[Any], Any]] = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu, "relu": ops.relu}

MUTANTS = [
    ("(acc_t)0.70710678118654752440", "(acc_t)0.7071"),
    ("(acc_t)0.79788456080286535588", "(acc_t)0.7979"),
    ("return x * phi(x);", "return phi(x);"),
    ("exponential((acc_t)-0.5 * x * x)", "exponential((acc_t)0.5 * x)"),
    ("((acc_t)0.5 * SQRT_TWO_OVER_PI)", "SQRT_TWO_OVER_PI"),
    ("(acc_t)0.044715", "(acc_t)0.0447"),
    ("SQRT_TWO_OVER_PI + 3 * s", "SQRT_TWO_OVER_PI + s"),
    ("3 * s) * (1 - h)", "3 * s) * h"),
    ("exponential(-x)", "exponential(x)"),
    ("s * (1 + x * (1 - s))", "s * (1 + x)"),
    ("x <= 0 ? 0 : x", "x > 0 ? x : 0"),
    ("x > 0 ? 1 : 0", "x >= 0 ? 1 : 0"),
    ("packs = n / LANES;", "packs = 0;\n  n = n / LANES * LANES;"),
    ("packs = n / LANES;", "packs = n / LANES - 1;\n  n -= LANES;"),
    ("pack < packs; pack += threads", "pack < packs; pack += threads + 1"),
    ("at < n; at += threads", "at < n; at += threads + 1"),
    ("x[i] = read[i][k];", "x[i] = read[0][k];"),
    ("made[i][k] = y[i];", "made[i][k] = y[0];"),
    ("write_wide(out[i] + pack * LANES, made[i]);", "write_wide(out[0] + pack * LANES, made[i]);"),
    ("Silu::value(in[0]) * in[1]", "Silu::value(in[1]) * in[0]"),
    ("in[0] * in[2] * Silu::slope(in[1])", "in[0] * in[1] * Silu::slope(in[2])"),
    ("out[1] = in[0] * Silu::value(in[1]);", "out[1] = Silu::value(in[1]);"),
]


def check(xp: Any) -> None:
    """Every function and its rule, on vectors with and without a rest, aligned and not; and the ends of the range."""
    with patch.object(activation, "MOST_BLOCKS", 1):  # threads take several turns
        for dtype, shape in ((FLOAT32, (3, 1001)), (BFLOAT16, (2, 2, 516))):
            x, g, up = normals(shape[-1], dtype, shape, shape, shape)
            for kind in PLAIN:
                compare(xp, kind, x * dtype.type(2), g)
                compare(xp, kind, extremes(dtype), np.ones(9, dtype))
            gated(xp, g, x, up)
        (flat,) = normals(0, FLOAT32, (1501,))
        unaligned = xp.asarray(flat)[1:]
        near(xp, activate(xp, "relu", unaligned), np.maximum(exactly(flat[1:]), 0), FLOAT32, 0)
    assert all(np.isnan(xp.asnumpy(activate(xp, kind, xp.asarray(np.array([np.nan], np.float32))))) for kind in PLAIN)


def extremes(dtype: Any) -> np.ndarray:
    """Zero, and numbers at which some exponential overflows or underflows."""
    return np.array([0, -0.0, 1e-3, -30, 30, -100, 100, -1e4, 1e4]).astype(dtype)


def compare(xp: Any, kind: str, x: np.ndarray, g: np.ndarray) -> None:
    """One function and its rule."""
    want, pull = vjp(PLAIN[kind], exactly(x))
    (for_x,) = pull(exactly(g))
    near(xp, activate(xp, kind, xp.asarray(x)), want, x.dtype, np.abs(exactly(x)))
    size = np.abs(exactly(g)) * (1 + np.abs(exactly(x)))
    near(xp, activate_vjp(xp, kind, *to_device(xp, g, x)), for_x, x.dtype, size)


def gated(xp: Any, g: np.ndarray, gate: np.ndarray, up: np.ndarray) -> None:
    """The product of a gated network and its rule."""
    want, pull = vjp(lambda gate, up: silu(gate) * up, exactly(gate), exactly(up))
    for_gate, for_up = pull(exactly(g))
    near(xp, swiglu(xp, *to_device(xp, gate, up)), want, gate.dtype, np.abs(exactly(gate) * exactly(up)))
    got_gate, got_up = swiglu_vjp(xp, *to_device(xp, g, gate, up))
    near(xp, got_gate, for_gate, gate.dtype, np.abs(exactly(g) * exactly(up)) * (1 + np.abs(exactly(gate))))
    near(xp, got_up, for_up, gate.dtype, np.abs(exactly(g) * exactly(gate)))
