"""Random calls of a primitive, made from its declaration: shapes from the signature, values from the domain.

Hypothesis draws the shapes and a seed; the values come from a NumPy generator of that seed, which is much faster than
drawing them one by one and shrinks where shrinking helps a reader, in the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest import SkipTest

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import minilong.attention  # noqa: F401 (its kernels are registered as well)
from minilong.audit.device import mapped
from minilong.audit.law import LawBroken, Measure
from minilong.autodiff import REGISTRY, Primitive, vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.autodiff.primitive import Domain
from minilong.backend import CPU, Device, is_array

PRIMITIVES = tuple(REGISTRY.values())
SIZES = (1, 2, 3, 5)
DIGITS = "0123456789"


@dataclass(frozen=True, eq=False)
class Case:
    """One call `p(*xs, **params)` with a cotangent `g` of its value, and directions `vs` in which the inputs move."""

    p: Primitive
    xs: tuple[np.ndarray, ...]
    params: dict[str, Any]
    g: np.ndarray
    vs: tuple[np.ndarray, ...]
    device: Device = CPU

    def on(self, device: Device) -> Case:
        """The same call with all its arrays on a device."""
        xs, params, g, vs = mapped(device.put, (self.xs, self.params, self.g, self.vs))
        return replace(self, xs=xs, params=params, g=g, vs=vs, device=device)

    def value(self, *xs: Any) -> Any:
        """The operation as a function of the inputs alone."""
        return self.p(*xs, **self.params)

    def cotangents(self, g: Any = None, f: Callable[..., Any] | None = None) -> tuple[Any, ...]:
        """Cotangents of the inputs by the rule of the operation, or through another function of the same inputs."""
        return vjp(f or self.value, *self.xs)[1](self.g if g is None else g)

    def astype(self, dtype: Any) -> Case:
        """The same call in another precision; constants among the keywords follow the data."""
        constants = {k: cast(v, dtype) if is_array(v) else v for k, v in self.params.items()}
        xs, vs = tuple(x.astype(dtype) for x in self.xs), tuple(v.astype(dtype) for v in self.vs)
        return replace(self, xs=xs, vs=vs, params=constants, g=self.g.astype(self.params.get("dtype", dtype)))

    def __repr__(self) -> str:
        parts = [f"{n}={v!r}" for n, v in zip(names(self.p, self.xs), self.xs, strict=True)]
        return f"{self.p.name}({', '.join(parts)}; {self.params}; g={self.g!r})"


def names(p: Primitive, xs: tuple[Any, ...]) -> tuple[str, ...]:
    """A name for each input, of a variadic operation too."""
    return tuple(f"{p.inputs[0]}{i}" for i in range(len(xs))) if p.variadic else p.inputs


def cast(x: Any, dtype: Any) -> Any:
    """A constant in the precision of `dtype`, if it is of floating point at all."""
    if x.dtype.kind == "c":
        return x.astype(np.result_type(dtype, np.complex64))
    return x.astype(dtype) if x.dtype.kind == "f" else x


def symbols_of(p: Primitive) -> list[str]:
    """The sizes that a signature names; `2h` names h."""
    return sorted({d.lstrip(DIGITS) for dims in p.core[0] for d in dims})


def core_shape(dims: tuple[str, ...], size: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of some core dimensions; `2h` is twice the size of h."""
    return tuple(size[s := d.lstrip(DIGITS)] * int(d.removesuffix(s) or 1) for d in dims)


