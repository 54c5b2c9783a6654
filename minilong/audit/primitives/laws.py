"""What is true of every primitive, each property as a function of one random call.

The audit and the tests run them on the registry, and on wrong VJPs (`mutants.py`), which they must find. All but
`residuals` also hold for a call whose arrays are on a device.
Tolerances come from the error bounds of `numeric.py`, the same for all operations.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.law import LawBroken, Measure
from minilong.audit.primitives.cases import Case, product_bound
from minilong.autodiff import ops, value_and_grad, vjp
from minilong.autodiff.numeric import directional
from minilong.backend import Array, array_module, is_array, to_host


def reference(case: Case, measure: Measure | None = None) -> None:
    """The fused operation and its rule equal the definition and the cotangents of the definition."""

    ref = case.p.ref
    if ref is None:
        raise ValueError(f"{case.p.name} has no definition to equal")

    def definition(*xs: Any) -> Any:
        return ref(*xs, **case.params)

    m = measure or Measure()
    y = case.value(*case.xs)
    equal(m, y, definition(*case.xs), *case.xs)
    actual = case.cotangents()
    for c, expected in zip(actual, case.cotangents(f=definition), strict=True):
        equal(m, c, expected, *case.xs, case.g, y, *actual, what="a cotangent")


def direction(case: Case, measure: Measure | None = None) -> None:
    """<J^T g, v> by the rule equals <g, J v> by finite differences of the operation, for random g and v."""
    step = 1.0 if case.p.bilinear else 1e-3
    f = of_host(case, case.value)
    expected = directional(f, to_hosts(case.xs), to_hosts(case.vs), to_host(case.g), h=step)
    actual = inner(case.cotangents(), case.vs)
    (measure or Measure()).close(actual, expected.value, expected.bound, "<J^T g, v>")


def second_order(case: Case, measure: Measure | None = None) -> None:
    """The same of (x, g) -> <J(x)^T g, v>: the rule itself is differentiated, in the inputs and in the cotangent."""
    n = len(case.xs)

    def cotangents(*xg: Any) -> tuple[Any, ...]:
        return vjp(case.value, *xg[:n])[1](xg[n])

    def along_v(xg: tuple[Any, ...]) -> Any:
        total: Any = 0.0
        for c, v in zip(cotangents(*xg), case.vs, strict=True):
            total = total + ops.sum(ops.mul(c, v))
        return total

    rng = np.random.default_rng(0)
    xg = (*case.xs, case.g)
    us = [rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.3, 1.0, x.shape) for x in xg]
    actual = inner(value_and_grad(along_v)(xg)[1], us)
    flat_v = np.concatenate([v.ravel() for v in to_hosts(case.vs)])

    def flat(*z: Any) -> np.ndarray:
        return np.concatenate([np.ravel(c) for c in to_hosts(cotangents(*map(case.device.put, z)))])

    expected = directional(flat, to_hosts(xg), us, flat_v)
    (measure or Measure()).close(actual, expected.value, expected.bound, "the second derivative")


def linear(case: Case, measure: Measure | None = None) -> None:
    """vjp(a g1 + g2) = a vjp(g1) + vjp(g2), without finite differences."""
    g1, g2, a = case.g, array_module(case.g).flip(case.g) * 0.7 - 0.1, -1.7
    whole = case.cotangents(a * g1 + g2)
    parts = [a * c1 + c2 for c1, c2 in zip(case.cotangents(g1), case.cotangents(g2), strict=True)]
    for c, expected in zip(whole, parts, strict=True):
        equal(measure or Measure(), c, expected, *case.xs, case.g, *whole, what="a cotangent of a g1 + g2")


def shape_and_dtype(case: Case, measure: Measure | None = None) -> None:
    """Cotangents have the shapes and types of the inputs, and the precision asked for changes rounding only."""
    m = measure or Measure()
    exact = case.cotangents()
    exact_y = case.value(*case.xs)
    for dtype in (np.float64, np.float32):
        low = case.astype(dtype)
        y = low.value(*low.xs)
        m.holds(y.dtype == low.params.get("dtype", dtype), f"the value of {dtype.__name__} inputs is {y.dtype}")
        equal(m, y, exact_y, *case.xs, dtype=dtype)
        for x, c, expected in zip(low.xs, low.cotangents(), exact, strict=True):
            m.holds(c.shape == x.shape, f"a cotangent of shape {c.shape} for an input of shape {x.shape}")
            m.holds(c.dtype == dtype, f"a cotangent of type {c.dtype} for an input of {dtype.__name__}")
            equal(m, c, expected, *case.xs, case.g, exact_y, *exact, dtype=dtype, what="a cotangent")


def layout(case: Case, measure: Measure | None = None) -> None:
    """Transposed, sliced, reversed and broadcast arrays of the same numbers give the same value and cotangents."""
    m = measure or Measure()
    xp, y, expected = array_module(case.g), case.value(*case.xs), case.cotangents()
    for arrange in (transposed, sliced, backwards):
        other = replace(case, xs=tuple(arrange(x) for x in case.xs), g=arrange(case.g))
        same(m, other, y, expected)
    # Zero strides repeat numbers, so the case to equal is the contiguous copy of them.
    repeated = tuple(xp.broadcast_to(x[:1], x.shape) if x.ndim else x for x in case.xs)
    if not any(d.distinct for d in case.p.domains):  # ties would be kinks
        copied = replace(case, xs=tuple(x.copy() for x in repeated))
        same(m, replace(case, xs=repeated), copied.value(*copied.xs), copied.cotangents())
    if case.g.ndim:
        flat = xp.broadcast_to(case.g[:1], case.g.shape)
        same(m, replace(case, g=flat), y, case.cotangents(flat.copy()))


def same(m: Measure, case: Case, y: Any, expected: tuple[Any, ...]) -> None:
    """The value and the cotangents are these, to rounding (the order of a sum may follow the layout)."""
    equal(m, case.value(*case.xs), y, *case.xs)
    for c, e in zip(case.cotangents(), expected, strict=True):
        equal(m, c, e, *case.xs, case.g, y, *expected, what="a cotangent")


def equal(m: Measure, actual: Any, expected: Any, *involved: Any, dtype: Any = np.float64, what: str = "y") -> None:
    """Equal up to the rounding of sums of products of the numbers involved."""
    actual, expected, *rest = to_hosts((actual, expected, *involved))
    m.close(actual, expected, product_bound(expected, *rest, dtype=dtype), what)


def of_host(case: Case, f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A function of the call's arrays, for the host's arrays."""
    return lambda *xs: to_host(f(*map(case.device.put, xs)))


