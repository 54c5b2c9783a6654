"""Adam and AdamW on the device against `Adam` in optim.py, over several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, UNIT, close, normal, same_bits

from minilong.backend.kernels.adamw import adamw
from minilong.backend.kernels.norm import Control
from minilong.optim import Adam

MUTANTS = [
    ("g = times(g, r.factor);", ""),
    ("times(r.decay, e.theta)", "r.decay"),
    ("e.theta = times(e.theta, r.shrink);", ""),
    ("g = plus(g, times(r.decay, e.theta));", ""),
    ("plus(sqrt(times(e.v, r.inverse2)), r.eps)", "sqrt(plus(times(e.v, r.inverse2), r.eps))"),
    ("sqrt(times(e.v, r.inverse2))", "sqrt(e.v)"),
    ("times(times(g, g), r.rest2)", "times(g, r.rest2)"),
    ("times(e.m, r.beta1)", "times(e.m, r.beta2)"),
    ("times(e.v, r.beta2)", "times(e.v, r.beta1)"),
    ("(acc_t)(lr / correction1)", "(acc_t)lr"),
    ("i + k < decayed", "i + k <= decayed"),
    ("if (control[BAD] != 0) return;", ""),
    ("i < n; i += stride) update<1>", "i < n - 1; i += stride) update<1>"),
    ("i < vectors; i += stride) update<WIDTH>", "i < vectors - 1; i += stride) update<WIDTH>"),
    ("update<WIDTH>(r, i * WIDTH", "update<WIDTH>(r, i"),
    ("store_vector<W>(m + i, c);", ""),
    ("store_vector<W>(v + i, d);", ""),
    ("bool whole = aligned(theta)", "bool whole = true || aligned(theta)"),
    ("low.x[k] = store<rounded_t>(e.theta)", "low.x[k] = store<rounded_t>(a.x[0])"),
    ("n & 1) y *= x", "n & 1) y = x"),
    ("decoupled ? 1 - lr * weight_decay : 1", "1 - lr * weight_decay"),
    ("decoupled ? 0 : weight_decay", "weight_decay"),
]


def control_of(xp: Any, taken: int, factor: float = 1.0, bad: float = 0.0) -> Any:
    """A control as the norm's kernel would leave it."""
    return xp.asarray(np.array(Control(1.0, factor, bad, 0.0, taken, 0.0, 0.0, 0.0)))


def check(xp: Any) -> None:
    """Parameters and moments after each of four steps, with and without decay of either kind."""
    for n, dtype, half, decay in (
        (1, FLOAT32, None, {}),
        (7, FLOAT64, FLOAT16, {"weight_decay": 0.1}),
        (1000, FLOAT32, BFLOAT16, {"weight_decay": 0.1, "decoupled": True}),
        (4099, FLOAT32, FLOAT16, {"weight_decay": 0.3}),
        (2050, FLOAT64, BFLOAT16, {"weight_decay": 0.3, "decoupled": True}),
        (0, FLOAT32, FLOAT16, {}),
    ):
        several_steps(xp, n, dtype, half, Adam(beta1=0.8, beta2=0.95, eps=1e-3, **decay))
    several_steps(xp, 1003, FLOAT32, FLOAT16, Adam(weight_decay=0.1, eps=1e-3, decoupled=True), start=1)
    left_out(xp)


def several_steps(xp: Any, n: int, dtype: Any, half: Any, optimizer: Adam, start: int = 0) -> None:
    """Four steps, of which `decayed` parameters decay, on vectors that begin `start` elements into their memory."""
    theta, factor = normal(n, n, dtype), 0.37
    state = optimizer.init(theta)
    decayed = n // 2 + 1
    vectors = [xp.asarray(np.concatenate([np.zeros(start, dtype), x]))[start:] for x in (theta, *[0 * theta] * 2)]
    low = None if half is None else xp.zeros(n, half)
    for step in range(1, 5):
        gradient = normal(100 * step + n, n, dtype)
        lr = 0.05 / step
        optimizer.step(state, theta, gradient * dtype.type(factor), lr, decayed=decayed)
        adamw(
            xp,
            vectors[0],
            xp.asarray(gradient),
            *vectors[1:],
            control_of(xp, step, factor),
            lr=lr,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            decayed=decayed,
            decoupled=optimizer.decoupled,
            half=low,
        )
        for got, exact in zip(vectors, (theta, state.first, state.second), strict=True):
            # The same roundings but of the bias corrections, whose powers are not those of the C library: in float64
            # their last bits show, the more as 1 - beta^t is small.
            bound = (64 if dtype == FLOAT64 else 4) * UNIT[dtype] * (1e-3 + np.abs(exact))
            close(xp, got, exact.astype(np.float64), dtype, bound)
        if low is not None:
            same_bits(xp, low, xp.asnumpy(vectors[0]).astype(half))


def left_out(xp: Any) -> None:
    """A bad step writes nothing."""
    vectors = [xp.asarray(normal(i, 1000)) for i in range(4)]
    low = xp.zeros(1000, FLOAT16)
    rates: dict[str, Any] = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
    adamw(xp, *vectors, control_of(xp, 1, bad=1.0), **rates, decayed=9, decoupled=True, half=low)
    for i, vector in enumerate(vectors):
        same_bits(xp, vector, normal(i, 1000))
    same_bits(xp, low, np.zeros(1000, np.float16))
