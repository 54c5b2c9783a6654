"""Ways to run a stack: equal values and gradients of the plain ones, and memory as the names say."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minilong.autodiff import grad, ops, vjp
from minilong.autodiff.tree import leaves
from minilong.nn.depth import DEPTHS, PLAIN, chain, kept_bytes, run, run_checkpointed, run_stored
from minilong.nn.reversible import run_momentum, run_reversible


def branch(w: Any, x: Any) -> Any:
    """A branch whose rules keep several arrays of the size of x."""
    h = ops.tanh(x @ w)
    for _ in range(5):
        h = ops.tanh(h * x)
    return h * 0.1


def problem(depth: int, t: int = 5, width: int = 4) -> tuple[Any, Any]:
    rng = np.random.default_rng(depth)
    weights = [rng.standard_normal((width, width)).astype(np.float32) / width for _ in range(depth)]
    return weights, rng.standard_normal((t, width)).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("per_layer", [1, 2, 3])
def test_plain_ways_agree_in_every_bit(depth: int, per_layer: int) -> None:
    weights, x = problem(depth)
    g = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    def at(how: str) -> list[Any]:
        stack = lambda ws, x: run(how, [(branch, w) for w in ws], x, per_layer=per_layer)  # noqa: E731
        value, pull = vjp(stack, weights, x)
        assert np.array_equal(value, stack(weights, x))
        return [value, *leaves(pull(g))]

    stored = at("stored")
    for how in ("checkpoint", "sqrt"):
        for a, e in zip(at(how), stored, strict=True):
            assert np.array_equal(a, e)


def test_names_and_functions_are_the_same() -> None:
    weights, x = problem(9)
    stack = [(branch, w) for w in weights]
    assert np.array_equal(run("reversible", stack, x), run_reversible(stack, x))
    assert np.array_equal(run("momentum", stack, x, momentum=0.5), run_momentum(stack, x, gamma=0.5))
    assert np.array_equal(run_stored(stack, x), run("stored", stack, x))
    assert np.array_equal(run_checkpointed(stack, x, every=4), run_stored(stack, x))
    assert np.array_equal(run_checkpointed(stack, x, every="sqrt"), run_stored(stack, x))
    assert len({run(how, stack, x).tobytes() for how in DEPTHS}) == 3


def test_steps_need_not_be_residual() -> None:
    weights, x = problem(6)
    steps = [(lambda w, x, shift: ops.tanh(x @ w) + shift, w) for w in weights]
    for how in PLAIN:
        of_shift = grad(lambda shift, how=how: ops.sum(chain(how, steps, x, shift)))(np.ones(4, np.float32))
        assert np.all(of_shift != 0)
        assert np.array_equal(chain(how, steps, x, 1.0), chain("stored", steps, x, 1.0))


def test_unknown_ways_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'momentum'"):
        run("momentun", [], np.ones(3))
    with pytest.raises(ValueError, match="none of stored, checkpoint, sqrt for steps"):
        chain("momentum", [], np.ones(3))
    with pytest.raises(ValueError, match="every=0"):
        run_checkpointed([], np.ones(3), every=0)
    with pytest.raises(ValueError, match="none of"):
        kept_bytes("storde", 3)


def peak(run_it: Callable[[], Any]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with threadpool_limits(1):
            run_it()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def growth(how: str, shallow: int, deep: int) -> float:
    """Bytes per element of x by which the peak of the derivative grows between two depths, with tied weights."""
    weights, x = problem(1, t=2048, width=16)

    def at(depth: int) -> int:
        return peak(lambda: grad(lambda w, x: ops.sum(run(how, [(branch, w)] * depth, x)))(weights[0], x))

    return (at(deep) - at(shallow)) / x.size


def test_memory_grows_as_predicted() -> None:
    """Between 16 and 64 branches, by what `kept_bytes` says, within 15% (or a byte where nothing grows)."""
    inner = 4 * 7.0  # the results of six tanh, and x, which the products share
    for how in DEPTHS:
        predicted = kept_bytes(how, 64, inner=inner) - kept_bytes(how, 16, inner=inner)
        found = growth(how, 16, 64)
        assert abs(found - predicted) <= max(0.15 * predicted, 1.0), f"{how}: {found} for {predicted}"


def test_the_order_of_needs() -> None:
    needs = [kept_bytes(how, 512, inner=80.0) for how in ("stored", "checkpoint", "sqrt", "momentum", "reversible")]
    assert needs == sorted(needs, reverse=True)
    assert kept_bytes("sqrt", 400) == (20 + 20) * 4
    assert kept_bytes("checkpoint", 7, per_layer=2) == math.ceil(3.5) * 4
