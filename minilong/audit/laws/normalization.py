"""Layer norm and RMS norm over the last axis: what `eq:layer-norm` and `eq:rms-norm` say, and wrong ones.

Near zero the variance may be computed in one pass or in two: the bounds admit the digits that the mean of squares less
the square of the mean cancels. Far from zero (`far-rows`) that form has none left, and fails.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import BATCHES, SIZES, Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.autodiff import fused

kind(
    "layer-norm",
    "layer_norm(x, gain, bias, eps)",
    "x (..., n), gain (n,), bias (n,) -> (x - mean) / sqrt(variance + eps) gain + bias over the last axis",
    public=True,
)
kind(
    "rms-norm",
    "rms_norm(x, gain, eps)",
    "x (..., n), gain (n,) -> x / sqrt(mean of squares + eps) gain over the last axis",
    public=True,
)


@subject("layer-norm", "layer_norm", code=fused.layer_norm, equation="eq:layer-norm")
def ours(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return fused.layer_norm(x, gain, bias, eps=eps)


@subject("layer-norm", "layer_norm_definition", code=fused.layer_norm_definition, equation="eq:layer-norm")
def ours_defined(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return fused.layer_norm_definition(x, gain, bias, eps=eps)


@subject("rms-norm", "rms_norm", code=fused.rms_norm, equation="eq:rms-norm")
def ours_rms(x: Any, gain: Any, eps: float) -> Any:
    return fused.rms_norm(x, gain, eps=eps)


@subject("rms-norm", "rms_norm_definition", code=fused.rms_norm_definition, equation="eq:rms-norm")
def ours_rms_defined(x: Any, gain: Any, eps: float) -> Any:
    return fused.rms_norm_definition(x, gain, eps=eps)


def make(r: Numbers, batch: tuple[int, ...], n: int, eps: float, scale: float, offset: float) -> Case:
    """Rows whose numbers differ, gain and bias, and a factor and an offset to change the rows by."""
    return {
        "x": r.spread_out(*batch, n),
        "gain": r.nonzero(n),
        "bias": r.normal(n),
        "eps": eps,
        "scale": scale,
        "offset": offset,
    }


anything = cases(
    make,
    batch=BATCHES,
    n=(*SIZES, 8),
    eps=(1e-5, 1e-12, 1e-3, 0.5),
    scale=(2.0, -1.0, 0.5, 100.0, -1000.0),
    offset=(1.0, -2.0, 30.0),
)


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and mean of squares of each row, the last axis kept."""
    n = x.shape[-1]
    mean = np.array([math.fsum(row) / n for row in x.reshape(-1, n)]).reshape(*x.shape[:-1], 1)
    squares = np.array([math.fsum(row * row) / n for row in x.reshape(-1, n)]).reshape(*x.shape[:-1], 1)
    deviations = (x - mean).reshape(-1, n)
    variance = np.array([math.fsum(row * row) / n for row in deviations]).reshape(*x.shape[:-1], 1)
    return mean, variance, squares


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """The equation, with exact sums."""
    mean, variance, _ = statistics(x)
    return np.asarray((x - mean) / np.sqrt(variance + eps) * gain + bias)


def rms_norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """The equation, with exact sums."""
    return np.asarray(x / np.sqrt(statistics(x)[2] + eps) * gain)


def rounding(x: np.ndarray, eps: float, gain: Any = 1.0, bias: Any = 0.0) -> float:
    """Rounding of the mean and of the variance, relative to the deviation, in the results."""
    if x.shape[-1] == 1:
        ratio = 1.0 + largest(x) / math.sqrt(eps)  # the numerator is zero but for the mean's rounding
    else:
        ratio = (1.0 + largest(x) / math.sqrt(float(np.min(statistics(x)[1])) + eps)) ** 2
    return bound(ratio * largest(gain) + largest(bias), x.shape[-1])


