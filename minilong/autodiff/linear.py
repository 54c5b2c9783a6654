"""Fused linear maps: products with weights, rows of a table, rotations of pairs.

See `fused.py` for what `ref` means. Leading axes are folded into rows first, since one large matrix product is faster
than many small ones.
"""

from __future__ import annotations

from typing import Any

from minilong.autodiff import draws, ops
from minilong.autodiff.ops import WIDE
from minilong.autodiff.primitive import primitive
from minilong.backend import Array, array_module, scatter_rows, workspace
from minilong.backend.workers import share_rows


def linear_definition(x: Any, w: Any) -> Any:
    """x W: rows of x times a matrix."""
    return ops.matmul(x, w)


@primitive(
    eq="eq:linear",
    shapes="(t,k),(k,n)->(t,n)",
    domain=WIDE,
    ref=linear_definition,
    bilinear=True,
    shared=("w",),
)
def linear(xp: Any, x: Array, w: Array) -> Array:
    """x W, with all leading axes of x folded into one matrix product"""
    return product(xp, fold(x), w).reshape(*x.shape[:-1], w.shape[-1])


@linear.vjp
def linear_vjp(g: Array, x: Array, w: Array) -> tuple[Array, ...]:
    xp, rows = array_module(g), fold(g)
    return product(xp, rows, w.T).reshape(x.shape), product(xp, fold(x).T, rows)


def affine_definition(x: Any, w: Any, b: Any) -> Any:
    """x W + b."""
    return ops.matmul(x, w) + b


@primitive(eq="eq:affine", shapes="(t,k),(k,n),(n)->(t,n)", domain=WIDE, ref=affine_definition, shared=("w", "b"))
def affine(xp: Any, x: Array, w: Array, b: Array) -> Array:
    """x W + b"""
    return product(xp, fold(x), w, b).reshape(*x.shape[:-1], w.shape[-1])


@affine.vjp
def affine_vjp(g: Array, x: Array, w: Array) -> tuple[Array, ...]:
    xp, rows = array_module(g), fold(g)
    return product(xp, rows, w.T).reshape(x.shape), product(xp, fold(x).T, rows), column_sums(xp, rows)


def constant_linear_definition(x: Any, *, weight: Array, bias: Array | None = None) -> Any:
    """x W, or x W + b."""
    y = ops.matmul(x, weight)
    return y if bias is None else y + bias


@primitive(
    eq="eq:constant-linear",
    shapes="(t,k)->(t,n)",
    domain=WIDE,
    ref=constant_linear_definition,
    bilinear=True,
    draw=draws.constant_layer,
)
def constant_linear(xp: Any, x: Array, *, weight: Array, bias: Array | None = None) -> Array:
    """x W or x W + b with weights that do not learn: nothing of x is kept, and no product is spent on their gradient"""
    return product(xp, fold(x), weight, bias).reshape(*x.shape[:-1], weight.shape[-1])


@constant_linear.vjp
def constant_linear_vjp(g: Array, *, weight: Array) -> tuple[Array, ...]:
    y = product(array_module(g), fold(g), weight.T)
    return (y.reshape(*g.shape[:-1], weight.shape[0]),)


def embedding_definition(table: Any, *, indices: Array) -> Any:
    """table[indices]."""
    return ops.getitem(table, key=indices)


@primitive(
    eq="eq:embedding",
    shapes="(v,d)->(d)",
    domain=WIDE,
    ref=embedding_definition,
    bilinear=True,
    shared=("table",),
    draw=draws.rows,
)
def embedding(xp: Any, table: Array, *, indices: Array) -> Array:
    """rows of a table; the cotangent of the table is a deterministic scatter"""
    return table[indices]


@embedding.vjp
def embedding_vjp(g: Array, table_shape: Any, *, indices: Array) -> tuple[Array, ...]:
    rows = g.reshape(-1, table_shape[1])
    return (scatter_rows(array_module(g), indices.reshape(-1), rows, table_shape[0]),)


