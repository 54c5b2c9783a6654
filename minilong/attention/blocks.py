"""How blockwise attention is cut up, and the memory that each thread computes a block in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minilong.attention.mask import Mask
from minilong.backend import Array, workspace
from minilong.backend.workers import granted_threads

ENOUGH = 128
"""Queries of a head that are taken at once for each visit of its keys, where other heads share these."""


@dataclass(frozen=True)
class Blocks:
    """`rows` queries by `columns` keys at a time, `threads` at once (None: as many as `grant_threads` grants)."""

    threads: int | None = None
    rows: int = 256
    columns: int = 512

    def __post_init__(self) -> None:
        if min(1 if self.threads is None else self.threads, self.rows, self.columns) < 1:
            raise ValueError(f"blockwise: {self} must have at least one thread, row and column")

    @property
    def area(self) -> int:
        """Scores that are computed at a time, at most twice as many where heads share keys: two such blocks fill the
        processor's cache."""
        return self.rows * self.columns

    def shape(self, heads: int, t: int, s: int, mask: Mask) -> tuple[int, int]:
        """Queries and keys of a block where `heads` query heads of t queries on s keys form one stack.

        Heads that share keys take fewer queries each, but not so few that the keys are visited too often. A stack of
        few rows, as in decoding, takes more keys at a time. A window is visited in blocks of a third of it, since each
        block of r queries reaches window + r keys; a short causal text in quarters, which see a quarter of the keys, a
        half and so on.
        """
        heads = max(1, heads)
        enough = min(ENOUGH, self.rows, 4 * self.rows // heads)
        rows = max(1, min(max(self.rows // heads, enough), t))
        if mask.window is not None:
            rows = min(rows, max(mask.window // 3, 64))
        elif mask.causal and s <= self.columns:
            rows = min(rows, max(t // 4, 64))
            return rows, max(1, s)
        room = self.area // (heads * rows)
        columns = max(self.columns, room) if heads * rows < self.rows else min(self.columns, 2 * room)
        return rows, max(1, min(columns, s))

    def workers(self, scores: int) -> int:
        """Threads for a sweep over so many scores: waking them takes as long as a hundred thousand."""
        threads = granted_threads() if self.threads is None else self.threads
        return threads if scores >= 1 << 18 else 1


class Scratch:
    """Memory of one thread, reused for every block: `take` gives its beginning in the shape asked for."""

    def __init__(self, xp: Any, size: int, dtype: Any) -> None:
        self.flat = workspace(xp, (size,), dtype)

    def take(self, *shape: int) -> Array:
        """An array of this shape with arbitrary contents; it overlaps what was taken before."""
        return self.flat[: math.prod(shape)].reshape(shape)
