"""The primitives: a closed list of about thirty operations, each with its vector-Jacobian product beside it.

`g` is the cotangent of the output `y`. Rules are written with these operations themselves, so that a rule applied to
tensors of an outer level is recorded there, and second derivatives need no code of their own.
Elementwise operations broadcast as NumPy does; `reduce_to` undoes that for cotangents.
"""

from __future__ import annotations

import math
from typing import Any

from minilong.autodiff import draws
from minilong.autodiff.core import Tensor, stop_gradient
from minilong.autodiff.primitive import primitive, real
from minilong.backend import Array, array_module, products, special

WIDE = real(-3, 3)
POSITIVE = real(0.2, 3)


# Arithmetic


@primitive(eq="eq:add", shapes="(),()->()", domain=WIDE, bilinear=True)
def add(xp: Any, a: Array, b: Array) -> Array:
    """a + b"""
    return xp.add(a, b)


@add.vjp
def add_vjp(g: Any, a_shape: Any, b_shape: Any) -> tuple[Any, ...]:
    return reduce_to(g, a_shape), reduce_to(g, b_shape)


@primitive(eq="eq:sub", shapes="(),()->()", domain=WIDE, bilinear=True)
def sub(xp: Any, a: Array, b: Array) -> Array:
    """a - b"""
    return xp.subtract(a, b)


@sub.vjp
def sub_vjp(g: Any, a_shape: Any, b_shape: Any) -> tuple[Any, ...]:
    return reduce_to(g, a_shape), reduce_to(-g, b_shape)


@primitive(eq="eq:mul", shapes="(),()->()", domain=WIDE, bilinear=True)
def mul(xp: Any, a: Array, b: Array) -> Array:
    """a b, element by element"""
    return xp.multiply(a, b)


@mul.vjp
def mul_vjp(g: Any, a: Any, b: Any) -> tuple[Any, ...]:
    return reduce_to(g * b, a.shape), reduce_to(g * a, b.shape)


@primitive(eq="eq:div", shapes="(),()->()", domain=(WIDE, POSITIVE))
def div(xp: Any, a: Array, b: Array) -> Array:
    """a / b"""
    return xp.divide(a, b)


@div.vjp
def div_vjp(g: Any, b: Any, y: Any, a_shape: Any) -> tuple[Any, ...]:
    ga = g / b
    return reduce_to(ga, a_shape), reduce_to(-(ga * y), b.shape)


@primitive(eq="eq:neg", shapes="()->()", domain=WIDE, bilinear=True)
def neg(xp: Any, x: Array) -> Array:
    """-x"""
    return xp.negative(x)


@neg.vjp
def neg_vjp(g: Any) -> tuple[Any, ...]:
    return (-g,)


@primitive(eq="eq:scale", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.number)
def scale(xp: Any, x: Array, *, by: float) -> Array:
    """x times a Python number: no cotangent for the number, no promotion of float32"""
    return xp.multiply(x, by)


@scale.vjp
def scale_vjp(g: Any, *, by: float) -> tuple[Any, ...]:
    return (g * by,)


@primitive(eq="eq:quotient", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.number)
def quotient(xp: Any, x: Array, *, by: float) -> Array:
    """x divided by a Python number: not x times 1/by, whose last bit may differ from that of plain arrays"""
    return xp.divide(x, by)


@quotient.vjp
def quotient_vjp(g: Any, *, by: float) -> tuple[Any, ...]:
    return (g / by,)


@primitive(eq="eq:shift", shapes="()->()", domain=WIDE, draw=draws.number)
def shift(xp: Any, x: Array, *, by: float) -> Array:
    """x plus a Python number"""
    return xp.add(x, by)


@shift.vjp
def shift_vjp(g: Any) -> tuple[Any, ...]:
    return (g,)


@primitive(eq="eq:power", shapes="()->()", domain=POSITIVE, draw=draws.exponent)
def power(xp: Any, x: Array, *, exponent: float) -> Array:
    """x to the power of a Python number"""
    return xp.power(x, exponent)


@power.vjp
def power_vjp(g: Any, x: Any, *, exponent: float) -> tuple[Any, ...]:
    if exponent == 0:  # 0 x^-1 is no number at x = 0
        return (g * 0.0,)
    return (g * (power(x, exponent=exponent - 1) * exponent),)


# Functions of one number


@primitive(eq="eq:exp", shapes="()->()", domain=WIDE)
def exp(xp: Any, x: Array) -> Array:
    """e to the x"""
    return xp.exp(x)


