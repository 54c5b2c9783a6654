"""Initialisers of weights: `(key, fan_in, fan_out) -> (fan_in, fan_out)`, float32 rounded from float64 draws.

The article's 9.1 names two: Xavier keeps the variance of activations and of gradients in the mean of both directions
(Glorot and Bengio 2010), He keeps it through a ReLU, which halves it (He et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minilong.keys import Key


def xavier(key: Key, fan_in: int, fan_out: int) -> np.ndarray:
    """Uniform with variance 2 / (fan_in + fan_out) (`eq:xavier`)."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return key.generator().uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)


def he(key: Key, fan_in: int, fan_out: int) -> np.ndarray:
    """Normal with variance 2 / fan_in (`eq:he`)."""
    return (key.generator().standard_normal((fan_in, fan_out)) * math.sqrt(2.0 / fan_in)).astype(np.float32)


def normal(key: Key, fan_in: int, fan_out: int) -> np.ndarray:
    """Normal with deviation 0.02, whatever the size (GPT-2)."""
    return (key.generator().standard_normal((fan_in, fan_out)) * 0.02).astype(np.float32)


def blank(*shape: int) -> np.ndarray:
    """Zeros of a shape in the memory of one number, for a model whose weights are still to be put in their places."""
    return np.broadcast_to(np.float32(0), shape)


def child(key: Key | None, *names: str | int) -> Key | None:
    """The key's child, or None where there is no key: a model without weights is made by the same code."""
    return None if key is None else key.fold(*names)


INITIALISERS: dict[str, Callable[[Key, int, int], np.ndarray]] = {"xavier": xavier, "he": he, "normal": normal}
"""By the name that a configuration uses."""
