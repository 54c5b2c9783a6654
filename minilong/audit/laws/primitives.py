"""Laws of the primitives: what `audit/primitives/laws.py` states of one call, for every operation of the registry.

The function under audit is the Primitive itself, since its rule is audited with its value. A case is a recipe (sizes,
axes in front, which inputs lack them, a seed), from which a call of any primitive follows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import minilong.attention  # noqa: F401 (its kernels are registered as well)
from minilong.audit.device import OnDevice
from minilong.audit.law import Case, LawBroken, Measure, kind, law, mutant, subject
from minilong.audit.primitives import laws as properties
from minilong.audit.primitives.cases import PRIMITIVES, SIZES, core_shape, fill, names, symbols_of
from minilong.audit.primitives.cases import Case as Call
from minilong.audit.primitives.mutants import APPLIES, EQUIVALENT, FOUND_BY, MET, MUTATIONS, wrong_rule
from minilong.autodiff import REGISTRY, Primitive, ops, stop_gradient
from minilong.backend import CPU

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EVERY = tuple(p.eq for p in PRIMITIVES)
FUSED = tuple(p for p in PRIMITIVES if p.ref is not None)

kind("primitive", "primitive(*inputs, **keywords)", "A differentiable operation, with the rule of its derivative.")
kind("fused", "primitive(*inputs, **keywords)", "An operation computed at once that a composition of others defines.")


def recipes() -> SearchStrategy[Case]:
    """Recipes of a call; the simplest has all sizes 1 and no axes in front."""
    from hypothesis import strategies as st

    size = st.sampled_from(SIZES)
    return st.fixed_dictionaries(
        {
            "sizes": st.tuples(size, size, size, size),
            "square": st.booleans(),
            "front": st.sampled_from(((), (2,), (1,), (3, 2), (1, 3), (2, 4), (4, 1, 2))),
            "lacks": st.integers(0, 63),
            "seed": st.integers(0, 2**32 - 1),
        }
    )


def shapes_of(p: Primitive, recipe: Case) -> tuple[tuple[int, ...], ...]:
    """Input shapes that fit the signature. `square`: all sizes alike, which shows whether cotangents were exchanged."""
    size = {s: recipe["sizes"][0 if recipe["square"] else i % 4] for i, s in enumerate(symbols_of(p))}
    front = recipe["front"] if not any(p.core[0]) else recipe["front"][:2]
    choices = (front, front[1:], (1,) * len(front), ())
    result = []
    for i, (name, dims) in enumerate(zip(names(p, p.core[0]), p.core[0], strict=True)):
        core = core_shape(dims, size)
        own = front[:1] if p.variadic else choices[recipe["lacks"] >> 2 * i & 3]
        result.append(core if name in p.shared else (*own, *core))
    return tuple(result)


def check(of: str, name: str, state: Callable[[Call, Measure], None], serves: tuple[str, ...], share: float) -> None:
    """Register a property of one call as a law; a failure shows the call."""

    def statement(f: Any, recipe: Case, measure: Measure) -> None:
        p: Any = f.f if isinstance(f, OnDevice) else f
        device = f.device if isinstance(f, OnDevice) else CPU
        call = fill(p, shapes_of(p, recipe), recipe["seed"]).on(device)
        try:
            state(call, measure)
        except LawBroken as error:
            raise LawBroken(f"{error}, in {call!r}") from None

    statement.__doc__ = state.__doc__
    law(of, name, serves=serves, cases=recipes, share=share)(statement)


check("primitive", "direction", properties.direction, EVERY, 0.3)
check("primitive", "second-order", properties.second_order, EVERY, 0.15)
check("primitive", "linear", properties.linear, EVERY, 0.3)
check("primitive", "shape-and-dtype", properties.shape_and_dtype, EVERY, 0.3)
check("primitive", "layout", properties.layout, EVERY, 0.2)
check("primitive", "purity", properties.purity, EVERY, 0.2)
check("primitive", "residuals", properties.residuals, EVERY, 0.2)
check("fused", "reference", properties.reference, tuple(p.eq for p in FUSED), 0.3)

for _p in PRIMITIVES:
    subject("primitive", f"primitive {_p.name}", code=_p.forward, equation=_p.eq)(_p)
for _p in FUSED:
    subject("fused", f"fused {_p.name}", code=_p.forward, equation=_p.eq)(_p)

for _p in PRIMITIVES:
    for _name in MUTATIONS:
        if APPLIES[_name](_p) and (_p.name, _name) not in EQUIVALENT:
            mutant("primitive", f"{_p.name}: {_name}", kills=FOUND_BY[_name], met=MET[_name])(wrong_rule(_p, _name))


def variant(p: Primitive, **changes: Any) -> Primitive:
    """A copy of a primitive, not in the registry, with some attributes replaced."""
    other = copy.copy(p)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def constant_output_rule(g: Any, y: Any) -> tuple[Any, ...]:
    """tanh's rule with y as a constant: the first derivative is right."""
    y = stop_gradient(y)
    return (g * (1.0 - y * y),)


mutant(
    "primitive", "tanh: output held constant in the rule", kills="second-order",
    met="plausible: a rule written on the data of a tensor, which its own derivative then cannot see",
)(variant(REGISTRY["tanh"], rule=constant_output_rule))  # fmt: skip


def by_memory(xp: Any, x: Any) -> Any:
    """exp of the elements in the order in which they lie in memory."""
    return xp.exp(x.ravel(order="K")).reshape(x.shape)


mutant(
    "primitive", "exp: elements in memory order", kills="layout",
    met="plausible: a kernel that takes the pointer and ignores the strides",
)(variant(REGISTRY["exp"], forward=by_memory))  # fmt: skip


def in_place_rule(g: Any, x: Any) -> tuple[Any, ...]:
    """sin's rule, with the product written into the cotangent that was passed in."""
    if type(g) is np.ndarray:
        g *= np.cos(x)
        return (g,)
    return (ops.mul(g, ops.cos(x)),)


mutant(
    "primitive", "sin: the rule writes to its cotangent", kills="purity",
    met="tritonbench 467: gradients that share memory are written to",
)(variant(REGISTRY["sin"], rule=in_place_rule))  # fmt: skip


def keep_inputs_too(source: str, i: int, raw: list[Any], y: Any, aux: tuple[Any, ...]) -> Any:
    """What the rule needs, and the inputs with it."""
    return Primitive._keep(source, i, raw, y, aux), raw


mutant(
    "primitive", "exp: the graph keeps the input too", kills="residuals",
    met="tinygrad 140, HIPS/autograd 219 and 244: memory grows because the graph holds what no rule needs",
)(variant(REGISTRY["exp"], _keep=keep_inputs_too, rule=lambda g, kept: (ops.mul(g, kept[0]),)))  # fmt: skip


def tanh_gelu(xp: Any, x: Any) -> tuple[Any, ...]:
    """The approximation by tanh, with the auxiliary result of the exact form."""
    return REGISTRY["gelu_tanh"].forward(xp, x)[0], REGISTRY["gelu"].forward(xp, x)[1]


mutant(
    "fused", "gelu: the approximation by tanh", kills="reference",
    met="plausible: both are called GELU, and frameworks differ in the default; 1e-4 apart, enough to break a port",
)(variant(REGISTRY["gelu"], forward=tanh_gelu))  # fmt: skip
