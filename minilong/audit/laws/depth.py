"""Laws of how a stack is run: two streams, checkpoints, and gradients that equal those of stored activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, copied, largest
from minilong.audit.laws.momentum import DEEP, GAMMAS, STACK, UNIT, branches, there_and_back
from minilong.autodiff import ops, vjp
from minilong.keys import Key
from minilong.nn import Dropout
from minilong.nn.depth import run
from minilong.nn.fixed_point import TwoStreams
from minilong.nn.reversible import run_reversible, stored_twin

kind("residual-stack", "residual_stack(x, weights)", "The last x of branches tanh(x W), however it is stored.")
kind("reversible-stack", "reversible_stack(x, weights)", "The mean of two streams through branches tanh(x W).")
kind("reversible-reversal", "reversible_reversal(x, weights)", "[inputs of the branches, the same found backward, 0]")
kind(
    "depth-gradient",
    "depth_gradient(how, x, weights, tables, seed, gamma, g)",
    "[value, cotangents of x, of each weight, of each table] of branches drop(tanh(x W + tables[0])) tables[1], with "
    "dropout's key by branch; how: a name of DEPTHS.",
)


def our_stack(how: str) -> F:
    """The stack under a derivative, stored in this way."""

    def f(x: Any, weights: Any) -> Any:
        return vjp(lambda x, ws: run(how, branches(ws), x, per_layer=2), x, weights)[0]

    return f


for name in ("stored", "checkpoint", "sqrt"):
    subject("residual-stack", f"run, {name}", code=run, equation="eq:residual-stack")(our_stack(name))


@subject("reversible-stack", "run_reversible", code=run_reversible, equation="eq:reversible-stack")
def inferred(x: Any, weights: Any) -> Any:
    return run_reversible(branches(weights), x)


subject("reversible-stack", "run_reversible, traced", code=run_reversible, equation="eq:reversible-stack")(
    our_stack("reversible")
)


@subject("reversible-reversal", "TwoStreams", code=TwoStreams, equation="eq:fixed-point")
def our_reversal(x: Any, weights: Any) -> Any:
    return two_streams_and_back(TwoStreams(x), weights)


def two_streams_and_back(state: Any, weights: Any) -> Any:
    """As `there_and_back`, for a state that keeps no words."""
    state.words = 0
    return there_and_back(state, weights)


def dropping(i: int, seed: int) -> F:
    """Branch i, whose key belongs to it: run again, it drops the same."""

    def f(w: Any, x: Any, first: Any, second: Any) -> Any:
        return Dropout(0.25)(ops.tanh(x @ w + first), Key.of(seed).fold(i)) * second

    return f


def stack_of(seed: int, weights: Any) -> list[Any]:
    """The branches of the kind `depth-gradient`."""
    return [(dropping(i, seed), w) for i, w in enumerate(weights)]


def pulled(stack: F, x: Any, weights: Any, tables: Any, g: Any) -> list[Any]:
    """[value, cotangents]: of a stack as a function of (x, weights, tables)."""
    value, pull = vjp(stack, x, weights, tables)
    of_x, of_weights, of_tables = pull(g)
    return [value, of_x, *of_weights, *of_tables]


@subject("depth-gradient", "run, all ways", code=run, equation="eq:residual-stack")
def our_gradient(how: str, x: Any, weights: Any, tables: Any, seed: int, gamma: float, g: Any) -> Any:
    def stack(x: Any, weights: Any, tables: Any) -> Any:
        return run(how, stack_of(seed, weights), x, *tables, per_layer=2, momentum=gamma)

    return pulled(stack, x, weights, tables, g)


def stored(c: Case, how: str) -> list[Any]:
    """What the stack of this name gives if everything is stored."""
    if how in ("stored", "checkpoint", "sqrt"):
        return list(our_gradient("stored", *arguments(c)))

    def twin(x: Any, weights: Any, tables: Any) -> Any:
        gamma = c["gamma"] if how == "momentum" else None
        return stored_twin(stack_of(c["seed"], weights), x, *tables, gamma=gamma)

    return pulled(twin, c["x"], c["weights"], c["tables"], c["g"])


def arguments(c: Case) -> list[Any]:
    """Those after `how`."""
    return [copied(c[name]) for name in ("x", "weights", "tables", "seed", "gamma", "g")]


def gradients(n: Numbers, *, t: int, width: int, depth: int, gamma: float) -> Case:
    """A stack, tables that are not alike, and a cotangent."""
    return {
        "x": n.normal(t, width),
        "weights": [n.normal(width, width) / width for _ in range(depth)],
        "tables": [n.normal(t, width), n.nonzero(t, width) / 4],
        "seed": int(n.integers(0, 1000)),
        "gamma": gamma,
        "g": n.nonzero(t, width),
    }


SHALLOW = cases(gradients, t=(2, 1, 3), width=(2, 3, 5), depth=(1, 2, 3, 5), gamma=GAMMAS)
GRADIENTS = cases(gradients, t=(2, 1, 3), width=(2, 3, 5), depth=(1, 2, 3, 7, 30, 90), gamma=GAMMAS)


@law("residual-stack", "formula", serves="eq:residual-stack", cases=STACK)
def formula(f: F, c: Case, measure: Measure) -> None:
    """x + tanh(x W), one branch after another, in the same bits however it is stored."""
    x = c["x"]
    for w in c["weights"]:
        x = x + np.tanh(x @ w)
    measure.close(call(f, c["x"], c["weights"]), x, 0.0, "x")


@law("reversible-stack", "float formula", serves="eq:reversible-stack", cases=STACK)
def float_formula(f: F, c: Case, measure: Measure) -> None:
    """The branch of each stream is added to the other, in turns; the mean comes out; but for the grid's steps."""
    a = b = c["x"]
    off_a = off_b = UNIT
    for w in c["weights"]:
        step = UNIT + bound(1 + largest(b) * largest(w), len(w))
        slope = largest(np.abs(w).sum(axis=0))
        a, b = b, a + np.tanh(b @ w)
        off_a, off_b = off_b, off_a + slope * off_b + step + bound(largest(a, b))
    measure.close(call(f, c["x"], c["weights"]), (a + b) / 2, off_a + off_b, "the mean")


