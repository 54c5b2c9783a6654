"""Laws of the normal distribution function in single precision: it is that of SciPy's error function, and monotone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, call
from minilong.autodiff.activations import SINGLE, normal_distribution
from minilong.backend import array_module, special

kind(
    "normal-single", "normal_single(x)", "x (n,) in float32 -> the distribution function of the standard normal there."
)

FORMULA = 3e-8
"""By how much the formula differs from the function before anything is rounded: half of what erf differs by."""
BOUND = FORMULA + 2 * float(np.finfo(np.float32).eps)
"""After rounding: of the argument, of a hyperbolic tangent that is exact to two units, and of the sum."""


@subject("normal-single", "normal_distribution", code=normal_distribution, equation="eq:normal-single")
def ours(x: Any) -> Any:
    """The distribution that exact GELU multiplies by."""
    xp = array_module(x)
    return normal_distribution(xp, x, x * x, out=xp.empty_like(x))


def points(r: Numbers, *, n: int, low: float, high: float) -> Case:
    """Ascending single-precision numbers: between two bounds, with the bounds, zero and its nearest neighbours."""
    small = 10.0 ** r.rng.uniform(-38, 0, 3)
    x = np.concatenate([r.rng.uniform(low, high, n), [low, high, 0.0], small, -small])
    return {"x": np.unique(x.astype(np.float32))}


POINTS = cases(
    points, n=(1, 10, 100, 1000), low=(-1.0, -3.0, -5.6, -6.0, -12.0, -40.0), high=(1.0, 3.0, 5.6, 6.0, 12.0, 40.0)
)


@law("normal-single", "definition", serves=("eq:normal-single", "eq:gelu"), cases=POINTS)
def definition(f: F, c: Case, measure: Measure) -> None:
    """It is (1 + erf(x / sqrt 2)) / 2 of double precision, from one tail to the other, and single precision itself."""
    found = call(f, c["x"])
    measure.holds(found.dtype == np.float32, f"of single precision it makes {found.dtype}")
    right = (1.0 + special(np).erf(c["x"].astype(np.float64) / math.sqrt(2.0))) / 2.0
    measure.close(found, right, BOUND, "the distribution")


@law("normal-single", "tails", serves="eq:normal-single", cases=POINTS)
def tails(f: F, c: Case, measure: Measure) -> None:
    """It does not leave [0, 1], is 0 or 1 from 6 on but for one unit, and does not fall, but for as much."""
    unit = float(np.finfo(np.float32).eps) / 2
    found = call(f, c["x"]).astype(np.float64)
    measure.holds(np.all((found >= 0) & (found <= 1)), f"it takes values from {found.min()} to {found.max()}")
    for far, end in ((c["x"] <= -6, 0.0), (c["x"] >= 6, 1.0)):
        measure.close(found[far], np.full(int(far.sum()), end), unit, "the tail")
    steps = np.diff(found)
    measure.holds(np.all(steps >= -unit), f"it falls by {-steps.min(initial=0.0)}")


# Mutants


def by_tanh(x: Any, coefficients: Sequence[float], *, forgotten: int | None = None) -> Any:
    """(1 + tanh(x P(x^2))) / 2 by Horner's rule, without the square in the step to the power `forgotten`."""
    square, p = x * x, np.zeros_like(x)
    for power in range(len(coefficients))[::-1]:
        p = (p if power == forgotten else p * square) + np.float32(coefficients[power])
    return (np.tanh(x * p) + np.float32(1)) * np.float32(0.5)


mutant("normal-single", "last coefficient left out", kills=("definition", "tails"),
       met="plausible: a polynomial of lower degree, whose argument then falls in the tails")(
    lambda x: by_tanh(x, SINGLE[:-1]))  # fmt: skip
mutant("normal-single", "the usual formula by the hyperbolic tangent", kills="definition",
       met="GPT-2: gelu by tanh(sqrt(2 / pi) (x + 0.044715 x^3)) where a configuration asks for the exact one")(
    lambda x: by_tanh(x, (math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715)))  # fmt: skip
mutant("normal-single", "coefficients in the other order", kills="definition",
       met="plausible: Horner's rule begins with the highest power, the table with the lowest")(
    lambda x: by_tanh(x, SINGLE[::-1]))  # fmt: skip
mutant("normal-single", "square forgotten in one step", kills="definition",
       met="plausible: an unrolled Horner's rule with one multiplication missing")(
    lambda x: by_tanh(x, SINGLE, forgotten=2))  # fmt: skip
mutant("normal-single", "argument not divided by the root of two", kills="definition",
       met="plausible: erf(x) taken for erf(x / sqrt 2)")(
    lambda x: by_tanh(x * np.float32(math.sqrt(2)), SINGLE))  # fmt: skip
