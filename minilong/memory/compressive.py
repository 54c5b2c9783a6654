"""Compressive memory: what segment recurrence would forget is pooled into fewer slots, and forgotten later."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.autodiff import ops, stop_gradient
from minilong.autodiff.device import is_half
from minilong.autodiff.tree import leaves, rebuild
from minilong.backend import Array
from minilong.memory.base import Card, Rows
from minilong.memory.segments import Segments, SegmentState, constants, joined, last, reach

COMPRESSORS = ("mean", "max", "conv")


@dataclass(frozen=True)
class Compressor:
    """One row for each block of `rate` rows (`eq:compress`): their mean, their maximum, or a learned linear map.

    weight (rate, width, width): of "conv" only, a convolution whose stride is its width; row r of a block is mapped by
    weight[r].
    """

    sort: str
    rate: int
    weight: Array | None = None

    def __post_init__(self) -> None:
        if self.sort not in COMPRESSORS:
            raise ValueError(f"compressor: {self.sort!r} is none of {', '.join(COMPRESSORS)}")
        if self.rate < 1:
            raise ValueError(f"compressor: the rate is {self.rate}; it must be at least 1")
        if (self.sort == "conv") != (self.weight is not None):
            raise ValueError("compressor: 'conv' has a weight, and the others have none; use Compressor.create")

    @staticmethod
    def create(sort: str, rate: int, width: int) -> Compressor:
        """The convolution starts as the mean, so an untrained one already remembers."""
        if sort != "conv":
            return Compressor(sort, rate)
        mean = np.broadcast_to(np.eye(width, dtype=np.float32) / np.float32(rate), (rate, width, width))
        return Compressor(sort, rate, mean.copy())

    def __call__(self, x: Any) -> Any:
        """(..., n, width) -> (..., n / rate, width). ValueError where the rate does not divide n."""
        *front, n, width = x.shape
        if n % self.rate:
            raise ValueError(f"compressor: {n} rows are no multiple of the rate {self.rate}")
        if self.weight is not None:
            flat = ops.reshape(x, shape=(*front, n // self.rate, self.rate * width))
            return ops.matmul(flat, ops.reshape(self.weight, shape=(self.rate * width, self.weight.shape[-1])))
        blocks = ops.reshape(x, shape=(*front, n // self.rate, self.rate, width))
        if self.sort == "mean":
            return ops.quotient(ops.sum(blocks, axis=len(front) + 1), by=self.rate)
        y = ops.getitem(blocks, key=(..., 0, slice(None)))
        for r in range(1, self.rate):
            y = ops.maximum(y, ops.getitem(blocks, key=(..., r, slice(None))))
        return y


@dataclass(frozen=True)
class Compressive(Segments):
    """Segment recurrence, and behind its memory `compressed` slots, each for `rate` older rows (`eq:compressive`).

    Blocks begin at the multiples of the rate, which therefore must divide `segment` and `memory`: then rows leave the
    memory in whole blocks, and a block holds the same rows however the stream was cut. The slots are constants, as the
    memory is; a convolution learns from `reconstruction_loss` alone. Source: Rae et al. 2020.
    """

    compressed: int
    compressor: Compressor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compressed < 0:
            raise ValueError(f"compressive memory: {self.compressed} slots; give 0 or more")
        if self.compressed and (self.segment % self.rate or self.memory % self.rate):
            raise ValueError(
                f"compressive memory: the rate {self.rate} must divide the segment {self.segment} "
                f"and the memory {self.memory}"
            )

    @property
    def rate(self) -> int:
        """Rows in a slot."""
        return self.compressor.rate

    @property
    def card(self) -> Card:
        exact = self.compressed == 0
        beyond = self.memory + self.compressed > 0
        return Card(exact, beyond, True, False, "Blurs what is older than its memory, and forgets it later.")

    def turn(self, state: SegmentState) -> SegmentState:
        rows, slots = constants(joined(state.past, state.own)), state.slots
        if self.compressed:
            gone = self.leaving(state)
            if gone[0].shape[-2]:
                new = constants(tuple(self.compressor(x) for x in gone))
                slots = tuple(last(x, self.compressed) for x in constants(joined(slots, new)))
        return replace(state, slots=slots, past=tuple(last(x, self.memory) for x in rows), own=())

    def leaving(self, state: SegmentState) -> Rows:
        """The rows, in whole blocks, that leave the memory when the current segment ends, as constants.

        They are complete once the segment is: call it after the segment's last write, for `reconstruction_loss`.
        """
        rows = constants(joined(state.past, state.own))
        gone = max(rows[0].shape[-2] - self.memory, 0) if rows else 0
        return tuple(x[..., : gone - gone % self.rate, :] for x in rows)

    def visible(self, seen: int, t: int) -> Array:
        least = max(self.start(seen) - self.memory, 0)
        blocks = least // self.rate
        slots = np.arange(max(blocks - self.compressed, 0), blocks) if self.compressed else np.arange(0)
        centres = slots * self.rate + (self.rate - 1) / 2
        return np.concatenate([centres, np.arange(least, seen + t)])

    def allowed(self, n: int) -> Array:
        i, j = np.arange(n)[:, None], np.arange(n)
        return np.asarray((j <= i) & (j >= i - i % self.segment - self._behind))

    def reach(self, layers: int) -> int:
        return reach(layers, self.segment, self._behind)

    @property
    def _behind(self) -> int:
        return self.memory + self.rate * self.compressed


def reconstruction_loss(
    compressor: Compressor, attend: Callable[[Any, Any, Rows], Any], layer: Any, h: Any, old: Rows
) -> Any:
    """|| attend(layer, h, old) - attend(layer, h, compressed old) ||^2 per element (`eq:reconstruction-loss`).

    attend: the attention of queries from h over some rows, without a mask, by the parameters in the tree `layer`. Only
    the compressor gets a gradient (`eq:reconstruction-gradients`): the layer, h and the old rows are taken as
    constants. Zero if the rate is 1 and the compressor the identity.
    """
    if not old or not old[0].shape[-2]:
        return np.zeros((), np.dtype(h.dtype))
    fixed, query, rows = rebuild(layer, iter(constants(tuple(leaves(layer))))), stop_gradient(h), constants(old)
    gap = attend(fixed, query, tuple(compressor(x) for x in rows)) - attend(fixed, query, rows)
    if is_half(gap):  # as every loss
        gap = ops.cast(gap, dtype="float32")
    return ops.sum(gap * gap) * (1.0 / max(1, math.prod(gap.shape)))
