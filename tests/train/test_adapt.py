"""A trained model with another reach: no weight changes, and what cannot work is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_runs import SMALL, copy, untrained

from minilong.attention import KERNELS
from minilong.autodiff.tree import named
from minilong.errors import UserError
from minilong.memory import Full, HeavyHitters, Quantised, Segments, SnapKV, Window
from minilong.train.adapt import adapt, memory_of
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun

LETTERS = "abcdefghij \n"


def model(**changes: Any) -> LoadedRun:
    settings = SMALL | {"data.text": ("unread",)} | {f"model.{name}": value for name, value in changes.items()}
    return untrained(RunConfig.from_flat(settings), LETTERS, scale=3.0)


TOKENS = np.random.default_rng(0).integers(5, 12, (1, 30))


@pytest.mark.parametrize("position", ["rotary", "alibi", "t5", "none", "xl", "sinusoidal"])
def test_a_longer_context_changes_nothing_within_the_old_one(position: str) -> None:
    loaded = model(position=position)
    longer = adapt(loaded, context=64)
    assert longer.model.context == longer.config.model.context == 64
    np.testing.assert_array_equal(longer.model(TOKENS[:, :8]), loaded.model(TOKENS[:, :8]))
    assert named(longer.model).keys() == named(loaded.model).keys()
    for name, array in named(longer.model).items():
        assert array is named(loaded.model)[name]


@pytest.mark.parametrize("kind", ["pi", "ntk", "yarn", "dynamic"])
def test_scaling_multiplies_the_context(kind: str) -> None:
    loaded = model()
    scaled = adapt(loaded, rope_scaling=kind, rope_factor=4.0)
    assert scaled.model.context == 4 * loaded.model.context
    assert scaled.model.scheme.scaling.context == loaded.model.context
    within = np.array_equal(scaled.model(TOKENS[:, :8]), loaded.model(TOKENS[:, :8]))
    assert within == (kind == "dynamic")  # it alone leaves short texts as they were
    assert np.abs(scaled.model(TOKENS) - adapt(loaded, context=32).model(TOKENS)).max() > 1e-3


def test_another_factor_counts_from_the_context_that_was_trained() -> None:
    loaded = model(context=16, rope_scaling="yarn", rope_factor=2.0, rope_context=8)
    assert adapt(loaded, rope_factor=4.0).model.context == 32


def test_a_factor_of_one_is_the_model_itself() -> None:
    loaded = model()
    for kind in ("pi", "ntk", "yarn", "dynamic"):
        same = adapt(loaded, rope_scaling=kind, rope_factor=1.0)
        np.testing.assert_array_equal(same.model(TOKENS[:, :8]), loaded.model(TOKENS[:, :8]))


def test_every_kernel_gives_the_same_numbers() -> None:
    loaded = model(context=32)
    whole = loaded.model(TOKENS)
    for name in ("naive", "dense", "blockwise"):
        np.testing.assert_allclose(adapt(loaded, attention=name).model(TOKENS), whole, rtol=0, atol=2e-5)


def test_the_kernel_changes_in_every_attention_of_an_encoder_decoder() -> None:
    loaded = untrained(copy(model__position="t5"), LETTERS, scale=3.0)
    source, target = TOKENS[:, :6], TOKENS[:, 6:12]
    whole = loaded.model(source, target)
    for name in ("naive", "dense"):
        changed = adapt(loaded, attention=name)
        stacks = (changed.model.encoder, changed.model.decoder)
        found = [part for s in stacks for x in s.layers for part in (x.attention, getattr(x, "cross", None)) if part]
        assert {part.kernel for part in found} == {KERNELS[name]}
        assert len(found) == 3 * len(stacks[0].layers)
        np.testing.assert_allclose(changed.model(source, target), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({"position": "learned"}, {"context": 9}, "learned positions for 8 tokens and none beyond"),
        ({}, {"rope_factor": 2.0}, "says how far, but not how"),
        ({}, {"rope_scaling": "pi"}, "says how, but not how far"),
        ({"position": "alibi"}, {"rope_scaling": "pi", "rope_factor": 2.0}, "model.position is 'alibi'"),
        ({"window": 4}, {"rope_scaling": "dynamic", "rope_factor": 2.0}, "a window or memory forgets"),
    ],
)
def test_what_cannot_be_extended_is_refused(changes: dict[str, Any], wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapt(model(**changes), **wanted)


def test_memories_by_name() -> None:
    loaded = model()
    assert memory_of(loaded) is None
    assert memory_of(loaded, "full") == Full()
    assert memory_of(loaded, "window") == Window(4, 4)
    assert memory_of(loaded, window=5) == Window(5, 4)
    assert memory_of(loaded, sinks=0) == Window(8)
    assert memory_of(loaded, "xl") == Segments(4, 4)
    assert memory_of(loaded, "h2o") == HeavyHitters(2, sinks=0)
    assert memory_of(loaded, "h2o", budget=64) == HeavyHitters(64, sinks=4, block=16)
    assert memory_of(loaded, "h2o", budget=64, sinks=1) == HeavyHitters(64, sinks=1, block=16)
    assert memory_of(loaded, "snapkv", budget=100) == SnapKV(100, 32)
    assert memory_of(loaded, cache_bits=4) == memory_of(loaded, "full", cache_bits=4) == Quantised(4, 32, 32)
    assert memory_of(loaded, window=5, cache_bits=2) == Quantised(2, 32, 32, Window(5, 4))
    assert memory_of(model(window=6, sinks=2), cache_bits=8) == Quantised(8, 32, 32, Window(6, 2))
    assert memory_of(model(context=4096), cache_bits=8) == Quantised(8, 32, 128)


@pytest.mark.parametrize(
    ("changes", "name", "sizes", "message"),
    [
        ({"position": "sinusoidal"}, "window", {}, "the run has sinusoidal positions"),
        ({}, "full", {"window": 4}, "--window belongs to --memory window, not to --memory full"),
        ({"rope_scaling": "dynamic", "rope_factor": 2.0}, "window", {}, "dynamic scaling grows with the text"),
        ({}, "snapkv", {"sinks": 4}, "--sinks belongs to --memory window or h2o, not to --memory snapkv"),
        ({}, "window", {"budget": 4}, "--budget belongs to --memory h2o or snapkv, not to --memory window"),
        ({}, None, {"budget": 4}, "--budget belongs to --memory h2o or snapkv, not to --memory model"),
        ({}, "h2o", {"budget": 4, "sinks": 4}, "--sinks 4 leave nothing of a --budget of 4"),
        ({}, "h2o", {"cache_bits": 4}, "belongs to a full cache or a window, not to --memory h2o"),
        ({"memory": "xl"}, None, {"cache_bits": 4}, "not to the segments that the run learnt with"),
        ({"memory": "xl"}, "h2o", {}, "the run learnt with segments"),
        ({"position": "alibi"}, "h2o", {}, "alibi positions add to each score by its distance"),
        ({"rope_scaling": "dynamic", "rope_factor": 2.0}, "snapkv", {}, "dynamic scaling turns all keys anew"),
    ],
)
def test_memories_that_do_not_fit_are_refused(
    changes: dict[str, Any], name: str | None, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        memory_of(model(**changes), name, **sizes)
