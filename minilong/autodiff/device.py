"""How a primitive is computed on a GPU: by a kernel declared for it, in float32 around its plain form, or as it is.

The plain form, written for any array library, is the reference: a kernel's values and cotangents equal it up to
rounding, for every type. A package's kernels are declared in its module `on_device`, read when first needed:

    @on_device(softmax)
    def softmax_kernel(xp, x):
        return kernels.softmax(xp, x)

    @softmax_kernel.vjp
    def softmax_kernel_vjp(g, y): ...

What its rule names after `g` is kept, as for any primitive; `aux` may differ from the plain form's. Where `takes`
says no to the arguments, the plain form is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from minilong.autodiff.primitive import Primitive
from minilong.backend import Array, array_module

HALVES = ("float16", "bfloat16")

WITH_NUMBERS = ("scale", "quotient", "shift", "power", "sqrt", "tanh", "sigmoid", "erf", "maximum")
"""Operations that meet a Python number, in their rule perhaps: it makes a bfloat16 array float32, or float64."""


class DeviceForm(Primitive):
    """Another forward pass and rule of a primitive. Shares everything else that was declared for it."""

    def __init__(
        self,
        base: Primitive,
        forward: Callable[..., Any],
        aux: tuple[str, ...] = (),
        takes: Callable[..., bool] = lambda *xs, **params: True,
    ) -> None:
        self.__dict__.update(base.__dict__)
        self.base, self.forward, self.aux, self.takes = base, forward, aux, takes
        self.on_device = None

    def __repr__(self) -> str:
        return f"<{self.name} on a GPU>"


def on_device(
    base: Primitive, *, aux: tuple[str, ...] = (), takes: Callable[..., bool] = lambda *xs, **params: True
) -> Callable[[Callable[..., Any]], DeviceForm]:
    """Declare the kernel of a primitive. takes: whether it accepts inputs and keywords."""

    def declare(forward: Callable[..., Any]) -> DeviceForm:
        if base.on_device is not None:
            raise TypeError(f"primitive {base.name!r} has two forms for a GPU")
        form = DeviceForm(base, forward, aux, takes)
        base.on_device = form
        return form

    return declare


def form_of(base: Primitive, xs: Any, params: Mapping[str, Any]) -> Primitive:
    """The form in which a primitive is computed for GPU arrays."""
    declare_forms()
    form = base.on_device
    if isinstance(form, DeviceForm) and form.takes(*xs, **params):
        return form
    fused = base.ref is not None and not base.bilinear
    if (fused or base.name in WITH_NUMBERS) and any(is_half(x) for x in xs):
        return single(base)
    return base


@cache
def declare_forms() -> None:
    """Read the declarations of all kernels."""
    for package in ("autodiff", "attention"):
        import_module(f"minilong.{package}.on_device")


def is_half(x: Array) -> bool:
    """Whether the elements take two bytes. (bfloat16 is no subtype of NumPy's floating.)"""
    return str(x.dtype) in HALVES


@cache
def single(base: Primitive) -> DeviceForm:
    """A fused operation on 16-bit numbers as it is on float32: what a composition of rounded steps would not be.

    The output has the inputs' type. Cotangents of inputs that all rows share (weights) stay float32, since they are
    accumulated.
    """

    def forward(xp: Any, *xs: Array, **params: Any) -> Any:
        y = base.forward(xp, *map(widened, xs), **params)
        dtype = xs[0].dtype
        return (y[0].astype(dtype), *y[1:]) if base.aux else y.astype(dtype)

    def rule(g: Array, *saved: Any, **params: Any) -> tuple[Any, ...]:
        dtype = g.dtype
        found = base.rule(widened(g), *map(widened, saved), **params)
        names = base.inputs if not base.variadic else (base.inputs[0],) * len(found)
        return tuple(
            c if c is None or name in base.shared else c.astype(dtype) for name, c in zip(names, found, strict=True)
        )

    form = DeviceForm(base, forward, base.aux)
    form.rule = rule
    return form


def widened(x: Any) -> Any:
    """float32 in place of a 16-bit type; anything else as it is."""
    if not hasattr(x, "dtype") or not is_half(x):
        return x
    return x.astype(array_module(x).float32)
