"""The gate: named results of two sides must agree before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np


def compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: Mapping[str, float]) -> Any:
    """`green`, the worst `difference` (|ours - theirs| / |theirs|) by pattern of `tolerance` with the name of its
    array and the `limit`, and in `red` what is wrong, in words."""
    red = [f"only one side has {name}" for name in sorted(set(ours) ^ set(theirs))]
    worst: dict[str, dict[str, Any]] = {}
    for name in ours:
        if name not in theirs:
            continue
        pattern = next((p for p in tolerance if fnmatchcase(name, p)), None)
        if pattern is None:
            red.append(f"no tolerance is stated for {name}")
            continue
        limit, found = tolerance[pattern], difference(ours[name], theirs[name])
        if pattern not in worst or found > worst[pattern]["difference"]:
            worst[pattern] = {"name": name, "difference": found, "limit": limit}
        if not found <= limit:
            red.append(f"{name} differs by {found:.1e}, allowed are {limit:.0e}")
    if not worst and not red:
        red.append("there is nothing to compare")
    for entry in worst.values():  # JSON has no infinity
        entry |= {key: None for key in ("difference", "limit") if math.isinf(entry[key])}
    return {"green": not red, "worst": worst, "red": red}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b| / |b| by Euclidean norms, |a| where b is zero; infinite for other shapes and for what is not finite."""
    if a.shape != b.shape:
        return math.inf
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.inf
    apart, size = float(np.linalg.norm(x - y)), float(np.linalg.norm(y))
    return apart / size if size else apart