def rms_rounding(x: np.ndarray, gain: Any = 1.0) -> float:
    """A row's components are at most sqrt(n) after division, and no sum cancels."""
    return bound(math.sqrt(x.shape[-1]) * largest(gain), x.shape[-1])


# Layer norm


@law("layer-norm", "definition", serves="eq:layer-norm", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """(x - mean) / sqrt(variance + eps) gain + bias, the variance being the mean of the squared deviations."""
    x, gain, bias, eps = case["x"], case["gain"], case["bias"], case["eps"]
    right = layer_norm(x, gain, bias, eps)
    measure.close(call(f, x, gain, bias, eps), right, rounding(x, eps, gain, bias), "layer norm")


@law("layer-norm", "moments", serves="eq:layer-norm", cases=anything)
def moments(f: F, case: Case, measure: Measure) -> None:
    """With gain 1 and bias 0 each row has mean 0 and mean of squares variance / (variance + eps)."""
    x, eps, n = case["x"], case["eps"], case["x"].shape[-1]
    y = call(f, x, np.ones(n), np.zeros(n), eps)
    variance = statistics(x)[1][..., 0]
    measure.close(y.mean(axis=-1), np.zeros(x.shape[:-1]), rounding(x, eps), "the mean")
    measure.close(
        (y * y).mean(axis=-1), variance / (variance + eps), rounding(x, eps) * math.sqrt(n), "the mean of squares"
    )


@law("layer-norm", "shift", serves="eq:layer-norm", cases=anything)
def shift(f: F, case: Case, measure: Measure) -> None:
    """Adding one number to all of a row changes nothing."""
    x, gain, bias, eps = case["x"], case["gain"], case["bias"], case["eps"]
    moved = x + case["offset"]
    measure.close(
        call(f, moved, gain, bias, eps),
        call(f, x, gain, bias, eps),
        rounding(moved, eps, gain, bias),
        "the shifted row",
    )


@law("layer-norm", "far-rows", serves="eq:layer-norm", cases=anything)
def far_rows(f: F, case: Case, measure: Measure) -> None:
    """Rows a million from zero lose digits as mean / deviation, not as its square: deviations are squared, not x."""
    gain, bias, eps = case["gain"], case["bias"], case["eps"]
    x = case["x"] + 1e6
    ratio = 1.0 + largest(x) / math.sqrt(float(np.min(statistics(x)[1])) + eps)
    slack = bound(ratio * largest(gain) + largest(bias), x.shape[-1])
    measure.close(call(f, x, gain, bias, eps), layer_norm(x, gain, bias, eps), slack, "layer norm")


@law("layer-norm", "scale", serves="eq:layer-norm", cases=anything)
def scale(f: F, case: Case, measure: Measure) -> None:
    """c times a row with c^2 times eps gives the same, with c's sign: eps is added to the variance."""
    x, gain, eps, c = case["x"], case["gain"], case["eps"], case["scale"]
    zero = np.zeros_like(gain)
    found, right = call(f, c * x, gain, zero, c * c * eps), np.sign(c) * call(f, x, gain, zero, eps)
    measure.close(found, right, rounding(x, eps, gain), "the scaled row")


@law("layer-norm", "scale-free", serves="eq:layer-norm", cases=anything)
def scale_free(f: F, case: Case, measure: Measure) -> None:
    """With eps as it is, c times a row gives the same but for eps, whose effect is at most half of eps / variance."""
    x, eps, c, n = case["x"], case["eps"], abs(case["scale"]) + 1, case["x"].shape[-1]
    one, zero = np.ones(n), np.zeros(n)
    found, before = call(f, c * x, one, zero, eps), call(f, x, one, zero, eps)
    variance = float(np.min(statistics(x)[1]))
    slack = math.sqrt(n) * min(1.0, 0.5 * eps / variance) if n > 1 else 0.0
    measure.close(found, before, slack + rounding(c * x, eps) + rounding(x, eps), "the scaled row")


@law("layer-norm", "gain-and-bias", serves="eq:layer-norm", cases=anything)
def gain_and_bias(f: F, case: Case, measure: Measure) -> None:
    """The gain multiplies and the bias is added afterwards, each component by its own."""
    x, gain, bias, eps, n = case["x"], case["gain"], case["bias"], case["eps"], case["x"].shape[-1]
    plain = call(f, x, np.ones(n), np.zeros(n), eps)
    measure.close(call(f, x, gain, bias, eps), plain * gain + bias, rounding(x, eps, gain, bias), "layer norm")


@law("layer-norm", "constant-row", serves="eq:layer-norm", cases=anything)
def constant_row(f: F, case: Case, measure: Measure) -> None:
    """A row of equal numbers gives the bias: eps keeps zero over zero away."""
    x, gain, bias, eps = case["x"], case["gain"], case["bias"], case["eps"]
    same = np.full(x.shape, case["offset"])
    slack = bound((1 + largest(same) / math.sqrt(eps)) * largest(gain) + largest(bias), x.shape[-1])
    measure.close(call(f, same, gain, bias, eps), np.broadcast_to(bias, x.shape), slack, "layer norm of a constant row")


@law("layer-norm", "rows", serves="eq:layer-norm", cases=anything)
def rows(f: F, case: Case, measure: Measure) -> None:
    """A row does not depend on others: neither on other tokens nor on other sequences of a batch."""
    x, rest = case["x"], (case["gain"], case["bias"], case["eps"])
    y = call(f, x, *rest)
    measure.holds(y.shape == x.shape, f"layer norm has shape {y.shape} for rows of shape {x.shape}")
    for row in np.ndindex(x.shape[:-1]):
        slack = rounding(x[row], case["eps"], case["gain"], case["bias"])
        measure.close(y[row], call(f, x[row], *rest), slack, f"row {list(row)} among the others, beside it alone,")


@law("layer-norm", "permutation", serves="eq:layer-norm", cases=anything)
def permutation(f: F, case: Case, measure: Measure) -> None:
    """Components have no order: reversing row, gain and bias reverses the result."""
    x, gain, bias, eps = case["x"], case["gain"], case["bias"], case["eps"]
    found = call(f, x[..., ::-1], gain[::-1], bias[::-1], eps)[..., ::-1]
    measure.close(found, call(f, x, gain, bias, eps), rounding(x, eps, gain, bias), "layer norm, reversed")


@law("layer-norm", "pure", serves="eq:layer-norm", cases=anything)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Rows, gain and bias are left as they are."""
    leaves_alone(f, {name: case[name] for name in ("x", "gain", "bias", "eps")}, measure)


# RMS norm


@law("rms-norm", "definition", serves="eq:rms-norm", cases=anything)
def rms_equals_definition(f: F, case: Case, measure: Measure) -> None:
    """x / sqrt(mean of squares + eps) gain."""
    x, gain, eps = case["x"], case["gain"], case["eps"]
    measure.close(call(f, x, gain, eps), rms_norm(x, gain, eps), rms_rounding(x, gain), "RMS norm")


@law("rms-norm", "mean-square", serves="eq:rms-norm", cases=anything)
def mean_square(f: F, case: Case, measure: Measure) -> None:
    """With gain 1 each row has the mean of squares m / (m + eps), m being that of the row before."""
    x, eps, n = case["x"], case["eps"], case["x"].shape[-1]
    y, m = call(f, x, np.ones(n), eps), statistics(x)[2][..., 0]
    measure.close((y * y).mean(axis=-1), m / (m + eps), bound(1.0, n), "the mean of squares")


@law("rms-norm", "scale", serves="eq:rms-norm", cases=anything)
def rms_scale(f: F, case: Case, measure: Measure) -> None:
    """c times a row with c^2 times eps gives the same, with c's sign: eps is added to the mean of squares."""
    x, gain, eps, c = case["x"], case["gain"], case["eps"], case["scale"]
    found, right = call(f, c * x, gain, c * c * eps), np.sign(c) * call(f, x, gain, eps)
    measure.close(found, right, rms_rounding(x, gain), "the scaled row")


@law("rms-norm", "not-centred", serves="eq:rms-norm", cases=anything)
def not_centred(f: F, case: Case, measure: Measure) -> None:
    """Nothing is subtracted: a row of equal numbers c gives c / sqrt(c^2 + eps), so a shift does change the result."""
    x, gain, eps, c = case["x"], case["gain"], case["eps"], case["offset"]
    right = np.broadcast_to(c / math.sqrt(c * c + eps) * gain, x.shape)
    measure.close(call(f, np.full(x.shape, c), gain, eps), right, rms_rounding(x, gain), "RMS norm of a constant row")


@law("rms-norm", "direction", serves="eq:rms-norm", cases=anything)
def direction(f: F, case: Case, measure: Measure) -> None:
    """With gain 1 a row keeps its direction: the result is a positive multiple of it."""
    x, n = case["x"], case["x"].shape[-1]
    y = call(f, x, np.ones(n), case["eps"])
    squares = (x * x).sum(axis=-1, keepdims=True)
    factor = (y * x).sum(axis=-1, keepdims=True) / np.where(squares == 0, 1.0, squares)
    measure.holds(np.all(factor >= 0), f"the result points backwards: {y!r}")
    measure.close(y, factor * x, rms_rounding(x), "the result beside its part along x")


@law("rms-norm", "gain", serves="eq:rms-norm", cases=anything)
def rms_gain(f: F, case: Case, measure: Measure) -> None:
    """The gain multiplies each component by its own; a gain of zero gives zero."""
    x, gain, eps, n = case["x"], case["gain"], case["eps"], case["x"].shape[-1]
    plain = call(f, x, np.ones(n), eps)
    measure.close(call(f, x, gain, eps), plain * gain, rms_rounding(x, gain), "RMS norm")
    measure.close(call(f, x, 0 * gain, eps), 0 * plain, 0.0, "RMS norm with gain 0")


@law("rms-norm", "zero-row", serves="eq:rms-norm", cases=anything)
def zero_row(f: F, case: Case, measure: Measure) -> None:
    """A row of zeros gives zeros: eps keeps zero over zero away."""
    x = 0 * case["x"]
    measure.close(call(f, x, case["gain"], case["eps"]), np.zeros(x.shape), 0.0, "RMS norm of zeros")


@law("rms-norm", "rows", serves="eq:rms-norm", cases=anything)
def rms_rows(f: F, case: Case, measure: Measure) -> None:
    """A row does not depend on others."""
    x, gain, eps = case["x"], case["gain"], case["eps"]
    y = call(f, x, gain, eps)
    measure.holds(y.shape == x.shape, f"RMS norm has shape {y.shape} for rows of shape {x.shape}")
    for row in np.ndindex(x.shape[:-1]):
        alone = call(f, x[row], gain, eps)
        measure.close(y[row], alone, rms_rounding(x[row], gain), f"row {list(row)} among the others, beside it alone,")


@law("rms-norm", "permutation", serves="eq:rms-norm", cases=anything)
def rms_permutation(f: F, case: Case, measure: Measure) -> None:
    """Components have no order: reversing row and gain reverses the result."""
    x, gain, eps = case["x"], case["gain"], case["eps"]
    found = call(f, x[..., ::-1], gain[::-1], eps)[..., ::-1]
    measure.close(found, call(f, x, gain, eps), rms_rounding(x, gain), "RMS norm, reversed")


@law("rms-norm", "pure", serves="eq:rms-norm", cases=anything)
def rms_pure(f: F, case: Case, measure: Measure) -> None:
    """Rows and gain are left as they are."""
    leaves_alone(f, {name: case[name] for name in ("x", "gain", "eps")}, measure)
