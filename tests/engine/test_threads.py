"""Threads differentiate at once, nested too: nothing is shared but the context variable, which each has its own of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

from minilong.autodiff import checkpoint, grad, ops, softmax, vjp

THREADS = 8


def work(i: int) -> list[Any]:
    """Derivatives of first and second order of functions that differ between the threads."""
    x = np.linspace(-1, 1, 7) + i / 10

    def f(x: Any) -> Any:
        for _ in range(i + 1):
            x = softmax(x * float(i + 1)) * x + ops.tanh(x)
        return ops.sum(x)

    results = []
    for _ in range(20):
        results.append(grad(f)(x))
        results.append(grad(lambda x: ops.sum(grad(checkpoint(f))(x) * x))(x))
        results.append(vjp(lambda x: x * grad(lambda y: ops.sum(x + y))(x), x)[1](x)[0])
    return results


def test_many_threads_give_the_results_of_one() -> None:
    expected = [work(i) for i in range(THREADS)]
    barrier = Barrier(THREADS)

    def together(i: int) -> list[Any]:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(THREADS) as pool:
        for found, right in zip(pool.map(together, range(THREADS)), expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_a_thread_started_inside_a_derivative_has_its_own_levels() -> None:
    def inner() -> Any:
        levels = []
        vjp(lambda y: levels.append(y.level) or y, np.ones(1))
        return levels[0]

    def outer(x: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(inner).result() == 1
        assert inner() == 2
        return x

    vjp(outer, np.ones(1))
