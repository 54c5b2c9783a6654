"""The two layouts of rotary pairs, and the permutation of head dimensions that maps one onto the other.

Interleaved: pair j is the components 2j and 2j + 1 (the paper, GGUF files). Half-split: j and j + d/2 (Hugging Face).
Queries and keys meet in products only, so permuting the components of both alike changes no score. Weights made for
one layout therefore serve the other after their output columns are permuted, head by head; unconverted they do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend import Array, beside


def interleaved_to_half(dim: int) -> np.ndarray:
    """The permutation p (dim,): x[..., p] is in the half-split layout if x is interleaved (`eq:rotary-layout`)."""
    if dim % 2:
        raise ValueError(f"rotary: the head dimension is {dim}; pairs need an even one")
    return np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)])


def half_to_interleaved(dim: int) -> np.ndarray:
    """The permutation p (dim,): x[..., p] is interleaved if x is half-split; the inverse of `interleaved_to_half`."""
    return np.argsort(interleaved_to_half(dim))


def to_half(weight: Array, heads: int) -> Any:
    """A query or key projection made for interleaved pairs, for half-split ones (`eq:rotary-layout`).

    weight (..., heads d), a matrix (in, out) or a bias (out,): the components of each head are permuted, a copy. Heads
    are key heads for the key projection. Value and output projections stay as they are.
    """
    return _by_head(weight, heads, interleaved_to_half)


def to_interleaved(weight: Array, heads: int) -> Any:
    """The inverse of `to_half`: a projection made for half-split pairs, for interleaved ones (`eq:rotary-layout`)."""
    return _by_head(weight, heads, half_to_interleaved)


def _by_head(weight: Array, heads: int, order: Any) -> Any:
    width = weight.shape[-1]
    if width % heads:
        raise ValueError(f"rotary: {heads} heads do not divide {width} columns")
    apart = weight.reshape(*weight.shape[:-1], heads, width // heads)
    return apart[..., beside(weight, order(width // heads))].reshape(weight.shape)
