"""Fused softmax, normalisation and loss: one pass over memory where a composition of `ops.py` would take several.

Each names as `ref` the composition that it must equal, the definition: what a reader should read, what tests compare
with, and what is differentiated where an operation is traced at two levels. The kernels work in place on arrays of
their own and keep as little as the rule needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minilong.autodiff import draws, ops
from minilong.autodiff.linear import column_sums
from minilong.autodiff.primitive import primitive, real
from minilong.backend import Array, array_module, workspace
from minilong.backend.workers import share_rows

NORM = 1.0
"""Nanoseconds that a normalisation takes for an element, about; its rule takes twice that."""

IGNORE = -100
"""Target of a position that does not count in a loss."""


# Softmax


def softmax_definition(x: Any) -> Any:
    """exp(x - max x) / sum exp(x - max x), over the last axis."""
    e = ops.exp(x - last_axis(ops.amax(x)))
    return e / ops.sum(e, axis=-1, keepdims=True)


@primitive(eq="eq:softmax", shapes="(n)->(n)", domain=real(-4, 4), ref=softmax_definition)
def softmax(xp: Any, x: Array) -> Array:
    """softmax over the last axis"""
    y = xp.subtract(x, x.max(axis=-1, keepdims=True))
    xp.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


@softmax.vjp
def softmax_vjp(g: Array, y: Array) -> tuple[Array, ...]:
    gx = g * y
    gx -= y * gx.sum(axis=-1, keepdims=True)
    return (gx,)


def log_softmax_definition(x: Any) -> Any:
    """x - max x - log sum exp(x - max x), over the last axis."""
    shifted = x - last_axis(ops.amax(x))
    return shifted - ops.log(ops.sum(ops.exp(shifted), axis=-1, keepdims=True))


@primitive(eq="eq:log-softmax", shapes="(n)->(n)", domain=real(-4, 4), ref=log_softmax_definition)
def log_softmax(xp: Any, x: Array) -> Array:
    """logarithm of the softmax over the last axis"""
    y = xp.subtract(x, x.max(axis=-1, keepdims=True))
    y -= xp.log(xp.exp(y).sum(axis=-1, keepdims=True))
    return y


@log_softmax.vjp
def log_softmax_vjp(g: Array, y: Array) -> tuple[Array, ...]:
    gx = array_module(y).exp(y)
    gx *= -g.sum(axis=-1, keepdims=True)
    gx += g
    return (gx,)


# Normalisation


def layer_norm_definition(x: Any, gain: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + eps) gain + bias; mean and (biased) variance over the last axis."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(centred * centred, axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + eps) * gain + bias


@primitive(
    eq="eq:layer-norm",
    shapes="(n),(n),(n)->(n)",
    domain=real(-2, 2, distinct=True),
    aux=("normal", "inverse"),
    ref=layer_norm_definition,
    shared=("gain", "bias"),
)
def layer_norm(xp: Any, x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, ...]:
    """layer normalisation over the last axis; gain and bias of its length"""
    n = x.shape[-1]
    rows = x.reshape(-1, n)
    y, normal = (workspace(xp, rows.shape, x.dtype) for _ in range(2))
    inverse = workspace(xp, (len(rows), 1), x.dtype)

    def work(part: slice) -> None:
        own, scale = normal[part], inverse[part]
        xp.subtract(rows[part], xp.add.reduce(rows[part], axis=-1, keepdims=True) * (1.0 / n), out=own)
        xp.add(mean_square(xp, own), eps, out=scale)
        xp.sqrt(scale, out=scale)
        xp.reciprocal(scale, out=scale)
        own *= scale
        out = xp.multiply(own, gain, out=y[part])
        out += bias

    share_rows(work, len(rows), x.size * NORM)
    return y.reshape(x.shape), normal, inverse


@layer_norm.vjp
def layer_norm_vjp(g: Array, gain: Array, normal: Array, inverse: Array) -> tuple[Array, ...]:
    xp, n = array_module(g), g.shape[-1]
    rows = g.reshape(-1, n)
    gx = workspace(xp, rows.shape, g.dtype)
    sums: dict[int, tuple[Array, Array]] = {}

    def work(part: slice) -> None:
        own, unit = rows[part], normal[part]
        product = xp.multiply(own, unit, out=gx[part])
        sums[part.start] = column_sums(xp, product), column_sums(xp, own)
        # With u = g gain: gx = inverse (u - mean u - normal mean(u normal)); both means are products with the gain.
        along = (product @ gain / n)[:, None]
        xp.multiply(own, gain, out=product)
        product -= (own @ gain / n)[:, None]
        product -= unit * along
        product *= inverse[part]

    share_rows(work, len(rows), g.size * 2 * NORM)
    g_gain, g_bias = (_added(parts) for parts in zip(*[sums[start] for start in sorted(sums)], strict=True))
    return gx.reshape(g.shape), g_gain, g_bias


def _added(parts: Sequence[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def rms_norm_definition(x: Any, gain: Any, *, eps: float = 1e-6) -> Any:
    """x / sqrt(mean of squares + eps) gain, over the last axis."""
    return x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True) + eps) * gain


@primitive(
    eq="eq:rms-norm",
    shapes="(n),(n)->(n)",
    domain=real(-2, 2, kinks=(0.0,)),
    aux=("normal", "inverse"),
    ref=rms_norm_definition,
    shared=("gain",),
)
def rms_norm(xp: Any, x: Array, gain: Array, *, eps: float = 1e-6) -> tuple[Array, ...]:
    """root mean square normalisation over the last axis"""
    inverse = mean_square(xp, x)
    inverse += eps
    xp.sqrt(inverse, out=inverse)
    xp.reciprocal(inverse, out=inverse)
    normal = x * inverse
    return normal * gain, normal, inverse


@rms_norm.vjp
def rms_norm_vjp(g: Array, gain: Array, normal: Array, inverse: Array) -> tuple[Array, ...]:
    xp, n = array_module(g), g.shape[-1]
    rows_g, rows_normal = g.reshape(-1, n), normal.reshape(-1, n)
    product = rows_g * rows_normal
    g_gain = column_sums(xp, product)
    along = (product @ gain / n)[:, None]
    gx = xp.multiply(rows_g, gain, out=product)
    gx -= rows_normal * along
    gx *= inverse.reshape(-1, 1)
    return gx.reshape(g.shape), g_gain


# Loss


def cross_entropy_definition(
    logits: Any, *, targets: Array, ignore_index: int = IGNORE, denominator: float | None = None
) -> Any:
    """-(sum over the tokens kept of log softmax(logits)[target]) / (number of tokens kept); 0 where none is kept."""
    xp = array_module(targets)
    kept = targets != ignore_index
    chosen = ops.take_along(log_softmax(logits), indices=xp.where(kept, targets, 0))
    count = max(float(kept.sum()), 1.0) if denominator is None else denominator
    return -ops.sum(ops.where(chosen, ops.scale(chosen, by=0.0), condition=kept)) / count


@primitive(
    eq="eq:cross-entropy",
    shapes="(t,v)->()",
    domain=real(-4, 4),
    aux=("probabilities", "kept", "count"),
    ref=cross_entropy_definition,
    draw=draws.targets,
)
def cross_entropy(
    xp: Any, logits: Array, *, targets: Array, ignore_index: int = IGNORE, denominator: float | None = None
) -> tuple[Any, ...]:
    """mean negative log-likelihood (nats) of integer targets over the tokens kept

    `denominator` replaces the number of tokens kept, so that parts of a batch add up to the mean of the whole.
    """
    classes = logits.shape[-1]
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets have shape {targets.shape} and need {logits.shape[:-1]}")
    rows = logits.reshape(-1, classes)
    flat = targets.reshape(-1)
    kept = flat != ignore_index
    index = xp.where(kept, flat, 0)[:, None]
    if index.size and not 0 <= index.min() <= index.max() < classes:
        raise ValueError(f"targets lie in [{index.min()}, {index.max()}], beyond the {classes} classes")
    count = max(float(kept.sum()), 1.0) if denominator is None else float(denominator)
    top = rows.max(axis=-1, keepdims=True)
    p = rows - top
    chosen = xp.take_along_axis(p, index, axis=-1)[:, 0]
    xp.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    losses = xp.where(kept, xp.log(total[:, 0]) - chosen, 0)
    return (losses.sum() / count).astype(rows.dtype), p, kept, count


@cross_entropy.vjp
def cross_entropy_vjp(
    g: Any, probabilities: Array, kept: Array, count: float, logits_shape: Any, *, targets: Array
) -> tuple[Array, ...]:
    xp = array_module(probabilities)
    flat = targets.reshape(-1)
    gx = probabilities * xp.where(kept, g / count, 0).astype(probabilities.dtype)[:, None]
    rows = xp.flatnonzero(kept)
    gx[rows, flat[rows]] -= (g / count).astype(gx.dtype)
    return (gx.reshape(logits_shape),)


# Helpers of the kernels


def last_axis(x: Any) -> Any:
    """`x` with an axis of size 1 behind the others."""
    return ops.reshape(x, shape=(*x.shape, 1))


def mean_square(xp: Any, x: Array) -> Array:
    """Mean of squares over the last axis, which is kept; no temporary of the size of `x`."""
    return (xp.einsum("...i,...i->...", x, x) / x.shape[-1])[..., None]
