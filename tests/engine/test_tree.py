"""Trees of arrays: leaves in field order, structure and types kept, names by path, gradients of a tree's type."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.autodiff import grad, ops, value_and_grad, vjp
from minilong.autodiff.tree import leaves, named, rebuild


@dataclass(frozen=True)
class Linear:
    weight: Any
    bias: Any | None
    kind: str = "linear"

    def __post_init__(self) -> None:
        if not isinstance(self.weight, np.ndarray):
            raise TypeError("a layer is made of arrays")


@dataclass(frozen=True)
class Model:
    layers: tuple[Linear, ...]
    table: Any
    depth: int = 2


class Pair(NamedTuple):
    left: Any
    right: Any


def array(n: int) -> np.ndarray:
    return np.full(2, float(n))


def model() -> Model:
    return Model((Linear(array(1), array(2)), Linear(array(3), None)), array(4))


TREES = st.recursive(
    st.integers(0, 9).map(array) | st.sampled_from([None, 3, "text", 2.5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Model, st.just(()), inner)
    ),
    max_leaves=8,
)


@given(TREES)
def test_rebuild_of_the_leaves_is_the_same_tree(tree: Any) -> None:
    supply = iter(leaves(tree))
    again = rebuild(tree, supply)
    assert next(supply, None) is None
    assert repr(again) == repr(tree)
    assert all(a is b for a, b in zip(leaves(again), leaves(tree), strict=True))


@given(TREES)
def test_derivatives_have_the_structure_of_the_inputs(tree: Any) -> None:
    def f(tree: Any) -> Any:
        total: Any = np.zeros(())
        for i, x in enumerate(leaves(tree)):
            total = total + ops.sum(x * float(i + 1))
        return total

    (c,) = vjp(f, tree)[1](np.ones(()))
    assert repr(c) == repr(rebuild(tree, iter([np.full(2, float(i + 1)) for i in range(len(leaves(tree)))])))


def test_names_are_paths_in_field_order() -> None:
    assert list(named(model())) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "table"]
    assert list(named({"a": [array(1), Pair(array(2), array(3))]})) == ["a.0", "a.1.0", "a.1.1"]
    assert list(named(array(0))) == [""]


def test_one_array_with_two_names_is_refused() -> None:
    x = array(1)
    with pytest.raises(ValueError, match=r"two names, 'layers\.0\.weight' and 'table'"):
        named(Model((Linear(x, None),), x))


def test_gradient_has_the_type_of_the_model() -> None:
    def loss(m: Model, scale: Any) -> Any:
        assert m.depth == 2
        assert m.layers[1].bias is None
        return ops.sum((m.layers[0].weight * m.layers[1].weight + m.layers[0].bias) * m.table) * scale

    value, g = value_and_grad(loss)(model(), 2.0)
    assert value == 2 * 2 * (1 * 3 + 2) * 4
    assert isinstance(g, Model)
    assert isinstance(g.layers[0], Linear)
    found = {name: x.tolist() for name, x in named(g).items()}
    assert found == {
        "layers.0.weight": [24.0, 24.0],
        "layers.0.bias": [8.0, 8.0],
        "layers.1.weight": [8.0, 8.0],
        "table": [10.0, 10.0],
    }


def test_leaf_types() -> None:
    assert leaves([np.float32(1), 1.0, None, "x", np.zeros(0)])[1:] == [pytest.approx(np.zeros(0))]
    assert len(leaves([np.float32(1), 1.0, None, "x", np.zeros(0)])) == 2
    assert leaves(Model) == []  # a class is no tree, though it is a dataclass
    assert grad(lambda d: d["b"] * d["a"])(OrderedDict(b=np.array(2.0), a=np.array(3.0))) == OrderedDict(b=3.0, a=2.0)
