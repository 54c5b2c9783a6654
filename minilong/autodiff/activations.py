"""Fused activations and dropout: elementwise functions, each with the composition that it must equal.

See `fused.py` for what `ref` means.
"""

from __future__ import annotations

import math
from typing import Any

from minilong.autodiff import draws, ops
from minilong.autodiff.ops import WIDE
from minilong.autodiff.primitive import primitive
from minilong.backend import Array, array_module, special, workspace


def gelu_definition(x: Any) -> Any:
    """x Phi(x) = x (1 + erf(x / sqrt 2)) / 2."""
    return x * (ops.erf(x * math.sqrt(0.5)) + 1.0) * 0.5


@primitive(eq="eq:gelu", shapes="()->()", domain=WIDE, aux=("phi",), ref=gelu_definition)
def gelu(xp: Any, x: Array) -> tuple[Array, ...]:
    """Gaussian error linear unit, exact"""
    phi = special(xp).erf(x * math.sqrt(0.5))
    phi += 1.0
    phi *= 0.5
    return x * phi, phi


@gelu.vjp
def gelu_vjp(g: Array, x: Array, phi: Array) -> tuple[Array, ...]:
    xp = array_module(x)
    d = square(xp, x)
    d *= -0.5
    xp.exp(d, out=d)
    d *= x
    d *= 1.0 / math.sqrt(2.0 * math.pi)
    d += phi
    d *= g
    return (d,)


def gelu_tanh_definition(x: Any) -> Any:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2: the approximation of GPT-2."""
    return x * (ops.tanh((x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0) * 0.5


@primitive(eq="eq:gelu-tanh", shapes="()->()", domain=WIDE, aux=("t",), ref=gelu_tanh_definition)
def gelu_tanh(xp: Any, x: Array) -> tuple[Array, ...]:
    """Gaussian error linear unit by the hyperbolic tangent"""
    c = math.sqrt(2.0 / math.pi)
    t = square(xp, x)
    t *= 0.044715 * c
    t += c
    t *= x
    xp.tanh(t, out=t)
    y = t + 1.0
    y *= x
    y *= 0.5
    return y, t


@gelu_tanh.vjp
def gelu_tanh_vjp(g: Array, x: Array, t: Array) -> tuple[Array, ...]:
    # y = x (1 + t) / 2, t = tanh u: dy = (1 + t)/2 + x u' (1 - t^2)/2 = (1 + t)/2 (1 + x u' (1 - t))
    c = math.sqrt(2.0 / math.pi)
    d = square(array_module(x), x)
    d *= 3 * 0.044715 * c
    d += c
    d *= x
    half = t + 1.0
    half *= 0.5
    d *= 1.0 - t
    d += 1.0
    d *= half
    d *= g
    return (d,)


def silu_definition(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return x * ops.sigmoid(x)


@primitive(eq="eq:silu", shapes="()->()", domain=WIDE, aux=("s",), ref=silu_definition)
def silu(xp: Any, x: Array) -> tuple[Array, ...]:
    """sigmoid linear unit (swish)"""
    s = xp.multiply(x, 0.5, out=workspace(xp, x.shape, x.dtype))
    xp.tanh(s, out=s)
    s += 1.0
    s *= 0.5
    return x * s, s


@silu.vjp
def silu_vjp(g: Array, y: Array, s: Array) -> tuple[Array, ...]:
    d = 1.0 - s
    d *= y
    d += s
    d *= g
    return (d,)


def dropout_definition(x: Any, *, keep: Array) -> Any:
    """x times a constant array of zeros and 1/(1-p)."""
    return x * keep


@primitive(eq="eq:dropout", shapes="()->()", domain=WIDE, ref=dropout_definition, bilinear=True, draw=draws.kept)
def dropout(xp: Any, x: Array, *, keep: Array) -> Array:
    """x with some elements zeroed and the rest scaled, by a given array"""
    return x * keep


@dropout.vjp
def dropout_vjp(g: Array, *, keep: Array) -> tuple[Array, ...]:
    return (g * keep,)


# Helpers of the kernels


def square(xp: Any, x: Array) -> Array:
    """x x as a new array, of no axes too, where `x * x` would be a NumPy scalar that no kernel can write to."""
    return xp.multiply(x, x, out=workspace(xp, x.shape, x.dtype))