def to_hosts(xs: Any) -> tuple[np.ndarray, ...]:
    """Each of some arrays, on the host."""
    return tuple(to_host(x) for x in xs)


def transposed(x: Array) -> Array:
    """The same numbers in Fortran order."""
    return array_module(x).array(x, order="F")


def sliced(x: Array) -> Array:
    """The same numbers, every second one of a larger array along each axis, which is NaN elsewhere."""
    room = array_module(x).full([2 * n + 1 for n in x.shape], np.nan, x.dtype)
    inside: Any = (..., *(slice(1, None, 2) for _ in x.shape))
    view = room[inside]
    view[...] = x
    return view


def backwards(x: Array) -> Array:
    """The same numbers under negative strides."""
    xp = array_module(x)
    return xp.flip(xp.flip(x).copy())


def purity(case: Case, measure: Measure | None = None) -> None:
    """Nothing that is passed in is written to, and the same call twice gives the same bits."""
    m = measure or Measure()
    frozen = replace(case, xs=tuple(readonly(x) for x in case.xs), g=readonly(case.g))
    frozen = replace(frozen, params={k: readonly(v) if is_array(v) else v for k, v in case.params.items()})
    before = [x.copy() for x in (*frozen.xs, frozen.g)]
    try:
        once, again = frozen.cotangents(), frozen.cotangents()
        first, second = frozen.value(*frozen.xs), frozen.value(*frozen.xs)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise LawBroken(f"what was passed in is written to ({error})") from error
    m.holds(np.array_equal(to_host(first), to_host(second)), "the same call gave other bits the second time")
    for c1, c2 in zip(to_hosts(once), to_hosts(again), strict=True):
        m.holds(np.array_equal(c1, c2), "the same pull gave other bits the second time")
    for x, unchanged in zip(to_hosts((*frozen.xs, frozen.g)), to_hosts(before), strict=True):
        m.holds(np.array_equal(x, unchanged), "an input was written to")


