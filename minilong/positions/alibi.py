"""ALiBi: no embedding of positions, a penalty on each score that grows with the distance (Press et al. 2022)."""

from __future__ import annotations

import numpy as np

from minilong.attention.bias import DistanceBias


def alibi_slopes(heads: int) -> np.ndarray:
    """The heads' slopes (heads,): 2^(-8/n), 2^(-16/n), ... 2^-8 for n heads, n a power of two (`eq:alibi`).

    For another number of heads, the published rule: those of the largest power of two below, n, then the first, third,
    fifth, ... of 2n heads, until there are enough.
    """
    if heads < 1:
        raise ValueError(f"alibi: {heads} heads; there must be at least 1")
    n = 1 << (heads.bit_length() - 1)
    return np.concatenate([_geometric(n), _geometric(2 * n)[0::2][: heads - n]])


def alibi(heads: int, t: int, s: int, *, offset: int = 0, dtype: str = "float32") -> np.ndarray:
    """-slope_h |i + offset - j|: biases (heads, t, s) to add to the scaled scores (`eq:alibi`).

    i counts queries, j keys; offset: position of query 0 among the keys. The paper's models are causal; with the
    distance's magnitude the same biases serve an encoder. Computed in float64 and rounded once.
    """
    distance = np.abs(np.arange(t)[:, None] + offset - np.arange(s))
    biases: np.ndarray = -alibi_slopes(heads)[:, None, None] * distance
    return (biases + 0.0).astype(dtype)


def alibi_bias(heads: int, longest: int, *, causal: bool = True, dtype: str = "float32") -> DistanceBias:
    """The same biases as a value (`eq:alibi`): -slope_h |delta| for distances up to `longest`, in memory of one row.

    longest: the largest distance that will be asked for (beyond it the bias stays as it is there). causal: later keys,
    which the mask hides, get the bias of distance 0; else that of their distance, as in `alibi`.
    """
    if longest < 0:
        raise ValueError(f"alibi: the longest distance is {longest}; it must be at least 0")
    least = 0 if causal else -longest
    values = -alibi_slopes(heads)[:, None] * np.abs(np.arange(least, longest + 1))
    return DistanceBias((values + 0.0).astype(dtype), least)


def _geometric(n: int) -> np.ndarray:
    return np.exp2(-8.0 * np.arange(1, n + 1) / n)
