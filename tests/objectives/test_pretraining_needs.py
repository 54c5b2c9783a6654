"""What the tasks that restore a text need: parameters exactly, memory about."""

from __future__ import annotations

import tracemalloc

import pytest
import scipy.special  # noqa: F401 (exact GELU loads it on first use)
from hypothesis import given
from hypothesis import strategies as st

from minilong.data.spans import DENSITY, MEAN_SPAN, span_counts
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import INPUTS, NORMALIZATIONS, OUTPUTS, ModelConfig
from minilong.nn.flat import flatten
from minilong.train.config import FILLING_TASKS
from minilong.train.estimate import count_parameters, describe, lengths_of
from minilong.train.presets import layered
from minilong.train.replicas import Replicas
from minilong.train.source import open_source


@st.composite
def encoders(draw: st.DrawFn) -> ModelConfig:
    output = draw(st.sampled_from(OUTPUTS))
    return ModelConfig(
        kind="encoder",
        layers=draw(st.integers(1, 2)),
        width=8,
        heads=2,
        context=9,
        normalization=draw(st.sampled_from(NORMALIZATIONS)),
        tied=output == "none" or draw(st.booleans()),
        types=draw(st.integers(0, 3)),
        input=draw(st.sampled_from(INPUTS)),
        output=output,
        pooler=draw(st.booleans()),
    )


@given(encoders(), st.integers(5, 30))
def test_parameters_of_encoders_are_counted_exactly(config: ModelConfig, vocabulary: int) -> None:
    assert count_parameters(config, vocabulary) == flatten(build(config, vocabulary, Key.of(0)))[0].size


@pytest.mark.parametrize("task", FILLING_TASKS)
def test_memory_is_predicted_within_a_third(task: str) -> None:
    """The formulas project every token of an encoder to the vocabulary, where its loss projects the masks only."""
    options = {"task": task, "train.threads": 1, "train.batch": 8, "data.tokenizer": "char", "model.layers": 2}
    config = layered(options=options)
    source = open_source(config)
    predicted = sum(describe(config, source.tokenizer.size).memory.values())
    batch = source.batch(0)
    tracemalloc.start()
    try:
        vector, model, layout = flatten(build(config.model, source.tokenizer.size, Key.of(0)))
        first, second = vector.copy(), vector.copy()
        with Replicas(1, layout) as replicas:
            tracemalloc.reset_peak()
            replicas.gradient(source.loss, model, [batch], Key.of(0))
        peak = tracemalloc.get_traced_memory()[1]
        assert first.size == second.size
    finally:
        tracemalloc.stop()
    assert 0.75 < predicted / peak < 1.34, f"{predicted:,} bytes predicted, {peak:,} measured"


def test_lengths_of_spans() -> None:
    config = layered(options={"task": "t5", "model.context": 64})
    lost, spans = span_counts(64, DENSITY, MEAN_SPAN)
    assert (lost, spans) == (10, 3)
    assert lengths_of(config) == (57, 14)
    batch = open_source(config).batch(0)
    assert (batch.source.shape[1], batch.inputs.shape[1]) == (57, 14)
