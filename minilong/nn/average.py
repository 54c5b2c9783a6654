"""A moving average over time: the article's momentum network in its third reading.

Where the momentum of `reversible.py` runs over the layers, this one runs over the positions: each channel is a one-pole
filter, whose state of one number sums up all that came before. It is the simplest compression of a sequence, and the
baseline of that family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import ops, stop_gradient
from minilong.autodiff.scan import decay_scan
from minilong.backend import Array, array_module


@dataclass(frozen=True)
class MovingAverage:
    """h_i = gamma h_(i-1) + (1 - gamma) x_i in each channel, from h_(-1) = 0 (`eq:moving-average`).

    x (..., t, width) -> the same shape. logit (width): gamma = sigmoid(logit), learned; None: the number `gamma`.
    """

    logit: Array | None
    gamma: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(f"moving average: gamma is {self.gamma}; it must be in [0, 1)")

    @staticmethod
    def create(width: int, gamma: float = 0.9, *, learned: bool = True) -> MovingAverage:
        """All channels begin with the same gamma, in (0, 1) if it is to be learned."""
        if not learned:
            return MovingAverage(None, gamma)
        if not 0.0 < gamma < 1.0:
            raise ValueError(f"moving average: gamma is {gamma}; to be learned it must begin in (0, 1)")
        return MovingAverage(np.full(width, math.log(gamma / (1 - gamma)), np.float32), gamma)

    def __call__(self, x: Any) -> Any:
        """The averages at all positions of a sequence that begins here."""
        return self.step(self.begin(x), x)[0]

    def begin(self, x: Any) -> Array:
        """The state (..., width) before the first position of a sequence like x (..., t, width): zeros."""
        value = stop_gradient(x)
        return array_module(value).zeros((*value.shape[:-2], value.shape[-1]), value.dtype)

    def step(self, state: Any, x: Any) -> tuple[Any, Any]:
        """The averages of the next t >= 1 positions, and the state after them. Any split of a stream gives the same."""
        if self.logit is None:
            gamma: Any = array_module(stop_gradient(x)).full(x.shape[-1], self.gamma, x.dtype)
            share: Any = gamma.dtype.type(1 - self.gamma)
        else:
            gamma, share = ops.sigmoid(self.logit), ops.sigmoid(-self.logit)
        y = decay_scan(x * share, gamma, state)
        return y, y[..., -1, :]
