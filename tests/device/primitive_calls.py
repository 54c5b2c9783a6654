"""A call of a primitive in each type and form on the stand-in, and how far its results may be from the exact ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, UNIT

from minilong.audit.device import mapped
from minilong.audit.primitives.cases import Case, names, product_bound
from minilong.autodiff import Kept, Primitive
from minilong.autodiff.device import form_of
from minilong.autodiff.numeric import ROUNDING
from minilong.backend import Device, to_host
from minilong.keys import Key

DEVICE = Device("fake")
HALVES = (FLOAT16, BFLOAT16)
DRAWS = 3
SUMS = ROUNDING / 4
"""The bound for sums is that of the property suite with 4 in the place of its 64."""
LEAST = {FLOAT16: 2.0**-25, BFLOAT16: 2.0**-134, FLOAT32: 2.0**-150, FLOAT64: 0.0}
"""Half of the least number of a type: what rounding to it may lose of a number near zero."""


@contextmanager
def plain_forms() -> Iterator[None]:
    """Every primitive on the device as it is written for any array library."""
    with patch("minilong.autodiff.device.form_of", lambda base, xs, params: base):
        yield


@contextmanager
def forms_used() -> Iterator[list[Primitive]]:
    """A list that gets the form of each operation that is computed on the device."""
    found: list[Primitive] = []

    def noted(base: Primitive, xs: Any, params: Any) -> Primitive:
        found.append(form_of(base, xs, params))
        return found[-1]

    with patch("minilong.autodiff.device.form_of", noted):
        yield found


def as_trained(case: Case, seed: int) -> Case:
    """The call as layers make it: dropout is given a key, not the numbers drawn from it."""
    return replace(case, params={"keep": Kept(Key.of(seed), 0.3)}) if case.p.name == "dropout" else case


def rounded(case: Case, dtype: Any) -> Case:
    """The call with its inputs and constants in a type; complex constants of a 16-bit type are those of float32."""
    complex_type = np.complex128 if dtype == FLOAT64 else np.complex64

    def as_type(x: Any) -> Any:
        if isinstance(x, np.generic) or x.dtype.kind not in "fc":
            return x
        return x.astype(complex_type if x.dtype.kind == "c" else dtype)

    xs, params, g = mapped(as_type, (case.xs, case.params, case.g))
    return replace(case, xs=xs, params=params, g=g.astype(value_type(case, dtype)))


def exact(case: Case) -> Case:
    """The same numbers in float64."""

    def wide(x: Any) -> Any:
        if x.dtype.kind == "c":
            return x.astype(np.complex128)
        return x.astype(np.float64) if x.dtype.kind == "f" or x.dtype in HALVES else x

    xs, params, g = mapped(wide, (case.xs, case.params, case.g))
    return replace(case, xs=xs, params=params, g=g)


def value_type(case: Case, dtype: Any) -> Any:
    """Of the value where inputs have this type: a loss is float32 at least, a cast what it says."""
    if case.p.name == "cast":
        return np.dtype(case.params["dtype"])
    loss = case.p.name in ("cross_entropy", "linear_cross_entropy", "affine_cross_entropy", "constant_cross_entropy")
    return FLOAT32 if loss and dtype in HALVES else np.dtype(dtype)


def cotangent_types(case: Case, dtype: Any) -> tuple[Any, ...]:
    """Of the cotangents: as the inputs, but float32 of weights, which all rows share and which are accumulated."""
    wide = FLOAT32 if dtype in HALVES else np.dtype(dtype)
    return tuple(wide if name in case.p.shared else np.dtype(dtype) for name in names(case.p, case.xs))


def results(case: Case) -> list[Any]:
    """Value and cotangents."""
    return [case.value(*case.xs), *case.cotangents()]


@contextmanager
def rounded_in_between(unit: float, rng: np.random.Generator) -> Iterator[None]:
    """What forward passes keep for their rules is rounded, at random."""
    keep = Primitive._keep

    def kept(*args: Any) -> Any:
        return mapped(lambda x: moved(x, unit, rng), keep(*args))

    with patch.object(Primitive, "_keep", staticmethod(kept)):
        yield


def moved(x: Any, unit: float, rng: np.random.Generator) -> Any:
    """Numbers rounded to one of their neighbours, at random."""
    return np.asarray(x * (1 + unit * rng.choice([-1.0, 1.0], x.shape))) if x.dtype.kind == "f" else x


def sensitivity(case: Case, here: list[Any], unit: float) -> list[float]:
    """How far value and cotangents move if inputs, the cotangent and what is kept in between are rounded, at random."""
    rng = np.random.default_rng(0)
    farthest = [0.0] * len(here)
    for _ in range(DRAWS):
        xs, g = tuple(moved(x, unit, rng) for x in case.xs), moved(case.g, unit, rng)
        # (A maximum that is not among the numbers any more has no place among them.)
        with nullcontext() if case.p.name == "amax" else rounded_in_between(unit, rng):
            there = results(replace(case, xs=xs, g=g))
        far = [float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(there, here, strict=True)]
        farthest = [max(x, y) for x, y in zip(farthest, far, strict=True)]
    return farthest


def check_types(case: Case, found: list[Any], dtype: Any) -> None:
    """Types and shapes of value and cotangents."""
    assert found[0].dtype == value_type(case, dtype), f"a value of {found[0].dtype} of {dtype}"
    for name, x, c, wanted in zip(
        names(case.p, case.xs), case.xs, found[1:], cotangent_types(case, dtype), strict=True
    ):
        assert c.shape == x.shape, f"{name}: a cotangent of shape {c.shape} for an input of {x.shape}"
        assert c.dtype == wanted, f"{name}: a cotangent of {c.dtype} where {wanted} is due"


def check_numbers(case: Case, found: list[Any], dtype: Any, roundings: float) -> float:
    """Value and cotangents are those of exact arithmetic on the same inputs, to some roundings of the type, each of
    which may do what rounding the inputs does, and to those of sums in float32, or float64. The largest error as a
    share of that."""
    reference = exact(case)
    right = [to_host(x) for x in results(reference)]
    wide, worst = FLOAT64 if dtype == FLOAT64 else FLOAT32, 0.0
    for i, (a, e, far) in enumerate(zip(found, right, sensitivity(reference, right, UNIT[dtype]), strict=True)):
        if not e.size:
            continue
        sums = product_bound(e, *reference.xs, reference.g, right[0], dtype=wide) / SUMS
        bound = roundings * (far + UNIT[dtype] * float(np.max(np.abs(e))) + LEAST[dtype]) + sums
        error = float(np.max(np.abs(to_host(a).astype(np.float64) - e)))
        assert error <= bound, f"{'value' if i == 0 else f'cotangent {i}'} is off by {error:.3g}, bound {bound:.3g}"
        worst = max(worst, error / bound)
    return worst
