"""What the points of a growth case say: the law that cost must follow, fitted, and the worst deviation from it.

Deviations count relatively, since the points span two orders of magnitude: the squares of relative residuals are least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FAR = 4
"""Lengths of this many windows and more count for the constant; in shorter texts most queries see less than one."""


def fit(case: str, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a curve: `law` in words, its numbers, and `deviation`, the largest |measured / predicted - 1|."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        curves.setdefault(point["curve"], []).append(point)
    return [_step(name, own) if case == "growth-batch" else _per_token(name, own) for name, own in curves.items()]


def _step(name: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of a step = intercept + slope batch."""
    x, y = np.array([p["x"] for p in points], float), np.array([min(p["times"]) for p in points])
    intercept, slope, deviation = line(x, y)
    law = f"{1e3 * intercept:.3g} ms + {1e3 * slope:.3g} ms per row"
    return {"curve": name, "law": law, "intercept": intercept, "slope": slope, "deviation": deviation}


def _per_token(name: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds per token = a + b n for full attention, the same at every length for a window."""
    n = np.array([p["x"] for p in points], float)
    y = np.array([min(p["times"]) for p in points]) / n
    if name == "full":
        a, b, deviation = line(n, y)
        law = f"{1e6 * a:.3g} us + {1e9 * b:.3g} ns per token before it, for each token"
        return {"curve": name, "law": law, "intercept": a, "slope": b, "deviation": deviation}
    far = n >= FAR * max(p["keys"] for p in points)
    own = y[far] if far.any() else y
    mean = 1 / float(np.mean(1 / own))
    deviation = float(np.max(np.abs(own / mean - 1)))
    law = f"{1e6 * mean:.3g} us for each token from {FAR} windows on"
    return {"curve": name, "law": law, "intercept": mean, "slope": 0.0, "deviation": deviation}


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Intercept and slope that make the sum of squared relative residuals least, and the largest of these."""
    columns = np.stack([1 / y, x / y], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(columns, np.ones_like(y))
    return float(intercept), float(slope), float(np.max(np.abs(y / (intercept + slope * x) - 1)))
