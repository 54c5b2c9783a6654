"""Wrong ways to run a stack, and wrong derivatives of one that is run backward by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.common import F
from minilong.audit.laws.depth import our_gradient, pulled, stack_of, two_streams_and_back
from minilong.autodiff import vjp
from minilong.nn.depth import run
from minilong.nn.fixed_point import MomentumState, TwoStreams


@mutant("residual-stack", "uneven end dropped", kills="formula", met="plausible: groups of two for an odd number")
def uneven(x: Any, weights: Any) -> Any:
    for i in range(len(weights) // 2):
        for w in weights[2 * i : 2 * i + 2]:
            x = x + np.tanh(x @ w)
    return x


@mutant("residual-stack", "no residual", kills="formula", met="plausible: x = f(x), a chain of layers for a stack")
def no_residual(x: Any, weights: Any) -> Any:
    for w in weights:
        x = np.tanh(x @ w)
    return x


@mutant("residual-stack", "in parallel", kills="formula", met="plausible: every branch of a group reads its first x")
def in_parallel(x: Any, weights: Any) -> Any:
    return x + sum(np.tanh(x @ w) for w in weights)


def streams(x: Any, weights: Any, *, swap: bool = True) -> tuple[Any, Any]:
    """Both streams at the end, in floating point."""
    a = b = x
    for w in weights:
        a = a + np.tanh(b @ w)
        if swap:
            a, b = b, a
    return a, b


@mutant("reversible-stack", "one stream", kills="float formula", met="plausible: the other stream left out at the end")
def one_stream(x: Any, weights: Any) -> Any:
    return streams(x, weights)[1]


@mutant("reversible-stack", "sum", kills="float formula", met="plausible: streams added, which doubles x at depth 0")
def added(x: Any, weights: Any) -> Any:
    a, b = streams(x, weights)
    return a + b


@mutant("reversible-stack", "no swap", kills="float formula", met="plausible: all branches read the stream that stays")
def no_swap(x: Any, weights: Any) -> Any:
    a, b = streams(x, weights, swap=False)
    return (a + b) / 2


@mutant(
    "reversible-reversal", "floating point", kills="no error", met="RevNet and Reformer: (x + f) - f, which is near x"
)
def floating(x: Any, weights: Any) -> Any:
    a = b = x
    seen, found = [], []
    for w in weights:
        seen.append(b)
        a, b = b, a + np.tanh(b @ w)
    for w in reversed(weights):
        a, b = b, a
        found.append(b)
        a = a - np.tanh(b @ w)
    return [seen, found[::-1], 0]


class Unrewound(TwoStreams):
    """Streams that do not change places on the way back."""

    def rewind(self) -> None:
        """Nothing."""


@mutant("reversible-reversal", "no swap back", kills="no error", met="plausible: the loop reversed, its body not")
def no_swap_back(x: Any, weights: Any) -> Any:
    return two_streams_and_back(Unrewound(x), weights)


@dataclass(frozen=True)
class Slip:
    """What goes wrong on the way back: dropout's seed is moved, extras are taken in the other order or their cotangents
    not summed, gamma and 1 - gamma swapped, velocity's cotangent not carried, the whole one given to both streams.
    """

    seed: int = 0
    tables: bool = False
    summed: bool = True
    swapped: bool = False
    carried: bool = True
    whole: bool = False


def by_hand(slip: Slip) -> F:
    """A derivative that reverses the stack and slips; checkpoints are ours."""

    def f(how: str, x: Any, weights: Any, tables: Any, seed: int, gamma: float, g: Any) -> Any:
        if how in ("checkpoint", "sqrt"):
            return our_gradient(how, x, weights, tables, seed, gamma, g)
        state = TwoStreams(x) if how == "reversible" else MomentumState(x, gamma)
        for branch, w in stack_of(seed, weights):
            state.push(branch(w, state.read(), *tables))
        value = state.value()
        of_weights, of_tables = [], [np.zeros_like(t) for t in tables]
        keep, take = (state.n / state.d, state.share) if isinstance(state, MomentumState) else (0.0, 0.0)
        if slip.swapped:
            keep, take = take, keep
        first = second = g if slip.whole else g / 2
        gx, gv = g, 0.0 * g
        for (now, w), (again, _) in zip(
            reversed(stack_of(seed, weights)), reversed(stack_of(seed + slip.seed, weights)), strict=True
        ):
            state.rewind()
            read = state.read()
            state.pop(now(w, read, *tables))  # the state comes back right, so that the slip alone is looked at
            _, pull = vjp(again, w, read, *(tables[::-1] if slip.tables else tables))
            if how == "momentum":
                gv = keep * gv * slip.carried + gx
                of_w, of_x, *rest = pull(gv * take)
                gx = gx + of_x
            else:
                first, second = second, first
                of_w, of_x, *rest = pull(first)
                second = second + of_x
            of_weights.append(of_w)
            for i, c in enumerate(rest[::-1] if slip.tables else rest):
                of_tables[i] = (of_tables[i] if slip.summed else 0.0) + c
        return [value, gx if how == "momentum" else first + second, *of_weights[::-1], *of_tables]

    return f


BOTH = ("as stored", "float formula")

mutant("depth-gradient", "dropout drawn anew", kills=BOTH, met="plausible: a key of the pass, not of the branch")(
    by_hand(Slip(seed=1))
)
mutant("depth-gradient", "extras in the other order", kills=BOTH, met="plausible: arguments popped from a stack")(
    by_hand(Slip(tables=True))
)
mutant("depth-gradient", "last use of extras", kills=BOTH, met="plausible: cotangents written, not added")(
    by_hand(Slip(summed=False))
)
mutant("depth-gradient", "gamma and 1 - gamma swapped", kills=BOTH, met="plausible: on the way back alone")(
    by_hand(Slip(swapped=True))
)
mutant("depth-gradient", "velocity not carried", kills=BOTH, met="plausible: each branch takes x's cotangent alone")(
    by_hand(Slip(carried=False))
)
mutant("depth-gradient", "mean not halved", kills=BOTH, met="plausible: both streams given the whole cotangent")(
    by_hand(Slip(whole=True))
)


@mutant("depth-gradient", "recomputed as floats", kills="as stored", met="momentumnet and RevNet: inputs that drift")
def drifting(how: str, x: Any, weights: Any, tables: Any, seed: int, gamma: float, g: Any) -> Any:
    """The right derivative at an x that has drifted in its last bits."""
    right = our_gradient(how, x, weights, tables, seed, gamma, g)
    drifted = our_gradient(how, x * (1 + 2.0**-44) + 2.0**-36, weights, tables, seed, gamma, g)
    return [right[0], *drifted[1:]] if how in ("reversible", "momentum") else right


@mutant(
    "depth-gradient",
    "checkpoint with a global generator",
    kills="as stored",
    met="PyTorch before preserve_rng_state: dropout in the recomputed pass drew other elements",
)
def global_generator(how: str, x: Any, weights: Any, tables: Any, seed: int, gamma: float, g: Any) -> Any:
    if how not in ("checkpoint", "sqrt"):
        return our_gradient(how, x, weights, tables, seed, gamma, g)
    calls = count()

    def stack(x: Any, weights: Any, tables: Any) -> Any:
        return run(how, [(drawing(calls, len(weights), i, seed), w) for i, w in enumerate(weights)], x, *tables)

    return pulled(stack, x, weights, tables, g)


def drawing(calls: Iterator[int], length: int, i: int, seed: int) -> F:
    """Branch i with the right key the first time that the stack runs, and other ones after that."""

    def f(w: Any, x: Any, first: Any, second: Any) -> Any:
        passed = next(calls) // length
        return stack_of(seed + passed, [None] * length)[i][0](w, x, first, second)

    return f
