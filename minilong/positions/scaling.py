"""Context scaling: rotary frequencies for texts longer than those that a model was trained on.

A rotary model has seen angles up to (context - 1) theta. Each method lowers the frequencies so that a text s times as
long stays near angles that were seen. They differ in which pairs they slow down, and by how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("none", "pi", "ntk", "dynamic", "yarn", "llama3")
RAMPS = ("code", "paper")
LLAMA3 = 1.0, 4.0
"""Turns within the context up to which Llama 3.1 interpolates a pair, and from which on it keeps it."""


@dataclass(frozen=True)
class Scaling:
    """How rotary frequencies are scaled; factor 1 leaves them as they are, bit for bit.

    kind: none; pi, position interpolation (`eq:position-interpolation`): all pairs alike; ntk (`eq:ntk-scaling`): the
    fastest pair not at all, the slowest by the factor; dynamic (`eq:dynamic-ntk`): NTK by as much as the length at
    hand needs; yarn (`eq:yarn`): by how often a pair turns within the context; llama3 (`eq:llama3-scaling`): the same
    with a ramp of its own. factor: s, the length to reach by the length trained at. context: L, the length trained at
    (dynamic, yarn, llama3). ramp, alpha, beta: YaRN's transition, as in its authors' code, which every published
    checkpoint uses, or as in their paper. ValueError for what makes no sense.
    """

    kind: str = "none"
    factor: float = 1.0
    context: int = 0
    ramp: str = "code"
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"scaling: {self.kind!r} is none of {', '.join(KINDS)}")
        if self.ramp not in RAMPS:
            raise ValueError(f"scaling: the ramp {self.ramp!r} is none of {', '.join(RAMPS)}")
        if not 1.0 <= self.factor < math.inf:
            raise ValueError(f"scaling: the factor is {self.factor}; it must be at least 1")
        if self.kind in ("dynamic", "yarn", "llama3") and self.context < 1:
            raise ValueError(f"scaling: {self.kind} needs the context trained at, and it is {self.context}")
        if not 0 < self.alpha < self.beta:
            raise ValueError(f"scaling: alpha {self.alpha} and beta {self.beta} must be 0 < alpha < beta")
        if self.kind == "yarn" and self.context <= 2 * math.pi * self.alpha:
            raise ValueError(f"scaling: no pair turns {self.alpha} times within a context of {self.context}")

    @property
    def by_length(self) -> bool:
        """Whether frequencies depend on the length, so that keys must be cached before they are turned."""
        return self.kind == "dynamic"

    @property
    def attention_factor(self) -> float:
        """0.1 ln s + 1 for YaRN (`eq:yarn-temperature`), else 1: times queries and keys each, so squared on logits."""
        return 0.1 * math.log(self.factor) + 1.0 if self.kind == "yarn" else 1.0

    def frequencies(self, dim: int, base: float = 10000.0, length: Any = None) -> np.ndarray:
        """Radians a position, float64 (dim/2,). length: tokens so far, needed by dynamic scaling only.

        An array of lengths (...) gives (..., dim/2) where frequencies depend on it. Raises ValueError for an odd
        dimension and a base that is not above 1.
        """
        if dim % 2:
            raise ValueError(f"rotary: the head dimension is {dim}; pairs need an even one")
        if not base > 1.0:
            raise ValueError(f"rotary: the base is {base}; it must be above 1")
        theta: np.ndarray = base ** (-np.arange(0, dim, 2) / dim)
        if self.kind == "pi":
            return theta / self.factor
        if self.kind == "ntk":
            return _stretched(theta, np.asarray(self.factor))
        if self.kind == "dynamic":
            return _stretched(theta, self._growth(length))
        if self.kind in ("yarn", "llama3"):
            kept = self._kept(theta, dim, base) if self.kind == "yarn" else self._by_turns(theta, *LLAMA3)
            theta = theta + (1.0 - kept) * (theta / self.factor - theta)
        return theta

    def _growth(self, length: Any) -> np.ndarray:
        """s l / L - (s - 1) for lengths l beyond L, else 1: below L the formula would fall under 1, and under 0."""
        if length is None:
            raise ValueError("scaling: dynamic scaling needs the length; pass the number of tokens so far")
        grown = self.factor * np.asarray(length, np.float64) / self.context - (self.factor - 1.0)
        return np.asarray(np.where(np.asarray(length) > self.context, grown, 1.0))

    def _kept(self, theta: np.ndarray, dim: int, base: float) -> np.ndarray:
        """The share of each pair's frequency that YaRN keeps: 1 for fast pairs, 0 for slow ones, a ramp between."""
        if self.ramp == "paper":
            return self._by_turns(theta, self.alpha, self.beta)
        first = max(math.floor(self._pair_of(self.beta, dim, base)), 0)
        last = min(math.ceil(self._pair_of(self.alpha, dim, base)), dim - 1)
        # Where even slow pairs turn beta times, `first` lies beyond the last pair, and all are kept at any width.
        width = max(last - first, 0.001)
        return np.asarray(1.0 - np.clip((np.arange(dim // 2) - first) / width, 0.0, 1.0))

    def _by_turns(self, theta: np.ndarray, slow: float, fast: float) -> np.ndarray:
        """The same with a ramp that is linear in the turns that a pair makes within the context."""
        turns = self.context * theta / (2 * math.pi)
        share: np.ndarray = np.clip((turns - slow) / (fast - slow), 0.0, 1.0)
        return share

    def _pair_of(self, turns: float, dim: int, base: float) -> float:
        """The pair, as a real number, that turns so often within the context."""
        return dim * math.log(self.context / (2 * math.pi * turns)) / (2 * math.log(base))


def _stretched(theta: np.ndarray, by: np.ndarray) -> np.ndarray:
    """theta_j / by^(2j/(d-2)): that of the base b by^(d/(d-2)). Exactly theta_0 for the first, theta / by for the last.

    Not computed from the base, which is undefined for d = 2 and would round the first and the last pair.
    """
    pairs = len(theta)
    share = np.arange(pairs) / max(pairs - 1, 1)
    return theta / np.asarray(by)[..., None] ** share


NONE = Scaling()
"""Plain rotary positions."""
