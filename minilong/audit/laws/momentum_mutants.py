"""Wrong ways to multiply without loss, and to run a momentum stack backward. Several were published."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.momentum import UNIT, there_and_back
from minilong.nn.fixed_point import MomentumState, exchange, ratio

WRAPS = "momentumnet, TorchExactRep: an int64 store that overflows after n_max_iter branches, which nothing checks"


@mutant("fixed-point", "truncated", kills="nearest", met="plausible: astype(int64) without rint")
def truncated(x: Any) -> Any:
    return np.trunc(x / UNIT) * UNIT


@mutant("fixed-point", "coarser", kills="nearest", met="plausible: 32 bits after the point, as for float32")
def coarser(x: Any) -> Any:
    return np.rint(x * 2.0**32) / 2.0**32


@mutant(
    "bit-store",
    "truncated quotient",
    kills="undone",
    met="momentumnet, TorchExactRep: torch.div(rounding_mode='trunc') beside a floored remainder",
)
def truncated_quotient(v: Any, store: Any, n: int, d: int) -> Any:
    quotient = np.trunc(v / d).astype(np.int64)
    pushed = store * d + v % d
    return [quotient * n + pushed % n, pushed // n]


@mutant("bit-store", "negative remainder", kills=("undone", "bits"), met="C: % keeps the sign of v")
def negative_remainder(v: Any, store: Any, n: int, d: int) -> Any:
    pushed = store * d + np.fmod(v, d)
    return [np.trunc(v / d).astype(np.int64) * n + pushed % n, pushed // n]


@mutant("bit-store", "remainder lost", kills="undone", met="plausible: v // d * n, and no store")
def remainder_lost(v: Any, store: Any, n: int, d: int) -> Any:
    return [v // d * n, store]


@mutant("bit-store", "nothing popped", kills=("undone", "bits"), met="plausible: a store that only grows")
def nothing_popped(v: Any, store: Any, n: int, d: int) -> Any:
    return [v // d * n, store * d + v % d]


@mutant("bit-store", "inverted", kills="product", met="plausible: the inverse for the multiplication")
def inverted(v: Any, store: Any, n: int, d: int) -> Any:
    v, store = v.copy(), store.copy()
    exchange(v, store, n, d)
    return [v, store]


def state_loop(x: Any, weights: Any, *, keep: float, take: float, first: bool = False) -> Any:
    """A stack in floating point with other factors, or with the branch read after the step."""
    v = 0.0 * x
    for w in weights:
        if first:
            x = x + v
        v = keep * v + take * np.tanh(x @ w)
        if not first:
            x = x + v
    return np.rint(x / UNIT) * UNIT


@mutant("momentum-stack", "gamma swapped", kills="float formula", met="Keras's momentum is 1 - PyTorch's")
def swapped(x: Any, weights: Any, gamma: float) -> Any:
    n, d = ratio(gamma)
    return state_loop(x, weights, keep=1 - n / d, take=n / d)


@mutant(
    "momentum-stack",
    "undamped",
    kills="float formula",
    met="plausible: v = gamma v + f(x), as momentum in PyTorch's SGD without dampening",
)
def undamped(x: Any, weights: Any, gamma: float) -> Any:
    n, d = ratio(gamma)
    return state_loop(x, weights, keep=n / d, take=1.0)


@mutant(
    "momentum-stack", "velocity first", kills=("float formula", "gamma 0"), met="plausible: the two lines exchanged"
)
def velocity_first(x: Any, weights: Any, gamma: float) -> Any:
    n, d = ratio(gamma)
    return state_loop(x, weights, keep=n / d, take=1 - n / d, first=True)


@mutant("momentum-stack", "gamma at least 1/10", kills="gamma 0", met="plausible: a guard against division by n = 0")
def guarded(x: Any, weights: Any, gamma: float) -> Any:
    n, d = ratio(max(gamma, 0.1))
    return state_loop(x, weights, keep=n / d, take=1 - n / d)


@mutant(
    "momentum-stack",
    "one scale for all",
    kills="rows apart",
    met="plausible: a grid whose step follows the largest element, as quantisation does; it leaks the future",
)
def one_scale(x: Any, weights: Any, gamma: float) -> Any:
    step = float(np.max(np.abs(x), initial=1e-3)) * 2.0**-31
    n, d = ratio(gamma)
    v = 0.0 * x
    for w in weights:
        v = n / d * v + (1 - n / d) * np.tanh(x @ w)
        x = np.rint((x + v) / step) * step
    return x


@mutant("momentum-reversal", "floating point", kills="no error", met="the inverse as the paper prints it, in float64")
def floating(x: Any, weights: Any, gamma: float) -> Any:
    n, d = ratio(gamma)
    v, seen, found = 0.0 * x, [], []
    for w in weights:
        seen.append(x)
        v = n / d * v + (1 - n / d) * np.tanh(x @ w)
        x = x + v
    for w in reversed(weights):
        x = x - v
        found.append(x)
        v = (v - (1 - n / d) * np.tanh(x @ w)) / max(n / d, 1e-9)
    return [seen, found[::-1], MomentumState(x, gamma).words]


class FloatPosition(MomentumState):
    """The velocity exact, x in floating point."""

    def __init__(self, x: Any, gamma: float) -> None:
        super().__init__(x, gamma)
        self.float_x = x

    def read(self) -> Any:
        """The float."""
        return self.float_x

    def push(self, delta: Any) -> None:
        """Add the velocity as a float."""
        super().push(delta)
        self.float_x = self.float_x + self.grid.read(self.v)

    def rewind(self) -> None:
        """Take it away again."""
        super().rewind()
        self.float_x = self.float_x - self.grid.read(self.v)


@mutant(
    "momentum-reversal",
    "x in floating point",
    kills="no error",
    met="momentumnet: v exact and x a float tensor; gradients off by 0.8 relative at gamma 0.5 and 32 layers",
)
def float_x(x: Any, weights: Any, gamma: float) -> Any:
    return there_and_back(FloatPosition(x, gamma), weights)


class OneWord(MomentumState):
    """A store of one word, however many bits are pushed."""

    def _make_room(self) -> None:
        if self.n == 0:
            super()._make_room()


@mutant("momentum-reversal", "store wraps", kills=("no error", "bits as predicted"), met=WRAPS)
def wraps(x: Any, weights: Any, gamma: float) -> Any:
    return there_and_back(OneWord(x, gamma), weights)


class WordEach(MomentumState):
    """A new word at every branch."""

    def _make_room(self) -> None:
        self.count = 2**63
        super()._make_room()


@mutant(
    "momentum-reversal",
    "a word for each branch",
    kills="bits as predicted",
    met="plausible: remainders kept as they are, in an array for each layer: no less than the activations",
)
def word_each(x: Any, weights: Any, gamma: float) -> Any:
    return there_and_back(WordEach(x, gamma), weights)


class Thinned(MomentumState):
    """Every other full word is dropped."""

    def _make_room(self) -> None:
        super()._make_room()
        if len(self.aside) > 1:
            del self.aside[0]


@mutant(
    "momentum-reversal", "words dropped", kills=("no error", "bits as predicted"), met="plausible: room for one word"
)
def dropped(x: Any, weights: Any, gamma: float) -> Any:
    return there_and_back(Thinned(x, gamma), weights)
