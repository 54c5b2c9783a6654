"""Low-rank adapters: a model learns by a few thin matrices beside its own, which stay as they are (Hu et al. 2021).

Each adapted layer computes x W + (alpha / r) x A B, with A (in, r) and B (r, out). Only A and B are differentiated: the
layers of the model compute with constants, so neither a gradient of theirs nor the memory for one ever exists. B starts
at zero, so that training starts from the model itself; afterwards (alpha / r) A B can be added to W for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from minilong.autodiff import constant_linear, linear, ops
from minilong.backend import Array
from minilong.errors import UserError
from minilong.keys import Key
from minilong.nn.layers import Linear

TARGETS = ("query", "key", "value", "output", "up", "gate", "down")
"""Layers that can be adapted, by the names of their fields."""

USUAL = ("query", "value")
"""Those of the paper's experiments."""


@dataclass(frozen=True)
class Adapter:
    """The factors of an update of one weight: a (in, r), b (r, out)."""

    a: Array
    b: Array

    @staticmethod
    def create(key: Key, fan_in: int, fan_out: int, rank: int) -> Adapter:
        """A uniform with variance 1 / (3 in), as a linear layer's of the paper's program; B zero."""
        bound = 1.0 / math.sqrt(fan_in)
        a = key.generator().uniform(-bound, bound, (fan_in, rank)).astype(np.float32)
        return Adapter(a, np.zeros((rank, fan_out), np.float32))

    def scale(self, alpha: float) -> float:
        """alpha / r: so that the rank can be changed without another learning rate."""
        return alpha / int(self.a.shape[1])


@dataclass(frozen=True)
class Frozen:
    """A linear layer that does not learn (`eq:constant-linear`)."""

    weight: Array
    bias: Array | None

    def __call__(self, x: Any) -> Any:
        return constant_linear(x, weight=self.weight, bias=self.bias)


@dataclass(frozen=True)
class Adapted:
    """x W + b + (alpha / r) x A B (`eq:low-rank-adapter`): a frozen layer, and what it learns."""

    base: Frozen
    adapter: Adapter
    alpha: float

    def __call__(self, x: Any) -> Any:
        thin = ops.scale(linear(x, self.adapter.a), by=self.adapter.scale(self.alpha))
        return self.base(x) + linear(thin, self.adapter.b)


def create_adapters(model: Any, key: Key, *, rank: int, targets: Collection[str] = USUAL) -> dict[str, Adapter]:
    """Fresh adapters of all layers that bear a target's name (none: any of `TARGETS`), by their paths in the model.

    UserError for a target that the model has no layer of, and for a rank that no update of such a layer can exceed.
    """
    found: dict[str, Adapter] = {}
    missing = set(targets)

    def note(path: str, layer: Linear) -> Linear:
        name = path.rpartition(".")[2]
        if name in (targets or TARGETS):
            missing.discard(name)
            rows, columns = layer.weight.shape
            if rank > min(rows, columns):
                raise UserError(f"--rank {rank} is above the {min(rows, columns)} of the layer {path}; lower it")
            found[path] = Adapter.create(key.fold(path), rows, columns, rank)
        return layer

    map_linear(model, note)
    if missing:
        raise UserError(f"the model has no linear layer {', '.join(sorted(missing))}; leave it out of --targets")
    return found


def attach(model: Any, adapters: Mapping[str, Adapter], alpha: float) -> Any:
    """The model with its adapters, to be differentiated by them (`eq:adapter-gradient`): all its linear layers are
    frozen."""

    def replaced(path: str, layer: Linear) -> Any:
        base, own = Frozen(layer.weight, layer.bias), adapters.get(path)
        return base if own is None else Adapted(base, own, alpha)

    return map_linear(model, replaced)


def merge(model: Any, adapters: Mapping[str, Adapter], alpha: float) -> Any:
    """The plain model that computes the same: W + (alpha / r) A B in new arrays (`eq:adapter-merge`), all else shared.

    UserError for an adapter without its layer, or of another shape.
    """
    left = set(adapters)

    def merged(path: str, layer: Linear) -> Linear:
        own = adapters.get(path)
        if own is None:
            return layer
        left.discard(path)
        update = own.scale(alpha) * (own.a @ own.b)
        if update.shape != layer.weight.shape:
            raise UserError(f"the adapter of {path} has the shape {update.shape}, its layer {layer.weight.shape}")
        return Linear(layer.weight + update.astype(layer.weight.dtype), layer.bias)

    result = map_linear(model, merged)
    if left:
        raise UserError(f"there is an adapter of {min(left)}, which the model lacks; take the run that it was made for")
    return result


def map_linear(model: Any, f: Callable[[str, Linear], Any], path: str = "") -> Any:
    """The same structure with f(path, layer) in the place of each linear layer."""
    if isinstance(model, Linear):
        return f(path, model)
    if isinstance(model, tuple):
        return tuple(map_linear(part, f, _join(path, str(i))) for i, part in enumerate(model))
    if not is_dataclass(model) or isinstance(model, type):
        return model
    new = object.__new__(type(model))  # past __init__, whose checks want the layers' own types
    for field in fields(model):
        object.__setattr__(new, field.name, map_linear(getattr(model, field.name), f, _join(path, field.name)))
    return new


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
