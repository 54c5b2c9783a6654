"""Caches that choose by attention, in whole models: the choice of each layer and head, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.autodiff.numeric import rounding_bound
from minilong.keys import Key
from minilong.memory import CARDS, HeavyHitters, Memory, SnapKV
from minilong.memory.scores import attention_mass
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.train.reader import Reader

ATOL = rounding_bound(np.float32, 40.0, 100)
TOKENS = np.random.default_rng(5).integers(0, 40, (2, 60))


def model(**changes: Any) -> Any:
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 64, **changes}
    return build(ModelConfig(**sizes), 40, Key.of(3))


def streamed(model: Any, memory: Memory, cuts: list[int], tokens: np.ndarray = TOKENS) -> tuple[np.ndarray, Any]:
    stream, parts, done = model.start(memory), [], 0
    for t in cuts:
        parts.append(model.extend(tokens[:, done : done + t], stream))
        done += t
    return np.concatenate(parts, axis=1), stream


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("position", ["rotary", "none", "sinusoidal", "learned"])
@pytest.mark.parametrize(
    "memory", [HeavyHitters(60, block=7), SnapKV(60, 5, prompt=50), SnapKV(9, 5, prompt=60)], ids=str
)
def test_a_budget_for_all_is_a_full_cache(position: str, memory: Memory, layout: str) -> None:
    m = model(position=position, **({"rope_layout": layout} if position == "rotary" else {}))
    y, _ = streamed(m, memory, [17, 1, 30, 12])
    np.testing.assert_allclose(y, m.hidden(TOKENS), rtol=0, atol=ATOL)


@pytest.mark.parametrize("memory", [HeavyHitters(16, 6, 2, block=5), SnapKV(16, 4, prompt=30)], ids=str)
def test_layers_and_heads_keep_rows_of_their_own_whatever_the_pieces(memory: Memory) -> None:
    m = model()
    whole, a = streamed(m, memory, [60])
    pieces, b = streamed(m, memory, [1, 7, 22, 29, 1])
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=ATOL)
    kept = [past.state.places for past in a.pasts]
    assert all(np.array_equal(x.state.places, y.state.places) for x, y in zip(a.pasts, b.pasts, strict=True))
    assert len({tuple(row) for layer in kept for sequence in layer for row in sequence}) > 1
    assert np.abs(whole - m.hidden(TOKENS)).max() > 1e-2
    assert a.bytes == 2 * memory.predicted_bytes(59, 1, 2 * 2 * 2 * 8 * 4, head=8, shared=2)


def test_positions_stay_those_of_the_stream() -> None:
    """The last query of a layer sees the kept keys turned by their own positions."""
    m = model(layers=1)
    memory = HeavyHitters(10, 4, 2)
    _, stream = streamed(m, memory, [59])
    state = stream.pasts[0].state
    keys, _ = memory.read(state)
    full = m.start()
    m.extend(TOKENS[:, :59], full)
    every, _ = full.pasts[0].memory.read(full.pasts[0].state)
    for row, group in np.ndindex(2, 2):
        np.testing.assert_allclose(keys[row, group], every[row, group, state.places[row, group]], rtol=0, atol=ATOL)


def test_copies_and_selections_are_independent() -> None:
    m = model()
    for memory in (HeavyHitters(10, 4, 2, block=3), SnapKV(10, 4, prompt=40)):
        _, stream = streamed(m, memory, [30])
        copies = [past.state.copy() for past in stream.pasts]
        expected = m.extend(TOKENS[:, 30:50], stream)
        for past, state in zip(stream.pasts, copies, strict=True):
            past.state = state.select(np.array([1, 0, 1]))
        stream.seen = 30
        y = m.extend(TOKENS[[1, 0, 1], 30:50], stream)
        np.testing.assert_allclose(y, expected[[1, 0, 1]], rtol=0, atol=ATOL)


def test_a_piece_is_heeded_once_and_in_time() -> None:
    memory, x, q = HeavyHitters(4), np.ones((1, 1, 1, 2)), np.ones((1, 2, 1, 2))
    state = memory.write(memory.init(), (x, x))
    with pytest.raises(ValueError, match="call heed after read"):
        memory.write(state, (x, x))
    state = memory.heed(state, q, 1.0)
    with pytest.raises(ValueError, match="heed each piece once"):
        memory.heed(state, q, 1.0)
    with pytest.raises(ValueError, match="2 rows cross the place 2 where some are evicted"):
        memory.write(state, (np.ones((1, 1, 2, 2)),) * 2)
    with pytest.raises(ValueError, match="nothing was written yet"):
        memory.read(memory.init())


@pytest.mark.parametrize("position", ["alibi", "t5", "xl"])
def test_biases_by_distance_are_refused(position: str) -> None:
    with pytest.raises(ValueError, match=f"HeavyHitters keeps other rows in each head, and {position} positions"):
        model(position=position).start(HeavyHitters(8))


def test_dynamic_scaling_ragged_rows_and_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="dynamic scaling turns all keys anew"):
        model(rope_scaling="dynamic", rope_factor=2.0).start(SnapKV(40))
    with pytest.raises(ValueError, match="must begin together"):
        model().start(HeavyHitters(8), np.array([0, 2]))
    m = model()
    with pytest.raises(ValueError, match="must begin together"):
        m.extend(TOKENS[:, :4], m.start(HeavyHitters(8)), segments=np.zeros((2, 4), np.int32))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: HeavyHitters(0), "budget >= 1"),
        (lambda: HeavyHitters(4, 3, 2), "2 sinks and 3 recent rows are more than the budget of 4"),
        (lambda: SnapKV(4, 5), "window <= budget"),
        (lambda: SnapKV(4, 2, 4), "an odd kernel"),
    ],
)
def test_sizes_that_cannot_work(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_reader_tells_the_prompt_and_starts_afresh_at_the_context() -> None:
    m = model(context=32)
    for memory in (SnapKV(8, 4), HeavyHitters(8, block=2)):
        reader = Reader(m, memory)
        assert not reader.endless
        reader.read(TOKENS[:, :20])
        rows = reader.stream.pasts[0].state.places.shape[-1]
        assert rows == 8
        for i in range(20, 40):
            logits = reader.read(TOKENS[:, i : i + 1])
        assert np.isfinite(logits).all()
        assert reader.stream.seen < 32
        if isinstance(memory, SnapKV):
            assert isinstance(reader.stream.memory, SnapKV)
            assert reader.stream.memory.prompt == 16


def test_mass_needs_no_table_of_all_weights() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((1, 2, 50, 4)), rng.standard_normal((1, 2, 50, 4))
    np.testing.assert_allclose(attention_mass(q, k, 0.5, area=1), attention_mass(q, k, 0.5), rtol=0, atol=1e-12)


def test_cards() -> None:
    assert not CARDS["heavy hitters"].exact
    assert CARDS["heavy hitters"].constant_memory
    assert not CARDS["snapkv"].constant_memory
    assert CARDS["quantised"].beyond_window
