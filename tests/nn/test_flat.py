"""The flat vector: layers are views of it, gradients have its layout, matrices stand first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import deliver_gradient, ops, value_and_grad
from minilong.autodiff.tree import leaves, named
from minilong.data.batches import LanguageBatch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import Layout, Linear, flatten
from minilong.nn.flat import view
from minilong.objectives import causal_loss

CONFIG = ModelConfig(layers=2, width=12, heads=2, context=8, position="learned", tied=False)
IDS = np.random.default_rng(0).integers(0, 11, (3, 9)).astype(np.int32)
BATCH = LanguageBatch(IDS[:, :-1], IDS[:, 1:])


def model() -> Any:
    return build(CONFIG, 11, Key.of(0))


def test_parts_tile_the_vector_and_matrices_come_first() -> None:
    layout = Layout.of(model())
    sizes = [int(np.prod(shape)) for shape in layout.shapes]
    spans = sorted(zip(layout.offsets, sizes, strict=True))
    ends = [0, *np.cumsum([size for _, size in spans]).tolist()]
    assert [start for start, _ in spans] == ends[:-1]
    assert layout.size == ends[-1]
    for name, shape, start in zip(layout.names, layout.shapes, layout.offsets, strict=True):
        assert (start < layout.decayed) == (len(shape) >= 2), name
    assert layout.decayed == sum(n for n, shape in zip(sizes, layout.shapes, strict=True) if len(shape) == 2)
    assert 0 < layout.decayed < layout.size


def test_flatten_copies_every_array_to_its_place() -> None:
    original = model()
    vector, made, layout = flatten(original)
    assert vector.dtype == np.float32
    for name, array in named(original).items():
        np.testing.assert_array_equal(layout.slices(vector)[name], array)
        np.testing.assert_array_equal(named(made)[name], array)
    vector[:] = 0
    assert np.any(named(original)["input.tokens.table"] != 0)  # the original is left alone


def test_writing_the_vector_changes_the_model_and_back() -> None:
    vector, made, layout = flatten(model())
    arrays = named(made)
    assert all(np.shares_memory(a, vector) for a in arrays.values())
    before = made(BATCH.inputs)
    vector *= 1.5
    assert np.any(made(BATCH.inputs) != before)
    vector[:] = np.arange(layout.size)
    for name, start in zip(layout.names, layout.offsets, strict=True):
        assert arrays[name].flat[0] == start
        assert arrays[name].flat[-1] == start + arrays[name].size - 1
    arrays["stack.norm.bias"][:] = -7
    assert np.count_nonzero(vector == -7) == 12


def test_a_gradient_is_gathered_in_the_layout_of_the_parameters() -> None:
    vector, made, layout = flatten(model(), np.float64)
    _, gradient = value_and_grad(lambda m: causal_loss(m, BATCH))(made)
    assert type(gradient) is type(made)
    flat = layout.gather(gradient, np.full(layout.size, np.nan))
    for name, array in named(gradient).items():
        np.testing.assert_array_equal(layout.slices(flat)[name], array)
    # The layout is right, not merely consistent: a step along it changes the loss by the inner product.
    direction = np.random.default_rng(1).standard_normal(layout.size)
    h = 1e-5
    vector += h * direction
    up = float(causal_loss(made, BATCH))
    vector -= 2 * h * direction
    down = float(causal_loss(made, BATCH))
    assert (up - down) / (2 * h) == pytest.approx(float(flat @ direction), rel=1e-6)


def test_gradients_accumulate_in_the_flat_vector() -> None:
    made = model()
    layout = Layout.of(made)
    once = layout.gather(made, np.empty(layout.size, np.float32))
    total = np.ones(layout.size, np.float32)
    add, write = layout.receiver(total, add=True), layout.receiver(total)
    for i, array in enumerate(leaves(made)):
        add(i, array)
    np.testing.assert_array_equal(total, once + 1)
    for i, array in enumerate(leaves(made)):
        write(i, array)
    np.testing.assert_array_equal(total, once)


def test_a_gradient_is_handed_over_leaf_by_leaf() -> None:
    made = model()
    layout, flat = Layout.of(made), np.full(Layout.of(made).size, np.nan, np.float32)
    order: list[int] = []
    receive = layout.receiver(flat)

    def note(i: int, g: np.ndarray) -> None:
        order.append(i)
        receive(i, g)

    value, gradient = value_and_grad(lambda m: causal_loss(m, BATCH))(made)
    assert deliver_gradient(lambda m: causal_loss(m, BATCH), made, note) == value
    np.testing.assert_array_equal(flat, layout.gather(gradient, np.empty_like(flat)))
    assert sorted(order) == list(range(len(layout.names)))
    assert order != sorted(order)  # the last layers' gradients are there first


def test_a_leaf_that_is_not_used_is_handed_zeros() -> None:
    found: dict[int, np.ndarray] = {}
    x = (np.ones(3), np.ones((2, 2)))
    assert deliver_gradient(lambda tree: ops.sum(tree[0] * tree[0]), x, found.__setitem__) == 3.0
    np.testing.assert_array_equal(found[0], 2 * np.ones(3))
    np.testing.assert_array_equal(found[1], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="needs a scalar"):
        deliver_gradient(lambda tree: tree[0], x, found.__setitem__)


def test_view_puts_any_vector_under_the_model() -> None:
    made = model()
    layout = Layout.of(made)
    other = np.random.default_rng(2).standard_normal(layout.size)
    seen = view(made, other, layout)
    assert seen.stack.layers[1].feed_forward.activation == made.stack.layers[1].feed_forward.activation
    np.testing.assert_array_equal(Layout.of(seen).gather(seen, np.empty(layout.size)), other)
    assert all(a.dtype == np.float64 for a in named(seen).values())


@dataclass(frozen=True)
class Two:
    first: Linear
    second: Linear


def test_one_array_under_two_names_is_refused() -> None:
    one = Linear.create(Key.of(0), 3, 3)
    with pytest.raises(ValueError, match=r"two names, 'first\.weight' and 'second\.weight'"):
        flatten(Two(one, replace(one, bias=None)))
