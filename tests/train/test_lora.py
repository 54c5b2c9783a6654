"""Adapters of a whole model: nothing of the model is differentiated, and any way to run a stack takes them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import deliver_gradient
from minilong.autodiff.tree import leaves, named
from minilong.data.batches import LanguageBatch
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn.flat import flatten
from minilong.nn.lora import Adapter, attach, create_adapters, merge
from minilong.objectives import causal_loss

CONFIG = ModelConfig(layers=3, width=16, heads=2, kv_heads=1, activation="swiglu", context=12)
MODEL = build(CONFIG, 23, Key.of(1))
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 13)).astype(np.int32)
BATCH = LanguageBatch(TOKENS[:, :-1], TOKENS[:, 1:])


def moved(targets: tuple[str, ...] = ()) -> dict[str, Adapter]:
    """Adapters that have learnt something."""
    fresh = create_adapters(MODEL, Key.of(2), rank=3, targets=targets)
    rng = np.random.default_rng(1)
    return {k: replace(x, b=rng.normal(size=x.b.shape).astype(np.float32) / 10) for k, x in fresh.items()}


def gradient(model: Any, adapters: dict[str, Adapter]) -> tuple[float, np.ndarray]:
    vector, own, layout = flatten(adapters)
    out = np.full_like(vector, np.nan)
    loss = deliver_gradient(lambda a: causal_loss(attach(model, a, 6.0), BATCH), own, layout.receiver(out))
    return float(loss), out


def test_fresh_adapters_change_nothing_and_bear_the_names_of_their_layers() -> None:
    fresh = create_adapters(MODEL, Key.of(2), rank=3)
    assert set(fresh) == {f"stack.layers.{i}.attention.{name}" for i in range(3) for name in ("query", "value")}
    assert np.array_equal(attach(MODEL, fresh, 6.0)(TOKENS), MODEL(TOKENS))
    again = create_adapters(MODEL, Key.of(2), rank=3)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(fresh), leaves(again), strict=True))
    firsts = [x.a for x in fresh.values() if x.a.shape == (16, 3)]
    assert not np.array_equal(firsts[0], firsts[1])


def test_the_merged_model_has_the_same_output_and_loss() -> None:
    adapters = moved()
    merged = merge(MODEL, adapters, 6.0)
    np.testing.assert_allclose(merged(TOKENS), attach(MODEL, adapters, 6.0)(TOKENS), rtol=0, atol=1e-5)
    before, after = named(MODEL), named(merged)
    shared = {name for name in before if before[name] is after[name]}
    assert shared == {name for name in before if name.removesuffix(".weight") not in adapters}


def test_the_gradient_is_that_of_the_merged_weight_seen_through_the_other_factor() -> None:
    adapters = moved()
    _, found = gradient(MODEL, adapters)
    merged = merge(MODEL, adapters, 6.0)
    vector, own, layout = flatten(merged)
    dense = np.empty_like(vector)
    deliver_gradient(lambda m: causal_loss(m, BATCH), own, layout.receiver(dense))
    weights = layout.slices(dense)
    parts = flatten(adapters)[2].slices(found)
    for path, x in adapters.items():
        g = 2.0 * weights[f"{path}.weight"]  # alpha / rank
        np.testing.assert_allclose(parts[f"{path}.a"], g @ x.b.T, rtol=0, atol=2e-6)
        np.testing.assert_allclose(parts[f"{path}.b"], x.a.T @ g, rtol=0, atol=2e-6)


@pytest.mark.parametrize("depth", ["checkpoint", "sqrt"])
def test_a_stack_that_is_run_twice_gives_the_same_gradient(depth: str) -> None:
    stack: Any = MODEL.stack
    twice = replace(MODEL, stack=replace(stack, depth=depth))
    once, again = gradient(MODEL, moved()), gradient(twice, moved())
    assert once[0] == again[0]
    np.testing.assert_allclose(again[1], once[1], rtol=0, atol=1e-7)


def test_no_gradient_of_the_model_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product of the size of a weight's gradient is asked for: (width, rows) times (rows, n)."""
    linear = import_module("minilong.autodiff.linear")  # the package has a primitive of that name
    seen: list[tuple[int, ...]] = []
    product = linear.product

    def watched(xp: Any, x: Any, w: Any, b: Any = None) -> Any:
        seen.append((x.shape[0], w.shape[1]))
        return product(xp, x, w, b)

    monkeypatch.setattr(linear, "product", watched)
    gradient(MODEL, moved())
    rows = BATCH.inputs.size
    assert seen
    assert {shape for shape in seen if shape[0] != rows and 3 not in shape} == set()


def test_adapters_of_another_model_are_refused() -> None:
    adapters = moved()
    smaller = build(replace(CONFIG, layers=2), 23, Key.of(1))
    with pytest.raises(UserError, match=r"an adapter of stack\.layers\.2\.\S+, which the model lacks"):
        merge(smaller, adapters, 6.0)
    wider = build(replace(CONFIG, width=32), 23, Key.of(1))
    with pytest.raises(UserError, match=r"the adapter of .* has the shape"):
        merge(wider, adapters, 6.0)
