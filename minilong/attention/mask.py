"""The mask: which keys each query may attend to, as a value. A kernel honours all of it or refuses with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minilong.backend import Array


@dataclass(frozen=True, eq=False)
class Mask:
    """Every field narrows the view; the default lets every query see every key.

    causal: query i sees keys j <= i. window: only keys i - window < j. sinks: the first keys stay visible in spite
    of the window. offset: position of query 0 among the keys (decoding, chunks). key_lengths (batch,): keys from
    there on are padding. segments (batch, keys): tokens of one segment do not see another's; query i belongs to the
    segment of key i + offset.
    """

    causal: bool = False
    window: int | None = None
    sinks: int = 0
    offset: int = 0
    key_lengths: Array | None = None
    segments: Array | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"mask: window is {self.window}; a query must see at least itself (window >= 1)")
        if self.sinks and self.window is None:
            raise ValueError("mask: sinks without a window would change nothing; set window")

    def hides(self, keys: int) -> bool:
        """Whether some query may not attend to one of so many keys: False only where that is plain to see."""
        limited = self.window is not None or self.key_lengths is not None or self.segments is not None
        return limited or (self.causal and self.offset < keys - 1)

    def dense(self, xp: Any, queries: int, keys: int) -> Array | None:
        """Booleans that say who may attend: (queries, keys), or (batch, 1, queries, keys); None where all may.

        This is the definition of every field (`eq:mask`).
        """
        i = xp.arange(queries)[:, None] + self.offset
        j = xp.arange(keys)[None, :]
        allowed: Array | None = None
        if self.causal:
            allowed = j <= i
        if self.window is not None:
            near = (j > i - self.window) | (j < self.sinks)
            allowed = near if allowed is None else allowed & near
        if self.key_lengths is not None:
            real = (j < xp.asarray(self.key_lengths)[:, None])[:, None, None, :]
            allowed = real if allowed is None else allowed & real
        if self.segments is not None:
            key = xp.asarray(self.segments)
            query = key[:, self.offset : self.offset + queries]
            same = (query[:, :, None] == key[:, None, :])[:, None]
            allowed = same if allowed is None else allowed & same
        return allowed
