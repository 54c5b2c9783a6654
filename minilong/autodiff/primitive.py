"""A primitive: one declaration of a differentiable operation, from which everything else is derived.

Read `core.py` first. A declaration states the equation, the shapes, where the operation is differentiable, how to
compute it and its vector-Jacobian product (VJP):

    @primitive(eq="eq:tanh", shapes="()->()", domain=real(-3, 3))
    def tanh(xp, x):
        return xp.tanh(x)

    @tanh.vjp
    def tanh_vjp(g, y):
        return (g * (1 - y * y),)

The names of the VJP's parameters after `g` say what the forward pass keeps, and nothing else is kept: an input by its
name, the output as `y`, a shape as `<input>_shape`, a type as `<input>_dtype`, an auxiliary result by the name given in
`aux`; keyword-only parameters receive the operation's own keywords. A name that fits none of these is refused when the
module is imported.

Arrays that are differentiated are positional; everything else is keyword-only, so no gradient is ever asked of it.
`ref` names the composite definition that a fused operation must equal: documentation, oracle, and, where an operation
is differentiated at two levels at once, the rule for the second derivative.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from minilong.autodiff.core import Node, Tensor
from minilong.backend import Array, array_module

Draw: TypeAlias = Callable[[np.random.Generator, tuple[tuple[int, ...], ...]], dict[str, Any]]


@dataclass(frozen=True)
class Domain:
    """Where tests sample an input: uniformly in [low, high], at a distance of at least `gap` from each of `kinks`.

    `distinct` asks for elements that differ by more than the step of a finite difference (ties are kinks).
    """

    low: float
    high: float
    kinks: tuple[float, ...] = ()
    gap: float = 0.05
    distinct: bool = False


def real(low: float, high: float, *, kinks: tuple[float, ...] = (), distinct: bool = False) -> Domain:
    """The interval [low, high] without the neighbourhoods of the kinks."""
    return Domain(low, high, kinks, distinct=distinct)


REGISTRY: dict[str, Primitive] = {}
"""Every primitive by name. Filled by the declarations at import; tests and the audit enumerate it."""


class Primitive:
    """A declared operation. Call it on tensors and arrays: it computes, and records itself if one is a tensor."""

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        eq: str,
        shapes: str,
        domain: Domain | tuple[Domain, ...],
        order: int,
        aux: tuple[str, ...],
        ref: Callable[..., Any] | None,
        bilinear: bool,
        shared: tuple[str, ...],
        draw: Draw | None,
    ) -> None:
        parameters = list(inspect.signature(forward).parameters.values())
        self.name, self.forward, self.eq, self.shapes = forward.__name__, forward, eq, shapes
        self.order, self.aux, self.ref, self.bilinear, self.draw = order, aux, ref, bilinear, draw
        self.inputs = tuple(p.name for p in parameters[1:] if p.kind is not p.KEYWORD_ONLY)
        self.variadic = parameters[1].kind is parameters[1].VAR_POSITIONAL
        self.shared = shared
        self.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.core = parse_shapes(shapes)
        if not self.variadic and len(self.core[0]) != len(self.inputs):
            raise TypeError(f"primitive {self.name!r}: shapes {shapes!r} do not match inputs {self.inputs}")
        self.domains = domain if isinstance(domain, tuple) else (domain,) * len(self.core[0])
        self.checked = any(self.core[0]) and not self.variadic
        self.__doc__ = forward.__doc__
        self.__name__ = forward.__name__
        self.__module__ = forward.__module__
        self.rule: Callable[..., tuple[Array | None, ...]]
        self.on_device: Primitive | None = None
        if not set(shared) <= set(self.inputs):
            raise TypeError(f"primitive {self.name!r}: shared={shared} are not all among the inputs {self.inputs}")
        if aux and ref is None:
            raise TypeError(f"primitive {self.name!r} has auxiliary results and needs ref for second derivatives")
        if self.name in REGISTRY:
            raise TypeError(f"primitive {self.name!r} is declared twice")
        REGISTRY[self.name] = self

    def __repr__(self) -> str:
        return f"<primitive {self.name} {self.shapes}>"

    def vjp(self, rule: Callable[..., tuple[Array | None, ...]]) -> Callable[..., tuple[Array | None, ...]]:
        """Declare the VJP: `rule(g, <what is kept>, *, <keywords>)` gives one cotangent per input."""
        parameters = list(inspect.signature(rule).parameters.values())
        self.rule = rule
        self.keeps = tuple(p.name for p in parameters[1:] if p.kind is not p.KEYWORD_ONLY)
        self.plan = tuple(self._source(name) for name in self.keeps)
        self.wants = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        for name in self.wants:
            if name not in self.defaults:
                raise TypeError(f"VJP of {self.name!r} asks for keyword {name!r}, which the operation does not have")
        return rule

    def _source(self, name: str) -> tuple[str, int]:
        if name == "y":
            return "output", 0
        if name in self.aux:
            return "aux", self.aux.index(name)
        if name in self.inputs:
            return ("all", 0) if self.variadic else ("input", self.inputs.index(name))
        stem = name.removesuffix("_shape")
        if stem != name and stem in self.inputs:
            return ("shapes", 0) if self.variadic else ("shape", self.inputs.index(stem))
        stem = name.removesuffix("_dtype")
        if stem != name and stem in self.inputs and not self.variadic:
            return "dtype", self.inputs.index(stem)
        raise TypeError(
            f"VJP of {self.name!r} names {name!r}: no input, <input>_shape, <input>_dtype, y, nor one of aux {self.aux}"
        )

    def __call__(self, *xs: Any, **params: Any) -> Any:
        level = 0
        for x in xs:
            if type(x) is Tensor and x.level > level:
                level = x.level
        if level == 0:  # plain arrays: just compute
            y, own = self._compute(xs, params)
            return y[0] if own.aux else y
        # Inside an outer derivative a kernel's rule could be handed tensors, be it by its inputs or by the cotangent
        # alone (as in d/dv of grad_w <softmax(w), v>): differentiate the definition instead.
        if level > 1 and self.ref is not None:
            return self.ref(*xs, **params)
        raw: list[Any] = []
        parents: list[Node | None] = []
        nested = False
        for x in xs:
            if type(x) is Tensor:
                if x.level == level:
                    raw.append(x.data)
                    parents.append(x.node)
                    nested = nested or type(x.data) is Tensor
                    continue
                nested = True
            raw.append(x)
            parents.append(None)
        aux: tuple[Any, ...] = ()
        form: Primitive = self
        if nested:  # traced at an outer level as well
            y = self(*raw, **params)
        else:
            y, form = self._compute(raw, params)
            if form.aux:
                y, *rest = y
                aux = tuple(rest)
        saved = [self._keep(source, i, raw, y, aux) for source, i in form.plan]
        if form.wants:
            kept = {name: params.get(name, form.defaults[name]) for name in form.wants}
        else:
            kept = None
        return Tensor(y, Node(form, parents, saved, kept), level)

    def with_aux(self, *xs: Array, **params: Any) -> Any:
        """The output and the auxiliary results, of plain arrays."""
        return self._compute(xs, params)[0]

    def _compute(self, xs: Any, params: Mapping[str, Any]) -> tuple[Any, Primitive]:
        """The result, and the form that computed it and whose rule goes with it: this one, or a GPU's."""
        if self.checked:
            check_shapes(self, *[x.shape for x in xs])
        xp, form = array_module(*xs), self
        if xp is not np:
            from minilong.autodiff.device import form_of  # which needs this module

            form = form_of(self, xs, params)
        try:
            return form.forward(xp, *xs, **params), form
        except ValueError as error:
            shapes = ", ".join(str(getattr(x, "shape", ())) for x in xs)
            raise ValueError(f"{self.name}: shapes {shapes} do not fit {self.shapes}: {error}") from error

    @staticmethod
    def _keep(source: str, i: int, raw: list[Any], y: Any, aux: tuple[Any, ...]) -> Any:
        if source == "input":
            return raw[i]
        if source == "output":
            return y
        if source == "shape":
            return getattr(raw[i], "shape", ())
        if source == "aux":
            return aux[i]
        if source == "dtype":
            return raw[i].dtype
        if source == "shapes":
            return tuple(getattr(x, "shape", ()) for x in raw)
        return tuple(raw)


