"""A sliding window, with or without attention sinks, in a buffer of constant size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilong.attention import Mask
from minilong.backend import Array
from minilong.memory.base import Card, Rows, length_of
from minilong.memory.cache import Cache, CacheState, fresh, owned, put


@dataclass(frozen=True)
class Window(Cache):
    """The last `window` rows, each query's own among them, and the first `sinks` rows (`eq:cache`).

    Exactly attention under `Mask(causal=True, window=window, sinks=sinks)`. Softmax needs a place for weight that no
    key deserves; models learn to put it on the first tokens, and fail when a window drops them (Xiao et al. 2023).

    The window lies in one piece in a buffer twice its size and slides to the right; at the end it is moved back to
    the front, once in `window` steps. The sinks move along, right before it. So a read copies nothing.
    """

    window: int
    sinks: int = 0

    def __post_init__(self) -> None:
        if self.window < 1 or self.sinks < 0:
            raise ValueError(f"window: needs window >= 1 and sinks >= 0, not {self.window} and {self.sinks}")

    @property
    def card(self) -> Card:
        about = "Forgets all but the last tokens" + (" and the first." if self.sinks else ".")
        return Card(True, False, True, True, about)

    def write(self, state: CacheState, rows: Rows) -> CacheState:
        old = state.view()
        t, n, kept = length_of(rows, old), state.seen, self._kept(state.seen)
        size, buffer = self.held(n, t), owned(state, rows)
        sinks, recent = self._split(old, kept)
        start = state.stop - kept
        if buffer is None or buffer.capacity != size:
            buffer, start = fresh((), rows, size), 0
        elif state.stop + t > size:
            start = 0
        if kept:
            # The sinks first: their new place holds rows that have left the window, or the sinks themselves.
            put(buffer, sinks, start)
            if buffer is not state.buffer or start != state.stop - kept:
                put(buffer, recent, start + kept - recent[0].shape[-2])
        put(buffer, rows, start + kept)
        buffer.seen = n + t
        return CacheState(n + t, start, start + kept + t, buffer)

    def visible(self, seen: int, t: int) -> Array:
        least = max(seen - self.window + 1, 0)
        return np.concatenate([np.arange(min(self.sinks, least)), np.arange(least, seen + t)])

    def mask(self, seen: int, t: int) -> Mask:
        return Mask(causal=True, window=self.window, sinks=self.sinks, offset=self._kept(seen))

    def allowed(self, n: int) -> Array:
        seen = Mask(causal=True, window=self.window, sinks=self.sinks).dense(np, n, n)
        assert seen is not None
        return seen

    def held(self, seen: int, t: int) -> int:
        return max(self.sinks + 2 * self.window, self._kept(seen) + t)

    def reach(self, layers: int) -> int:
        return layers * (self.window - 1)

    def _kept(self, seen: int) -> int:
        """Of the rows seen, those that the next one may still see: sinks, and a window less its own row."""
        return min(seen, self.sinks + self.window - 1)

    def _split(self, old: Rows, kept: int) -> tuple[Rows, Rows]:
        """Of the rows visible before, the sinks and the others that stay: views, `kept` rows together."""
        first = min(self.sinks, kept)
        last = [x.shape[-2] - (kept - first) for x in old]
        return tuple(x[..., :first, :] for x in old), tuple(x[..., i:, :] for x, i in zip(old, last, strict=True))
