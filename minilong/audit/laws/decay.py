"""Laws of weight decay: apart from the moments, and on matrices only."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.audit.laws.updates import updated
from minilong.backend import beside, to_host
from minilong.nn import Layout, flatten
from minilong.optim import Adam, AdamState

kind(
    "adamw",
    "adamw(param, grad, m, v, step, lr, beta1, beta2, eps, weight_decay)",
    "One step of Adam with decoupled weight decay -> (param, m, v); step counts from 1.",
)
kind("model-decay", "decayed(arrays, lr, weight_decay)", "The arrays after a step of AdamW whose gradient is zero.")


def our_adamw(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Any, Any, Any]:
    """Our optimiser, which works in place, on copies."""
    theta, state = param.copy(), AdamState(m.copy(), v.copy(), step - 1)
    updated(Adam(beta1, beta2, eps, weight_decay, decoupled=True), state, theta, grad.copy(), lr, theta.size)
    return theta, state.first, state.second


def our_decay(arrays: list[Any], lr: float, weight_decay: float) -> list[Any]:
    """Our flat vector, of which the matrices are a prefix."""
    vector, _, layout = flatten([to_host(x) for x in arrays], np.float64)
    vector = beside(arrays[0], vector)
    optimizer = Adam(weight_decay=weight_decay, decoupled=True)
    updated(optimizer, optimizer.init(vector), vector, vector * 0, lr, layout.decayed)
    return list(layout.slices(vector).values())


subject("adamw", "Adam, decoupled", code=Adam.step, equation="eq:adamw")(our_adamw)
subject("model-decay", "Layout", code=Layout.of, equation="eq:adamw")(our_decay)


def moments(n: Numbers, *, size: int, step: int, decay: float) -> dict[str, Any]:
    """One step in the middle of a run."""
    return {
        "param": n.normal(size),
        "grad": n.normal(size),
        "m": n.normal(size),
        "v": n.uniform(0, 2, size),
        "step": step,
        "lr": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 0.01,
        "weight_decay": decay,
    }


MOMENTS = cases(moments, size=(1, 2, 5), step=(1, 2, 10), decay=(0.1, 0.01, 1.0))


def step_of(f: F, c: Case, **changes: Any) -> list[np.ndarray]:
    """New parameters and moments."""
    return [np.asarray(x) for x in f(*{**c, **changes}.values())]


@law("adamw", "decay-apart", serves="eq:adamw", cases=MOMENTS)
def decay_apart(f: F, c: Case, measure: Measure) -> None:
    """Weight decay takes lr times decay times the old weights away, and changes nothing else of the step or moments."""
    (theta, m, v), (plain, plain_m, plain_v) = step_of(f, c), step_of(f, c, weight_decay=0.0)
    size = bound(1 + largest(c["param"], plain))
    measure.close(plain - theta, c["lr"] * c["weight_decay"] * c["param"], size, "what decay takes")
    measure.close(m, plain_m, 0.0, "with decay, the first moment")
    measure.close(v, plain_v, 0.0, "with decay, the second moment")


@law("adamw", "recursion", serves=("eq:adamw", "eq:adam"), cases=MOMENTS)
def adamw_recursion(f: F, c: Case, measure: Measure) -> None:
    """The published recursion, element by element."""
    theta, m, v = step_of(f, c)
    for i, g in enumerate(c["grad"]):
        first = c["beta1"] * c["m"][i] + (1 - c["beta1"]) * g
        second = c["beta2"] * c["v"][i] + (1 - c["beta2"]) * g * g
        root = (second / (1 - c["beta2"] ** c["step"])) ** 0.5 + c["eps"]
        move = first / (1 - c["beta1"] ** c["step"]) / root
        expected = c["param"][i] - c["lr"] * (move + c["weight_decay"] * c["param"][i])
        measure.close(theta[i], expected, bound(1 + abs(c["param"][i]) + abs(move)))
        measure.close(m[i], first, bound(1 + abs(first)))
        measure.close(v[i], second, bound(1 + second))


def arrays(n: Numbers, *, count: int, decay: float) -> dict[str, Any]:
    """Arrays of no, one and two axes, in any order."""
    shapes = [[(), (1,), (3,), (2, 3), (3, 1)][i] for i in n.integers(0, 5, count)]
    return {"arrays": [n.nonzero(*shape) for shape in shapes], "lr": 0.1, "weight_decay": decay}


ARRAYS = cases(arrays, count=(1, 2, 3, 5), decay=(0.1, 1.0))


@law("model-decay", "matrices-only", serves="eq:adamw", cases=ARRAYS)
def matrices_only(f: F, c: Case, measure: Measure) -> None:
    """Without a gradient, matrices shrink by the factor 1 - lr decay, and biases, gains and other vectors stay."""
    for old, new in zip(c["arrays"], f(**c), strict=True):
        expected = old * (1 - c["lr"] * c["weight_decay"]) if old.ndim > 1 else old
        measure.close(new, expected, bound(largest(old)))


def wrong_adamw(l2: bool = False, late: bool = False, absolute: bool = False) -> F:
    """Decay put into the gradient, taken from the new weights, or not scaled by the learning rate."""

    def adamw(
        param: Any,
        grad: Any,
        m: Any,
        v: Any,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> tuple[Any, Any, Any]:
        given = grad + weight_decay * param if l2 else grad
        theta, m, v = our_adamw(param, given, m, v, step, lr, beta1, beta2, eps, 0.0)
        taken = weight_decay * (theta if late else param) * (1.0 if absolute else lr)
        return theta - (0.0 if l2 else taken), m, v

    return adamw


mutant("adamw", "decay inside the moments", kills=("decay-apart", "recursion"),
       met="Adam with L2 under the name of weight decay: what Loshchilov and Hutter 2019 found in all libraries")(
    wrong_adamw(l2=True))  # fmt: skip
mutant(
    "adamw",
    "decay of the new weights",
    kills=("decay-apart", "recursion"),
    met="plausible: the decay after the step instead of before it",
)(wrong_adamw(late=True))
mutant(
    "adamw",
    "decay not scaled by the learning rate",
    kills="decay-apart",
    met="plausible: the paper's schedule multiplier and the learning rate are two numbers",
)(wrong_adamw(absolute=True))


@mutant(
    "model-decay",
    "vectors decay too",
    kills="matrices-only",
    met="plausible: optimisers decay all parameters unless told; minGPT and nanoGPT sort them by hand",
)
def everything_decays(arrays: list[Any], lr: float, weight_decay: float) -> list[Any]:
    """One factor for all."""
    return [a * (1 - lr * weight_decay) for a in arrays]
