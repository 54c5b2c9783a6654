"""Laws of momentum in depth: the bit store, the stack in fixed point, and that it is found again on the way back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, copied, largest
from minilong.autodiff import ops, vjp
from minilong.backend import array_module
from minilong.nn.fixed_point import Grid, MomentumState, exchange, ratio
from minilong.nn.reversible import run_momentum, stored_twin

UNIT = 2.0**-40
"""The grid of float64."""

kind("fixed-point", "fixed_point(x)", "x rounded to multiples of 2^-40.")
kind("bit-store", "bit_store(v, store, n, d)", "[v n/d without loss, the store]: integers, the store not negative.")
kind("momentum-stack", "momentum_stack(x, weights, gamma)", "The last x of branches tanh(x W), in fixed point.")
kind(
    "momentum-reversal",
    "momentum_reversal(x, weights, gamma)",
    "[inputs of the branches going forward, the same found going backward, words set aside]",
)


@subject("fixed-point", "Grid", code=Grid, equation="eq:fixed-point")
def our_grid(x: Any) -> Any:
    grid, y = Grid(x), array_module(x).zeros(x.size, np.int64)
    for part, i in grid.rounded(x):
        y[part] = i
    return grid.read(y)


@subject("bit-store", "exchange", code=exchange, equation="eq:bit-store")
def our_exchange(v: Any, store: Any, n: int, d: int) -> Any:
    v, store = v.copy(), store.copy()
    exchange(v, store, d, n)
    return [v, store]


def branch(w: Any, x: Any) -> Any:
    """tanh(x W)"""
    return ops.tanh(x @ w)


def branches(weights: Any) -> list[Any]:
    """A stack of them."""
    return [(branch, w) for w in weights]


@subject("momentum-stack", "run_momentum", code=run_momentum, equation="eq:momentum-exact")
def inferred(x: Any, weights: Any, gamma: float) -> Any:
    return run_momentum(branches(weights), x, gamma=gamma)


@subject("momentum-stack", "run_momentum, traced", code=run_momentum, equation="eq:momentum-exact")
def traced(x: Any, weights: Any, gamma: float) -> Any:
    return vjp(lambda x, ws: run_momentum(branches(ws), x, gamma=gamma), x, weights)[0]


@subject("momentum-stack", "stored_twin", code=stored_twin, equation="eq:momentum-exact")
def twin(x: Any, weights: Any, gamma: float) -> Any:
    return vjp(lambda x, ws: stored_twin(branches(ws), x, gamma=gamma), x, weights)[0]


@subject("momentum-reversal", "MomentumState", code=MomentumState, equation="eq:bit-store")
def our_reversal(x: Any, weights: Any, gamma: float) -> Any:
    return there_and_back(MomentumState(x, gamma), weights)


def there_and_back(state: Any, weights: Any) -> Any:
    """What the branches read going forward and backward, and the words that the store had set aside at the end."""
    seen, found = [], []
    for w in weights:
        seen.append(state.read())
        state.push(ops.tanh(seen[-1] @ w))
    words = state.words
    for w in reversed(weights):
        state.rewind()
        found.append(state.read())
        state.pop(ops.tanh(found[-1] @ w))
    return [seen, found[::-1], words]


def numbers(n: Numbers, *, rows: int, width: int, scale: float) -> Case:
    """Numbers of either sign and of many sizes, some of them on the grid's half steps."""
    x = n.normal(rows, width) * scale
    x[0, 0] = 2.5 * UNIT
    return {"x": x}


def integers(n: Numbers, *, size: int, gamma: float, store: int) -> Case:
    """Velocities of either sign, and a store."""
    top, bottom = ratio(gamma)
    return {
        "v": n.integers(-(2**50), 2**50, size) >> n.integers(0, 50, size),
        "store": n.integers(0, store, size),
        "n": top,
        "d": bottom,
    }


def stack(n: Numbers, *, t: int, width: int, depth: int, gamma: float, scale: float) -> Case:
    """A stack whose branches have slopes below one."""
    weights = [n.normal(width, width) / width for _ in range(depth)]
    return {"x": n.normal(t, width) * scale, "weights": weights, "gamma": gamma}


GAMMAS = (0.5, 0.9, 0.99, 2 / 3, 0.1, 0.123)
ROUNDED = cases(numbers, rows=(1, 2, 3), width=(1, 2, 5), scale=(1.0, 1e-9, 1e3, 1e5))
EXCHANGED = cases(integers, size=(1, 2, 5), gamma=GAMMAS, store=(1, 2, 2**20, 2**52))
STACK = cases(
    stack, t=(1, 2, 3), width=(1, 2, 3), depth=(1, 2, 3, 7, 20), gamma=(*GAMMAS, 0.0), scale=(1.0, 0.01, 100.0)
)
DEEP = cases(
    stack, t=(1, 2), width=(1, 2, 3), depth=(1, 2, 7, 130, 400), gamma=(*GAMMAS, 0.0), scale=(1.0, 0.01, 100.0)
)


@law("fixed-point", "nearest", serves="eq:fixed-point", cases=ROUNDED)
def nearest(f: F, c: Case, measure: Measure) -> None:
    """The result is a multiple of 2^-40, and none is nearer to x."""
    y = call(f, c["x"])
    measure.close(np.rint(y / UNIT) * UNIT, y, 0.0, "the multiple")
    measure.close(y, c["x"], UNIT / 2, "the rounded number")


