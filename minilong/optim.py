"""Adam and AdamW, learning rate schedules, clipping by the global norm: all on one flat vector of parameters.

An optimiser is a value with `init(parameters) -> state` and `step(state, parameters, gradient, lr)`, which updates the
vectors in place, block by block, so that a block stays in the processor's cache for all of the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.backend import array_module, to_host
from minilong.backend.kernels.norm import LEAST_SCALE, MOST_SCALE

BLOCK = 1 << 16

Each = Callable[[Callable[[slice], Any], int], list[Any]]
"""Calls a function of a slice for consecutive parts of a vector of some size; the results in their order."""


def in_one_part(f: Callable[[slice], Any], size: int) -> list[Any]:
    """The whole vector at once."""
    return [f(slice(0, size))]


@dataclass
class AdamState:
    """First and second moment of each parameter, and the number of steps taken."""

    first: np.ndarray
    second: np.ndarray
    steps: int = 0

    def on_host(self) -> AdamState:
        """The same in NumPy's arrays."""
        return AdamState(to_host(self.first), to_host(self.second), self.steps)


@dataclass(frozen=True)
class Adam:
    """Adam as published (Kingma and Ba 2015, algorithm 1), and AdamW (Loshchilov and Hutter 2019) with `decoupled`.

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  with bias corrections by 1 - beta^t:
    theta <- theta - lr m^ / (sqrt(v^) + eps)   (`eq:adam`)
    weight_decay: added to the gradient (`decoupled=False`: Adam with L2), or taken from the weights as lr decay theta
    before the step (`decoupled=True`, `eq:adamw`). Only the first `decayed` parameters decay (the matrices).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def init(self, parameters: np.ndarray) -> AdamState:
        """Moments zero."""
        xp = array_module(parameters)
        return AdamState(xp.zeros_like(parameters), xp.zeros_like(parameters))

    def step(
        self,
        state: AdamState,
        parameters: np.ndarray,
        gradient: np.ndarray,
        lr: float,
        *,
        decayed: int | None = None,
        each: Each = in_one_part,
    ) -> None:
        """Update `parameters` (n,) and `state` in place from `gradient` (n,), which is left as it is.

        each: how the vector's parts are visited; `Replicas.each` shares them among threads, and no bit changes.
        """
        state.steps += 1
        decayed = parameters.size if decayed is None else decayed

        def update(part: slice) -> None:
            for start in range(part.start, part.stop, BLOCK):
                block = slice(start, min(start + BLOCK, part.stop))
                self._update(state, parameters, gradient, lr, block, max(decayed - start, 0))

        each(update, parameters.size)

    def _update(
        self,
        state: AdamState,
        parameters: np.ndarray,
        gradient: np.ndarray,
        lr: float,
        block: slice,
        decayed: int,
    ) -> None:
        """One block, of which the first `decayed` parameters decay."""
        xp: Any = array_module(parameters)
        correction1 = 1.0 - self.beta1**state.steps
        correction2 = 1.0 - self.beta2**state.steps
        theta, g, m, v = (x[block] for x in (parameters, gradient, state.first, state.second))
        a, b = xp.empty_like(theta), xp.empty_like(theta)
        if self.weight_decay and decayed:
            if self.decoupled:
                theta[:decayed] *= 1.0 - lr * self.weight_decay
            else:
                xp.copyto(b, g)
                b[:decayed] += self.weight_decay * theta[:decayed]
                g = b
        xp.multiply(g, g, out=a)  # before `b` is needed again: `g` may live there
        a *= 1.0 - self.beta2
        v *= self.beta2
        v += a
        xp.multiply(g, 1.0 - self.beta1, out=a)
        m *= self.beta1
        m += a
        xp.multiply(v, 1.0 / correction2, out=a)
        xp.sqrt(a, out=a)
        a += self.eps
        xp.divide(m, a, out=b)
        b *= lr / correction1
        theta -= b


def clip(gradient: np.ndarray, max_norm: float) -> float:
    """Scale `gradient` in place so that its Euclidean norm is at most `max_norm` (0: no limit); its norm before.

    One norm over all parameters, so the direction stays (`eq:clip`, Pascanu et al. 2013). A norm that is infinite or no
    number is returned, and the gradient left as it is: the caller must stop, since no scale mends it.
    """
    with np.errstate(over="ignore"):  # infinite is the right answer
        norm = math.sqrt(float(gradient @ gradient))
    if max_norm and max_norm < norm < math.inf:
        gradient *= max_norm / norm
    return norm


def next_scale(scale: float, good: int, finite: bool, growth: int = 2000) -> tuple[float, int]:
    """The loss scale (`eq:loss-scaling`) and the number of good steps since it changed, after a good or a bad step.

    The definition of what a GPU decides for itself (`backend/kernels/norm.py`).
    """
    if not finite:
        return max(scale / 2, LEAST_SCALE), 0
    return (min(scale * 2, MOST_SCALE), 0) if good + 1 >= growth else (scale, good + 1)


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: linear warm-up from lr/warmup to lr, then `kind` down to lr * final at the last step.

    kind: cosine (`eq:cosine`), linear, constant. Steps count from 0; step `steps` and later ones keep the final rate.
    """

    lr: float
    steps: int
    warmup: int = 0
    kind: str = "cosine"
    final: float = 0.1

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.kind == "constant":
            return self.lr
        done = min(1.0, (step - self.warmup) / max(1, self.steps - 1 - self.warmup))
        left = 0.5 * (1.0 + math.cos(math.pi * done)) if self.kind == "cosine" else 1.0 - done
        return self.lr * (self.final + (1.0 - self.final) * left)
