"""Rotary positions: queries and keys are turned by an angle that grows with the position (Su et al. 2021).

The score of a query and a key then depends on the distance of their positions only. A pair of components is a complex
number, and turning it a product with exp(i p theta).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.autodiff import rotate, stop_gradient
from minilong.backend import Array, beside
from minilong.positions.scaling import NONE, Scaling


def rotary_turns(
    positions: Array,
    dim: int,
    *,
    base: float = 10000.0,
    dtype: str = "complex64",
    scaling: Scaling | None = None,
    length: Any = None,
    share: float = 1.0,
) -> np.ndarray:
    """exp(i p base^(-2j/d)) for j < d/2 (`eq:rotary`): positions (t,) or (b, t) -> complex (t, dim/2) or (b, t, dim/2).

    Positions may be any real numbers. scaling: other frequencies, and YaRN's factor on the result (which then has a
    modulus above 1). length: tokens so far, for dynamic scaling; a number, or an array that broadcasts to positions,
    so that `positions + 1` gives each query its own. share: of the dimensions that are turned, the first ones, at the
    frequencies of so many dimensions; the turns of the others are 1 (`eq:partial-rotary`). Angles are computed in
    float64: at position 100,000 a float32 angle would be wrong by 0.004.
    """
    scaling = scaling or NONE
    turned = turned_width(dim, share)
    angle = np.asarray(positions, np.float64)[..., None] * scaling.frequencies(turned, base, length)
    turns: np.ndarray = np.exp(1j * angle)
    if scaling.attention_factor != 1.0:
        turns *= scaling.attention_factor
    if turned < dim:
        turns = np.concatenate([turns, np.ones((*turns.shape[:-1], (dim - turned) // 2), turns.dtype)], axis=-1)
    return turns.astype(dtype)


def turned_width(dim: int, share: float) -> int:
    """How many of a head's dimensions are turned: their share, rounded down (`eq:partial-rotary`)."""
    return int(dim * share)


def rotary(
    x: Any,
    positions: Array,
    *,
    base: float = 10000.0,
    interleaved: bool = True,
    scaling: Scaling | None = None,
    length: Any = None,
    share: float = 1.0,
) -> Any:
    """x (..., t, d) with each pair turned by the angle of its position (`eq:rotary`).

    positions (t,), or (b, t) where the first axis of x counts b sequences with positions of their own. interleaved:
    pairs are neighbours (the paper, GGUF files); else the two halves (Hugging Face). scaling, length, share:
    `rotary_turns`. Raises ValueError for a share of halves, which are other pairs.
    """
    if share != 1.0 and not interleaved:
        raise ValueError(f"rotary: a share of {share:g} of the dimensions needs pairs of neighbours")
    complex_type = "complex128" if str(x.dtype) == "float64" else "complex64"
    turn = rotary_turns(
        positions, x.shape[-1], base=base, dtype=complex_type, scaling=scaling, length=length, share=share
    )
    if turn.ndim > 2:  # heads and other axes between the sequences and their positions share the turns
        turn = turn.reshape(turn.shape[0], *(1,) * (len(x.shape) - turn.ndim), *turn.shape[1:])
    return rotate(x, turn=beside(stop_gradient(x), turn), interleaved=interleaved)
