"""The words that stand for chance in negative sampling: drawn by frequency, flattened by a power."""

from __future__ import annotations

import numpy as np


class Noise:
    """Draws words with probability n^power / sum n^power, `eq:noise`, by the cumulative table."""

    def __init__(self, counts: np.ndarray, power: float = 0.75) -> None:
        self.table = np.cumsum(np.asarray(counts, np.float64) ** power)
        self.table /= self.table[-1]

    @property
    def probabilities(self) -> np.ndarray:
        """The probability (V,) of each word."""
        return np.diff(self.table, prepend=0.0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Word numbers, int32."""
        places = np.searchsorted(self.table, rng.random(shape), side="right")
        return np.minimum(places, self.table.size - 1).astype(np.int32)  # a table that ends below 1 by rounding
