"""What a derivative keeps alive: the figures of the node graph, and no growth without the collector."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import Tensor, checkpoint, grad, ops, softmax, vjp
from minilong.autodiff.core import Node

N = 32_768
BYTES = 8 * N


@contextmanager
def no_collector() -> Iterator[None]:
    """Reference counts alone must free everything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def peak_arrays(run: Callable[[], Any]) -> float:
    """Most memory that `run` had at any moment, in arrays of N doubles."""
    with no_collector():
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            run()
            return (tracemalloc.get_traced_memory()[1] - before) / BYTES
        finally:
            tracemalloc.stop()


def layers(x: Any, a: Any, b: Any, *, step: Callable[..., Any], n: int = 40) -> Any:
    for _ in range(n):
        x = step(x, a, b)
    return ops.sum(x)


def step(x: Any, a: Any, b: Any) -> Any:
    return ops.tanh(x * a + b)


def test_a_chain_of_120_arrays_keeps_what_its_rules_name() -> None:
    xs = [np.random.default_rng(i).uniform(-1, 1, N) for i in range(3)]
    peak = peak_arrays(lambda: grad(lambda xs: layers(*xs, step=step))(xs))
    assert peak <= 50, f"{peak:.1f} arrays alive at the peak"
    # 40 outputs of tanh, which are the next product's inputs as well, are needed: less would mean a wrong count.
    assert peak >= 40


def test_checkpoints_keep_fewer() -> None:
    xs = [np.random.default_rng(i).uniform(-1, 1, N) for i in range(3)]

    def eight(x: Any, a: Any, b: Any) -> Any:
        for _ in range(8):
            x = step(x, a, b)
        return x

    peak = peak_arrays(lambda: grad(lambda xs: layers(*xs, step=checkpoint(eight), n=5))(xs))
    assert peak <= 24, f"{peak:.1f} arrays alive at the peak"


def test_fan_out_costs_one_array() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, N)

    def f(x: Any) -> Any:
        y = ops.tanh(x)
        total = ops.sum(y)
        for i in range(63):
            total = total + ops.sum(y * float(i))
        return total

    peak = peak_arrays(lambda: grad(f)(x))
    assert peak <= 6, f"{peak:.1f} arrays alive at the peak of a 64-fold fan-out"


def test_inference_keeps_nothing() -> None:
    xs = [np.random.default_rng(i).uniform(-1, 1, N) for i in range(3)]
    assert peak_arrays(lambda: layers(*xs, step=step)) <= 4


@pytest.mark.parametrize("order", [1, 2])
def test_no_growth_over_50_steps_without_the_collector(order: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, N)

    def loss(x: Any) -> Any:
        return ops.sum(checkpoint(lambda x: softmax(x) * x)(ops.tanh(x)))

    f = grad(loss) if order == 1 else grad(lambda x: ops.sum(grad(loss)(x) * x))
    with no_collector():
        tracemalloc.start()
        try:
            f(x)
            before, nodes = tracemalloc.get_traced_memory()[0], live_nodes()
            for _ in range(50):
                f(x)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        # One array more would show; NumPy's own cache of shapes (some kilobytes, bounded) does not.
        assert grown < BYTES, f"{grown} bytes more after 50 steps"
        assert live_nodes() == nodes


def live_nodes() -> int:
    """Nodes and tensors that exist anywhere in the process."""
    return sum(type(x) in (Node, Tensor) for x in gc.get_objects())


def test_a_graph_dies_with_its_pullback() -> None:
    """No cycle keeps residuals alive when a derivative is abandoned half-way."""
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = ops.tanh(x)
        seen.append(weakref.ref(y.data))
        return ops.sum(y)

    with no_collector():
        value, pull = vjp(f, np.ones(3))
        assert seen[0]() is not None
        del value, pull
        assert seen[0]() is None


def test_saved_arrays_are_freed_as_the_sweep_passes() -> None:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = ops.tanh(x)
        seen.append(weakref.ref(y.data))
        return ops.sum(y)

    with no_collector():
        _, pull = vjp(f, np.ones(3))
        pull(np.ones(()))
        assert seen[0]() is None
