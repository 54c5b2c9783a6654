"""The cost of the engine itself: microseconds per operation, forward and backward, on arrays too small to matter.

    python bench/engine.py

A chain of 500 times `tanh(x * a + b)`, that is 1,501 operations on eight doubles, differentiated in x, a and b. The
figure is the best of many runs, which is what the program costs when nothing else runs on the machine.
"""

from __future__ import annotations

import platform
from time import perf_counter
from typing import Any

import numpy as np

from minilong.autodiff import grad, ops

STEPS, RUNS = 500, 60
LIMIT = 6.0
"""Microseconds per operation, forward and backward, that the engine may cost."""


def chain(xs: Any) -> Any:
    """sum of x after STEPS times x <- tanh(x a + b)."""
    x, a, b = xs
    for _ in range(STEPS):
        x = ops.tanh(x * a + b)
    return ops.sum(x)


def microseconds_per_operation(runs: int = RUNS) -> float:
    """The best of the runs, forward and backward, divided by the number of operations."""
    xs = tuple(np.random.default_rng(i).uniform(-1, 1, 8) for i in range(3))
    differentiate = grad(chain)
    best = float("inf")
    for _ in range(runs):
        start = perf_counter()
        differentiate(xs)
        best = min(best, perf_counter() - start)
    return best * 1e6 / (3 * STEPS + 1)


if __name__ == "__main__":
    figure = microseconds_per_operation()
    print(f"{figure:.2f} microseconds per operation, forward and backward (limit {LIMIT:.1f})")
    print(f"best of {RUNS} runs; NumPy {np.__version__}, Python {platform.python_version()}, {platform.machine()}")
