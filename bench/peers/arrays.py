"""The arrays that minilong's side gave, by their group."""

from __future__ import annotations

import numpy as np

from ..case import Arrays

WEIGHTS, INPUTS = "weights.", "inputs."
RATE, MAX_NORM = 1e-3, 1.0
BETAS, EPS, DECAY = (0.9, 0.99), 1e-8, 0.1
GATE_STEPS = 3


def group(shared: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with the prefix, under the rest of their names."""
    return {name.removeprefix(prefix): a for name, a in shared.items() if name.startswith(prefix)}
