"""Places where an operation is most easily wrong: ties, no axes, advanced and negative indices, ignored targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.audit.primitives.cases import Case, assert_equal_to_rounding, cotangent
from minilong.audit.primitives.laws import direction, reference, second_order
from minilong.autodiff import (
    REGISTRY,
    cross_entropy,
    embedding,
    gelu,
    gelu_tanh,
    grad,
    layer_norm,
    ops,
    rms_norm,
    silu,
    vjp,
)
from minilong.backend import scatter_rows

RNG = np.random.default_rng(7)


def case(name: str, *xs: np.ndarray, **params: Any) -> Case:
    """A call with given inputs and keywords."""
    p = REGISTRY[name]
    y = np.asarray(p(*xs, **params))
    return Case(p, xs, params, cotangent(RNG, y.shape), tuple(cotangent(RNG, x.shape) for x in xs))


# Indices

KEYS = [
    np.array([0, 0, -1, 3]),
    (slice(None), np.array([1, 1, -1])),
    (np.array([0, 1, 0]), np.array([2, 2, 2])),
    (np.array([[0], [1]]), slice(None), np.array([0, 0, 1])),
    (..., np.array([1, 1])),
    (2, slice(None, None, -1), None),
    (slice(None), slice(3, 0, -2), 1),
    np.array([True, False, True, True]),
    -1,
    (),
    None,
    ...,
    (np.zeros((0,), int),),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem_and_put_by_any_key(key: Any) -> None:
    x = RNG.uniform(-1, 1, (4, 5, 2))
    found = case("getitem", x, key=key)
    direction(found)
    second_order(found)
    y = x[key]
    direction(case("put", y, key=key, shape=x.shape))
    # put is the transpose of getitem: <g, x[key]> = <put g, x>.
    g = cotangent(RNG, np.shape(y))
    assert_equal_to_rounding(np.sum(g * y), np.sum(ops.put(np.asarray(g), key=key, shape=x.shape) * x), g, x, y)


def test_negative_indices_count_from_the_end_in_both_directions() -> None:
    table, indices = RNG.uniform(-1, 1, (4, 3)), np.array([[-1, 3], [0, -4]])
    g = cotangent(RNG, (2, 2, 3))
    (c,) = vjp(lambda t: embedding(t, indices=indices), table)[1](g)
    assert np.array_equal(c[3], g[0, 0] + g[0, 1])
    assert np.array_equal(c[0], g[1, 0] + g[1, 1])
    assert not c[1:3].any()
    direction(case("take_along", RNG.uniform(-1, 1, (3, 4)), indices=np.array([-1, 0, -4])))


@pytest.mark.parametrize(("shape", "indices"), [((1, 4), (3,)), ((2, 3, 4), (1, 3)), ((1, 3, 4), (2, 3))])
def test_take_along_broadcasts(shape: tuple[int, ...], indices: tuple[int, ...]) -> None:
    found = case("take_along", RNG.uniform(-1, 1, shape), indices=RNG.integers(0, 4, indices))
    direction(found)
    assert found.cotangents()[0].shape == shape


def test_scatter_of_rows_equals_add_at() -> None:
    for m in (0, 1, 50):
        indices, rows = RNG.integers(-6, 6, m), RNG.uniform(-1, 1, (m, 3))
        expected = np.zeros((6, 3))
        np.add.at(expected, indices, rows)
        assert_equal_to_rounding(scatter_rows(np, indices, rows, 6), expected, rows)


# Ties


def test_ties_share_the_cotangent() -> None:
    one = np.ones(())
    (c,) = vjp(ops.amax, np.array([2.0, 5.0, 5.0, 1.0, 5.0, 5.0]))[1](one)
    assert np.array_equal(c, [0, 0.25, 0.25, 0, 0.25, 0.25])
    ca, cb = vjp(ops.maximum, np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))[1](np.ones(3))
    assert np.array_equal(ca, [0, 0.5, 1])
    assert np.array_equal(cb, [1, 0.5, 0])
    assert np.array_equal(vjp(ops.relu, np.array([-1.0, 0.0, 1.0]))[1](np.ones(3))[0], [0, 0, 1])
    # max(x, x) is x, and its cotangent is counted once.
    assert np.array_equal(vjp(lambda x: ops.maximum(x, x), np.ones(3))[1](np.ones(3))[0], np.ones(3))


@pytest.mark.parametrize("condition", [True, False, np.array(True), np.array([0, 2, 0])])
def test_conditions_of_any_type(condition: Any) -> None:
    a, b = RNG.uniform(-1, 1, 3), RNG.uniform(-1, 1, 3)
    direction(case("where", a, b, condition=condition))


def test_power_zero_has_no_slope_at_zero() -> None:
    assert np.array_equal(grad(lambda x: ops.sum(x**0))(np.zeros(2)), np.zeros(2))
    assert np.array_equal(grad(lambda x: ops.sum(x**1))(np.zeros(2)), np.ones(2))
    assert np.array_equal(grad(lambda x: ops.sum(x**2))(np.zeros(2)), np.zeros(2))


# No axes: NumPy answers with scalars, which no kernel may write to


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["array", "scalar"])
@pytest.mark.parametrize("f", [gelu, gelu_tanh, silu, ops.sigmoid, ops.tanh, ops.relu, ops.exp, ops.sin, ops.erf])
def test_operations_on_a_single_number(f: Any, kind: str, dtype: Any) -> None:
    x = dtype(0.7) if kind == "scalar" else np.array(0.7, dtype)
    (c,) = vjp(f, x)[1](np.array(0.5, dtype))
    (row,) = vjp(f, np.full(3, 0.7, dtype))[1](np.full(3, 0.5, dtype))
    assert np.shape(c) == ()
    assert c.dtype == dtype
    assert_equal_to_rounding(c, row[0], dtype=dtype)


def test_means_over_any_axes() -> None:
    x = RNG.uniform(-1, 1, (2, 3, 4))
    for axis in (None, 0, -1, (0, 2), (), (-1, -2)):
        for keepdims in (False, True):
            assert_equal_to_rounding(ops.mean(x, axis=axis, keepdims=keepdims), x.mean(axis=axis, keepdims=keepdims), x)


def test_stack_at_every_place() -> None:
    x, y = RNG.uniform(-1, 1, (2, 3)), RNG.uniform(-1, 1, (2, 3))
    for axis in range(3):
        assert np.array_equal(ops.stack([x, y], axis=axis), np.stack([x, y], axis=axis))


# Normalisation


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_rows_without_variance_have_finite_derivatives(constant: float) -> None:
    x = np.full((2, 4), constant)
    gain, bias, g = RNG.uniform(-1, 1, 4), RNG.uniform(-1, 1, 4), cotangent(RNG, (2, 4))
    for c in (
        *vjp(lambda x, gain, bias: layer_norm(x, gain, bias), x, gain, bias)[1](g),
        *vjp(lambda x, gain: rms_norm(x, gain), x, gain)[1](g),
    ):
        assert np.all(np.isfinite(c))
    assert_equal_to_rounding(layer_norm(x, gain, bias), np.broadcast_to(bias, x.shape), x)
    reference(case("rms_norm", x, gain))


def test_eps_is_passed_on() -> None:
    x, gain, bias = RNG.uniform(-1, 1, (3, 4)), RNG.uniform(-1, 1, 4), RNG.uniform(-1, 1, 4)
    for eps in (0.5, 1e-3):
        for found in (case("layer_norm", x, gain, bias, eps=eps), case("rms_norm", x, gain, eps=eps)):
            reference(found)
            direction(found)


# Loss

LOGITS = RNG.uniform(-3, 3, (2, 3, 5))


def test_all_targets_ignored_is_exactly_zero() -> None:
    targets = np.full((2, 3), -100)
    value, pull = vjp(lambda x: cross_entropy(x, targets=targets), LOGITS)
    assert value == 0
    assert np.array_equal(pull(np.ones(()))[0], np.zeros_like(LOGITS))
    definition = cross_entropy.ref
    assert definition(LOGITS, targets=targets) == 0
    assert not grad(lambda x: definition(x, targets=targets))(LOGITS).any()


def test_ignored_rows_have_no_influence() -> None:
    targets = np.array([[0, -100, 4], [-100, 1, 2]])
    (c,) = vjp(lambda x: cross_entropy(x, targets=targets), LOGITS)[1](np.ones(()))
    assert not c[targets == -100].any()
    changed = LOGITS.copy()
    changed[targets == -100] = 1e3
    assert cross_entropy(changed, targets=targets) == cross_entropy(LOGITS, targets=targets)
    kept = targets != -100
    assert_equal_to_rounding(
        cross_entropy(LOGITS, targets=targets), cross_entropy(LOGITS[kept], targets=targets[kept]), LOGITS
    )


def test_parts_with_the_denominator_of_the_whole_add_up() -> None:
    targets = np.array([[0, -100, 4], [3, 1, 2]])
    whole = vjp(lambda x: cross_entropy(x, targets=targets), LOGITS)
    parts = [vjp(lambda x, i=i: cross_entropy(x, targets=targets[i], denominator=5.0), LOGITS[i]) for i in range(2)]
    assert_equal_to_rounding(parts[0][0] + parts[1][0], whole[0], LOGITS)
    g = np.ones(())
    assert_equal_to_rounding(np.stack([p[1](g)[0] for p in parts]), whole[1](g)[0], LOGITS)


def test_another_ignore_index() -> None:
    found = case("cross_entropy", LOGITS, targets=np.array([[0, 1, 4], [1, 1, 2]]), ignore_index=1)
    reference(found)
    direction(found)


def test_large_logits_do_not_overflow() -> None:
    logits, targets = np.array([[1e4, -1e4, 0.0], [-1e30, 0.0, 1.0]], np.float32), np.array([1, 2])
    value, pull = vjp(lambda x: cross_entropy(x, targets=targets), logits)
    assert value.dtype == np.float32
    assert np.isfinite(value)
    assert np.all(np.isfinite(pull(np.float32(1))[0]))
