"""What stands behind a bidirectional encoder while it is pretrained: BERT's two small networks (Devlin et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import ops
from minilong.backend import Array
from minilong.keys import Key
from minilong.nn.init import child
from minilong.nn.layers import ACTIVATIONS, NORMALIZATIONS, Linear


@dataclass(frozen=True)
class Transform:
    """norm(activation(x W + b)), which the output projection then reads (`eq:prediction`). bias (vocabulary,): of that
    projection, whose weights may be the embedding's table."""

    dense: Linear
    norm: Any
    bias: Array
    activation: str

    @staticmethod
    def create(
        key: Key | None,
        width: int,
        vocabulary: int,
        *,
        activation: str,
        normalization: str,
        init: str = "xavier",
        eps: float = 0.0,
    ) -> Transform:
        """Biases zero. eps: the norm's, its usual one if 0."""
        dense, norm = Linear.create(key, width, width, init=init), NORMALIZATIONS[normalization](width, eps)
        return Transform(dense, norm, np.zeros(vocabulary, np.float32), activation)

    def __call__(self, x: Any) -> Any:
        """(..., width) -> the same shape."""
        return self.norm(ACTIVATIONS[self.activation](self.dense(x)))


@dataclass(frozen=True)
class Pooler:
    """tanh(x W + b) of a row's first vector, and two logits of that: strangers, or neighbours (`eq:pooler`)."""

    dense: Linear
    classifier: Linear

    @staticmethod
    def create(key: Key | None, width: int, *, init: str = "xavier") -> Pooler:
        """Biases zero."""
        return Pooler(
            Linear.create(child(key, "dense"), width, width, init=init),
            Linear.create(child(key, "classifier"), width, 2, init=init),
        )

    def pooled(self, hidden: Any) -> Any:
        """The vector of each row: (b, t, width) -> (b, width)."""
        return ops.tanh(self.dense(ops.getitem(hidden, key=(slice(None), 0))))

    def __call__(self, hidden: Any) -> Any:
        """(b, t, width) -> logits (b, 2)."""
        return self.classifier(self.pooled(hidden))