def readonly(x: Array) -> Array:
    """A copy that raises when it is written to, where the library can."""
    copy = x.copy()
    if isinstance(copy, np.ndarray):
        copy.flags.writeable = False
    return copy


def residuals(case: Case, measure: Measure | None = None) -> None:
    """The node keeps the arrays that the VJP's signature names, byte for byte, and no other is reachable from it.

    What it does not name, the inputs and the output included, is freed as soon as the program lets go of it.
    """
    m, p = measure or Measure(), case.p
    watched: dict[str, Any] = {}
    kept: dict[str, Any] = {}

    def f(*xs: Any) -> Any:
        # Fresh arrays, which nobody else holds: `vjp` itself keeps its inputs.
        fresh = [ops.shift(x, by=0.0) for x in xs]
        y = p(*fresh, **case.params)
        kept["node"] = y.node
        for name, x in zip(p.inputs, fresh, strict=False):
            watched[name] = owner(x.data)
        watched["y"] = owner(y.data)
        kept["allowed"] = allowance(case, [x.data for x in fresh], y.data)
        views = {id(root(x.data)) for x in fresh} & {id(root(y.data))}
        kept["view"] = bool(views) or y.data is fresh[0].data
        return ops.sum(y)

    pull = vjp(f, *case.xs)[1]
    node = kept["node"]
    m.holds(len(node.saved) == len(p.keeps), f"{len(node.saved)} things are kept, the signature names {p.keeps}")
    constants = {id(root(v)) for v in case.params.values() if isinstance(v, np.ndarray)}
    reachable = {k: n for k, n in buffers((node.saved, node.params)).items() if k not in constants}
    found = sum(reachable.values())
    m.holds(found <= kept["allowed"], f"{found} bytes are kept, the signature {p.keeps} names {kept['allowed']}")
    named = {*p.keeps}
    if not kept["view"]:
        for name, alive in watched.items():
            if name not in named and alive is not None:
                m.holds(alive() is None, f"{name} is kept, though the VJP {p.keeps} does not name it")
    pull(np.ones(()))
    m.holds(node.saved is None and node.params is None, "what was kept is not let go after the pull")


def allowance(case: Case, xs: list[Any], y: Any) -> int:
    """Bytes of the arrays that the signature of the VJP names: inputs, the output, auxiliary results."""
    p = case.p
    aux = dict(zip(p.aux, p.forward(np, *xs, **case.params)[1:], strict=True)) if p.aux else {}
    total = 0
    for name in p.keeps:
        if name == "y":
            total += np.asarray(y).nbytes
        elif name in aux:
            total += getattr(aux[name], "nbytes", 0)
        elif name in p.inputs:
            total += sum(x.nbytes for x in xs) if p.variadic else xs[p.inputs.index(name)].nbytes
    return total


def buffers(start: Any) -> dict[int, int]:
    """Address and bytes of each array's memory that can be reached from an object."""
    found: dict[int, int] = {}
    stack, seen = [start], set()
    while stack:
        x = stack.pop()
        if id(x) in seen or isinstance(x, type) or callable(x):
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            found[id(root(x))] = root(x).nbytes
        else:
            stack.extend(gc.get_referents(x))
    return found


def root(x: Any) -> Any:
    """The array that owns the memory of a view."""
    while isinstance(x, np.ndarray) and isinstance(x.base, np.ndarray):
        x = x.base
    return x


def owner(x: Any) -> Any:
    """A weak reference to that array; None for NumPy's scalars, which have none."""
    return weakref.ref(root(x)) if isinstance(x, np.ndarray) else None


def inner(cs: Any, vs: Any) -> float:
    """Sum of products of the elements of two lists of arrays."""
    return float(sum(np.sum(c * v) for c, v in zip(to_hosts(cs), to_hosts(vs), strict=True)))
