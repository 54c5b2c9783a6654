"""A stream read in pieces gives what one pass gives, for every position scheme, mask, memory and split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.autodiff.numeric import rounding_bound
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import POSITIONS, ModelConfig
from minilong.nn import flatten
from minilong.nn.models import LanguageModel

VOCABULARY, LENGTH = 11, 24
BOUND = rounding_bound(np.float64, 30.0, 2000)


def made(**changes: Any) -> LanguageModel:
    settings = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "context": LENGTH} | changes
    vector, model, _ = flatten(build(ModelConfig(**settings), VOCABULARY, Key.of(3)), np.float64)
    vector += 0.2 * np.random.default_rng(5).standard_normal(vector.size)  # so that nothing starts at zero
    return model


CASES: dict[str, dict[str, Any]] = {
    **{f"full {position}": {"position": position} for position in POSITIONS},
    "half layout": {"position": "rotary", "rope_layout": "half"},
    **{
        f"window {position}": {"position": position, "window": 5, "sinks": sinks}
        for position, sinks in (("rotary", 0), ("alibi", 2), ("t5", 2), ("none", 1), ("sinusoidal", 2), ("xl", 0))
    },
    "sinks beyond the context, rotary": {"position": "rotary", "window": 5, "sinks": 2, "context": 8},
    "sinks beyond the context, half": {
        "position": "rotary", "window": 5, "sinks": 2, "context": 8, "rope_layout": "half"
    },
    "sinks beyond the context, yarn": {
        "position": "rotary", "window": 5, "sinks": 2, "context": 8, "rope_scaling": "yarn", "rope_factor": 2.0
    },
    "sinks beyond the context, alibi": {"position": "alibi", "window": 5, "sinks": 2, "context": 8},
    "sinks beyond the context, t5": {"position": "t5", "window": 5, "sinks": 2, "context": 8},
    **{
        f"scaling {kind}": {"position": "rotary", "rope_scaling": kind, "rope_factor": 3.0, "rope_context": 8}
        for kind in ("pi", "ntk", "dynamic", "yarn")
    },
    "dynamic, half": {
        "position": "rotary", "rope_scaling": "dynamic", "rope_factor": 3.0, "rope_context": 8, "rope_layout": "half"
    },
    **{
        f"xl {position}": {"position": position, "memory": "xl", "segment": 6, "memory_length": 4}
        for position in ("rotary", "alibi", "t5", "xl", "none")
    },
    **{
        f"compressive {position} {how}": {
            "position": position, "memory": "compressive", "segment": 6, "memory_length": 4, "compressed": 3,
            "compression": 2, "compressor": how,
        }
        for position, how in (("rotary", "mean"), ("alibi", "max"), ("t5", "conv"))
    },
}  # fmt: skip
MODELS = {name: made(**changes) for name, changes in CASES.items()}
TOKENS = np.random.default_rng(1).integers(0, VOCABULARY, (2, LENGTH))


@pytest.mark.parametrize("name", CASES)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_every_split_equals_one_pass(name: str, cuts: set[int]) -> None:
    model = MODELS[name]
    whole = model.hidden(TOKENS)
    stream = model.start()
    ends = [*sorted(cuts), LENGTH]
    parts = [model.extend(TOKENS[:, a:b], stream) for a, b in zip([0, *ends], ends, strict=False)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=BOUND)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("xl", "compressive", "sinks"))])
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=3), more=st.integers(1, 8))
def test_prompts_of_several_lengths_are_each_as_alone(name: str, lengths: list[int], more: int) -> None:
    model = MODELS[name]
    if model.sinks:
        return
    rng = np.random.default_rng(len(lengths) + more)
    texts = [rng.integers(0, VOCABULARY, n + more) for n in lengths]
    longest = max(lengths)
    starts = np.array([longest - n for n in lengths])
    batch = np.zeros((len(texts), longest + more), int)
    for row, text, start in zip(batch, texts, starts, strict=True):
        row[start:] = text
    stream = model.start(starts=starts)
    model.extend(batch[:, :longest], stream)
    last = [model.extend(batch[:, [i]], stream) for i in range(longest, longest + more)][-1]
    for row, text in zip(last, texts, strict=True):
        np.testing.assert_allclose(row[-1], model.hidden(text[None])[0, -1], rtol=0, atol=BOUND)


def test_a_window_reads_on_in_constant_memory() -> None:
    model = MODELS["sinks beyond the context, rotary"]
    stream = model.start()
    sizes = []
    for i in range(200):
        model.extend(TOKENS[:, [i % LENGTH]], stream)
        sizes.append(stream.bytes)
    assert len(set(sizes[20:])) == 1


def test_sinks_are_never_taken_to_be_further_than_the_context() -> None:
    """Far beyond the context a constant text gives constant states: no distance grows."""
    model = MODELS["sinks beyond the context, rotary"]
    states = model.hidden(np.full((1, 60), 3))[0]
    np.testing.assert_allclose(states[40:], np.broadcast_to(states[40], states[40:].shape), rtol=0, atol=BOUND)


def test_a_piece_may_end_inside_a_segment() -> None:
    model = MODELS["xl rotary"]
    assert model.memory is not None
    stream = model.start()
    model.extend(TOKENS[:, :4], stream)
    assert model.memory.room(stream.seen) == 2


@pytest.mark.parametrize("depth", ["checkpoint", "sqrt", "reversible", "momentum"])
def test_every_depth_streams(depth: str) -> None:
    model = made(depth=depth, position="rotary")
    stream = model.start()
    parts = [model.extend(TOKENS[:, [i]], stream) for i in range(LENGTH)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model.hidden(TOKENS), rtol=0, atol=1e-8)
