"""Softmax over the last axis: what `eq:softmax` says of any implementation, and wrong ones that say otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import BATCHES, SIZES, Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.autodiff import fused

kind("softmax", "softmax(x)", "softmax of x (..., n) over the last axis", public=True)

SPREADS = (1.0, 30.0, 1000.0)


@subject("softmax", "softmax", code=fused.softmax, equation="eq:softmax")
def ours(x: Any) -> Any:
    return fused.softmax(x)


@subject("softmax", "softmax_definition", code=fused.softmax_definition, equation="eq:softmax")
def ours_defined(x: Any) -> Any:
    return fused.softmax_definition(x)


def make(r: Numbers, batch: tuple[int, ...], n: int, spread: float) -> Case:
    """Logits x, and a number c to add to them."""
    return {"x": r.normal(*batch, n, spread=spread), "c": float(r.normal(*batch, 1, spread=300.0).flat[0])}


anything = cases(make, batch=BATCHES, n=SIZES, spread=SPREADS)
moderate = cases(make, batch=BATCHES, n=SIZES, spread=(1.0,))
extreme = cases(make, batch=BATCHES, n=SIZES, spread=(1000.0,))


def definition(x: np.ndarray) -> np.ndarray:
    """The equation, row by row in Python's floating-point numbers."""
    y = np.empty_like(x)
    for row in np.ndindex(x.shape[:-1]):
        top = max(x[row])
        e = [math.exp(z - top) for z in x[row]]
        y[row] = np.array(e) / math.fsum(e)
    return y


def rounding(x: np.ndarray, more: float = 0.0) -> float:
    """Weights are at most 1; the exponential turns the rounding of a logit into as large a relative error."""
    return bound(1.0 + largest(x) + more, x.shape[-1])


# Laws


