"""Random cases for laws, cheap to draw and short to print: Hypothesis chooses sizes and a seed, NumPy fills the arrays.

Drawing numbers one by one would take most of an audit's time, and shrinking helps a reader in the shapes: from a large
counterexample to one row, one head, one pair. So each choice lists its simplest value first, and values have at most
two decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilong.audit.law import Case

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SIZES = (1, 2, 3, 5, 7)
"""Lengths and widths: one, even, odd, prime."""

BATCHES = ((), (1,), (2,), (2, 3))
"""Axes in front."""


class Numbers:
    """Random arrays from a seed, rounded to `digits` decimals; with none, ties and zeros are common."""

    def __init__(self, seed: int, digits: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.digits = digits

    def round(self, x: Any) -> np.ndarray:
        """Rounded, without negative zeros."""
        return np.asarray(np.round(x, self.digits) + 0.0)

    def normal(self, *shape: int, spread: float = 1.0) -> np.ndarray:
        """Normally distributed around 0, with standard deviation `spread`; rounded before it is spread."""
        return self.round(self.rng.standard_normal(shape)) * spread + 0.0

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Between `low` and `high`, both included after rounding."""
        return self.round(self.rng.uniform(low, high, shape))

    def nonzero(self, *shape: int) -> np.ndarray:
        """Of either sign, at least 1 and at most 3 in size."""
        return np.asarray(self.uniform(1, 3, *shape) * self.rng.choice([-1.0, 1.0], shape))

    def spread_out(self, *shape: int) -> np.ndarray:
        """Numbers that differ by at least 0.5 along the last axis, in random order: no row is nearly constant."""
        steps = self.uniform(0.5, 1.5, *shape)
        mixed: np.ndarray = self.rng.permuted(np.cumsum(steps, axis=-1) - shape[-1] // 2, axis=-1)
        return self.round(mixed)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """From `low` up to, not including, `high`."""
        return self.rng.integers(low, high, shape)

    def chance(self, share: float, *shape: int) -> np.ndarray:
        """Booleans, true with this probability."""
        return np.asarray(self.rng.random(shape) < share)

    def order(self, n: int) -> np.ndarray:
        """A random permutation of n; not the identity if there is another."""
        order = self.rng.permutation(n)
        return order if n < 2 or np.any(order != np.arange(n)) else np.roll(order, 1)


def cases(make: Callable[..., Case], **choices: Iterable[Any]) -> Callable[[], SearchStrategy[Case]]:
    """A strategy for a law: `make(numbers, **chosen)`, with one value of each choice; the first is the simplest."""

    def strategy() -> SearchStrategy[Case]:
        from hypothesis import strategies as st

        parts = {name: st.sampled_from(_listed(values)) for name, values in choices.items()}
        drawn = st.tuples(st.integers(0, 2**16 - 1), st.sampled_from((1, 0, 2)), st.fixed_dictionaries(parts))
        return drawn.map(lambda d: make(Numbers(d[0], d[1]), **d[2]))

    return strategy


def _listed(values: Iterable[Any]) -> Sequence[Any]:
    return tuple(values)
