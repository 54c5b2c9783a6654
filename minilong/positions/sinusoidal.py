"""Positions added to the embeddings: the paper's sinusoids, and the article's sum of sine and cosine.

Both are fixed functions of the position, computed in float64 and rounded once. A stream goes on at any position.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BASE = 10000.0


def sinusoidal(length: int, width: int, *, dtype: str = "float32") -> np.ndarray:
    """PE[p, 2i] = sin(p / 10000^(2i/d)), PE[p, 2i+1] = cos(the same) (`eq:sinusoidal`): (length, width).

    Sine and cosine of one frequency are neighbours, so that a shift by k is a rotation of each pair: linear, the same
    at every position. Source: Vaswani et al. 2017, section 3.5. An odd width ends with a sine.
    """
    _check("sinusoidal", length, width)
    return sinusoidal_at(np.arange(length), width, dtype=dtype)


def sinusoidal_at(positions: Any, width: int, *, dtype: str = "float32") -> np.ndarray:
    """The rows of `sinusoidal` (`eq:sinusoidal`) at these positions, any real numbers: (...) -> (..., width)."""
    _check("sinusoidal", 0, width)
    angle = np.asarray(positions)[..., None] / BASE ** (np.arange(0, width, 2) / width)
    table = np.empty((*angle.shape[:-1], width))
    table[..., 0::2] = np.sin(angle)
    table[..., 1::2] = np.cos(angle[..., : width // 2])
    return table.astype(dtype)


def cas(length: int, width: int, *, dtype: str = "float32") -> np.ndarray:
    """P[p, i] = sin(p / 10000^(2i/d)) + cos(the same) (`eq:cas`): (length, width), as the article prints it.

    Each component is sqrt(2) sin(angle + pi/4). Without the cosine beside the sine a shift is no linear map, the norm
    depends on the position, and so does the product of two positions: kept as a variant that teaches that.
    """
    _check("cas", length, width)
    return cas_at(np.arange(length), width, dtype=dtype)


def cas_at(positions: Any, width: int, *, dtype: str = "float32") -> np.ndarray:
    """The rows of `cas` (`eq:cas`) at these positions, any real numbers: (...) -> (..., width)."""
    _check("cas", 0, width)
    angle = np.asarray(positions)[..., None] / BASE ** (2 * np.arange(width) / width)
    return (np.sin(angle) + np.cos(angle)).astype(dtype)


def _check(name: str, length: int, width: int) -> None:
    if length < 0 or width < 1:
        raise ValueError(f"{name}: length {length} and width {width} must be at least 0 and 1")
