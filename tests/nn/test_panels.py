"""Linear layers in panels are the linear layers; a reader takes them for few rows, and says the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.autodiff.numeric import rounding_bound
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import Linear
from minilong.nn.panels import FEW, SMALL, Panels, for_few_rows, panelled
from minilong.train.reader import Reader

WIDTHS = [(5, 7), (48, 64), (48, 96), (48, 128), (1000, 96), (3, 1)]
"""Columns that cannot be cut evenly, one panel, three of 32, two of 64, a deep weight, one column."""


@pytest.mark.parametrize("inner, outer", WIDTHS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, FEW])
def test_panels_are_the_linear_layer(inner: int, outer: int, bias: bool, rows: int) -> None:
    layer = Linear.create(Key.of(1), inner, outer, bias=bias)
    if layer.bias is not None:
        layer.bias[:] = Key.of(2).generator().standard_normal(outer)
    x = Key.of(3).generator().standard_normal((rows, 2, inner), np.float32)
    found, right = panelled(layer, rows)(x), layer(x)
    assert found.shape == right.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, rtol=0, atol=rounding_bound(np.float32, 4 * np.abs(x).max(), inner))


def test_a_panel_is_small_and_one_row_copies_nothing() -> None:
    layer = Linear.create(Key.of(1), 384, 1536)
    panels = panelled(layer, 16).panels
    assert panels.shape == (24, 384, 64)
    assert panels.flags.c_contiguous
    assert FEW * panels.shape[1] * panels.shape[2] <= SMALL
    assert panelled(Linear.create(Key.of(1), 1536, 384), 16).panels.shape == (12, 1536, 32)
    assert panelled(layer, 1).panels.base is layer.weight


def linears(model: Any) -> list[Any]:
    layer = model.stack.layers[0]
    own = layer.attention
    return [own.query, own.key, own.value, own.output, layer.feed_forward.up, layer.feed_forward.down]


@pytest.mark.parametrize("rows", [1, 3, FEW, FEW + 1])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_a_reader_says_the_same(rows: int, activation: str) -> None:
    config = ModelConfig(layers=2, width=64, heads=4, context=32, activation=activation, tied=False)
    model = build(config, 50, Key.of(4))
    tokens = Key.of(5).generator().integers(0, 50, (rows, 9)).astype(np.int32)
    reader = Reader(model, length=9)
    found = [reader.read(tokens[:, :4]), *(reader.read(tokens[:, i : i + 1]) for i in range(4, 9))]
    right = model(tokens)[:, 3:]
    np.testing.assert_allclose(np.stack(found, axis=1), right, rtol=0, atol=2e-5)
    changed = for_few_rows(model, rows)
    assert all(type(layer) is Panels for layer in linears(changed))
    assert all(type(layer) is Linear for layer in linears(model))
    assert changed.head is not None
    assert changed.input is not model.input
    np.testing.assert_array_equal(changed.input.tokens.table, model.input.tokens.table)
