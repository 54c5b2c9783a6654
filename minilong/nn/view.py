"""What the queries of one forward pass see, and how positions enter: computed once, used by every layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.attention.bias import DistanceBias
from minilong.autodiff import Tensor, ops, stop_gradient
from minilong.backend import Array, array_module, beside
from minilong.positions import Scaling


@dataclass(frozen=True, eq=False)
class View:
    """Mask and positions of one pass.

    turns: complex (t, d/2) of `positions.rotary_turns` for the queries, and for the keys too unless key_turns
    (s, d/2) are given. bias: a `DistanceBias`, or numbers that broadcast to the scores. back: turns (t, d/2) that
    carry a query to the position at which the sinks take it to be (`eq:sink-distance`). relative: sinusoids (m, width)
    of the distances least, least + 1, ... for Transformer-XL's term. late: where the rotary frequencies depend on the
    query (`eq:dynamic-attention`); keys are then kept as they are, and turned when they are read.
    """

    mask: Mask = field(default_factory=Mask)
    turns: Array | None = None
    key_turns: Array | None = None
    interleaved: bool = True
    bias: Any = None
    back: Array | None = None
    relative: Array | None = None
    least: int = 0
    late: Late | None = None

    def beside(self, x: Any) -> View:
        """The same view with its constants where the activations `x` are."""
        x = stop_gradient(x)
        if array_module(x) is np:
            return self

        def put(constant: Any) -> Any:
            return constant if type(constant) is Tensor else beside(x, constant)

        mask, bias = self.mask, self.bias
        if mask.key_lengths is not None or mask.segments is not None:
            mask = replace(mask, key_lengths=put(mask.key_lengths), segments=put(mask.segments))
        if isinstance(bias, DistanceBias):
            bias = replace(bias, values=put(bias.values))
        elif bias is not None:
            bias = put(bias)
        tables = {name: put(getattr(self, name)) for name in ("turns", "key_turns", "back", "relative")}
        if tables["relative"] is not None:  # what a layer projects has the type of what it projects else
            tables["relative"] = tables["relative"].astype(x.dtype, copy=False)
        return replace(self, mask=mask, bias=bias, **tables)

    def differentiable(self) -> tuple[Any, ...]:
        """The arrays in here that may be parameters, for functions that are differentiated by their arguments."""
        return () if self.bias is None else (self.bias.values if isinstance(self.bias, DistanceBias) else self.bias,)

    def with_differentiable(self, *values: Any) -> View:
        """The same view with other arrays in the places of `differentiable`."""
        if not values:
            return self
        (bias,) = values
        return replace(self, bias=replace(self.bias, values=bias) if isinstance(self.bias, DistanceBias) else bias)


@dataclass(frozen=True, eq=False)
class Late:
    """Positions of queries (t,) and keys (s,), or (b, t) and (b, s), and what turns which share of their components."""

    queries: Array
    keys: Array
    scaling: Scaling
    base: float
    share: float = 1.0


def bias_at(bias: DistanceBias, distances: Array) -> Any:
    """The bias at given distances of query and key: (t, s) -> (h, t, s)."""
    values = bias.values
    index = np.clip(np.rint(distances).astype(np.int64) - bias.least, 0, values.shape[-1] - 1)
    return ops.getitem(values, key=(slice(None), beside(stop_gradient(values), index)))