def primitive(
    *,
    eq: str,
    shapes: str,
    domain: Domain | tuple[Domain, ...],
    order: int = 2,
    aux: tuple[str, ...] = (),
    ref: Callable[..., Any] | None = None,
    bilinear: bool = False,
    shared: tuple[str, ...] = (),
    draw: Draw | None = None,
) -> Callable[[Callable[..., Any]], Primitive]:
    """Declare an operation. See the module's text.

    eq: id of the equation in `specs/`. shapes: gufunc signature, drives the check at each call and the tests' shapes.
    domain: where it is differentiable, one for all inputs or one each. order: how often it is differentiated.
    aux: names of further results that `forward` returns after the output, for the VJP only. bilinear: linear in each
    input, so that finite differences are exact. shared: inputs without leading axes, which all rows share (weights).
    draw: `draw(generator, input_shapes)` gives keyword arguments to test.
    """

    def declare(forward: Callable[..., Any]) -> Primitive:
        return Primitive(
            forward,
            eq=eq,
            shapes=shapes,
            domain=domain,
            order=order,
            aux=aux,
            ref=ref,
            bilinear=bilinear,
            shared=shared,
            draw=draw,
        )

    return declare


def parse_shapes(signature: str) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The core dimensions of a gufunc signature: `"(t,n),(n)->(t)"` gives `((("t","n"), ("n",)), ("t",))`."""
    try:
        left, right = signature.replace(" ", "").split("->")
        if not (left.startswith("(") and left.endswith(")") and right.startswith("(") and right.endswith(")")):
            raise ValueError
        groups = tuple(tuple(d for d in g.split(",") if d) for g in left[1:-1].split("),("))
        return groups, tuple(d for d in right[1:-1].split(",") if d)
    except ValueError:
        raise TypeError(f"shapes {signature!r} is no gufunc signature such as '(m,k),(k,n)->(m,n)'") from None


@lru_cache(maxsize=4096)
def check_shapes(p: Primitive, *shapes: tuple[int, ...]) -> None:
    """Raise ValueError where the trailing axes of the inputs' shapes contradict the primitive's signature.

    What was found right is remembered: a model's shapes are the same in every step.
    """
    if len(shapes) != len(p.inputs):
        raise TypeError(f"{p.name}: {len(shapes)} inputs, but {p.shapes} asks for {len(p.inputs)}")
    sizes: dict[str, int] = {}
    for name, dims, shape in zip(p.inputs, p.core[0], shapes, strict=True):
        if len(shape) < len(dims):
            raise ValueError(f"{p.name}: {name} has shape {shape}, but {p.shapes} asks for {len(dims)} axes")
        if len(shape) > len(dims) and name in p.shared:
            raise ValueError(f"{p.name}: {name} has shape {shape}, but takes no axes before those of {p.shapes}")
        for dim, size in zip(dims, shape[len(shape) - len(dims) :], strict=True):
            if sizes.setdefault(dim, size) != size:
                given = ", ".join(map(str, shapes))
                raise ValueError(f"{p.name}: shapes {given} do not fit {p.shapes}: {dim} is {sizes[dim]} and {size}")
