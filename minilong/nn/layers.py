"""The layers that a Transformer is made of, but for attention.

`x` has shape (..., width): every layer works on the last axis and lets the others pass. `create` draws new weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import (
    Kept,
    affine,
    dropout,
    embedding,
    gelu,
    gelu_tanh,
    layer_norm,
    linear,
    ops,
    rms_norm,
    silu,
    stop_gradient,
)
from minilong.backend import Array, beside
from minilong.keys import Key
from minilong.nn.init import INITIALISERS, blank, child


@dataclass(frozen=True)
class Linear:
    """x W + b (`eq:affine`), or x W without bias (`eq:linear`). weight (in, out), bias (out)."""

    weight: Array
    bias: Array | None

    @staticmethod
    def create(
        key: Key | None, fan_in: int, fan_out: int, *, bias: bool = True, init: str = "xavier", gain: float = 1.0
    ) -> Linear:
        """Weights by the named initialiser, times `gain`; bias zero. Without a key, the place of weights (`blank`)."""
        drawn = None if key is None else INITIALISERS[init](key, fan_in, fan_out) * np.float32(gain)
        weight = blank(fan_in, fan_out) if drawn is None else drawn
        return Linear(weight, np.zeros(fan_out, np.float32) if bias else None)

    def __call__(self, x: Any) -> Any:
        return linear(x, self.weight) if self.bias is None else affine(x, self.weight, self.bias)


@dataclass(frozen=True)
class Embedding:
    """Rows of a table (`eq:embedding`): integers (...) -> (..., width). table (entries, width)."""

    table: Array

    @staticmethod
    def create(key: Key | None, entries: int, width: int) -> Embedding:
        """Normal with variance 1/width, so that a row has norm 1 and a tied output starts with logits of order 1.
        Without a key, the place of a table (`blank`)."""
        if key is None:
            return Embedding(blank(entries, width))
        table = key.generator().standard_normal((entries, width)) / math.sqrt(width)
        return Embedding(table.astype(np.float32))

    def __call__(self, indices: Array) -> Any:
        return embedding(self.table, indices=beside(stop_gradient(self.table), indices))

    def logits(self, x: Any) -> Any:
        """The table as an output projection (tied weights): x (..., width) -> (..., entries)."""
        return linear(x, ops.transpose(self.table, order=(1, 0)))


@dataclass(frozen=True)
class LayerNorm:
    """Zero mean and unit variance over the last axis, then gain and bias (`eq:layer-norm`)."""

    gain: Array
    bias: Array
    eps: float = 1e-5

    @staticmethod
    def create(width: int, eps: float = 0.0) -> LayerNorm:
        """Gain one, bias zero. eps: the usual one if 0."""
        return LayerNorm(np.ones(width, np.float32), np.zeros(width, np.float32), eps or LayerNorm.eps)

    def __call__(self, x: Any) -> Any:
        return layer_norm(x, self.gain, self.bias, eps=self.eps)


@dataclass(frozen=True)
class RMSNorm:
    """Unit mean square over the last axis, then gain (`eq:rms-norm`)."""

    gain: Array
    eps: float = 1e-6

    @staticmethod
    def create(width: int, eps: float = 0.0) -> RMSNorm:
        """Gain one. eps: the usual one if 0."""
        return RMSNorm(np.ones(width, np.float32), eps or RMSNorm.eps)

    def __call__(self, x: Any) -> Any:
        return rms_norm(x, self.gain, eps=self.eps)


NORMALIZATIONS: dict[str, Callable[..., Any]] = {"layer": LayerNorm.create, "rms": RMSNorm.create}
"""By the name that a configuration uses: width[, eps] -> layer. Batch normalisation has a state: see `batchnorm.py`."""


@dataclass(frozen=True)
class Dropout:
    """Elements zeroed with probability `rate`, the others divided by 1 - rate (`eq:dropout`).

    Active if and only if a key is given: the same key zeroes the same elements, in a recomputed pass too.
    """

    rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"dropout: the rate is {self.rate}; it must be in [0, 1)")

    def __call__(self, x: Any, key: Key | None) -> Any:
        if key is None or self.rate == 0.0:
            return x
        return dropout(x, keep=Kept(key, self.rate))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": ops.relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu}
"""By the name that a configuration uses."""

GATES: dict[str, Callable[[Any], Any]] = {"swiglu": silu, "geglu": gelu, "geglu_tanh": gelu_tanh}
"""Gated networks by the name that a configuration uses: what the gate goes through."""


@dataclass(frozen=True)
class FeedForward:
    """down(activation(up(x))) (`eq:feed-forward`), or with a gate down(silu(gate(x)) up(x)) for `swiglu`
    (`eq:swiglu`), with GELU in place of SiLU for `geglu` and `geglu_tanh` (`eq:geglu`)."""

    up: Linear
    down: Linear
    gate: Linear | None
    activation: str
    dropout: Dropout = Dropout()

    @staticmethod
    def create(
        key: Key | None,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu_tanh",
        bias: bool = True,
        init: str = "xavier",
        gain: float = 1.0,
        dropout: float = 0.0,
    ) -> FeedForward:
        """`gain` scales the weights of `down`, which write to the residual stream."""
        return FeedForward(
            up=Linear.create(child(key, "up"), width, hidden, bias=bias, init=init),
            down=Linear.create(child(key, "down"), hidden, width, bias=bias, init=init, gain=gain),
            gate=(
                Linear.create(child(key, "gate"), width, hidden, bias=bias, init=init) if activation in GATES else None
            ),
            activation=activation,
            dropout=Dropout(dropout),
        )

    def __call__(self, x: Any, key: Key | None = None) -> Any:
        if self.gate is None:
            hidden = ACTIVATIONS[self.activation](self.up(x))
        else:
            hidden = GATES[self.activation](self.gate(x)) * self.up(x)
        return self.down(self.dropout(hidden, key))
