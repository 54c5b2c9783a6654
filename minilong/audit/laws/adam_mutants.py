"""Wrong optimisers under Adam's name: mistakes that were met in code, and likely ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.adam import definition


@mutant(
    "adam",
    "uncorrected",
    kills=("first-step", "steady-gradient", "definition"),
    met="BERT's optimiser; 'Adam without bias correction'",
)
def uncorrected(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return p - lr * m / (np.sqrt(v) + eps), m, v


@mutant(
    "adam",
    "first-moment-corrected",
    kills=("first-step", "steady-gradient"),
    met="plausible: one of the two corrections",
)
def first_moment_corrected(
    p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float
) -> Any:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return p - lr * m / (1 - b1**step) / (np.sqrt(v) + eps), m, v


@mutant("adam", "step-from-zero", kills=("first-step", "run"), met="plausible: t counted from 0 and 1 added twice")
def step_from_zero(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, g, m, v, step + 1, lr, b1, b2, eps)


@mutant("adam", "corrected-once", kills=("run", "definition"), met="plausible: 1 - beta for 1 - beta^t")
def corrected_once(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, g, m, v, 1, lr, b1, b2, eps)[0], b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g


@mutant("adam", "eps-under-root", kills=("first-step", "definition"), met="plausible: sqrt(v + eps), as in layer norm")
def eps_under_root(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return p - lr * (m / (1 - b1**step)) / np.sqrt(v / (1 - b2**step) + eps), m, v


@mutant(
    "adam",
    "eps-hat",
    kills=("first-step", "definition"),
    met="TensorFlow's reordered form, whose epsilon is another one",
)
def eps_hat(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    rate = lr * math.sqrt(1 - b2**step) / (1 - b1**step)
    return p - rate * m / (np.sqrt(v) + eps), m, v


@mutant(
    "adam", "no-eps", kills=("zero-gradient", "definition"), met="plausible: eps forgotten; NaN for unused embeddings"
)
def no_eps(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, g, m, v, step, lr, b1, b2, 0.0)


@mutant(
    "adam", "never-updates", kills=("descends", "definition"), met="Tricycle's AdamW: the new parameter was not stored"
)
def never_updates(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return p + 0.0, *definition(p, g, m, v, step, lr, b1, b2, eps)[1:]


@mutant("adam", "ascends", kills=("descends", "first-step"), met="plausible: the sign of a maximised objective")
def ascends(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, g, m, v, step, -lr, b1, b2, eps)


@mutant(
    "adam",
    "corrected-moments-kept",
    kills=("returns-raw-moments", "run"),
    met="plausible: m = m / (1 - beta^t) in place",
)
def corrected_moments_kept(
    p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float
) -> Any:
    p, m, v = definition(p, g, m, v, step, lr, b1, b2, eps)
    return p, m / (1 - b1**step), v / (1 - b2**step)


@mutant(
    "adam", "square-of-the-moment", kills=("run", "definition"), met="plausible: v fed with the corrected m, not with g"
)
def square_of_the_moment(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m = b1 * m + (1 - b1) * g
    corrected = m / (1 - b1**step)
    v = b2 * v + (1 - b2) * corrected**2
    return p - lr * corrected / (np.sqrt(v / (1 - b2**step)) + eps), m, v


@mutant("adam", "betas-swapped", kills=("definition", "run"), met="plausible: beta2 for m and beta1 for v")
def betas_swapped(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, g, m, v, step, lr, b2, b1, eps)


@mutant(
    "adam", "root-forgotten", kills=("gradient-scale", "first-step"), met="plausible: m / v; the loss's unit comes in"
)
def root_forgotten(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return p - lr * (m / (1 - b1**step)) / (v / (1 - b2**step) + eps), m, v


@mutant(
    "adam", "clipped-gradient", kills=("gradient-scale", "definition"), met="plausible: np.clip(g, -1, 1) left inside"
)
def clipped_gradient(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p, np.clip(g, -1, 1), m, v, step, lr, b1, b2, eps)


@mutant("adam", "decay-inside", kills=("parameter-free", "zero-gradient"), met="AdamW's default decay of 0.01 left on")
def decay_inside(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    p_new, m, v = definition(p, g, m, v, step, lr, b1, b2, eps)
    return p_new - lr * 0.01 * p, m, v


@mutant(
    "adam",
    "decay-without-lr",
    kills=("learning-rate", "parameter-free"),
    met="AdamW's decay not multiplied by the rate",
)
def decay_without_lr(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    return definition(p * (1 - 1e-4), g, m, v, step, lr, b1, b2, eps)


@mutant("adam", "nesterov", kills=("run", "definition"), met="NAdam (Dozat 2016) under Adam's name")
def nesterov(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    _, m, v = definition(p, g, m, v, step, lr, b1, b2, eps)
    ahead = (b1 * m + (1 - b1) * g) / (1 - b1**step)
    return p - lr * ahead / (np.sqrt(v / (1 - b2**step)) + eps), m, v


@mutant("adam", "old-moment", kills=("first-step", "descends"), met="plausible: the step taken before m is updated")
def old_moment(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    _, m_new, v_new = definition(p, g, m, v, step, lr, b1, b2, eps)
    return p - lr * (m / (1 - b1**step)) / (np.sqrt(v_new / (1 - b2**step)) + eps), m_new, v_new


@mutant(
    "adam",
    "shared-second-moment",
    kills=("elementwise", "definition"),
    met="plausible: mean of v, as in layer-wise variants",
)
def shared_second_moment(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    _, m, v = definition(p, g, m, v, step, lr, b1, b2, eps)
    return p - lr * (m / (1 - b1**step)) / (np.sqrt(v.mean() / (1 - b2**step)) + eps), m, v


@mutant("adam", "in-place", kills=("pure",), met="plausible: m *= beta1 on the caller's moments")
def in_place(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * g * g
    return p - lr * (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + eps), m, v