@law("reversible-reversal", "no error", serves=("eq:reversible-stack", "eq:fixed-point"), cases=DEEP)
def no_error(f: F, c: Case, measure: Measure) -> None:
    """Going backward finds the input of every branch again without any error."""
    seen, found, _ = f(copied(c["x"]), copied(c["weights"]))
    for i, (a, b) in enumerate(zip(seen, found, strict=True)):
        measure.close(b, a, 0.0, f"the input of branch {i}")


@law(
    "depth-gradient",
    "as stored",
    serves=("eq:momentum-exact", "eq:reversible-stack", "eq:residual-stack"),
    cases=GRADIENTS,
    share=0.25,
)
def as_stored(f: F, c: Case, measure: Measure) -> None:
    """Value and cotangents of x, weights and tables equal those of stored activations: in every bit where a stack is
    run backward, dropout included; with checkpoints but for the order in which the uses of a table are added."""
    for how in ("reversible", "momentum", "checkpoint", "sqrt"):
        right, found = stored(c, how), f(how, *arguments(c))
        for i, (a, e) in enumerate(zip(found, right, strict=True)):
            table = i >= len(right) - 2 and how in ("checkpoint", "sqrt")
            slack = bound(largest(right[1]) + largest(e), 4 * len(c["weights"])) * len(c["weights"]) if table else 0.0
            measure.close(a, e, slack, f"{how}: number {i} of value, cotangents of x, weights, tables")


@law("depth-gradient", "float formula", serves=("eq:momentum-stack", "eq:reversible-stack"), cases=SHALLOW, share=0.5)
def as_formula(f: F, c: Case, measure: Measure) -> None:
    """The cotangents are those of the formula in floating point, but for what the grid's steps change in the values."""
    n, gamma = len(c["weights"]), c["gamma"]

    def momentum(x: Any, weights: Any, tables: Any) -> Any:
        v = x * 0.0
        for f, w in stack_of(c["seed"], weights):
            v = v * gamma + f(w, x, *tables) * (1 - gamma)
            x = x + v
        return x

    def reversible(x: Any, weights: Any, tables: Any) -> Any:
        a = b = x
        for f, w in stack_of(c["seed"], weights):
            a, b = b, a + f(w, b, *tables)
        return (a + b) / 2

    # Rows and tables are at most 1 after dropout's factor 4/3, so that a branch has the slope of its matrix at most.
    slope = max(largest(np.abs(w).sum(axis=0), np.abs(w).sum(axis=1)) for w in c["weights"])
    size = largest(c["g"]) * c["x"].size * (1 + largest(c["x"]) + n)
    slack = 64 * UNIT * n * size * (1 + slope) ** (n + 1)
    for how, stack in (("momentum", momentum), ("reversible", reversible)):
        right = pulled(stack, c["x"], c["weights"], c["tables"], c["g"])
        for i, (a, e) in enumerate(zip(f(how, *arguments(c)), right, strict=True)):
            measure.close(a, e, slack, f"{how}: number {i} of value, cotangents of x, weights, tables")
