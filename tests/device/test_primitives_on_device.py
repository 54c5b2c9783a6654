"""Every primitive on the stand-in's device: as it is written for any array library, and by its kernel in each type."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from primitive_calls import (
    DEVICE,
    as_trained,
    check_numbers,
    check_types,
    forms_used,
    plain_forms,
    results,
    rounded,
)
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES

from minilong.attention import Mask
from minilong.attention.blocks import Blocks
from minilong.attention.blockwise import attend_blocks, attend_blocks_definition
from minilong.audit.primitives.cases import PRIMITIVES, Case, cases, fill, product_bound
from minilong.audit.primitives.laws import backwards, sliced, transposed
from minilong.autodiff import Primitive, Tensor, vjp
from minilong.autodiff.device import DeviceForm, declare_forms
from minilong.backend import to_host
from minilong.backend.kernels.flash_plan import WIDEST

EXAMPLES = 8
ROUNDINGS = 2.0
"""Of the type in one operation and its rule, at most: each is one launch, or computes in float32 in between."""

WITHOUT_KERNEL = {"attend_blocks_biased": "dense attention is chosen where a distance bias is learned on a GPU"}
COUNTS: Counter[str] = Counter()

every = pytest.mark.parametrize("p", PRIMITIVES, ids=lambda p: p.name)
few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with cupy.install():
        declare_forms()
        yield
        cupy.check_guards()


def kernel_of(p: Primitive) -> bool:
    return isinstance(p.on_device, DeviceForm)


# As written for any array library


@every
def test_the_plain_form_equals_numpy(p: Primitive) -> None:
    @few
    @given(cases(p, smallest=0), st.sampled_from((FLOAT64, FLOAT32)))
    def check(case: Case, dtype: Any) -> None:
        case = rounded(case, dtype)
        right = results(case)
        with plain_forms():
            found = results(case.on(DEVICE))
        for a, e in zip(found, right, strict=True):
            assert (a.dtype, a.shape) == (e.dtype, e.shape)
            far = float(np.max(np.abs(to_host(a) - e), initial=0.0))
            assert far <= product_bound(e, *case.xs, case.g, right[0], dtype=dtype) / 16
        COUNTS["plain"] += 1

    check()


# As they are computed on a GPU

ARRANGE: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x, "transposed": transposed, "sliced": sliced, "backwards": backwards
}  # fmt: skip


@every
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_form_of_a_gpu_equals_exact_arithmetic(p: Primitive, dtype: Any) -> None:
    """Empty batches, leading axes that broadcast, and inputs that are not contiguous are among the calls."""

    @few
    @given(cases(p, smallest=0), st.sampled_from(list(ARRANGE)), st.integers(0, 99))
    def check(case: Case, arrange: str, seed: int) -> None:
        case = rounded(as_trained(case, seed), dtype)
        there, change = case.on(DEVICE), ARRANGE[arrange]
        there = replace(there, xs=tuple(map(change, there.xs)), g=change(there.g))
        with forms_used() as forms:
            found = results(there)
        check_types(case, found, dtype)
        check_numbers(case, found, dtype, ROUNDINGS)
        taken = isinstance(p.on_device, DeviceForm) and p.on_device.takes(*there.xs, **there.params)
        assert taken == any(form is p.on_device for form in forms)
        COUNTS["calls"] += 1
        COUNTS[f"{p.name} by its kernel"] += taken

    check()
    assert kernel_of(p) == (COUNTS[f"{p.name} by its kernel"] > 0)


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.ref is not None], ids=lambda p: p.name)
def test_any_order_of_threads_gives_the_same_bits(p: Primitive) -> None:
    @settings(few, max_examples=3)
    @given(cases(p), st.sampled_from(TYPES))
    def check(case: Case, dtype: Any) -> None:
        there = rounded(as_trained(case, 1), dtype).on(DEVICE)
        with cupy.thread_order("ascending"):
            first = [to_host(x).tobytes() for x in results(there)]
        with cupy.thread_order("random", seed=3):
            assert [to_host(x).tobytes() for x in results(there)] == first
        COUNTS["orders"] += 1

    check()


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.name not in WITHOUT_KERNEL], ids=lambda p: p.name)
def test_nothing_waits_for_the_device(p: Primitive) -> None:
    """Neither forward pass nor rule."""
    case = fill(p, shapes_of(p), 5)
    there = rounded(as_trained(case, 1), FLOAT32).on(DEVICE)
    with cupy.no_sync(h2d=False):
        results(there)


def shapes_of(p: Primitive) -> tuple[tuple[int, ...], ...]:
    """Input shapes with sizes that all differ."""
    sizes: dict[str, int] = {}
    return tuple(
        tuple(sizes.setdefault(d.lstrip("2"), 3 + len(sizes)) * (2 if d != d.lstrip("2") else 1) for d in dims) or (5,)
        for dims in p.core[0]
    )


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.ref is not None], ids=lambda p: p.name)
def test_a_form_keeps_what_its_rule_names(p: Primitive) -> None:
    """The memory that a node holds is that of the arrays which the rule's signature names."""
    there = rounded(as_trained(fill(p, shapes_of(p), 5), 1), FLOAT32).on(DEVICE)
    kept: list[Any] = []

    def f(*xs: Any) -> Any:
        y = there.value(*xs)
        assert type(y) is Tensor
        kept.append(y.node)
        return y

    given_memory = {id(x.data.mem) for x in there.xs}
    gc.collect()
    before = DEVICE.used()
    y, pull = vjp(f, *there.xs)
    gc.collect()
    held = DEVICE.used() - before
    arrays = [x for x in (y, *kept[0].saved) if isinstance(x, cupy.ndarray)]
    named = {id(x.data.mem): x.data.mem.size for x in arrays if id(x.data.mem) not in given_memory}
    assert len(kept[0].saved) == len((p.on_device or p).keeps)  # type: ignore[attr-defined]
    assert held == sum(named.values())
    pull(there.g)
    assert kept[0].saved is None


