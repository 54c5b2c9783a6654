"""Weights that stay in low-bit blocks until they are used, and the layers that use them.

`LowBit` is an array as a file holds it. The layers rearrange it once into `Planes`, which take about the same memory
and multiply quickly. They do not learn: a derivative passes through them to what they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import checkpoint, constant_linear
from minilong.backend import Array
from minilong.nn import blocks as formats
from minilong.nn.planes import Planes


@dataclass(frozen=True, eq=False)
class LowBit:
    """An array as blocks along its last axis. blocks: uint8 (rows, bytes); kind: one of `blocks.FORMATS`."""

    blocks: np.ndarray
    kind: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ValueError where the bytes are not those of so many weights of the kind."""
        form = formats.FORMATS.get(self.kind)
        if form is None:
            raise ValueError(f"no low-bit format is called {self.kind!r}; there are {', '.join(formats.FORMATS)}")
        if not self.shape or self.shape[-1] % form.weights or min(self.shape) < 1:
            raise ValueError(
                f"{self.kind} has blocks of {form.weights} weights, which do not make the shape {self.shape}"
            )
        rows, size = math.prod(self.shape[:-1]), self.shape[-1] // form.weights * form.bytes
        if self.blocks.dtype != np.uint8 or self.blocks.shape != (rows, size):
            raise ValueError(
                f"a {self.kind} array of shape {self.shape} has bytes ({rows}, {size}), not {self.blocks.dtype} "
                f"{self.blocks.shape}"
            )

    @staticmethod
    def encode(x: np.ndarray, kind: str) -> LowBit:
        """The nearest weights that the format has. ValueError as `blocks.encode`."""
        return LowBit(formats.encode(x.reshape(-1, x.shape[-1]), kind), kind, x.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, or of a mapped file."""
        return self.blocks.nbytes

    def decode(self) -> np.ndarray:
        """The array in float32, a new one."""
        return formats.decode(self.blocks, self.kind).reshape(self.shape)


@dataclass(frozen=True)
class LowBitLinear:
    """x W + b (`eq:low-bit-product`) by planes of a weight (out, in), given as those or blocks. bias (out), or None."""

    weight: Planes
    bias: Array | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", planes(self.weight))

    def __call__(self, x: Any) -> Any:
        """x (..., in) -> (..., out). For a tensor, the weights are decoded again for its derivative, not kept."""
        if not isinstance(x, np.ndarray):
            return checkpoint(lambda x: constant_linear(x, weight=self.weight.decode().T, bias=self.bias))(x)
        y = self.weight.product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        if self.bias is not None:
            y += self.bias
        return y


@dataclass(frozen=True)
class LowBitEmbedding:
    """Rows of a table (entries, width) (`eq:embedding`), given as planes or as blocks."""

    table: Planes

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", planes(self.table))

    def __call__(self, indices: Array) -> np.ndarray:
        """Integers (...) -> (..., width)."""
        return self.table.rows(indices.reshape(-1)).reshape(*indices.shape, -1)

    def logits(self, x: Any) -> Any:
        """The table as an output projection: x (..., width) -> (..., entries)."""
        return LowBitLinear(self.table, None)(x)


def planes(weight: LowBit | Planes) -> Planes:
    """A weight ready for products. Raises ValueError for an array of other than two axes."""
    if isinstance(weight, Planes):
        return weight
    if len(weight.shape) != 2:
        raise ValueError(f"a low-bit weight has the shape {weight.shape}, not (out, in)")
    return Planes.of(weight.blocks, weight.kind)
