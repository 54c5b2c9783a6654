"""Rotary positions: queries and keys are turned by an angle that grows with the position (Su et al. 2021).

The score of a query and a key then depends on the distance of their positions only. A pair of components is a complex
number, and turning it a product with exp(i p theta).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.autodiff import rotate
from minilong.backend import Array


def rotary_turns(positions: Array, dim: int, *, base: float = 10000.0, dtype: str = "complex64") -> np.ndarray:
    """exp(i p base^(-2j/d)) for j < d/2 (`eq:rotary`): positions (t,) -> complex (t, dim/2).

    Angles are computed in float64: at position 100,000 a float32 angle would be wrong by 0.004.
    """
    if dim % 2:
        raise ValueError(f"rotary: the head dimension is {dim}; pairs need an even one")
    angle = np.asarray(positions, np.float64)[:, None] * base ** (-np.arange(0, dim, 2) / dim)
    turns: np.ndarray = np.exp(1j * angle).astype(dtype)
    return turns


def rotary(x: Any, positions: Array, *, base: float = 10000.0, interleaved: bool = True) -> Any:
    """x (..., t, d) with each pair turned by the angle of its position (`eq:rotary`).

    interleaved: pairs are neighbours (the paper, GGUF files); else the two halves (Hugging Face).
    """
    complex_type = "complex64" if x.dtype == np.float32 else "complex128"
    return rotate(x, turn=rotary_turns(positions, x.shape[-1], base=base, dtype=complex_type), interleaved=interleaved)