@exp.vjp
def exp_vjp(g: Any, y: Any) -> tuple[Any, ...]:
    return (g * y,)


@primitive(eq="eq:log", shapes="()->()", domain=POSITIVE)
def log(xp: Any, x: Array) -> Array:
    """natural logarithm"""
    return xp.log(x)


@log.vjp
def log_vjp(g: Any, x: Any) -> tuple[Any, ...]:
    return (g / x,)


@primitive(eq="eq:sqrt", shapes="()->()", domain=POSITIVE)
def sqrt(xp: Any, x: Array) -> Array:
    """square root"""
    return xp.sqrt(x)


@sqrt.vjp
def sqrt_vjp(g: Any, y: Any) -> tuple[Any, ...]:
    return (g / (y * 2.0),)


@primitive(eq="eq:tanh", shapes="()->()", domain=WIDE)
def tanh(xp: Any, x: Array) -> Array:
    """hyperbolic tangent"""
    return xp.tanh(x)


@tanh.vjp
def tanh_vjp(g: Any, y: Any) -> tuple[Any, ...]:
    return (g * (1.0 - y * y),)


@primitive(eq="eq:sigmoid", shapes="()->()", domain=WIDE)
def sigmoid(xp: Any, x: Array) -> Array:
    """1 / (1 + exp(-x)), by the hyperbolic tangent, which cannot overflow"""
    y = xp.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


@sigmoid.vjp
def sigmoid_vjp(g: Any, y: Any) -> tuple[Any, ...]:
    return (g * (y * (1.0 - y)),)


@primitive(eq="eq:sin", shapes="()->()", domain=WIDE)
def sin(xp: Any, x: Array) -> Array:
    """sine"""
    return xp.sin(x)


@sin.vjp
def sin_vjp(g: Any, x: Any) -> tuple[Any, ...]:
    return (g * cos(x),)


@primitive(eq="eq:cos", shapes="()->()", domain=WIDE)
def cos(xp: Any, x: Array) -> Array:
    """cosine"""
    return xp.cos(x)


@cos.vjp
def cos_vjp(g: Any, x: Any) -> tuple[Any, ...]:
    return (-(g * sin(x)),)


@primitive(eq="eq:erf", shapes="()->()", domain=WIDE)
def erf(xp: Any, x: Array) -> Array:
    """error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x"""
    return special(xp).erf(x)


@erf.vjp
def erf_vjp(g: Any, x: Any) -> tuple[Any, ...]:
    return (g * (exp(-(x * x)) * (2.0 / math.sqrt(math.pi))),)


@primitive(eq="eq:maximum", shapes="(),()->()", domain=real(-3, 3, distinct=True))
def maximum(xp: Any, a: Array, b: Array) -> Array:
    """the larger of a and b; at ties the cotangent goes to both in halves"""
    return xp.maximum(a, b)


@maximum.vjp
def maximum_vjp(g: Any, a: Any, b: Any) -> tuple[Any, ...]:
    u, v = stop_gradient(a), stop_gradient(b)
    share = ((u > v) + 0.5 * (u == v)).astype(u.dtype)
    return reduce_to(g * share, a.shape), reduce_to(g * (1.0 - share), b.shape)


@primitive(eq="eq:relu", shapes="()->()", domain=real(-3, 3, kinks=(0.0,)))
def relu(xp: Any, x: Array) -> Array:
    """max(x, 0); the derivative at 0 is 0"""
    return xp.maximum(x, 0)


@relu.vjp
def relu_vjp(g: Any, y: Any) -> tuple[Any, ...]:
    return (g * (stop_gradient(y) > 0),)


@primitive(eq="eq:where", shapes="(),()->()", domain=WIDE, bilinear=True, draw=draws.condition)
def where(xp: Any, a: Array, b: Array, *, condition: Array) -> Array:
    """a where the condition holds, else b"""
    y = xp.where(condition, a, b)
    return y.astype(a.dtype) if a.dtype == b.dtype != y.dtype else y  # CuPy has no choice of bfloat16


@where.vjp
def where_vjp(g: Any, a_shape: Any, b_shape: Any, *, condition: Array) -> tuple[Any, ...]:
    chosen = array_module(condition).not_equal(condition, 0)  # of a Python bool as well, whose ~ is a number
    return reduce_to(g * chosen, a_shape), reduce_to(g * ~chosen, b_shape)


# Reductions