@st.composite
def shapes(draw: st.DrawFn, p: Primitive, *, smallest: int = 1) -> tuple[tuple[int, ...], ...]:
    """Input shapes that fit the signature of `p`: equal core dimensions, broadcastable axes before them.

    `2h` in a signature is an even size. Shared inputs have no axes but their own. `smallest=0` allows empty batches.
    """
    symbols = symbols_of(p)
    # All sizes alike is the case that shows whether two cotangents were exchanged.
    square = draw(st.booleans())
    first = draw(st.sampled_from(SIZES))
    size = {s: first if square else draw(st.sampled_from(SIZES)) for s in symbols}
    batched = len(p.core[0]) if p.variadic else sum(n not in p.shared for n in p.inputs)
    if p.variadic:  # joined along one axis: the others are equal, not broadcast
        batches = [draw(hnp.array_shapes(min_dims=0, max_dims=1, min_side=max(smallest, 1), max_side=3))] * batched
    elif batched:
        drawn = hnp.mutually_broadcastable_shapes(
            num_shapes=batched, min_dims=0, max_dims=2 if any(p.core[0]) else 3, min_side=smallest, max_side=4
        )
        batches = list(draw(drawn).input_shapes)
    else:
        batches = []
    supply = iter(batches)
    result = []
    for name, dims in zip(p.inputs * (len(p.core[0]) if p.variadic else 1), p.core[0], strict=True):
        core = core_shape(dims, size)
        result.append(core if name in p.shared else (*next(supply), *core))
    return tuple(result)


def sample(rng: np.random.Generator, domain: Domain, shape: tuple[int, ...], cells: np.ndarray) -> np.ndarray:
    """Numbers of the domain; `cells` are places in [0, 1) that differ by at least half of one part in their count."""
    u = cells if domain.distinct else rng.random(len(cells))
    x = domain.low + (domain.high - domain.low) * u
    if len(x) and not domain.distinct and rng.random() < 0.3:
        edges = [e for e in (0.0, domain.low, domain.high) if domain.low <= e <= domain.high]
        x[rng.integers(len(x))] = rng.choice(edges)  # what a formula fails at is often zero
    for kink in domain.kinks:
        near = np.abs(x - kink) < domain.gap
        x[near] = kink + np.where(x[near] < kink, -domain.gap, domain.gap) * rng.uniform(1, 2, near.sum())
    return x.reshape(shape)


def fill(p: Primitive, sizes: tuple[tuple[int, ...], ...], seed: int) -> Case:
    """A case of the given input shapes; everything else comes from the seed."""
    rng = np.random.default_rng(seed)
    counts = [int(np.prod(s)) for s in sizes]
    total = max(1, sum(counts))
    cells = (rng.permutation(total) + 0.5 + rng.uniform(-0.25, 0.25, total)) / total
    parts = np.split(cells, np.cumsum(counts))[: len(counts)]
    xs = tuple(sample(rng, d, s, c) for d, s, c in zip(p.domains, sizes, parts, strict=True))
    params = p.draw(rng, sizes) if p.draw else {}
    y = np.asarray(p(*xs, **params))
    return Case(p, xs, params, cotangent(rng, y.shape), tuple(cotangent(rng, s) for s in sizes))


def cotangent(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of either sign and of size 0.3 to 1: ones would hide a squared cotangent, small ones anything."""
    return np.asarray(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 1.0, shape))


@st.composite
def cases(draw: st.DrawFn, p: Primitive, *, smallest: int = 1) -> Case:
    """Calls of `p` with a cotangent and directions, in float64."""
    return fill(p, draw(shapes(p, smallest=smallest)), draw(st.integers(0, 2**32 - 1)))


def for_all(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> int:
    """Run `check` on examples of the strategy; how many there were. None at all is a failure."""
    ran = 0

    @given(strategy)
    def run(example: Any) -> None:
        nonlocal ran
        check(example)
        ran += 1

    with suppress(SkipTest):  # so Hypothesis says that it drew nothing
        run()
    if not ran:
        raise LawBroken("the property ran on no example")
    return ran


def product_bound(expected: Any, *involved: Any, dtype: Any = np.float64) -> float:
    """The rounding bound of sums of products of the numbers involved.

    The condition is the product of the largest magnitudes of each group: what was added up cannot be larger.
    """
    groups = (*involved, expected)
    condition = float(np.prod([1.0 + np.max(np.abs(x), initial=0.0) for x in groups]))
    return rounding_bound(dtype, condition, max(np.size(x) for x in groups))


def assert_equal_to_rounding(actual: Any, expected: Any, *involved: Any, dtype: Any = np.float64) -> None:
    """Equal up to the rounding of sums of products of the numbers involved; LawBroken otherwise."""
    Measure().close(actual, expected, product_bound(expected, *involved, dtype=dtype))
