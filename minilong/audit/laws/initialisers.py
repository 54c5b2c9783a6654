"""Laws of initial values: the variance asked for, within a bound that a right initialiser misses once in 5 10^8 cases.

The mean of n squares of a variable with variance V and kurtosis K has the deviation V sqrt((K - 1) / n); six of these
are allowed. K is 3 for a normal variable, 9/5 for a uniform one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound_of, largest
from minilong.nn import init

SIGMAS = 6.0

kind("xavier", "xavier(uniform, fan_in, fan_out)", "uniform (fan_in, fan_out): draws from [0, 1) -> weights.")
kind("he", "he(normal, fan_in, fan_out)", "normal (fan_in, fan_out): standard normal draws -> weights.")


class Drawn:
    """Stands for a key and its generator: gives the draws that it was made with."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def generator(self) -> Drawn:
        """Itself."""
        return self

    def uniform(self, low: float, high: float, shape: Any) -> np.ndarray:
        """The draws, moved to [low, high)."""
        return low + (high - low) * self.values.reshape(shape)

    def standard_normal(self, shape: Any) -> np.ndarray:
        """The draws."""
        return self.values.reshape(shape)


def ours(initialiser: Callable[..., Any]) -> F:
    """Our initialiser, with the draws in the place of a key."""
    return lambda drawn, fan_in, fan_out: initialiser(Drawn(drawn), fan_in, fan_out)


subject("xavier", "xavier", code=init.xavier, equation="eq:xavier")(ours(init.xavier))
subject("he", "he", code=init.he, equation="eq:he")(ours(init.he))


def sizes(n: Numbers, *, fan_in: int, fan_out: int) -> dict[str, Any]:
    """Sizes, and a seed for the draws."""
    return {"fan_in": fan_in, "fan_out": fan_out, "seed": int(n.integers(0, 2**31))}


SIZES = cases(sizes, fan_in=(32, 16, 64, 128), fan_out=(32, 16, 64, 128))
WIDE = cases(sizes, fan_in=(32, 16), fan_out=(512,))


def uniform(c: Case) -> np.ndarray:
    """Draws from [0, 1)."""
    return np.random.default_rng(c["seed"]).random((c["fan_in"], c["fan_out"]))


def normal(c: Case) -> np.ndarray:
    """Standard normal draws."""
    return np.random.default_rng(c["seed"]).standard_normal((c["fan_in"], c["fan_out"]))


def is_square_mean(measure: Measure, x: np.ndarray, variance: float, kurtosis: float, what: str) -> None:
    """The mean square of x is the variance, within its own deviation times SIGMAS."""
    allowed = SIGMAS * variance * math.sqrt((kurtosis - 1) / x.size)
    measure.close(float(np.mean(x.astype(np.float64) ** 2)), variance, allowed, what)


@law("xavier", "variance", serves=("eq:xavier", "claim:initial-values"), cases=SIZES)
def xavier_variance(f: F, c: Case, measure: Measure) -> None:
    """Weights have mean 0 and variance 2 / (fan_in + fan_out), none beyond the uniform distribution's edge."""
    w, variance = np.asarray(f(uniform(c), c["fan_in"], c["fan_out"])), 2 / (c["fan_in"] + c["fan_out"])
    measure.holds(w.shape == (c["fan_in"], c["fan_out"]), f"the shape is {w.shape}")
    is_square_mean(measure, w, variance, 9 / 5, "the variance")
    measure.close(float(w.mean()), 0.0, SIGMAS * math.sqrt(variance / w.size), "the mean")
    edge = math.sqrt(3 * variance)
    measure.holds(largest(w) <= edge + bound_of(w, edge), f"a weight is {largest(w)}, the edge is at {edge}")


