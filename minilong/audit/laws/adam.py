"""One step of Adam as published (Kingma and Ba 2015, algorithm 1): what `eq:adam` says, and wrong optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, copied, largest, leaves_alone
from minilong.audit.laws.updates import updated
from minilong.optim import Adam, AdamState

kind(
    "adam",
    "adam(param, grad, m, v, step, lr, beta1, beta2, eps)",
    "one step: param, grad and the moments m, v of one shape, step counted from 1 -> (param, m, v) afterwards",
    public=True,
)

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]


@subject("adam", "Adam.step", code=Adam.step, equation="eq:adam")
def ours(param: Any, grad: Any, m: Any, v: Any, step: int, lr: float, beta1: float, beta2: float, eps: float) -> Any:
    theta, state = param.ravel().copy(), AdamState(m.ravel().copy(), v.ravel().copy(), step - 1)
    updated(Adam(beta1, beta2, eps), state, theta, grad.ravel(), lr, theta.size)
    return tuple(x.reshape(param.shape) for x in (theta, state.first, state.second))


def make(
    r: Numbers, shape: tuple[int, ...], step: int, lr: float, betas: tuple[float, float], eps: float, factor: float
) -> Case:
    """One step from moments as some run may have left them, which are zero before step 1."""
    old = 0.0 if step == 1 else 1.0
    return {
        "param": r.normal(*shape),
        "grad": r.nonzero(*shape) * r.chance(0.8, *shape) + 0.0,
        "m": r.normal(*shape) * old + 0.0,
        "v": r.uniform(0, 4, *shape) * old,
        "step": step,
        "lr": lr,
        "beta1": betas[0],
        "beta2": betas[1],
        "eps": eps,
        "factor": factor,
    }


def make_run(r: Numbers, n: int, steps: int, lr: float, betas: tuple[float, float], eps: float) -> Case:
    """Gradients (steps, n) of a run that begins at step 1 with moments zero; the first is not zero."""
    return {
        "param": r.normal(n),
        "grads": r.nonzero(steps, n) * (r.chance(0.8, steps, n) | (np.arange(steps) == 0)[:, None]) + 0.0,
        "lr": lr,
        "beta1": betas[0],
        "beta2": betas[1],
        "eps": eps,
    }


RATES: dict[str, Any] = {"lr": (0.1, 1.0, 0.001), "betas": ((0.9, 0.999), (0.5, 0.75), (0.9, 0.95), (0.0, 0.9))}
one_step = cases(
    make,
    shape=((1,), (2,), (3,), (2, 3)),
    step=(1, 2, 3, 10, 1000),
    **RATES,
    eps=(1e-8, 0.001, 0.1),
    factor=(2.0, -1.0, 0.25, 100.0),
)
a_run = cases(make_run, n=(1, 2, 5), steps=(1, 2, 3, 5), **RATES, eps=(1e-8, 0.001, 0.1))


def arguments(case: Case, **changed: Any) -> list[Any]:
    names = ("param", "grad", "m", "v", "step", "lr", "beta1", "beta2", "eps")
    return [changed.get(name, case[name]) for name in names]


def update(f: F, args: list[Any]) -> Moments:
    """The function's result as three arrays; it works on copies."""
    param, m, v = f(*[copied(a) for a in args])
    return np.asarray(param), np.asarray(m), np.asarray(v)


