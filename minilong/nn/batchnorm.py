"""Batch normalisation for sequences (the article's 9.1), with masked statistics and its running state as a value.

Statistics over a batch mix examples, and over time they let a token see later ones: no causal model may use it. It
suits encoders, with padding left out of the statistics. Source: Ioffe and Szegedy 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import ops, stop_gradient
from minilong.backend import Array, array_module, beside

WHY_NOT_CAUSAL = (
    "batch normalisation takes its statistics over the whole sequence and batch, so every token would see later ones; "
    "use 'layer' or 'rms'"
)


@dataclass(frozen=True)
class BatchState:
    """Running mean and variance of each channel (width,), and how many batches they have seen."""

    mean: Array
    variance: Array
    batches: int = 0

    @staticmethod
    def create(width: int) -> BatchState:
        """Mean zero, variance one."""
        return BatchState(np.zeros(width, np.float32), np.ones(width, np.float32))


@dataclass(frozen=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps) gain + bias, per channel over the valid positions (`eq:batch-norm`)."""

    gain: Array
    bias: Array
    eps: float = 1e-5
    momentum: float = 0.1

    @staticmethod
    def create(width: int, *, causal: bool = False) -> BatchNorm:
        """Gain one, bias zero. Raises ValueError for a causal model, and says why."""
        if causal:
            raise ValueError(f"causal model: {WHY_NOT_CAUSAL}")
        return BatchNorm(np.ones(width, np.float32), np.zeros(width, np.float32))

    def train(self, x: Any, state: BatchState, valid: Array | None = None) -> tuple[Any, BatchState]:
        """Normalise x (..., width) by the batch's own statistics; also the running state after this batch.

        valid (...): booleans of the positions that are no padding. At least two must be valid: else ValueError, or NaN
        where the booleans are on a GPU, which is not waited for.
        """
        constant = stop_gradient(x)
        xp, over = array_module(constant), tuple(range(x.ndim - 1))
        if valid is None:
            weight, count = xp.ones(x.shape[:-1], x.dtype), float(math.prod(x.shape[:-1]))
        else:
            weight = beside(constant, valid).astype(x.dtype)
            count = float(valid.sum()) if array_module(valid) is np else weight.sum()
        if isinstance(count, float) and count < 2:
            raise ValueError(f"batch normalisation: {int(count)} valid positions; a variance needs at least 2")
        weight = weight[..., None]
        mean = ops.sum(x * weight, axis=over) / count
        centred = (x - mean) * weight
        variance = ops.sum(centred * centred, axis=over) / count
        y = self._apply(x, mean, variance)
        m = self.momentum
        unbiased = stop_gradient(variance) * (count / (count - 1))  # the running variance estimates the population's
        old = beside(constant, state.mean), beside(constant, state.variance)
        return y, BatchState(
            (1 - m) * old[0] + m * stop_gradient(mean), (1 - m) * old[1] + m * unbiased, state.batches + 1
        )

    def evaluate(self, x: Any, state: BatchState) -> Any:
        """Normalise x by the running statistics: each position on its own."""
        constant = stop_gradient(x)
        return self._apply(x, beside(constant, state.mean), beside(constant, state.variance))

    def _apply(self, x: Any, mean: Any, variance: Any) -> Any:
        return (x - mean) * ((variance + self.eps) ** -0.5 * self.gain) + self.bias
