"""The engine against a naive graph: Hypothesis writes programs, and every value of them is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import naive_graph
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from naive_graph import Naive

from minilong.audit.primitives.cases import assert_equal_to_rounding
from minilong.autodiff import checkpoint, ops, stop_gradient, vjp

# name -> (number of inputs, on tensors, on naive nodes). Each is written twice, independently.
STEPS: dict[str, tuple[int, Callable[..., Any], Callable[..., Any]]] = {
    "add": (2, lambda a, b: a + b, naive_graph.add),
    "sub": (2, lambda a, b: a - b, naive_graph.sub),
    "mul": (2, lambda a, b: a * b, naive_graph.mul),
    "tanh": (1, ops.tanh, naive_graph.tanh),
    "total": (1, ops.sum, naive_graph.total),
    "third": (1, lambda x: x / 3, naive_graph.third),
    "square": (1, lambda x: x * x, lambda x: naive_graph.mul(x, x)),
    "twice": (1, lambda x: x + x, lambda x: naive_graph.add(x, x)),
    "plus constant": (1, lambda x: np.array([0.5, -0.5, 0.25]) + x, lambda x: naive_graph.add(Naive(CONSTANT), x)),
    "stopped": (1, stop_gradient, lambda x: Naive(x.value)),
    "checkpointed": (
        2,
        checkpoint(lambda a, b: ops.tanh(a * b) + a),
        lambda a, b: naive_graph.add(naive_graph.tanh(naive_graph.mul(a, b)), a),
    ),
    "checkpointed twice": (
        1,
        checkpoint(lambda a: checkpoint(ops.tanh)(a + a)),
        lambda a: naive_graph.tanh(naive_graph.add(a, a)),
    ),
}
CONSTANT = np.array([0.5, -0.5, 0.25])
PATHS = 2000
"""The naive graph walks every path; a longer program would take for ever."""


class GraphMachine(RuleBasedStateMachine):
    """Grows a program step by step; `differentiate` compares all input cotangents of one of its values."""

    @initialize(seed=st.integers(0, 2**32 - 1), vectors=st.lists(st.booleans(), min_size=1, max_size=4))
    def start(self, seed: int, vectors: list[bool]) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = [self.rng.uniform(-1, 1, (3,) if vector else ()) for vector in vectors]
        self.naive = [Naive(x) for x in self.inputs]
        self.program: list[tuple[str, list[int]]] = []

    @precondition(lambda self: len(self.naive) < 30)
    @rule(name=st.sampled_from(sorted(STEPS)), data=st.data())
    def step(self, name: str, data: st.DataObject) -> None:
        n, _, on_naive = STEPS[name]
        # Recent values more often than old ones, so that programs are deep as well as wide.
        place = st.integers(0, len(self.naive) - 1) | st.just(len(self.naive) - 1)
        places = [data.draw(place) for _ in range(n)]
        new = on_naive(*[self.naive[i] for i in places])
        if new.paths <= PATHS and np.max(np.abs(new.value)) < 1e3:
            self.naive.append(new)
            self.program.append((name, places))

    def run(self, *xs: Any) -> list[Any]:
        """All values of the program, on tensors or arrays."""
        values = list(xs)
        for name, places in self.program:
            values.append(STEPS[name][1](*[values[i] for i in places]))
        return values

    @rule(data=st.data())
    def differentiate(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.naive) - 1) | st.just(len(self.naive) - 1))
        root = self.naive[which]
        value, pull = vjp(lambda *xs: self.run(*xs)[which], *self.inputs)
        assert np.array_equal(value, self.run(*self.inputs)[which])
        g = self.rng.uniform(0.5, 1.0, np.shape(root.value))
        g.flags.writeable = False
        expected = naive_graph.gradients(root, g)
        for x, leaf, c in zip(self.inputs, self.naive, pull(g), strict=False):
            arrived = expected.get(leaf, np.zeros(x.shape))
            magnitude = sum_of_magnitudes(root, g, leaf)
            assert_equal_to_rounding(c, arrived, np.asarray(magnitude))


def sum_of_magnitudes(root: Naive, g: Any, leaf: Naive) -> float:
    """The sum over all paths of the largest magnitude on each: what rounding is relative to."""
    if root is leaf:
        return float(np.max(np.abs(g)))
    here = float(np.max(np.abs(g))) if root.inputs else 0.0
    return here + sum(sum_of_magnitudes(x, back(g), leaf) for x, back in root.inputs)


TestGraph = GraphMachine.TestCase
TestGraph.settings = settings(stateful_step_count=25)
