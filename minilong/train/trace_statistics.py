"""What is told of an array without keeping it: its statistics, gathered block by block."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

CHUNK = 1 << 20
"""Elements whose squares exist at once."""


@dataclass(frozen=True)
class Statistics:
    """Least, greatest, mean and root mean square of the finite elements (None where there are none), how many are not
    finite, and the CRC-32 of all bytes in C order: equal for equal bits."""

    least: float | None
    greatest: float | None
    mean: float | None
    rms: float | None
    nonfinite: int
    checksum: str

    @staticmethod
    def of(x: np.ndarray) -> Statistics:
        """Of a whole array."""
        tally = Tally()
        tally.add(x)
        return tally.result()


class Tally:
    """Statistics of an array whose parts come one after another, in C order. Sums are in float64."""

    def __init__(self) -> None:
        self.least, self.greatest, self.sum, self.squares = math.inf, -math.inf, 0.0, 0.0
        self.count = self.nonfinite = self.crc = 0

    def add(self, x: np.ndarray, counted: np.ndarray | None = None) -> None:
        """Add a part. counted: booleans of its shape; the other elements enter the checksum only."""
        flat = np.ascontiguousarray(x).reshape(-1)
        kept = None if counted is None else np.broadcast_to(counted, x.shape).reshape(-1)
        for begin in range(0, flat.size, CHUNK):
            part = flat[begin : begin + CHUNK]
            self.crc = zlib.crc32(part.view(np.uint8).data, self.crc)
            self._count(part if kept is None else part[kept[begin : begin + CHUNK]])

    def _count(self, part: np.ndarray) -> None:
        wide = part.astype(np.float64)
        total = float(wide.sum())
        if not math.isfinite(total):  # a single element that is not makes the sum so
            wide = wide[np.isfinite(wide)]
            total = float(wide.sum())
            self.nonfinite += part.size - wide.size
        if wide.size:
            self.least, self.greatest = min(self.least, float(wide.min())), max(self.greatest, float(wide.max()))
            self.sum, self.squares = self.sum + total, self.squares + float(wide @ wide)
            self.count += wide.size

    def result(self) -> Statistics:
        """Of all that was added."""
        checksum, n = f"{self.crc:08x}", self.count
        if not n:
            return Statistics(None, None, None, None, self.nonfinite, checksum)
        return Statistics(
            self.least, self.greatest, self.sum / n, math.sqrt(self.squares / n), self.nonfinite, checksum
        )
