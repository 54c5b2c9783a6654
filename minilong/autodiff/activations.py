"""Fused activations and dropout: elementwise functions, each with the composition that it must equal.

See `fused.py` for what `ref` means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import draws, ops
from minilong.autodiff.core import stop_gradient
from minilong.autodiff.ops import WIDE
from minilong.autodiff.primitive import primitive
from minilong.backend import Array, beside, special, workspace
from minilong.backend.workers import share_out
from minilong.keys import Key

BLOCK = 1 << 17
"""Elements that a kernel takes through all its steps before it goes on: they stay in the processor's cache meanwhile.

Smaller blocks would be faster for one thread, but threads wait for one another between the steps of each.
"""


def gelu_definition(x: Any) -> Any:
    """x Phi(x) = x (1 + erf(x / sqrt 2)) / 2."""
    return x * (ops.erf(x * math.sqrt(0.5)) + 1.0) * 0.5


@primitive(eq="eq:gelu", shapes="()->()", domain=WIDE, aux=("slope",), ref=gelu_definition)
def gelu(xp: Any, x: Array) -> tuple[Array, ...]:
    """Gaussian error linear unit, exact to the last bits of its type"""

    def compute(x: Array, y: Array, slope: Array, square: Array) -> None:
        xp.multiply(x, x, out=square)
        phi = normal_distribution(xp, x, square, out=slope)
        xp.multiply(x, phi, out=y)
        square *= -0.5
        density = xp.exp(square, out=square)
        density *= x
        density *= 1.0 / math.sqrt(2.0 * math.pi)
        slope += density  # (x Phi(x))' = Phi(x) + x phi(x)

    return in_blocks(xp, compute, x)


SINGLE = (
    0.7978849414572411,
    0.036333084582968404,
    -3.2594981009567844e-05,
    -5.530619150208756e-05,
    3.964744164442836e-06,
    -1.3226333476680772e-07,
    1.7561710409072755e-09,
)
"""P in erf(x / sqrt 2) = tanh(x P(x^2)), to 6e-8: half a unit in float32's last place at 1 (`eq:normal-single`).

Fitted to atanh(erf(x / sqrt 2)) / x on [0, 5.6] with the weight 1 - erf^2, so that the error of the result is even;
beyond it the argument goes on growing, and the hyperbolic tangent is 1.
"""


def normal_distribution(xp: Any, x: Array, square: Array, out: Array) -> Array:
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2 into `out`; square: x^2. In float32 by `eq:normal-single`."""
    if x.dtype != np.float32:
        xp.multiply(x, math.sqrt(0.5), out=out)
        special(xp).erf(out, out=out)
    else:  # `special` takes thirty times as long for one number as NumPy takes for tanh
        xp.multiply(square, SINGLE[-1], out=out)
        out += SINGLE[-2]
        for coefficient in SINGLE[-3::-1]:
            out *= square
            out += coefficient
        out *= x
        xp.tanh(out, out=out)
    out *= 0.5
    out += 0.5
    return out


def gelu_tanh_definition(x: Any) -> Any:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2: the approximation of GPT-2."""
    return x * (ops.tanh((x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0) * 0.5


@primitive(eq="eq:gelu-tanh", shapes="()->()", domain=WIDE, aux=("slope",), ref=gelu_tanh_definition)
def gelu_tanh(xp: Any, x: Array) -> tuple[Array, ...]:
    """Gaussian error linear unit by the hyperbolic tangent"""
    c = math.sqrt(2.0 / math.pi)

    def compute(x: Array, y: Array, slope: Array, half: Array) -> None:
        # With u = x (c + s), s = 0.044715 c x^2 and h = (1 + tanh u) / 2: y = x h, y' = h (1 + 2 x u' (1 - h))
        xp.multiply(x, x, out=slope)
        slope *= 0.044715 * c
        xp.add(slope, c, out=half)
        half *= x
        xp.tanh(half, out=half)
        half *= 0.5
        half += 0.5
        slope *= 6.0
        slope += 2.0 * c
        slope *= x
        xp.subtract(1.0, half, out=y)
        slope *= y
        slope += 1.0
        slope *= half
        xp.multiply(x, half, out=y)

    return in_blocks(xp, compute, x)


def silu_definition(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return x * ops.sigmoid(x)


@primitive(eq="eq:silu", shapes="()->()", domain=WIDE, aux=("slope",), ref=silu_definition)
def silu(xp: Any, x: Array) -> tuple[Array, ...]:
    """sigmoid linear unit (swish)"""

    def compute(x: Array, y: Array, slope: Array, s: Array) -> None:
        xp.multiply(x, 0.5, out=s)
        xp.tanh(s, out=s)
        s *= 0.5
        s += 0.5
        xp.multiply(x, s, out=y)
        xp.subtract(1.0, s, out=slope)  # (x s)' = s + x s (1 - s)
        slope *= y
        slope += s

    return in_blocks(xp, compute, x)


@gelu.vjp
@gelu_tanh.vjp
@silu.vjp
def activation_vjp(g: Array, slope: Array) -> tuple[Array, ...]:
    return (g * slope,)


@dataclass(frozen=True)
class Kept:
    """Which elements dropout keeps: a function of a key, the same on every device and in a recomputed pass."""

    key: Key
    rate: float

    def like(self, x: Array) -> Array:
        """An array of the shape and type of x: 1/(1-rate) where a uniform number is at least the rate, else 0."""
        uniform = self.key.generator().random(x.shape, dtype=np.float32)
        return beside(x, (uniform >= self.rate).astype(x.dtype) * np.asarray(1 / (1 - self.rate), x.dtype))


def dropout_definition(x: Any, *, keep: Array | Kept) -> Any:
    """x times a constant array of zeros and 1/(1-p)."""
    return x * (keep.like(stop_gradient(x)) if isinstance(keep, Kept) else keep)


@primitive(
    eq="eq:dropout",
    shapes="()->()",
    domain=WIDE,
    aux=("factors",),
    ref=dropout_definition,
    bilinear=True,
    draw=draws.kept,
)
def dropout(xp: Any, x: Array, *, keep: Array | Kept) -> tuple[Array, ...]:
    """x with some elements zeroed and the rest scaled, by a given array or a draw"""
    factors = keep.like(x) if isinstance(keep, Kept) else keep
    return x * factors, factors


@dropout.vjp
def dropout_vjp(g: Array, factors: Array) -> tuple[Array, ...]:
    return (g * factors,)


# Helpers of the kernels


def in_blocks(xp: Any, compute: Callable[..., None], x: Array) -> tuple[Array, Array]:
    """f(x) and f'(x) by `compute(x, y, slope, scratch)`, which fills `y` and `slope` a block at a time.

    The derivative costs little where the function is computed anyway, and is all that a rule needs: one array is kept
    instead of two.
    """
    y, slope = (workspace(xp, x.shape, x.dtype) for _ in range(2))
    flat = [a.reshape(-1) for a in (x, y, slope)]
    size = max(1, min(BLOCK, x.size) if xp is np else x.size)  # a GPU has no use for blocks

    def work(starts: Iterator[int]) -> None:
        scratch = workspace(xp, (size,), x.dtype)
        for begin in starts:
            own = [a[begin : begin + size] for a in flat]
            compute(*own, scratch[: len(own[0])])

    starts = range(0, x.size, size)
    if len(starts) == 1:
        work(iter(starts))
    else:
        share_out(work, starts)
    return y, slope
