"""Differentiation as naively as it can be written: one number array per node, recursion over every path to the root.

No counting, no ownership, no freeing, no order: the oracle of the engine's state machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(eq=False)
class Naive:
    """A value, and for each input of the step that made it, how a cotangent goes back to it."""

    value: Any
    inputs: list[tuple[Naive, Callable[[Any], Any]]] = field(default_factory=list)

    @property
    def paths(self) -> int:
        """How many ways lead down from here: what a gradient costs."""
        return max(1, sum(x.paths for x, _ in self.inputs))


def gradients(node: Naive, g: Any) -> dict[Naive, Any]:
    """The sum over all paths of the cotangents that arrive at each node below."""
    total = {node: g}
    for x, back in node.inputs:
        for below, c in gradients(x, back(g)).items():
            total[below] = total[below] + c if below in total else c
    return total


def reduced(g: Any, like: Any) -> Any:
    """Scalars are broadcast against vectors, and nothing else is."""
    return np.sum(g) if np.ndim(g) > np.ndim(like) else g


def add(a: Naive, b: Naive) -> Naive:
    return Naive(a.value + b.value, [(a, lambda g: reduced(g, a.value)), (b, lambda g: reduced(g, b.value))])


def mul(a: Naive, b: Naive) -> Naive:
    return Naive(
        a.value * b.value,
        [(a, lambda g: reduced(g * b.value, a.value)), (b, lambda g: reduced(g * a.value, b.value))],
    )


def sub(a: Naive, b: Naive) -> Naive:
    return Naive(a.value - b.value, [(a, lambda g: reduced(g, a.value)), (b, lambda g: reduced(-g, b.value))])


def tanh(x: Naive) -> Naive:
    y = np.tanh(x.value)
    return Naive(y, [(x, lambda g: g * (1 - y * y))])


def total(x: Naive) -> Naive:
    return Naive(np.sum(x.value), [(x, lambda g: g * np.ones(np.shape(x.value)))])


def third(x: Naive) -> Naive:
    return Naive(x.value / 3, [(x, lambda g: g / 3)])