def rotate_definition(x: Any, *, turn: Array, interleaved: bool = True) -> Any:
    """Pairs (a, b) of the last axis turned by an angle: (a cos - b sin, a sin + b cos), turn = cos + i sin."""
    cos, sin = turn.real, turn.imag
    if interleaved:
        a, b = ops.getitem(x, key=(..., slice(0, None, 2))), ops.getitem(x, key=(..., slice(1, None, 2)))
        pair = ops.stack([a * cos - b * sin, a * sin + b * cos], axis=len(x.shape))
        return ops.reshape(pair, shape=x.shape)
    half = x.shape[-1] // 2
    a, b = ops.getitem(x, key=(..., slice(0, half))), ops.getitem(x, key=(..., slice(half, None)))
    return ops.concatenate(a * cos - b * sin, a * sin + b * cos, axis=-1)


@primitive(
    eq="eq:rotary", shapes="(t,2h)->(t,2h)", domain=WIDE, ref=rotate_definition, bilinear=True, draw=draws.angles
)
def rotate(xp: Any, x: Array, *, turn: Array, interleaved: bool = True) -> Array:
    """rotation of pairs of the last axis: a product of complex numbers

    turn: complex (..., t, d/2), of modulus 1. Pairs are neighbours (interleaved, as in the paper) or the two halves.
    """
    if x.shape[-1] != 2 * turn.shape[-1]:
        raise ValueError(f"{turn.shape[-1]} angles need a last axis of {2 * turn.shape[-1]}, not {x.shape[-1]}")
    if turn.real.dtype != x.dtype:
        raise ValueError(f"angles of type {turn.dtype} for {x.dtype}")
    if interleaved:
        return (xp.ascontiguousarray(x).view(turn.dtype) * turn).view(x.dtype)
    half, rows = x.shape[-1] // 2, x.shape[-2] if x.ndim > 1 else 1
    cos, sin = (xp.ascontiguousarray(part) for part in (turn.real, turn.imag))
    y = workspace(xp, x.shape, x.dtype)

    def work(part: slice) -> None:
        at = (..., part, slice(None)) if x.ndim > 1 else ...
        own = at if turn.ndim > 1 and turn.shape[-2] > 1 else ...
        out, c, s = y[at], cos[own], sin[own]
        a, b = x[at][..., :half], x[at][..., half:]
        xp.subtract(a * c, b * s, out=out[..., :half])
        xp.add(a * s, b * c, out=out[..., half:])

    share_rows(work, rows, x.size * TURN)
    return y


@rotate.vjp
def rotate_vjp(g: Array, *, turn: Array, interleaved: bool = True) -> tuple[Array, ...]:
    return (rotate(g, turn=turn.conj(), interleaved=interleaved),)


# Helpers of the kernels


def fold(x: Array) -> Array:
    """All axes but the last as one: (..., n) -> (rows, n)."""
    return x.reshape(-1, x.shape[-1])


TURN = 2.0
"""Nanoseconds that turning an element takes where pairs are halves, about."""

PER_NANOSECOND = 100
"""Multiplications that one thread does, about."""


def product(xp: Any, x: Array, w: Array, b: Array | None = None) -> Array:
    """x W, or x W + b: x (rows, k), w (k, n), b (n)."""
    (rows, k), n = x.shape, w.shape[1]
    y = workspace(xp, (rows, n), xp.result_type(x, w))

    def work(part: slice) -> None:
        own = y[part]
        xp.matmul(x[part], w, out=own)
        if b is not None:
            own += b

    share_rows(work, rows, rows * k * n / PER_NANOSECOND)
    return y


def column_sums(xp: Any, x: Array) -> Array:
    """Sums over the rows, as a product with ones: several times faster than a reduction over the first axis."""
    return xp.ones(x.shape[0], x.dtype) @ x