# What has a kernel


def test_every_fused_operation_has_a_kernel_or_a_reason() -> None:
    fused = {p.name for p in PRIMITIVES if p.ref is not None}
    with_kernel = {p.name for p in PRIMITIVES if kernel_of(p)}
    assert with_kernel == fused - set(WITHOUT_KERNEL)
    assert set(WITHOUT_KERNEL) <= fused
    print(f"{len(with_kernel)} of {len(PRIMITIVES)} primitives have kernels: {', '.join(sorted(with_kernel))}")


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32, FLOAT16, BFLOAT16], ids=str)
def test_what_a_kernel_does_not_take_is_computed_by_the_plain_form(dtype: Any) -> None:
    """Heads wider than the flash kernels have room for, and leading axes that broadcast."""
    rng = np.random.default_rng(0)
    for d, lead in ((WIDEST + 1, ((2,), (2,))), (3, ((2, 3), (1, 3)))):
        q, k, v = (rng.uniform(-1, 1, (*lead[i > 0], 4, d)) for i in range(3))
        params = {"scale": 0.3, "mask": Mask(causal=True), "blocks": Blocks()}
        case = Case(attend_blocks, (q, k, v), params, rng.uniform(-1, 1, (*lead[0], 4, d)), (q, k, v))
        case = rounded(case, dtype)
        with forms_used() as forms:
            found = results(case.on(DEVICE))
        assert attend_blocks.on_device not in forms
        check_types(case, found, dtype)
        check_numbers(case, found, dtype, ROUNDINGS)
        right = attend_blocks_definition(*case.on(DEVICE).xs, **params) if dtype == FLOAT64 else found[0]
        np.testing.assert_allclose(to_host(found[0]), to_host(right), rtol=0, atol=1e-13)


def test_counts() -> None:
    print(f"{COUNTS['plain']} plain calls, {COUNTS['calls']} calls by a GPU's form, {COUNTS['orders']} in two orders")
    assert COUNTS["plain"]
    assert COUNTS["calls"]
    assert COUNTS["orders"]