def definition(
    param: np.ndarray,
    grad: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> Moments:
    """Algorithm 1, line by line."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    corrected_m = m / (1 - beta1**step)
    corrected_v = v / (1 - beta2**step)
    return param - lr * corrected_m / (np.sqrt(corrected_v) + eps), m, v


def rounding(case: Case, before: np.ndarray, m: np.ndarray, v: np.ndarray, step: int) -> float:
    """Rounding of the update, and of 1 - beta^step, which cancels for early steps."""
    c1, c2 = 1 - case["beta1"] ** step, 1 - case["beta2"] ** step
    size = float(np.max(np.abs(m) / c1 / (np.sqrt(v / c2) + case["eps"])))
    return bound(largest(before) + case["lr"] * (size + 1) * (1 / c1 + 1 / c2))


def one_rounding(case: Case) -> float:
    """The same for one step; magnitudes are added up, so that a moment that cancels does not count as small."""
    m = case["beta1"] * np.abs(case["m"]) + (1 - case["beta1"]) * np.abs(case["grad"])
    _, _, v = definition(*arguments(case))
    return rounding(case, case["param"], m, v, case["step"])


# Laws


@law("adam", "definition", serves="eq:adam", cases=one_step)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """One step is algorithm 1: moments, their corrections by 1 - beta^step, and the update with eps beside the root."""
    found, right = update(f, arguments(case)), definition(*arguments(case))
    measure.close(found[0], right[0], one_rounding(case), "param")
    measure.close(found[1], right[1], bound(largest(case["m"], case["grad"])), "m")
    measure.close(found[2], right[2], bound(largest(case["v"], case["grad"] ** 2)), "v")


@law("adam", "run", serves="eq:adam", cases=a_run)
def run(f: F, case: Case, measure: Measure) -> None:
    """Over several steps the moments are weighted sums of all gradients, (1 - beta) sum of beta^(t - i) g_i."""
    grads, beta1, beta2 = case["grads"], case["beta1"], case["beta2"]
    param, m, v = case["param"], np.zeros_like(case["param"]), np.zeros_like(case["param"])
    for t in range(1, len(grads) + 1):
        before = param
        param, m, v = update(f, [param, grads[t - 1], m, v, t, case["lr"], beta1, beta2, case["eps"]])
        age, seen = np.arange(t)[::-1, None], grads[:t]
        first = (1 - beta1) * (beta1**age * seen).sum(axis=0)
        second = (1 - beta2) * (beta2**age * seen**2).sum(axis=0)
        measure.close(m, first, bound(largest(seen), t), f"m after step {t}")
        measure.close(v, second, bound(largest(seen) ** 2, t), f"v after step {t}")
        step = (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + case["eps"])
        slack = 4 * rounding(case, before, np.full_like(first, largest(seen)), second, t)
        measure.close(param, before - case["lr"] * step, slack, f"param after step {t}")


@law("adam", "first-step", serves="eq:adam", cases=a_run)
def first_step(f: F, case: Case, measure: Measure) -> None:
    """The corrections make the first step lr g / (|g| + eps): the size is lr whatever the gradient's."""
    g, zero = case["grads"][0], np.zeros_like(case["param"])
    param, _, _ = update(f, [case["param"], g, zero, zero, 1, *(case[x] for x in ("lr", "beta1", "beta2", "eps"))])
    right = case["param"] - case["lr"] * g / (np.abs(g) + case["eps"])
    slack = rounding(case, case["param"], (1 - case["beta1"]) * g, (1 - case["beta2"]) * g**2, 1)
    measure.close(param, right, slack, "param after the first step")


@law("adam", "steady-gradient", serves="eq:adam", cases=a_run)
def steady_gradient(f: F, case: Case, measure: Measure) -> None:
    """A gradient that stays the same moves by lr g / (|g| + eps) every step: the corrections undo the start at zero."""
    g, param = case["grads"][0], case["param"]
    m, v = np.zeros_like(param), np.zeros_like(param)
    for t in range(1, 1 + max(2, len(case["grads"]))):
        before = param
        param, m, v = update(f, [param, g, m, v, t, *(case[x] for x in ("lr", "beta1", "beta2", "eps"))])
        right = before - case["lr"] * g / (np.abs(g) + case["eps"])
        slack = 4 * rounding(case, before, g * (1 - case["beta1"] ** t), g**2 * (1 - case["beta2"] ** t), t)
        measure.close(param, right, slack, f"param after step {t}")


@law("adam", "gradient-scale", serves="eq:adam", cases=one_step)
def gradient_scale(f: F, case: Case, measure: Measure) -> None:
    """c times all gradients, seen and new, with |c| eps moves as far: the update has no unit of the loss."""
    c = case["factor"]
    scaled = arguments(case, grad=c * case["grad"], m=c * case["m"], v=c * c * case["v"], eps=abs(c) * case["eps"])
    found, before = update(f, scaled)[0] - case["param"], update(f, arguments(case))[0] - case["param"]
    measure.close(found, np.sign(c) * before, 2 * one_rounding(case), "the update with the gradients scaled")


@law("adam", "learning-rate", serves="eq:adam", cases=one_step)
def learning_rate(f: F, case: Case, measure: Measure) -> None:
    """The update is proportional to lr; with lr 0 the parameter stays and the moments still move."""
    base, once = update(f, arguments(case, lr=0.0)), update(f, arguments(case))
    measure.close(base[0], case["param"], 0.0, "param with lr 0")
    thrice = update(f, arguments(case, lr=3 * case["lr"]))[0] - case["param"]
    measure.close(thrice, 3 * (once[0] - case["param"]), 8 * one_rounding(case), "the update with 3 lr")
    measure.close(base[1], once[1], bound(largest(case["m"], case["grad"])), "m with lr 0")
    measure.close(base[2], once[2], bound(largest(case["v"], case["grad"] ** 2)), "v with lr 0")


@law("adam", "parameter-free", serves="eq:adam", cases=one_step)
def parameter_free(f: F, case: Case, measure: Measure) -> None:
    """The update does not depend on the parameter: no decay is in Adam."""
    far = case["param"] + 5
    found, before = update(f, arguments(case, param=far))[0] - far, update(f, arguments(case))[0] - case["param"]
    measure.close(found, before, 2 * one_rounding(case) + bound(largest(far)), "the update from another parameter")


@law("adam", "zero-gradient", serves="eq:adam", cases=one_step)
def zero_gradient(f: F, case: Case, measure: Measure) -> None:
    """With moments zero, a gradient of zero leaves parameter and moments as they are, and is no zero over zero."""
    zero = np.zeros_like(case["param"])
    found = update(f, arguments(case, grad=zero, m=zero, v=zero))
    for name, x, right in zip(("param", "m", "v"), found, (case["param"], zero, zero), strict=True):
        measure.close(x, right, 0.0, f"{name} without a gradient")


@law("adam", "elementwise", serves="eq:adam", cases=one_step)
def elementwise(f: F, case: Case, measure: Measure) -> None:
    """Each parameter is updated as if it were alone."""
    found = update(f, arguments(case))
    for i in np.ndindex(case["param"].shape):
        alone = update(f, arguments(case, **{x: case[x][i].reshape(1) for x in ("param", "grad", "m", "v")}))
        for name, x, right in zip(("param", "m", "v"), found, alone, strict=True):
            measure.holds(x.shape == case["param"].shape, f"{name} has shape {x.shape}")
            slack = one_rounding(case) if name == "param" else bound(10.0)
            measure.close(x[i].reshape(1), right, slack, f"{name} {list(i)} among the others, beside it alone,")


@law("adam", "descends", serves="eq:adam", cases=a_run)
def descends(f: F, case: Case, measure: Measure) -> None:
    """The parameter moves, and against the gradient."""
    g, zero = case["grads"][0], np.zeros_like(case["param"])
    param, _, _ = update(f, [case["param"], g, zero, zero, 1, *(case[x] for x in ("lr", "beta1", "beta2", "eps"))])
    measure.holds(np.all((case["param"] - param) * g > 0), f"from {case['param']!r} along {g!r} it went to {param!r}")


@law("adam", "returns-raw-moments", serves="eq:adam", cases=one_step)
def returns_raw_moments(f: F, case: Case, measure: Measure) -> None:
    """The moments returned are the uncorrected ones, so they do not depend on the step's number."""
    here, later = update(f, arguments(case)), update(f, arguments(case, step=case["step"] + 5))
    measure.close(here[1], later[1], bound(largest(case["m"], case["grad"])), "m at another step")
    measure.close(here[2], later[2], bound(largest(case["v"], case["grad"] ** 2)), "v at another step")


@law("adam", "pure", serves="eq:adam", cases=one_step)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Parameter, gradient and moments given are left as they are: the new ones are returned."""
    names = ("param", "grad", "m", "v", "step", "lr", "beta1", "beta2", "eps")
    leaves_alone(f, {name: case[name] for name in names}, measure)
