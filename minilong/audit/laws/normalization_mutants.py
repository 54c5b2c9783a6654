"""Wrong layer norms and RMS norms: mistakes that were met in code and bug reports, and likely ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.law import mutant


def mean(x: Any) -> Any:
    return x.mean(axis=-1, keepdims=True)


def centred(x: Any) -> Any:
    return x - mean(x)


def variance(x: Any) -> Any:
    return mean(centred(x) ** 2)


# Layer norm


@mutant(
    "layer-norm",
    "unbiased-deviation",
    kills=("definition", "moments", "scale"),
    met="codertimo/BERT-pytorch #30: std(x) + eps",
)
def unbiased_deviation(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / (x.std(axis=-1, keepdims=True, ddof=min(1, x.shape[-1] - 1)) + eps) + bias


@mutant("layer-norm", "unbiased-variance", kills=("definition", "moments"), met="torch.var's default correction of 1")
def unbiased_variance(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(x.var(axis=-1, keepdims=True, ddof=min(1, x.shape[-1] - 1)) + eps) + bias


@mutant("layer-norm", "eps-outside", kills=("definition", "scale", "moments"), met="plausible: sqrt(variance) + eps")
def eps_outside(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / (np.sqrt(variance(x)) + eps) + bias


@mutant("layer-norm", "no-eps", kills=("constant-row", "definition"), met="plausible: eps forgotten; NaN on padding")
def no_eps(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(variance(x)) + bias


@mutant("layer-norm", "fixed-eps", kills=("definition", "scale"), met="plausible: the argument eps ignored")
def fixed_eps(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(variance(x) + 1e-5) + bias


@mutant("layer-norm", "variance-not-root", kills=("scale-free", "moments"), met="plausible: sqrt forgotten")
def variance_not_root(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / (variance(x) + eps) + bias


@mutant("layer-norm", "not-centred", kills=("shift", "moments", "constant-row"), met="RMS norm loaded as layer norm")
def not_centred(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * x / np.sqrt(mean(x * x) + eps) + bias


@mutant(
    "layer-norm",
    "variance-about-zero",
    kills=("shift", "definition"),
    met="plausible: mean of squares for the variance",
)
def variance_about_zero(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(mean(x * x) + eps) + bias


@mutant(
    "layer-norm",
    "one-pass",
    kills=("far-rows",),
    met="Flax's use_fast_variance: mean of squares less the square of the mean",
)
def one_pass(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(np.maximum(mean(x * x) - mean(x) ** 2, 0) + eps) + bias


@mutant(
    "layer-norm", "whole-sequence", kills=("rows", "moments"), met="tutorials: statistics over all axes, as for images"
)
def whole_sequence(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * (x - x.mean()) / np.sqrt(x.var() + eps) + bias


@mutant(
    "layer-norm", "over-the-batch", kills=("rows", "moments"), met="batch normalisation for sequences: the article, 9.1"
)
def over_the_batch(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    axes = tuple(range(x.ndim - 1))
    return gain * (x - x.mean(axis=axes)) / np.sqrt(x.var(axis=axes) + eps) + bias


@mutant(
    "layer-norm",
    "gain-plus-one",
    kills=("definition", "gain-and-bias"),
    met="Gemma stores gain - 1; loaded into others",
)
def gain_plus_one(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return (1 + gain) * centred(x) / np.sqrt(variance(x) + eps) + bias


@mutant(
    "layer-norm", "bias-before-gain", kills=("gain-and-bias", "constant-row"), met="plausible: gain * (normal + bias)"
)
def bias_before_gain(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain * (centred(x) / np.sqrt(variance(x) + eps) + bias)


@mutant("layer-norm", "first-gain", kills=("permutation", "gain-and-bias"), met="plausible: a scalar gain, gain[0]")
def first_gain(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return gain[0] * centred(x) / np.sqrt(variance(x) + eps) + bias


@mutant("layer-norm", "in-place", kills=("pure",), met="plausible: x -= mean on the caller's rows")
def in_place(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    x -= mean(x) + 0.0
    return gain * x / np.sqrt(mean(x * x) + eps) + bias


@mutant("layer-norm", "float32", kills=("definition",), met="an autocast left on; the result is float64 by name only")
def in_float32(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    low = x.astype(np.float32)
    return gain * (centred(low) / np.sqrt(variance(low) + np.float32(eps))).astype(np.float64) + bias


# RMS norm


@mutant("rms-norm", "centred", kills=("not-centred", "direction"), met="layer norm's code kept, bias dropped")
def rms_centred(x: Any, gain: Any, eps: float) -> Any:
    return gain * centred(x) / np.sqrt(variance(x) + eps)


@mutant("rms-norm", "deviation", kills=("not-centred", "mean-square"), met="plausible: std for root mean square")
def rms_deviation(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / np.sqrt(variance(x) + eps)


@mutant(
    "rms-norm", "sum-of-squares", kills=("mean-square", "definition"), met="unit length, as in nGPT's normalisation"
)
def sum_of_squares(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + eps)


@mutant("rms-norm", "eps-outside", kills=("scale", "definition"), met="the authors' own PyTorch code: x / (rms + eps)")
def rms_eps_outside(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / (np.sqrt(mean(x * x)) + eps)


@mutant(
    "rms-norm", "eps-squared", kills=("scale", "definition"), met="plausible: max(rms, eps) or eps^2 under the root"
)
def rms_eps_squared(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / np.sqrt(mean(x * x) + eps * eps)


@mutant("rms-norm", "no-eps", kills=("zero-row", "definition"), met="plausible: eps forgotten; NaN on padding")
def rms_no_eps(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / np.sqrt(mean(x * x))


@mutant("rms-norm", "no-root", kills=("mean-square", "scale"), met="plausible: sqrt forgotten")
def rms_no_root(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / (mean(x * x) + eps)


@mutant("rms-norm", "absolute-mean", kills=("mean-square", "definition"), met="plausible: mean of |x| for the root")
def absolute_mean(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / (mean(np.abs(x)) + eps)


@mutant("rms-norm", "gain-plus-one", kills=("gain", "definition"), met="Gemma stores gain - 1; loaded into others")
def rms_gain_plus_one(x: Any, gain: Any, eps: float) -> Any:
    return (1 + gain) * x / np.sqrt(mean(x * x) + eps)


@mutant("rms-norm", "whole-array", kills=("rows", "mean-square"), met="plausible: mean() without an axis")
def rms_whole_array(x: Any, gain: Any, eps: float) -> Any:
    return gain * x / np.sqrt((x * x).mean() + eps)


@mutant(
    "rms-norm",
    "first-half",
    kills=("permutation", "mean-square"),
    met="partial RMS norm (Zhang and Sennrich 2019), p = 1/2",
)
def first_half(x: Any, gain: Any, eps: float) -> Any:
    part = x[..., : (x.shape[-1] + 1) // 2]
    return gain * x / np.sqrt(mean(part * part) + eps)


@mutant(
    "rms-norm", "magnitude", kills=("direction", "scale"), met="plausible: abs() left over from a debugging session"
)
def magnitude(x: Any, gain: Any, eps: float) -> Any:
    return gain * np.abs(x) / np.sqrt(mean(x * x) + eps)


@mutant("rms-norm", "in-place", kills=("pure",), met="plausible: x *= inverse on the caller's rows")
def rms_in_place(x: Any, gain: Any, eps: float) -> Any:
    x /= np.sqrt(mean(x * x) + eps)
    return gain * x
