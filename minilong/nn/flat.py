"""All parameters of a model in one flat vector: layers hold views of it, gradients have the same layout.

Adam is then one pass over flat memory, clipping one dot product, and a checkpoint a table of names and slices.
Matrices stand before vectors, so that weight decay (on matrices only) is a prefix of the vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from minilong.autodiff.tree import leaves, named, rebuild

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Where each array of a model lies in the flat vector: names in field order, shapes, offsets."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    size: int
    decayed: int
    """Length of the prefix that holds the matrices."""

    @staticmethod
    def of(model: Any) -> Layout:
        """The layout of a model's arrays. Raises ValueError where one array has two names."""
        arrays = named(model)
        order = sorted(arrays, key=lambda name: arrays[name].ndim < 2)  # stable: field order within each kind
        start, at = 0, {}
        for name in order:
            at[name] = start
            start += arrays[name].size
        return Layout(
            names=tuple(arrays),
            shapes=tuple(a.shape for a in arrays.values()),
            offsets=tuple(at[name] for name in arrays),
            size=start,
            decayed=sum(a.size for a in arrays.values() if a.ndim >= 2),
        )

    def slices(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> view of its part of the vector, in its shape."""
        return {
            name: vector[start : start + math.prod(shape)].reshape(shape)
            for name, shape, start in zip(self.names, self.shapes, self.offsets, strict=True)
        }

    def gather(self, model: Any, out: np.ndarray) -> np.ndarray:
        """Copy the arrays of a model (or of a gradient of its structure) into a flat vector."""
        for array, part in zip(leaves(model), self.slices(out).values(), strict=True):
            part[...] = array
        return out

    def receiver(self, out: np.ndarray, *, add: bool = False) -> Callable[[int, Any], None]:
        """What `deliver_gradient` hands the gradient over to: it writes each piece into its part of a flat vector, or
        adds it."""
        parts = list(self.slices(out).values())

        def receive(i: int, g: Any) -> None:
            if add:
                parts[i] += g
            else:
                parts[i][...] = g

        return receive


def flatten(model: T, dtype: Any = np.float32) -> tuple[np.ndarray, T, Layout]:
    """A flat vector with the model's parameters, the same model as views of that vector, and the layout."""
    layout = Layout.of(model)
    vector = layout.gather(model, np.empty(layout.size, dtype))
    return vector, view(model, vector, layout), layout


def view(model: T, vector: np.ndarray, layout: Layout) -> T:
    """A model of the same structure whose arrays are views of the vector."""
    return rebuild(model, iter(layout.slices(vector).values()))
