"""Ways to run a stack: equal values and gradients of the plain ones, and memory as the names say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peak_memory import peak

from minilong.autodiff import grad, ops, vjp
from minilong.autodiff.tree import leaves
from minilong.nn.depth import DEPTHS, PLAIN, chain, run, run_checkpointed, run_stored
from minilong.nn.fixed_point import store_words
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


def growth(how: str, shallow: int, deep: int) -> float:
    """Bytes per element of x by which the peak of the derivative grows between two depths, with tied weights."""
    weights, x = problem(1, t=2048, width=16)

    def at(depth: int) -> int:
        return peak(lambda: grad(lambda w, x: ops.sum(run(how, [(branch, w)] * depth, x)))(weights[0], x))

    return (at(deep) - at(shallow)) / x.size


def test_memory_grows_with_depth_as_each_way_promises() -> None:
    """Bytes per element and branch, from 16 to 64 branches: all that the rules keep, one input, or next to nothing.

    What whole models need is predicted by the ledger, and measured in its tests.
    """
    per_branch = {how: growth(how, 16, 64) / 48 for how in DEPTHS}
    assert abs(per_branch["stored"] - 4 * 7.0) < 0.15 * 4 * 7.0  # six tanh, and x, which the products share
    assert abs(per_branch["checkpoint"] - 4.0) < 0.6
    assert per_branch["sqrt"] < 1.0
    assert per_branch["reversible"] < 0.1
    words = store_words(64, 0.9) - store_words(16, 0.9)
    assert abs(per_branch["momentum"] - 8 * words / 48) < 0.1
