"""What memories hold: which rows, in which order, in how many bytes, and what they refuse."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import vjp
from minilong.memory import CARDS, Compressive, Compressor, Full, Memory, Segments, Window

POLICIES = [
    Full(), Full(capacity=5), Full(capacity=100), Window(1), Window(4), Window(4, sinks=2), Window(50, sinks=3),
    Segments(3, 4), Segments(1, 0), Segments(5, 50), Compressive(4, 2, 3, Compressor("mean", 2)),
    Compressive(3, 0, 2, Compressor("max", 3)), Compressive(2, 3, 0, Compressor("mean", 4)),
]  # fmt: skip
EXACT = [m for m in POLICIES if m.card.exact]


def pieces(memory: Memory, n: int, longest: int, seed: int = 0) -> list[tuple[int, int]]:
    """(seen, t) of a random cut of n rows."""
    rng, seen, found = np.random.default_rng(seed), 0, []
    while seen < n:
        t = min(int(rng.integers(1, longest + 1)), n - seen, memory.room(seen) or n)
        found.append((seen, t))
        seen += t
    return found


@pytest.mark.parametrize("memory", POLICIES, ids=str)
@pytest.mark.parametrize("longest", [1, 3, 20])
def test_reads_give_what_is_visible_in_order_and_take_the_predicted_bytes(memory: Memory, longest: int) -> None:
    n, state = 43, memory.init()
    x = np.arange(n, dtype=np.float32)[None, :, None] + np.zeros((2, n, 3), np.float32)
    for seen, t in pieces(memory, n, longest):
        state = memory.write(state, (x[:, seen : seen + t], x[:, seen : seen + t, :1].astype(np.float64)))
        assert state.seen == seen + t
        first, second = memory.read(state)
        at = memory.visible(seen, t)
        assert at.dtype == (np.float64 if isinstance(memory, Compressive) else np.int64)
        assert np.all(np.diff(at) > 0)
        assert np.array_equal(at[-t:], np.arange(seen, seen + t))
        assert first.dtype == np.float32
        assert second.shape == (2, len(at), 1)
        if not (isinstance(memory, Compressive) and memory.compressor.sort == "max"):
            assert np.array_equal(second[0, :, 0], at)  # a mean of positions is the block's centre
            assert np.array_equal(first[1, :, 2], at)
        assert memory.bytes(state) == memory.predicted_bytes(seen, t, 2 * (3 * 4 + 1 * 8))


@pytest.mark.parametrize("memory", EXACT, ids=str)
@pytest.mark.parametrize("longest", [1, 4, 20])
def test_slots_and_mask_together_admit_what_the_definition_allows(memory: Memory, longest: int) -> None:
    n = 31
    allowed, found = memory.allowed(n), np.zeros((n, n), bool)
    for seen, t in pieces(memory, n, longest, seed=1):
        at = memory.visible(seen, t).astype(int)
        dense = memory.mask(seen, t).dense(np, t, len(at))
        found[seen : seen + t, at] = True if dense is None else dense
    assert np.array_equal(found, allowed)
    assert allowed.diagonal().all()


def test_a_compressed_row_is_allowed_wherever_its_block_is_seen() -> None:
    memory = Compressive(4, 2, 3, Compressor("mean", 2))
    assert np.array_equal(memory.allowed(20), Segments(4, 8).allowed(20))
    assert np.array_equal(memory.visible(12, 1), [4.5, 6.5, 8.5, 10, 11, 12])


@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_a_chosen_batch_row_goes_on_as_if_it_had_been_alone(memory: Memory) -> None:
    rng = np.random.default_rng(2)
    x, order = rng.standard_normal((3, 30, 2)), np.array([2, 0, 2, 1])
    assert memory.init().select(order).seen == 0
    state, single = memory.init(), memory.init()
    cut = pieces(memory, 30, 4)
    for i, (seen, t) in enumerate(cut):
        if i == len(cut) // 2:
            state, x = state.select(order), x[order]
        state = memory.write(state, (x[:, seen : seen + t],))
        single = memory.write(single, (x[order[0] if len(x) == 3 else 0, None, seen : seen + t],))
        row = memory.read(state)[0][order[0] if len(x) == 3 else 0]
        assert np.array_equal(row, memory.read(single)[0][0])
    assert len(memory.read(state)[0]) == 4
    assert memory.bytes(state) == 4 * memory.bytes(single)


@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_a_copy_goes_its_own_way(memory: Memory) -> None:
    x = np.arange(40.0).reshape(1, 20, 2)
    state = memory.init().copy()
    for seen, t in pieces(memory, 10, 1):
        state = memory.write(state, (x[:, seen : seen + t],))
    other = state.copy()
    before = memory.read(other)[0].copy()
    for seen, t in pieces(memory, 10, 1):
        state = memory.write(state, (-x[:, seen : seen + t],))
    assert np.array_equal(memory.read(other)[0], before)
    assert not any(np.shares_memory(a, b) for p in state.parts() for a in p for q in other.parts() for b in q)
    assert memory.read(memory.write(other, (x[:, 10:11],)))[0][0, -1, 1] == 21.0


@pytest.mark.parametrize("memory", [Full(), Window(4, sinks=1)], ids=str)
def test_a_cache_refuses_a_state_that_was_written_to_and_tensors(memory: Memory) -> None:
    row = np.ones((1, 1, 2))
    state = memory.write(memory.init(), (row,))
    memory.write(state, (row,))
    with pytest.raises(ValueError, match=r"written to already.*copy"):
        memory.write(state, (row,))
    with pytest.raises(ValueError, match="arrays, not tensors"):
        vjp(lambda x: memory.read(memory.write(memory.init(), (x,)))[0], row)


@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_rows_that_do_not_fit_are_refused(memory: Memory) -> None:
    row = np.ones((2, 1, 3))
    with pytest.raises(ValueError, match="nothing was written"):
        memory.read(memory.init())
    bad: list[tuple[Any, ...]] = [(), (row[:, :0],), (row, np.ones((2, 2, 3)))]
    for rows in bad:
        with pytest.raises(ValueError, match="memory:"):
            memory.write(memory.init(), rows)
    if memory.room(1) in (None, 2, 3, 4):
        state = memory.write(memory.init(), (row,))
        for rows in [(row[:1],), (row[..., :2],), (row.astype(np.float32),), (row, row)]:
            with pytest.raises(ValueError, match="do not continue"):
                memory.write(state, rows)


def test_a_piece_across_a_segments_end_is_refused() -> None:
    memory = Segments(4, 2)
    state = memory.write(memory.init(), (np.ones((1, 3, 1)),))
    with pytest.raises(ValueError, match="2 rows cross the segment's end at 4; cut them there"):
        memory.write(state, (np.ones((1, 2, 1)),))
    assert memory.room(3) == 1
    assert memory.room(4) == 4


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Full(0), "capacity is 0"),
        (lambda: Window(0), "window >= 1"),
        (lambda: Window(3, -1), "sinks >= 0"),
        (lambda: Segments(0, 1), "segment >= 1"),
        (lambda: Segments(2, -1), "memory >= 0"),
        (lambda: Compressive(4, 4, -1, Compressor("mean", 2)), "-1 slots"),
        (lambda: Compressive(4, 3, 1, Compressor("mean", 2)), "rate 2 must divide the segment 4 and the memory 3"),
        (lambda: Compressor("median", 2), "'median' is none of mean, max, conv"),
        (lambda: Compressor("mean", 0), "rate is 0"),
        (lambda: Compressor("conv", 2), "Compressor.create"),
        (lambda: Compressor("mean", 2)(np.ones((1, 3, 2))), "3 rows are no multiple of the rate 2"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_full_cache_with_capacity_never_moves() -> None:
    memory = Full(capacity=64)
    state = memory.write(memory.init(), (np.zeros((1, 2, 1, 4)),))
    start = memory.read(state)[0].__array_interface__["data"]
    for _ in range(63):
        state = memory.write(state, (np.ones((1, 2, 1, 4)),))
    assert memory.read(state)[0].__array_interface__["data"] == start
    assert memory.held(63, 1) == 64
    assert memory.held(64, 1) == 128


def test_a_window_costs_constant_memory_and_copies_nothing_to_read() -> None:
    """5,000 tokens through a window of 256, 2 heads of 16: no step allocates what a copy of the window would take."""
    memory = Window(256, sinks=4)
    row = np.ones((1, 2, 1, 16), np.float32)
    state = memory.write(memory.init(), (row, row))
    for _ in range(600):
        state = memory.write(state, (row, row))
    tracemalloc.start()
    try:
        state = memory.write(state, (row, row))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(4400):
            state = memory.write(state, (row, row))
            keys, _ = memory.read(state)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert keys.shape[-2] == 260
    assert np.shares_memory(keys, state.parts()[0][0])
    window = 256 * 2 * 16 * 4
    assert kept - held < 2_000
    assert peak < window + 4_000  # once in 256 steps NumPy buffers the window that overlaps its new place


@pytest.mark.parametrize("memory", [Segments(32, 64), Compressive(32, 64, 16, Compressor("mean", 4))], ids=str)
def test_a_segment_memory_frees_what_it_forgets(memory: Memory) -> None:
    """What tracemalloc finds after 100 segments is what `bytes` says: no view holds on to rows that are gone."""
    width, state = 64, memory.init()
    tracemalloc.start()
    try:
        for _ in range(100):
            state = memory.write(state, (np.ones((1, 32, width)),))
        used, claimed = tracemalloc.get_traced_memory()[0], memory.bytes(state)
    finally:
        tracemalloc.stop()
    assert claimed == memory.predicted_bytes(state.seen - 32, 32, width * 8)
    assert claimed <= used < claimed + 8_000
    assert all(x.base is None for part in state.parts()[:-1] for x in part)


def test_cards_say_what_each_memory_can_do() -> None:
    chosen = ["heavy hitters", "snapkv", "quantised"]
    assert list(CARDS) == ["full", "window", "window and sinks", "segments", "compressive", *chosen]
    for name, card in CARDS.items():
        assert card.constant_memory == (name not in ("full", "snapkv", "quantised"))
        assert card.beyond_window == (name in ("full", "segments", "compressive", *chosen))
        assert card.exact == (name not in ("compressive", *chosen))
        assert card.trainable_through == (name in ("full", "window", "window and sinks"))
        assert card.about.endswith(".")
    assert not Segments(4, 0).card.beyond_window
    assert Compressive(4, 4, 0, Compressor("mean", 2)).card.exact
    assert Full().reach(3) is None
    assert Segments(4, 4).reach(0) == 0
