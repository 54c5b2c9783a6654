"""T5's relative positions: a learned bias for each head and range of distances (Raffel et al. 2020).

Near distances have a bias of their own each, farther ones share: the ranges grow as powers, and beyond the longest
distance there is one for all. Without positions elsewhere, this is all that the model knows of order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention.bias import DistanceBias
from minilong.autodiff import embedding, ops, stop_gradient
from minilong.backend import Array, beside

BUCKETS, LONGEST = 32, 128
"""The published numbers of ranges and the distance from which on all is one range."""


def t5_bucket(distance: Array, *, causal: bool, buckets: int = BUCKETS, longest: int = LONGEST) -> np.ndarray:
    """The range of each distance i - j of a query i and a key j, integers below `buckets` (`eq:t5-bucket`).

    causal: one range for each distance below buckets/2, then growing ones up to `longest`; later keys fall into the
    first. Else the first half of the ranges serves keys at or before the query so, the second half later keys.
    Raises ValueError where the buckets cannot be halved, or exact ranges reach beyond the longest distance.
    """
    d = np.asarray(distance)
    if causal:
        return _range_of(np.maximum(d, 0), buckets, longest)
    if buckets % 2:
        raise ValueError(f"t5: {buckets} buckets cannot be shared between two directions; there must be an even number")
    return _range_of(np.abs(d), buckets // 2, longest) + np.where(d < 0, buckets // 2, 0)


def t5_values(table: Any, *, causal: bool, longest: int = LONGEST) -> DistanceBias:
    """The bias of each head and distance (`eq:t5-bias`): table (buckets, heads), array or tensor -> DistanceBias.

    It holds distances up to the longest only; beyond, a DistanceBias takes its last value, as T5 does. Source: Raffel
    et al. 2020, section 2.1, and the authors' code.
    """
    least = 0 if causal else -longest
    index = t5_bucket(np.arange(least, longest + 1), causal=causal, buckets=table.shape[0], longest=longest)
    return DistanceBias(
        ops.transpose(embedding(table, indices=beside(stop_gradient(table), index)), order=(1, 0)), least
    )


def _range_of(far: np.ndarray, buckets: int, longest: int) -> np.ndarray:
    """The range of distances `far` >= 0, of so many ranges in one direction."""
    return np.searchsorted(_starts(buckets, longest), far, side="right") - 1


def _starts(buckets: int, longest: int) -> np.ndarray:
    """The least distance of each range (buckets,), increasing.

    Range e + k of n, e = n // 2, begins where e (longest / e)^(k / (n - e)) is reached. Compared in whole numbers: a
    logarithm rounded down would put a distance that is exactly such a power into one range or the other by luck.
    """
    exact = buckets // 2
    if exact < 1 or exact >= longest:
        raise ValueError(
            f"t5: {buckets} ranges and a longest distance of {longest}; there must be at least 2 ranges, and half of "
            "them fewer than that distance"
        )
    steps = buckets - exact
    starts = list(range(exact + 1))
    for k in range(1, steps):
        n = int(exact * (longest / exact) ** (k / steps))
        while n**steps < longest**k * exact ** (steps - k):
            n += 1
        while (n - 1) ** steps >= longest**k * exact ** (steps - k):
            n -= 1
        starts.append(n)
    return np.array(starts)
