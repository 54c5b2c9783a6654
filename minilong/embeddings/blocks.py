"""Stretches of a corpus as blocks of centre words with their contexts, all of one shape.

Common words are thinned out first, so that a window reaches over the gaps. A block is `size` neighbouring centres; its
contexts are these and `window` words on either side. A window is shortened at random, and never crosses a unit's end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minilong.text.corpus import END


@dataclass(frozen=True, eq=False)
class Blocks:
    """b blocks of c centres and c + 2 window contexts. Places that are filled up count nowhere.

    centres (b, c), contexts (b, c + 2 window): word numbers. near (b, c + 2 window, c) float32: 1 where the context is
    in the centre's window, `eq:window`. real (b, c) float32: 1 for centres that exist. units (b, c): the unit's number.
    """

    centres: np.ndarray
    contexts: np.ndarray
    near: np.ndarray
    real: np.ndarray
    units: np.ndarray

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def window(self) -> int:
        """Words on either side."""
        return int(self.contexts.shape[1] - self.centres.shape[1]) // 2

    def __getitem__(self, which: slice | np.ndarray) -> Blocks:
        """Some of the blocks."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.__dataclass_fields__})

    def only(self, real: np.ndarray) -> Blocks:
        """The same where other centres count."""
        return replace(self, real=real)

    def near_windows(self) -> np.ndarray:
        """`near` by centre and by place in its window, (b, c, 2 window + 1)."""
        centre = np.arange(self.centres.shape[1])[:, None]
        return self.near[:, centre + np.arange(2 * self.window + 1), centre]


def blocks(
    ids: np.ndarray, keep: np.ndarray, window: int, size: int, rng: np.random.Generator, *, first: int = 0,
    shrink: bool = True,
    mix: bool = False,
) -> Blocks:  # fmt: skip
    """The blocks of a stretch of word numbers and unit ends.

    keep (V,): the probability that an occurrence stays. first: the number of the first unit. shrink: draw each centre's
    window from 1 to `window`, equally likely; else all are `window` long. mix: put the words in random order, for
    methods without a window.
    """
    ends = ids == END
    units = first + np.cumsum(ends)[~ends]
    words = ids[~ends]
    stay = rng.random(words.size) < keep[words]
    words, units = words[stay].astype(np.int32), units[stay].astype(np.int32)
    if mix:
        order = rng.permutation(words.size)
        words, units = words[order], units[order]
    count = -(-words.size // size)
    short = count * size - words.size
    words = np.pad(words, (window, window + short))
    units = np.concatenate([np.full(window, -1), units, np.full(short, -2), np.full(window, -3)]).astype(np.int32)
    reach = rng.integers(1, window + 1, (count, 1, size)) if shrink else np.full((count, 1, size), window)
    span = size + 2 * window
    if not count:
        return Blocks(
            *(np.zeros((0, *shape), np.int32) for shape in ((size,), (span,), (span, size), (size,), (size,)))
        )
    contexts, around = (np.ascontiguousarray(sliding_window_view(x, span)[::size]) for x in (words, units))
    centres, own = contexts[:, window : window + size], around[:, window : window + size]
    near = in_window(around, reach)
    return Blocks(centres, contexts, near, (own >= 0).astype(np.float32), own)


def in_window(around: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """1 where a context is in a centre's window, else 0: (b, c + 2 window, c) float32, `eq:window`.

    around (b, c + 2 window): the unit of each context, below 0 for none. reach (b, 1, c): words on either side.
    """
    size = reach.shape[2]
    window = (around.shape[1] - size) // 2
    own = around[:, None, window : window + size]
    distance = np.abs(np.arange(around.shape[1])[:, None] - window - np.arange(size))
    near = (distance <= reach) & (distance > 0) & (around[:, :, None] == own) & (own >= 0)
    weights: np.ndarray = near.astype(np.float32)
    return weights
