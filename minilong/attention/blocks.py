"""How blockwise attention is cut up, and the memory that each thread computes a block in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minilong.backend import Array, workspace


@dataclass(frozen=True)
class Blocks:
    """`rows` queries by `columns` keys at a time, `threads` at once."""

    threads: int = 1
    rows: int = 256
    columns: int = 512

    def __post_init__(self) -> None:
        if min(self.threads, self.rows, self.columns) < 1:
            raise ValueError(f"blockwise: {self} must have at least one thread, row and column")

    def shape(self, heads: int, t: int, window: int | None) -> tuple[int, int]:
        """Queries and keys of a block where `heads` query heads of t queries share a key head and form one stack.

        A stack of few rows, as in decoding, takes more keys at a time: the area is what fills the processor's cache. A
        window is visited in blocks of a third of it, since each block of r queries reaches window + r keys.
        """
        heads = max(1, heads)
        rows = max(1, min(self.rows // heads, t))
        if window is not None:
            rows = min(rows, max(window // 3, 64))
        return rows, max(self.columns, self.rows * self.columns // (heads * rows)) if rows < self.rows else self.columns

    def workers(self, scores: int) -> int:
        """Threads for a sweep over so many scores: starting them takes as long as a few hundred thousand."""
        return self.threads if scores >= 1 << 18 else 1


class Scratch:
    """Memory of one thread, reused for every block: `take` gives its beginning in the shape asked for."""

    def __init__(self, xp: Any, size: int, dtype: Any) -> None:
        self.flat = workspace(xp, (size,), dtype)

    def take(self, *shape: int) -> Array:
        """An array of this shape with arbitrary contents; it overlaps what was taken before."""
        return self.flat[: math.prod(shape)].reshape(shape)