@law("xavier", "both-directions", serves=("eq:xavier", "claim:initial-values"), cases=SIZES)
def both_directions(f: F, c: Case, measure: Measure) -> None:
    """What a layer multiplies the variance by, forwards and backwards, has the mean 1."""
    w = np.asarray(f(uniform(c), c["fan_in"], c["fan_out"]), np.float64)
    forward, backward = np.sum(w * w) / c["fan_out"], np.sum(w * w) / c["fan_in"]
    harmonic = 2 / (1 / forward + 1 / backward)
    size = c["fan_in"] * c["fan_out"]
    wanted = 4 * size / (c["fan_in"] + c["fan_out"]) ** 2
    measure.close(harmonic / wanted, 1.0, SIGMAS * math.sqrt(0.8 / size), "the harmonic mean of both factors")


@law("he", "variance", serves=("eq:he", "claim:initial-values"), cases=SIZES)
def he_variance(f: F, c: Case, measure: Measure) -> None:
    """Weights have mean 0 and variance 2 / fan_in."""
    w, variance = np.asarray(f(normal(c), c["fan_in"], c["fan_out"])), 2 / c["fan_in"]
    measure.holds(w.shape == (c["fan_in"], c["fan_out"]), f"the shape is {w.shape}")
    is_square_mean(measure, w, variance, 3.0, "the variance")
    measure.close(float(w.mean()), 0.0, SIGMAS * math.sqrt(variance / w.size), "the mean")


@law("he", "through-relu", serves=("eq:he", "claim:initial-values"), cases=WIDE, share=0.3)
def through_relu(f: F, c: Case, measure: Measure) -> None:
    """A ReLU halves the mean square of symmetric input, and the layer behind it doubles it again."""
    w = np.asarray(f(normal(c), c["fan_in"], c["fan_out"]), np.float64)
    x = np.maximum(np.random.default_rng(c["seed"] + 1).standard_normal((16, c["fan_in"])), 0.0)
    # The mean square of x W over normal weights: a sum of quadratic forms with the matrix X'X, one for each column.
    total = float(np.sum(x * x))
    spread = math.sqrt(2 * float(np.sum((x @ x.T) ** 2)) / c["fan_out"]) / total
    grown = float(np.mean((x @ w) ** 2)) / (2 * total / x.size)
    measure.close(grown, 1.0, SIGMAS * spread, "the growth of the mean square")


# Mutants


@mutant(
    "xavier",
    "deviation and edge exchanged",
    kills="variance",
    met="plausible: sqrt(2/(in + out)) as the edge of the uniform distribution, a third of the variance",
)
def edge_for_deviation(uniform: Any, fan_in: int, fan_out: int) -> Any:
    """Uniform up to the standard deviation."""
    return (2 * uniform - 1) * math.sqrt(2 / (fan_in + fan_out))


@mutant(
    "xavier",
    "fans of one direction",
    kills=("variance", "both-directions"),
    met="plausible: LeCun's 1/fan_in under the name of Xavier; Caffe's `xavier` filler does this by default",
)
def forward_only(uniform: Any, fan_in: int, fan_out: int) -> Any:
    """Variance 1 / fan_in."""
    return (2 * uniform - 1) * math.sqrt(3 / fan_in)


@mutant("xavier", "draws of one sign", kills="variance", met="plausible: uniform draws that are not centred")
def one_sign(uniform: Any, fan_in: int, fan_out: int) -> Any:
    """All weights positive."""
    return uniform * math.sqrt(6 / (fan_in + fan_out))


@mutant(
    "he",
    "the factor 2 left out",
    kills=("variance", "through-relu"),
    met="plausible: 1/fan_in, under which each ReLU halves the signal; PyTorch's linear layers start with 1/(3 fan_in)",
)
def without_relu(normal: Any, fan_in: int, fan_out: int) -> Any:
    """Variance 1 / fan_in."""
    return normal * math.sqrt(1 / fan_in)


@mutant(
    "he",
    "fans exchanged",
    kills="variance",
    met="plausible: weights stored as (out, in) in one library and (in, out) in another",
)
def exchanged(normal: Any, fan_in: int, fan_out: int) -> Any:
    """Variance 2 / fan_out."""
    return normal * math.sqrt(2 / fan_out)


@mutant("he", "variance for deviation", kills="variance", met="plausible: a root left out")
def no_root(normal: Any, fan_in: int, fan_out: int) -> Any:
    """Deviation 2 / fan_in."""
    return normal * 2 / fan_in
