"""Derivatives by finite differences with an error bound, and rounding bounds: the yardstick of tests and audits.

A derivative is checked in one random direction against one random cotangent: <g, J v> by differences of the function
against <J^T g, v> by the rule. Only float64 is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 64.0
"""`c` in the bound `c eps condition` of `specs/numerics.md`: one figure for all operations, both types, every test."""


@dataclass(frozen=True)
class Derivative:
    """A directional derivative and a bound on its error."""

    value: float
    bound: float


def directional(
    f: Callable[..., Any], xs: Sequence[np.ndarray], vs: Sequence[np.ndarray], g: np.ndarray, *, h: float = 1e-3
) -> Derivative:
    """<g, d/dt f(xs + t vs)> at t = 0, by central differences at steps h, h/2, h/4 extrapolated twice (Richardson).

    Each extrapolation removes a power of h^2. The bound is the change that the last extrapolation made (the
    truncation left is smaller) plus rounding, ROUNDING eps <|g|, |f| + 1> / h: that of the function values, and, where
    these are near zero though the slope is not (a sine near pi), that of the points x + t v, for slopes of order 1.
    """

    def along(t: float) -> tuple[float, float]:
        y = np.asarray(f(*[x + t * v for x, v in zip(xs, vs, strict=True)]))
        return float(np.sum(g * y)), float(np.sum(np.abs(g * y)))

    slopes, magnitude, weight = [], 0.0, float(np.sum(np.abs(g)))
    for step in (h, h / 2, h / 4):
        (up, up_size), (down, down_size) = along(step), along(-step)
        slopes.append((up - down) / (2 * step))
        magnitude = max(magnitude, up_size, down_size)
    first = [(4 * b - a) / 3 for a, b in pairwise(slopes)]
    value = (16 * first[1] - first[0]) / 15
    rounding = ROUNDING * EPS * (magnitude + weight) / (h / 4)
    return Derivative(value, abs(first[1] - first[0]) + rounding)


def rounding_bound(dtype: Any, condition: float, terms: int = 1) -> float:
    """Bound on the rounding of a computation: ROUNDING eps(dtype) condition sqrt(terms).

    `condition` is the largest magnitude that is added up (not of the result); `terms` is how many are summed.
    """
    return ROUNDING * float(np.finfo(dtype).eps) * condition * float(np.sqrt(max(terms, 1)))
