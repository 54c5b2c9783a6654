"""From configuration to model: names, tied weights, initial scales, and the formulas of pre- and post-norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minilong.attention import Mask
from minilong.autodiff.numeric import rounding_bound
from minilong.autodiff.tree import leaves, named
from minilong.keys import Key
from minilong.models.build import build, residual_gain
from minilong.models.config import ModelConfig
from minilong.nn import BatchNorm, View, flatten

V = 13


def made(seed: int = 0, **settings: Any) -> Any:
    sizes: dict[str, Any] = {"layers": 2, "width": 16, "heads": 4, "context": 8}
    return build(ModelConfig(**(sizes | settings)), V, Key.of(seed))


def test_names_are_field_paths() -> None:
    linear, norm = ("weight", "bias"), ("gain", "bias")
    parts = {f"attention.{p}": linear for p in ("query", "key", "value", "output")}
    parts |= {"attention_norm": norm, "feed_forward_norm": norm}
    parts |= {"feed_forward.up": linear, "feed_forward.down": linear}
    names = {f"stack.layers.{i}.{part}.{leaf}" for i in (0, 1) for part, ends in parts.items() for leaf in ends}
    names |= {"input.tokens.table", "stack.norm.gain", "stack.norm.bias"}
    assert set(named(made())) == names
    cross = {f"decoder.layers.1.cross.{p}.weight" for p in ("query", "key", "value", "output")}
    both = set(named(made(kind="encoder-decoder")))
    assert cross | {"encoder.layers.0.attention.query.weight", "decoder.layers.0.cross_norm.gain"} <= both
    assert not any(name.startswith("encoder") and "cross" in name for name in both)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder", "encoder"])
def test_tied_weights_are_one_field(kind: str) -> None:
    tied, untied = made(kind=kind), made(kind=kind, tied=False)
    assert tied.head is None
    assert set(named(untied)) - set(named(tied)) == {"head.weight"}
    assert len({id(a) for a in leaves(tied)}) == len(leaves(tied))
    # Moving the one table moves inputs and outputs.
    vector, model, layout = flatten(tied, np.float64)
    x = np.random.default_rng(0).standard_normal((1, 2, 16))
    np.testing.assert_array_equal(model.input.tokens.logits(x), x @ layout.slices(vector)["input.tokens.table"].T)


def test_settings_shape_the_model() -> None:
    m = made(position="learned", kv_heads=2, activation="swiglu", normalization="rms", bias=False, feed_forward=10)
    shapes = {name: a.shape for name, a in named(m).items()}
    assert shapes["input.positions.table"] == (8, 16)
    assert shapes["input.tokens.table"] == (V, 16)
    assert shapes["stack.layers.0.attention.key.weight"] == (16, 8)
    assert shapes["stack.layers.0.attention.query.weight"] == (16, 16)
    assert shapes["stack.layers.0.feed_forward.gate.weight"] == (16, 10)
    assert not any(name.endswith("bias") for name in shapes)
    kept = {name.rpartition(".")[0] for name in named(made(bias=False)) if name.endswith("bias")}
    assert all(name.endswith("norm") for name in kept)  # as the configuration says: layer norms keep theirs
    assert len(kept) == 5
    assert made(context=99).context == 99
    assert made(kind="decoder").causal
    assert not made(kind="encoder").causal


def test_equal_keys_give_equal_weights() -> None:
    (a, _, _), (b, _, _), (c, _, _) = flatten(made(1)), flatten(made(1)), flatten(made(2))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)


def test_no_two_matrices_start_alike() -> None:
    """Keys are folded by name and layer: a key used twice would give two layers the same weights."""
    arrays = [a for a in leaves(made(kind="encoder-decoder", tied=False, feed_forward=16)) if a.ndim == 2]
    heads = [tuple(np.sort(np.abs(a), axis=None)[:3] / np.abs(a).max()) for a in arrays]
    assert len(set(heads)) == len(arrays)


@pytest.mark.parametrize(
    "settings,branches",
    [({"kind": "decoder"}, 2), ({"kind": "encoder"}, 2), ({"kind": "encoder-decoder"}, 3)],
)
def test_residual_branches_are_scaled_in_pre_norm_models(settings: dict[str, Any], branches: int) -> None:
    pre, post = (named(made(layers=3, width=64, norm=norm, init="he", **settings)) for norm in ("pre", "post"))
    for name in post:
        if not name.endswith(".weight"):
            continue
        of_branch = name.endswith(("attention.output.weight", "cross.output.weight", "feed_forward.down.weight"))
        per_stack = 2 if name.startswith("encoder") else branches
        expected = 1 / math.sqrt(per_stack * 3) if of_branch else 1.0
        np.testing.assert_allclose(pre[name], post[name] * expected, rtol=1e-6, atol=1e-9)
    assert residual_gain(ModelConfig(layers=8), 2) == 0.25
    assert residual_gain(ModelConfig(layers=8, norm="post"), 2) == 1.0


def test_residual_scaling_bounds_the_stream_over_depth() -> None:
    """The variance that 48 layers add to the residual stream is about that of 3 layers."""
    x = np.random.default_rng(1).standard_normal((2, 8, 32)).astype(np.float32)
    added = []
    for layers in (3, 48):
        stack = made(layers=layers, width=32).stack
        h = x
        for layer in stack.layers:
            h = layer(h, view=View(Mask(causal=True)))
        added.append(float(np.var(h - x)))
    assert 0.5 < added[1] / added[0] < 2.0


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_layers_are_the_published_formulas(kind: str, norm: str) -> None:
    vector, model, _ = flatten(made(kind=kind, norm=norm, position="none"), np.float64)
    rng = np.random.default_rng(2)
    vector += 0.2 * rng.standard_normal(vector.size)
    layer = (model.decoder if kind == "encoder-decoder" else model.stack).layers[1]
    x, memory = rng.standard_normal((2, 5, 16)), rng.standard_normal((2, 7, 16))
    mask, memory_mask = Mask(causal=True), Mask(key_lengths=np.array([7, 3]))

    def attend(h: np.ndarray) -> np.ndarray:
        return layer.attention(h, view=View(mask))

    def cross(h: np.ndarray) -> np.ndarray:
        return layer.cross(h, memory, view=View(memory_mask))

    branches = [(attend, layer.attention_norm)]
    if kind == "encoder-decoder":
        branches.append((cross, layer.cross_norm))
    branches.append((layer.feed_forward, layer.feed_forward_norm))
    h = x
    for f, n in branches:
        h = h + f(n(h)) if norm == "pre" else n(h + f(h))
    extra = {"memory": memory, "memory_view": View(memory_mask)} if kind == "encoder-decoder" else {}
    np.testing.assert_allclose(layer(x, view=View(mask), **extra), h, rtol=0, atol=rounding_bound(np.float64, 30.0, 16))


def test_the_last_norm_belongs_to_pre_norm_models() -> None:
    assert made(norm="post").stack.norm is None
    pre = made(norm="pre")
    x = np.random.default_rng(3).standard_normal((1, 4, 16)).astype(np.float32)
    y = pre.stack(x, view=View(Mask(causal=True)))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-3)


def test_no_configuration_puts_batch_norm_into_a_causal_model() -> None:
    for normalization in ("layer", "rms"):
        assert not any(isinstance(x, BatchNorm) for x in vars(made(normalization=normalization).stack).values())
    with pytest.raises(Exception, match=r"model\.normalization"):
        made(normalization="batch")
