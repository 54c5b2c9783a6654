"""The tests' own tools: cases keep the declarations, an empty property fails, bounds and poison do what they say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import minilong.attention
from minilong import backend
from minilong.audit.primitives.cases import (
    PRIMITIVES,
    Case,
    assert_equal_to_rounding,
    cases,
    for_all,
    sample,
    shapes,
)
from minilong.autodiff import Primitive, ops, real
from minilong.autodiff.numeric import directional, rounding_bound

every = pytest.mark.parametrize("p", PRIMITIVES, ids=lambda p: p.name)


@every
def test_cases_lie_in_the_domain(p: Primitive) -> None:
    def check(case: Case) -> None:
        for x, domain in zip(case.xs, p.domains, strict=True):
            assert x.dtype == np.float64
            assert np.all((x >= domain.low) & (x <= domain.high))
            for kink in domain.kinks:
                assert np.all(np.abs(x - kink) >= domain.gap)
            if domain.distinct:
                everything = np.sort(np.concatenate([x.ravel() for x in case.xs]))
                assert np.all(np.diff(everything) > 4e-3)  # more than a finite difference moves
        assert np.min(np.abs(case.g), initial=1) >= 0.3
        assert case.g.shape == np.shape(case.value(*case.xs))

    for_all(cases(p), check)


@every
def test_cases_reach_single_elements_and_square_shapes(p: Primitive) -> None:
    seen: set[str] = set()

    @settings(max_examples=200, derandomize=True)
    @given(shapes(p))
    def look(sizes: tuple[tuple[int, ...], ...]) -> None:
        if any(1 in s for s in sizes):
            seen.add("size 1")
        if any(5 in s or 3 in s for s in sizes):
            seen.add("prime")
        if len(sizes) < 2 or any(a == b for i, a in enumerate(sizes) for b in sizes[i + 1 :]):
            seen.add("equal shapes")
        if len({len(s) - len(d) for s, d in zip(sizes, p.core[0], strict=True)}) > 1 or len(sizes) < 2 or p.variadic:
            seen.add("broadcast")

    look()
    assert {"size 1", "prime", "equal shapes", "broadcast"} - seen <= ({"size 1"} if "h" in p.shapes else set())


def test_a_property_without_examples_fails() -> None:
    before = settings.default
    settings.register_profile("no examples", phases=[Phase.explicit])
    settings.load_profile("no examples")
    try:
        with pytest.raises(AssertionError, match="no example"):
            for_all(st.integers(), lambda _: None)
    finally:
        settings.register_profile("before", before)
        settings.load_profile("before")


def test_for_all_counts_and_reports() -> None:
    assert for_all(st.just(3), lambda x: None) >= 1
    with pytest.raises(ZeroDivisionError):
        for_all(st.just(3), lambda x: 1 // 0)


def test_zero_is_sampled_where_the_domain_has_it() -> None:
    rng = np.random.default_rng(0)
    assert any(0.0 in sample(rng, real(-1, 1), (4,), np.zeros(4)) for _ in range(50))
    assert not any(0.0 in sample(rng, real(-1, 1, kinks=(0.0,)), (4,), np.zeros(4)) for _ in range(200))


def test_a_relative_error_of_a_millionth_is_above_the_bound() -> None:
    x, v, g = np.linspace(-1, 1, 5), np.full(5, 0.7), np.full(5, 0.9)
    found = directional(np.sin, [x], [v], g)
    exact = float(np.sum(g * np.cos(x) * v))
    assert abs(found.value - exact) <= found.bound
    assert found.bound < 1e-6 * abs(exact)


@given(st.floats(-3, 3), st.sampled_from([np.sin, np.cos, np.exp, np.tanh]))
def test_the_bound_holds_for_known_derivatives(x: float, f: np.ufunc) -> None:
    derivative = {np.sin: np.cos, np.cos: lambda x: -np.sin(x), np.exp: np.exp, np.tanh: lambda x: 1 - np.tanh(x) ** 2}
    one = np.ones(())
    found = directional(f, [np.array(x)], [one], one)
    assert abs(found.value - derivative[f](x)) <= found.bound


def test_differences_of_polynomials_of_second_degree_are_exact_at_step_one() -> None:
    a, b = np.array([1.5, -2.0]), np.array([0.25, 3.0])
    found = directional(np.multiply, [a, b], [b, a], np.ones(2), h=1.0)
    assert abs(found.value - float(np.sum(b * b + a * a))) <= found.bound < 1e-11


def test_rounding_bound_grows_with_condition_and_terms() -> None:
    assert rounding_bound(np.float32, 1.0) > rounding_bound(np.float64, 1.0)
    assert rounding_bound(np.float64, 2.0, 4) == 4 * rounding_bound(np.float64, 1.0)
    assert_equal_to_rounding(1.0 + 1e-15, 1.0)
    with pytest.raises(AssertionError, match="the law asks for"):
        assert_equal_to_rounding(1.0 + 1e-12, 1.0)


def test_fresh_memory_is_poisoned_wherever_it_is_asked_for() -> None:
    assert np.isnan(backend.workspace(np, (3,), np.float32)).all()
    holders = [m for name, m in sys.modules.items() if name.startswith("minilong") and hasattr(m, "workspace")]
    assert len(holders) >= 2
    assert all(m.workspace is backend.workspace for m in holders)


def test_floating_point_errors_raise() -> None:
    with pytest.raises(FloatingPointError):
        ops.log(np.zeros(1))
    assert ops.exp(np.array(-1e4)) == 0.0
    assert minilong.attention is not None
