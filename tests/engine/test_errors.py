"""Mistakes of a programmer get an error that names them: arrays made of tensors, second pulls, wrong cotangents."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import Tensor, cross_entropy, embedding, grad, ops, primitive, real, rotate, softmax, vjp

X = np.array([0.3, -0.7, 1.1])


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        np.array,
        np.exp,
        np.sum,
        np.mean,
        lambda x: np.add(x, 1.0),
        lambda x: np.stack([x, x]),
        lambda x: np.array([x, x]),
        lambda x: np.concatenate([x, x]),
        lambda x: np.where(True, x, 0.0),
        lambda x: np.matmul(X, x),
        float,
        int,
        bool,
        math.sqrt,
        lambda x: 1 if x else 0,
        lambda x: [1, 2][x],
        lambda x: x > 0,
        lambda x: operator.lt(X, x),
        lambda x: x == X,
        lambda x: x != 0,
        lambda x: x in [X],
    ],
)
def test_a_tensor_refuses_to_become_an_array_or_a_number(use: Any) -> None:
    with pytest.raises(TypeError):
        vjp(lambda x: use(x), X)


def test_refusals_name_the_remedy() -> None:
    with pytest.raises(TypeError, match="use an operation of minilong"):
        vjp(np.asarray, X)
    with pytest.raises(TypeError, match="stop_gradient"):
        vjp(lambda x: x if x > 0 else -x, X)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, x: a @ x,
        lambda a, x: a + x,
        lambda a, x: a - x,
        lambda a, x: a * x,
        lambda a, x: a / x,
        lambda a, x: np.float64(2.0) * x - a,
    ],
)
def test_an_array_on_the_left_defers_to_the_tensor(f: Any) -> None:
    a, x = np.arange(1.0, 10).reshape(3, 3), np.arange(2.0, 11).reshape(3, 3)
    value, pull = vjp(lambda x: f(a, x), x)
    assert type(value) is np.ndarray
    assert np.array_equal(value, f(a, x))
    assert pull(a)[0].shape == x.shape


def test_a_tensor_says_what_it_is() -> None:
    shown: list[str] = []
    vjp(lambda x: shown.append(repr(ops.tanh(x))) or shown.append(repr(x)) or x, X.astype(np.float32))
    assert shown == [
        "Tensor(tanh, shape=(3,), dtype=float32, level=1)",
        "Tensor(input, shape=(3,), dtype=float32, level=1)",
    ]


def test_a_tensor_has_the_attributes_of_its_array() -> None:
    def f(x: Tensor) -> Tensor:
        assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((2, 3), 2, 6, 2, np.float64)
        return x

    vjp(f, np.ones((2, 3)))


def test_cotangent_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"pull: cotangent of shape \(2,\) for a value of shape \(3,\)"):
        vjp(ops.tanh, X)[1](np.ones(2))


def test_gradient_of_a_vector() -> None:
    with pytest.raises(ValueError, match="a gradient needs a scalar"):
        grad(ops.tanh)(X)


@pytest.mark.parametrize("value", [None, "x", [X], (X, X)])
def test_function_that_returns_no_array(value: Any) -> None:
    with pytest.raises(TypeError, match="must return one array"):
        vjp(lambda x: value, X)


def test_pull_twice_names_the_operation() -> None:
    _, pull = vjp(ops.tanh, X)
    pull(X)
    with pytest.raises(RuntimeError, match="graph of 'tanh' was already consumed"):
        pull(X)


# Declarations


def declare(**changes: Any) -> Any:
    def nothing(xp: Any, a: Any, *, k: int = 0) -> Any:
        return a

    return primitive(**{"eq": "eq:x", "shapes": "()->()", "domain": real(0, 1), **changes})(nothing)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shapes": "(n)"}, "is no gufunc signature"),
        ({"shapes": "n->n"}, "is no gufunc signature"),
        ({"shapes": "(n),(n)->(n)"}, "do not match inputs"),
        ({"shared": ("b",)}, "are not all among the inputs"),
        ({"aux": ("z",)}, "needs ref"),
    ],
)
def test_a_wrong_declaration_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        declare(**changes)


def test_a_name_cannot_be_declared_twice() -> None:
    def tanh(xp: Any, x: Any) -> Any:
        return x

    with pytest.raises(TypeError, match="'tanh' is declared twice"):
        primitive(eq="eq:x", shapes="()->()", domain=real(0, 1))(tanh)


@pytest.mark.parametrize("rule", [lambda g, z: g, lambda g, z_shape: g, lambda g, *, z: g])
def test_a_rule_that_names_what_nobody_keeps_is_refused(rule: Any) -> None:
    right = ops.tanh.rule, ops.tanh.keeps, ops.tanh.plan, ops.tanh.wants
    try:
        with pytest.raises(TypeError, match="VJP of 'tanh'"):
            ops.tanh.vjp(rule)
    finally:
        ops.tanh.rule, ops.tanh.keeps, ops.tanh.plan, ops.tanh.wants = right


# Arguments of single operations


@pytest.mark.parametrize("targets", [np.array([0, 3]), np.array([0, -1]), np.array([0]), np.array([[0, 1]])])
def test_cross_entropy_refuses_targets_that_fit_no_row(targets: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"cross_entropy: .*targets"):
        cross_entropy(np.zeros((2, 3)), targets=targets)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotate_refuses_angles_that_do_not_fit(interleaved: bool) -> None:
    turn = np.ones((2, 3), np.complex128)
    for x in (np.ones((2, 5)), np.ones((2, 12), np.float32), np.ones((2, 6), np.float32)):
        with pytest.raises(ValueError, match=r"rotate: .*angles"):
            rotate(x, turn=turn, interleaved=interleaved)


def test_embedding_of_an_unknown_row() -> None:
    with pytest.raises(IndexError):
        embedding(np.zeros((3, 2)), indices=np.array([3]))


def test_pullback_of_a_kernel_as_a_function_of_its_cotangent() -> None:
    """The rule of a kernel is array code: to differentiate it, the `vjp` must stand inside."""
    _, pull = vjp(softmax, X)
    with pytest.raises((TypeError, AttributeError)):
        grad(lambda g: ops.sum(pull(g)[0]))(X)
    inside = grad(lambda g: ops.sum(vjp(softmax, X)[1](g)[0] * X))(X)
    p = softmax(X)
    assert np.allclose(inside, p * (X - (p * X).sum()), rtol=1e-13)
