"""The properties of `laws.py`, each on every primitive of the registry that it applies to."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from minilong.audit.primitives import laws
from minilong.audit.primitives.cases import PRIMITIVES, Case, cases, for_all, names
from minilong.autodiff import Primitive, ops, vjp

every = pytest.mark.parametrize("p", PRIMITIVES, ids=lambda p: p.name)


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.ref], ids=lambda p: p.name)
def test_reference(p: Primitive) -> None:
    for_all(cases(p), laws.reference)


@every
def test_direction(p: Primitive) -> None:
    for_all(cases(p), laws.direction)


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.order >= 2], ids=lambda p: p.name)
def test_second_order(p: Primitive) -> None:
    for_all(cases(p), laws.second_order)


@every
def test_linear(p: Primitive) -> None:
    for_all(cases(p), laws.linear)


@every
def test_shape_and_dtype(p: Primitive) -> None:
    for_all(cases(p), laws.shape_and_dtype)


@every
def test_layout(p: Primitive) -> None:
    for_all(cases(p), laws.layout)


@every
def test_purity(p: Primitive) -> None:
    for_all(cases(p), laws.purity)


@every
def test_residuals(p: Primitive) -> None:
    for_all(cases(p), laws.residuals)


@every
def test_empty_batches(p: Primitive) -> None:
    def check(case: Case) -> None:
        for x, c in zip(case.xs, case.cotangents(), strict=True):
            assert c.shape == x.shape
            assert c.dtype == x.dtype
            assert np.all(np.isfinite(c))

    for_all(cases(p, smallest=0), check)


@every
def test_unused_inputs_get_zeros(p: Primitive) -> None:
    def check(case: Case) -> None:
        extra = np.ones((2, 3), np.float32)
        *_, c = vjp(lambda *xs: case.value(*xs[:-1]), *case.xs, extra)[1](case.g)
        assert c.dtype == extra.dtype
        assert np.array_equal(c, np.zeros((2, 3)))

    for_all(cases(p), check)


@every
def test_constants_change_no_other_cotangent(p: Primitive) -> None:
    """Whichever inputs are differentiated, the others being plain arrays, their cotangents are the same."""

    def check(case: Case) -> None:
        whole = case.cotangents()
        for i in range(len(case.xs)):

            def alone(x: Any, i: int = i) -> Any:
                return case.value(*case.xs[:i], x, *case.xs[i + 1 :])

            (c,) = vjp(alone, case.xs[i])[1](case.g)
            assert np.array_equal(c, whole[i])

    for_all(cases(p), check)


def wrong_shapes(p: Primitive) -> list[tuple[tuple[int, ...], ...]]:
    """Input shapes that contradict the signature, each in one way."""
    sizes = {d: 2 + 2 * i for i, d in enumerate(sorted({d for dims in p.core[0] for d in dims}))}
    right = [tuple(sizes[d] for d in dims) for dims in p.core[0]]
    wrong = []
    for i, dims in enumerate(p.core[0]):
        if dims:  # an axis too few
            wrong.append((*right[:i], right[i][1:], *right[i + 1 :]))
        if not p.variadic and p.inputs[i] in p.shared:  # an axis too many
            wrong.append((*right[:i], (3, *right[i]), *right[i + 1 :]))
    for i, j in combinations(range(len(right)), 2):
        for d in set(p.core[0][i]) & set(p.core[0][j]):  # one size, two values
            at = p.core[0][j].index(d)
            wrong.append((*right[:j], (*right[j][:at], 11, *right[j][at + 1 :]), *right[j + 1 :]))
        if not p.variadic and not {p.inputs[i], p.inputs[j]} & set(p.shared):  # axes that do not broadcast
            wrong.append(tuple(({i: (3,), j: (4,)}.get(k, ()) + s) for k, s in enumerate(right)))
    return wrong


@pytest.mark.parametrize(
    ("p", "shapes"), [(p, s) for p in PRIMITIVES for s in wrong_shapes(p)], ids=lambda x: getattr(x, "name", str(x))
)
def test_wrong_shapes_are_named(p: Primitive, shapes: tuple[tuple[int, ...], ...]) -> None:
    sizes = {d: 2 + 2 * i for i, d in enumerate(sorted({d for dims in p.core[0] for d in dims}))}
    right = tuple(tuple(sizes[d] for d in dims) for dims in p.core[0])
    params = p.draw(np.random.default_rng(1), right) if p.draw else {}
    xs = [np.ones(s) for s in shapes]
    for call in (lambda: p(*xs, **params), lambda: vjp(lambda *ts: p(*ts, **params), *xs)):
        with pytest.raises(ValueError) as caught:
            call()
        assert p.name in str(caught.value)
        assert p.shapes in str(caught.value)


@pytest.mark.parametrize("p", [p for p in PRIMITIVES if p.checked], ids=lambda p: p.name)
def test_wrong_number_of_inputs_is_named(p: Primitive) -> None:
    with pytest.raises(TypeError, match=rf"^{p.name}: .* inputs, but "):
        p(*[np.ones((2, 2))] * (len(p.inputs) + 1))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ops.reshape(x, shape=(7,)), "reshape: shapes"),
        (lambda x: ops.transpose(x, order=(0,)), "transpose: shapes"),
        (lambda x: ops.broadcast_to(x, shape=(2, 4)), "broadcast_to: shapes"),
        (lambda x: ops.sum(x, axis=2), "sum: shapes"),
        (lambda x: ops.put(x, key=(slice(0, 1),), shape=(5, 5)), "put: shapes"),
    ],
)
def test_wrong_keywords_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(np.ones((2, 3)))


def test_names_of_inputs() -> None:
    x = np.ones(1)
    assert names(ops.concatenate, (x, x)) == ("xs0", "xs1")
    assert names(ops.add, (x, x)) == ("a", "b")
