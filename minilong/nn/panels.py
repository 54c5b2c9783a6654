"""Linear layers for reading a few texts at a time: the same product, by weights that lie as it reads them.

With a few rows, a token of each of some texts, a product takes as long as its weights take to be read, if nothing else
is done to them. But for operands beyond a certain size a matrix library first rearranges them, which pays for many rows
only. So the columns are cut into panels that lie in memory one after another, each small enough to be taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from minilong.backend import Array
from minilong.nn.layers import Linear

FEW = 16
"""Rows that are few."""

SMALL = 10**6
"""Multiplications of a product that OpenBLAS takes as it is."""


@dataclass(frozen=True)
class Panels:
    """x W + b as of `Linear`, for plain arrays and without their checks. panels (n / c, in, c): c columns each.

    layer: what many rows, those of a prompt, go through: its product shares them among threads.
    """

    layer: Linear
    panels: Array

    def __call__(self, x: Any) -> Any:
        """x (..., in) -> (..., n)."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > FEW:
            return self.layer(x)
        y = np.matmul(rows, self.panels).transpose(1, 0, 2).reshape(*x.shape[:-1], -1)
        if self.layer.bias is not None:
            y += self.layer.bias
        return y


def panelled(layer: Linear, rows: int) -> Panels:
    """The layer for so many rows; one panel, the weight itself, for one, and where columns cannot be cut evenly."""
    inner, outer = layer.weight.shape
    width = 64 if FEW * inner * 64 <= SMALL else 32
    if rows == 1 or outer % width:
        return Panels(layer, layer.weight[None])
    return Panels(layer, np.ascontiguousarray(layer.weight.reshape(inner, -1, width).transpose(1, 0, 2)))


def for_few_rows(model: Any, rows: int) -> Any:
    """The same model with all its linear layers in panels: for several rows, a second copy of their weights."""
    if isinstance(model, Linear):
        return panelled(model, rows)
    if isinstance(model, tuple):
        return tuple(for_few_rows(part, rows) for part in model)
    if not is_dataclass(model) or isinstance(model, type):
        return model
    new = object.__new__(type(model))  # past __init__, whose checks want the layers' own types
    for f in fields(model):
        object.__setattr__(new, f.name, for_few_rows(getattr(model, f.name), rows))
    return new