@law("softmax", "definition", serves="eq:softmax", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """y_i = exp(x_i) / sum_j exp(x_j) over the last axis, for every shape and size of the logits."""
    x = case["x"]
    measure.close(call(f, x), definition(x), rounding(x), "softmax(x)")


@law("softmax", "sums-to-one", serves="eq:softmax", cases=anything)
def sums_to_one(f: F, case: Case, measure: Measure) -> None:
    """Each row of the last axis sums to 1."""
    x = case["x"]
    measure.close(call(f, x).sum(axis=-1), np.ones(x.shape[:-1]), rounding(x), "the sum over the last axis")


@law("softmax", "non-negative", serves="eq:softmax", cases=anything)
def non_negative(f: F, case: Case, measure: Measure) -> None:
    """No weight is negative, and one is positive unless its logit is too far below the largest to be represented."""
    x = case["x"]
    y = call(f, x)
    measure.holds(y.shape == x.shape and np.all(y >= 0), f"softmax(x) has a weight below 0, or is not a number: {y!r}")
    near = x - x.max(axis=-1, keepdims=True) > -700
    measure.holds(np.all(y[near] > 0), f"a logit less than 700 below the largest got the weight 0: {y!r}")


@law("softmax", "shift", serves="eq:softmax", cases=anything)
def shift(f: F, case: Case, measure: Measure) -> None:
    """Adding one number to all logits of a row changes nothing."""
    x, c = case["x"], case["c"]
    measure.close(call(f, x + c), call(f, x), rounding(x, abs(c)), "softmax(x + c), beside softmax(x),")


@law("softmax", "permutation", serves="eq:softmax", cases=anything)
def permutation(f: F, case: Case, measure: Measure) -> None:
    """Reversing the logits of a row reverses its weights."""
    x = case["x"]
    y = np.flip(call(f, np.flip(x, axis=-1).copy()), axis=-1)
    measure.close(y, call(f, x), rounding(x), "softmax(x reversed) reversed")


@law("softmax", "rows", serves="eq:softmax", cases=anything)
def rows(f: F, case: Case, measure: Measure) -> None:
    """A row's weights do not depend on other rows."""
    x = case["x"]
    y = call(f, x)
    measure.holds(y.shape == x.shape, f"softmax(x) has shape {y.shape} for logits of shape {x.shape}")
    for row in np.ndindex(x.shape[:-1]):
        measure.close(y[row], call(f, x[row]), rounding(x[row]), f"row {list(row)} among the others, beside it alone,")


@law("softmax", "extreme-logits", serves="eq:softmax", cases=extreme)
def extreme_logits(f: F, case: Case, measure: Measure) -> None:
    """Logits of thousands give finite weights, and one far above the others takes all."""
    x = case["x"]
    y = call(f, x)
    measure.holds(np.all(np.isfinite(y)), f"softmax(x) is not finite: {y!r}")
    for row in np.ndindex(x.shape[:-1]):
        order = np.sort(x[row])
        if len(order) == 1 or order[-1] - order[-2] > 100:
            alone = (x[row] == order[-1]).astype(float)
            measure.close(y[row], alone, bound(1.0), "the weights of a row with one logit far above the others")


@law("softmax", "order", serves="eq:softmax", cases=anything)
def order(f: F, case: Case, measure: Measure) -> None:
    """A larger logit never gets a smaller weight, and equal logits get equal ones."""
    x = case["x"]
    y = call(f, x)
    along = np.argsort(x, axis=-1, kind="stable")
    rise = np.diff(np.take_along_axis(y, along, axis=-1), axis=-1)
    measure.holds(np.all(rise >= -bound(1.0)), f"a larger logit has a smaller weight: {y!r}")
    tied = np.diff(np.take_along_axis(x, along, axis=-1), axis=-1) == 0
    measure.close(rise[tied], np.zeros(int(tied.sum())), bound(1.0), "the difference of two equal logits' weights")


@law("softmax", "odds", serves="eq:softmax", cases=moderate)
def odds(f: F, case: Case, measure: Measure) -> None:
    """The ratio of two weights is exp of the difference of their logits: base e, whatever the other logits are."""
    x = case["x"]
    found = np.log(call(f, x))
    measure.close(found - found[..., :1], x - x[..., :1], rounding(x), "log(y_i / y_0)")


@law("softmax", "uniform", serves="eq:softmax", cases=anything)
def uniform(f: F, case: Case, measure: Measure) -> None:
    """Equal logits give every entry the weight 1/n."""
    same = np.full(case["x"].shape, case["c"])
    measure.close(call(f, same), np.full(same.shape, 1 / same.shape[-1]), rounding(same), "softmax of equal logits")


@law("softmax", "pure", serves="eq:softmax", cases=anything)
def pure(f: F, case: Case, measure: Measure) -> None:
    """The logits are left as they are."""
    leaves_alone(f, {"x": case["x"]}, measure)


# Mutants


def _normal(e: Any) -> Any:
    return e / e.sum(axis=-1, keepdims=True)


def _stable(x: Any) -> Any:
    return _normal(np.exp(x - x.max(axis=-1, keepdims=True)))


@mutant(
    "softmax", "no-maximum", kills=("definition", "extreme-logits", "sums-to-one"), met="textbook code; overflow to NaN"
)
def no_maximum(x: Any) -> Any:
    return _normal(np.exp(x))


@mutant("softmax", "wrong-axis", kills=("definition", "sums-to-one"), met="dim=0 for dim=-1; PyTorch's implicit dim")
def wrong_axis(x: Any) -> Any:
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


@mutant("softmax", "whole-array", kills=("rows", "sums-to-one"), met="plausible: sum() without an axis")
def whole_array(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum()


@mutant(
    "softmax", "global-maximum", kills=("rows", "sums-to-one"), met="plausible: max() without an axis; far rows vanish"
)
def global_maximum(x: Any) -> Any:
    return _normal(np.exp(x - x.max()))


@mutant("softmax", "base-two", kills=("odds", "definition"), met="kernels use exp2; plausible: log2(e) forgotten")
def base_two(x: Any) -> Any:
    return _normal(np.exp2(x - x.max(axis=-1, keepdims=True)))


@mutant("softmax", "plus-one", kills=("sums-to-one", "uniform"), met="'softmax1', attention sinks; not softmax")
def plus_one(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / (1 + e.sum(axis=-1, keepdims=True))


@mutant(
    "softmax", "eps-in-the-sum", kills=("sums-to-one", "definition"), met="plausible: +1e-9 against division by zero"
)
def eps_in_the_sum(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / (e.sum(axis=-1, keepdims=True) + 1e-9)


@mutant("softmax", "logarithm", kills=("non-negative", "sums-to-one"), met="plausible: log_softmax called for softmax")
def logarithm(x: Any) -> Any:
    return np.log(_stable(x))


@mutant(
    "softmax", "clipped", kills=("order", "odds", "definition"), met="plausible: np.clip of the logits against overflow"
)
def clipped(x: Any) -> Any:
    return _stable(np.where(x > 2, 4 - x, x))


@mutant(
    "softmax", "saturated", kills=("extreme-logits", "shift"), met="plausible: logits clipped to +-50 against overflow"
)
def saturated(x: Any) -> Any:
    return _stable(np.clip(x, -50, 50))


@mutant("softmax", "sigmoids", kills=("odds", "shift"), met="plausible: sigmoids made to sum to 1")
def sigmoids(x: Any) -> Any:
    return _normal(1 / (1 + np.exp(-np.clip(x, -700, 700))))


@mutant("softmax", "thresholded", kills=("non-negative", "odds"), met="sparsemax-like pruning of small weights")
def thresholded(x: Any) -> Any:
    y = _stable(x)
    return _normal(np.where(y < 0.1 * y.max(axis=-1, keepdims=True), 0.0, y))


@mutant(
    "softmax", "sorted", kills=("permutation", "definition"), met="plausible: weights returned in sorted order (top-k)"
)
def in_order(x: Any) -> Any:
    return -np.sort(-_stable(x), axis=-1)


@mutant("softmax", "float32", kills=("definition",), met="an autocast left on; the result is float64 by name only")
def in_float32(x: Any) -> Any:
    return _stable(x.astype(np.float32)).astype(np.float64)


@mutant("softmax", "in-place", kills=("pure",), met="plausible: x -= x.max() on the caller's logits")
def in_place(x: Any) -> Any:
    x -= x.max(axis=-1, keepdims=True)
    return _normal(np.exp(x))