@law("bit-store", "undone", serves="eq:bit-store", cases=EXCHANGED)
def undone(f: F, c: Case, measure: Measure) -> None:
    """With n and d exchanged, v and store come back, to the last bit and of either sign."""
    v, store = f(copied(c["v"]), copied(c["store"]), c["n"], c["d"])
    again, before = f(v, store, c["d"], c["n"])
    measure.close(again, c["v"], 0.0, "v after multiplication and division")
    measure.close(before, c["store"], 0.0, "the store after multiplication and division")


@law("bit-store", "product", serves="eq:bit-store", cases=EXCHANGED)
def product(f: F, c: Case, measure: Measure) -> None:
    """The result is within n of v n/d."""
    v = f(copied(c["v"]), copied(c["store"]), c["n"], c["d"])[0]
    off = max(abs(int(a) * c["d"] - int(b) * c["n"]) for a, b in zip(v, c["v"], strict=True))
    measure.holds(off < c["n"] * c["d"], f"v is off by {off / c['d']} units, and n is {c['n']}")


@law("bit-store", "bits", serves="eq:bit-store", cases=EXCHANGED)
def bits(f: F, c: Case, measure: Measure) -> None:
    """A store below m is below m d/n afterwards, rounded up, and never negative: it grows by log2(d/n) bits."""
    store = f(copied(c["v"]), copied(c["store"]), c["n"], c["d"])[1]
    most = -(-(int(np.max(c["store"])) + 1) * c["d"] // c["n"])
    measure.holds(np.all(store >= 0) and int(np.max(store)) < most, f"the store is {store}, and {most} values may be")


@law("momentum-stack", "float formula", serves=("eq:momentum-stack", "eq:momentum-exact"), cases=STACK)
def float_formula(f: F, c: Case, measure: Measure) -> None:
    """v <- gamma v + (1 - gamma) tanh(x W), x <- x + v, but for the grid's steps and what they grow to."""
    n, d = ratio(c["gamma"])
    x, v, off_x, off_v = c["x"], 0.0 * c["x"], UNIT, 0.0
    for w in c["weights"]:
        step = (n + 2) * UNIT + bound(1 + largest(x) * largest(w), len(w))
        slope = largest(np.abs(w).sum(axis=0))
        v = n / d * v + (1 - n / d) * np.tanh(x @ w)
        off_v = n / d * off_v + (1 - n / d) * slope * off_x + step
        x, off_x = x + v, off_x + off_v + bound(largest(x, v))
    measure.close(call(f, c["x"], c["weights"], c["gamma"]), x, off_x, "x")


@law("momentum-stack", "gamma 0", serves=("eq:momentum-stack", "eq:momentum-exact"), cases=STACK)
def gamma_zero(f: F, c: Case, measure: Measure) -> None:
    """With gamma 0 the stack is x + tanh(x W), rounded to the grid after each branch."""
    x = np.rint(c["x"] / UNIT) * UNIT
    for w in c["weights"]:
        x = x + np.rint(np.tanh(x @ w) / UNIT) * UNIT
    slack = bound(largest(x) + len(c["weights"]), 2 * len(c["weights"])) + len(c["weights"]) * UNIT
    measure.close(call(f, c["x"], c["weights"], 0.0), x, slack * (1 + largest(*c["weights"])) ** len(c["weights"]), "x")


@law("momentum-stack", "rows apart", serves="eq:momentum-exact", cases=STACK)
def rows_apart(f: F, c: Case, measure: Measure) -> None:
    """What a row becomes depends in no bit on the rows after it: velocity and store belong to one element."""
    other = copied(c["x"])
    other[-1] = 3.0 - other[-1]
    before = call(f, c["x"], c["weights"], c["gamma"])
    measure.close(call(f, other, c["weights"], c["gamma"])[:-1], before[:-1], 0.0, "earlier rows")


@law("momentum-reversal", "no error", serves=("eq:momentum-exact", "eq:bit-store", "eq:fixed-point"), cases=DEEP)
def no_error(f: F, c: Case, measure: Measure) -> None:
    """Going backward finds the input of every branch again without any error, for all depths, gammas and scales."""
    seen, found, _ = f(copied(c["x"]), copied(c["weights"]), c["gamma"])
    for i, (a, b) in enumerate(zip(seen, found, strict=True)):
        measure.close(b, a, 0.0, f"the input of branch {i}")


@law("momentum-reversal", "bits as predicted", serves=("eq:momentum-exact", "eq:bit-store"), cases=DEEP)
def bits_as_predicted(f: F, c: Case, measure: Measure) -> None:
    """L branches need L log2(d/n) bits an element: no fewer words, and no more than fill all but a few bits each."""
    n, d = ratio(c["gamma"])
    words, depth = int(f(copied(c["x"]), copied(c["weights"]), c["gamma"])[2]), len(c["weights"])
    if n == 0:
        measure.holds(words == depth, f"{words} words for {depth} velocities")
        return
    lost = depth * math.log2(d / n)
    measure.holds(lost <= 63 * (words + 1), f"{words} words and one in use hold {lost:.0f} bits")
    filled = 63 - math.log2(d) - math.log2(d / (d - n))
    measure.holds(words * filled <= lost, f"{words} words are set aside for {lost:.0f} bits")