@primitive(eq="eq:sum", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.axes)
def sum(xp: Any, x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """sum over some axes, or all"""
    return xp.sum(x, axis=axis, keepdims=keepdims)


@sum.vjp
def sum_vjp(g: Any, x_shape: Any, *, axis: Any = None, keepdims: Any = False) -> tuple[Any, ...]:
    return (broadcast_to(g if keepdims else reshape(g, shape=kept_shape(x_shape, axis)), shape=x_shape),)


@primitive(eq="eq:amax", shapes="(n)->()", domain=real(-3, 3, distinct=True))
def amax(xp: Any, x: Array) -> Array:
    """largest element of the last axis; at ties the cotangent is shared equally"""
    return xp.max(x, axis=-1)


@amax.vjp
def amax_vjp(g: Any, x: Any, y: Any) -> tuple[Any, ...]:
    u, top = stop_gradient(x), stop_gradient(y)
    share = (u == top[..., None]).astype(u.dtype)
    share /= share.sum(axis=-1, keepdims=True)
    return (reshape(g, shape=(*y.shape, 1)) * share,)


# Shapes


@primitive(eq="eq:reshape", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.new_shape)
def reshape(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """the same elements, in the same order, with other axes"""
    return xp.reshape(x, shape)


@reshape.vjp
def reshape_vjp(g: Any, x_shape: Any) -> tuple[Any, ...]:
    return (reshape(g, shape=x_shape),)


@primitive(eq="eq:transpose", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.order_of_axes)
def transpose(xp: Any, x: Array, *, order: tuple[int, ...]) -> Array:
    """axes in another order (a view)"""
    return xp.transpose(x, order)


@transpose.vjp
def transpose_vjp(g: Any, *, order: tuple[int, ...]) -> tuple[Any, ...]:
    return (transpose(g, order=tuple(order.index(i) for i in range(len(order)))),)


@primitive(eq="eq:broadcast", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.target_shape)
def broadcast_to(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """repetition along new axes and along axes of size 1 (a view)"""
    return xp.broadcast_to(x, shape)


@broadcast_to.vjp
def broadcast_to_vjp(g: Any, x_shape: Any) -> tuple[Any, ...]:
    return (reduce_to(g, x_shape),)


@primitive(eq="eq:getitem", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.cut)
def getitem(xp: Any, x: Array, *, key: Any) -> Array:
    """x[key], for slices, indices and arrays of indices"""
    return x[key]


@getitem.vjp
def getitem_vjp(g: Any, x_shape: Any, *, key: Any) -> tuple[Any, ...]:
    return (put(g, key=key, shape=x_shape),)


@primitive(eq="eq:put", shapes="()->()", domain=WIDE, bilinear=True, draw=draws.place)
def put(xp: Any, x: Array, *, key: Any, shape: tuple[int, ...]) -> Array:
    """zeros of the given shape with x added at [key]: the transpose of getitem"""
    if is_basic(key):
        y = xp.zeros(shape, x.dtype)
        y[key] = x
        return y
    wide = xp.float32 if x.dtype.itemsize == 2 else x.dtype  # an index may be repeated: sums of 16-bit numbers
    y = xp.zeros(shape, wide)
    xp.add.at(y, key, x.astype(wide, copy=False))
    return y.astype(x.dtype, copy=False)


@put.vjp
def put_vjp(g: Any, *, key: Any) -> tuple[Any, ...]:
    return (getitem(g, key=key),)


@primitive(eq="eq:concatenate", shapes="(a,c),(b,c)->(d,c)", domain=WIDE, bilinear=True, draw=draws.joined)
def concatenate(xp: Any, *xs: Array, axis: int) -> Array:
    """arrays one after another along an axis"""
    return xp.concatenate(xs, axis=axis)


@concatenate.vjp
def concatenate_vjp(g: Any, xs_shape: Any, *, axis: int) -> tuple[Any, ...]:
    axis, start, parts = axis % len(g.shape), 0, []
    for shape in xs_shape:
        stop = start + shape[axis]
        parts.append(getitem(g, key=(*(slice(None),) * axis, slice(start, stop))))
        start = stop
    return tuple(parts)


@primitive(eq="eq:cast", shapes="()->()", domain=WIDE, bilinear=True, draw=lambda rng, shapes: {"dtype": "float64"})
def cast(xp: Any, x: Array, *, dtype: Any) -> Array:
    """the same numbers as another element type"""
    return x.astype(dtype)


@cast.vjp
def cast_vjp(g: Any, x_dtype: Any) -> tuple[Any, ...]:
    return (cast(g, dtype=x_dtype),)


# Products and gathers


@primitive(eq="eq:matmul", shapes="(m,k),(k,n)->(m,n)", domain=WIDE, bilinear=True)
def matmul(xp: Any, a: Array, b: Array) -> Array:
    """matrix product over the last two axes, the others broadcast"""
    return products.matmul(xp, a, b)


@matmul.vjp
def matmul_vjp(g: Any, a: Any, b: Any) -> tuple[Any, ...]:
    return reduce_to(matmul(g, swap_last(b)), a.shape), reduce_to(matmul(swap_last(a), g), b.shape)


@primitive(eq="eq:take-along", shapes="(n)->()", domain=WIDE, bilinear=True, draw=draws.along_last)
def take_along(xp: Any, x: Array, *, indices: Array) -> Array:
    """x[..., indices[...]]: one element of each row of the last axis; negative indices count from its end"""
    return xp.take_along_axis(x, indices[..., None], axis=-1)[..., 0]


@take_along.vjp
def take_along_vjp(g: Any, x_shape: Any, *, indices: Array) -> tuple[Any, ...]:
    xp = array_module(indices)
    chosen = (xp.arange(x_shape[-1]) == indices[..., None] % x_shape[-1]).astype(g.dtype)
    return (reduce_to(reshape(g, shape=(*g.shape, 1)) * chosen, x_shape),)


# Compositions of the above, and helpers of the rules


def mean(x: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over some axes, or all."""
    total = sum(x, axis=axis, keepdims=keepdims)
    return total * (max(1, math.prod(total.shape)) / max(1, math.prod(x.shape)))


def stack(xs: list[Any], *, axis: int = 0) -> Any:
    """Arrays of one shape along a new axis (at the given place of the result, counted from the front)."""
    shape = xs[0].shape
    return concatenate(*[reshape(x, shape=(*shape[:axis], 1, *shape[axis:])) for x in xs], axis=axis)


def swap_last(x: Any) -> Any:
    """The last two axes exchanged."""
    n = len(x.shape)
    return transpose(x, order=(*range(n - 2), n - 1, n - 2))


def reduce_to(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum of `g` over the axes along which an input of that shape was broadcast."""
    if g.shape == shape:
        return g
    extra = len(g.shape) - len(shape)
    over = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    return reshape(sum(g, axis=over), shape=shape)


def kept_shape(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of a reduction over `axis` with the reduced axes kept at size 1."""
    n = len(shape)
    over = range(n) if axis is None else [a % n for a in ((axis,) if isinstance(axis, int) else axis)]
    return tuple(1 if i in over else size for i, size in enumerate(shape))


def is_basic(key: Any) -> bool:
    """Whether an index consists of slices, integers and `...` only, so that no element can be named twice."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is ... or isinstance(k, slice | int) for k in parts)


# Operators of tensors. A Python number is a keyword of `scale` and `shift`, not an input: it has no cotangent.


def _bind_operators() -> None:
    def number(x: Any) -> bool:
        return isinstance(x, int | float) and not hasattr(x, "dtype")

    def constant(number: float, like: Any) -> Any:
        return array_module(stop_gradient(like)).asarray(number, like.dtype)

    def method(name: str, f: Any) -> None:
        setattr(Tensor, name, f)

    method("__add__", lambda a, b: shift(a, by=b) if number(b) else add(a, b))
    method("__radd__", lambda a, b: shift(a, by=b) if number(b) else add(b, a))
    method("__sub__", lambda a, b: shift(a, by=-b) if number(b) else sub(a, b))
    method("__rsub__", lambda a, b: shift(neg(a), by=b) if number(b) else sub(b, a))
    method("__mul__", lambda a, b: scale(a, by=b) if number(b) else mul(a, b))
    method("__rmul__", lambda a, b: scale(a, by=b) if number(b) else mul(b, a))
    method("__truediv__", lambda a, b: quotient(a, by=b) if number(b) else div(a, b))
    method("__rtruediv__", lambda a, b: div(constant(b, a) if number(b) else b, a))
    method("__pow__", lambda a, b: power(a, exponent=b))
    method("__matmul__", lambda a, b: matmul(a, b))
    method("__rmatmul__", lambda a, b: matmul(b, a))
    method("__neg__", lambda a: neg(a))
    method("__getitem__", lambda a, key: getitem(a, key=key))


_bind_operators()
