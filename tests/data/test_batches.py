"""Laws of batches: pure in (key, step), each window and pair once an epoch, each target once in evaluation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilong.data.batches import IGNORE, LanguageBatch, PackedWindows, PairBatch, PairData, pair_batch
from minilong.errors import UserError
from minilong.keys import Key

PAD, BOS, EOS, SEPARATOR = range(4)
KEY = Key.of(1)
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=4)


def _documents(lengths: list[int]) -> list[np.ndarray]:
    """Documents whose tokens all differ: document d has 1000 (d + 1), 1000 (d + 1) + 1, ..."""
    return [1000 * (number + 1) + np.arange(length) for number, length in enumerate(lengths)]


def _stream(lengths: list[int], separator: int | None) -> list[int]:
    stream: list[int] = []
    for ids in _documents(lengths):
        if len(ids):
            stream += [separator] * (separator is not None and len(stream) > 0) + ids.tolist()
    return stream


def _arrays(batch: LanguageBatch | PairBatch) -> list[np.ndarray]:
    return [array for array in vars(batch).values() if array is not None]


def _same(a: LanguageBatch | PairBatch, b: LanguageBatch | PairBatch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(_arrays(a), _arrays(b), strict=True))


def _pairs(lengths: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs that all differ: the source starts with the pair's number."""
    return [(np.arange(n) + 100 * (p + 1), np.arange(m) + 100 * (p + 1) + 50) for p, (n, m) in enumerate(lengths)]


def _numbers(batch: PairBatch) -> list[int]:
    return [int(first) // 100 - 1 for first in batch.source[:, 0]]


PAIR_LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=1, max_size=60)


def _pair_data(lengths: list[tuple[int, int]], max_length: int = 13) -> PairData:
    return PairData(_pairs(lengths), pad=PAD, bos=BOS, eos=EOS, max_length=max_length)


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(2, 80),
    context=st.integers(1, 30),
    size=st.integers(1, 9),
    steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    seed=st.integers(),
)
def test_a_batch_of_windows_is_a_function_of_key_and_step(
    length: int, context: int, size: int, steps: list[int], seed: int
) -> None:
    context = min(context, length - 1)
    key = Key.of(seed)
    used = PackedWindows(_documents([length]), context, separator=None)
    first = []
    for step in steps:
        batch = used.batch(step, size, key)
        first.append(LanguageBatch(batch.inputs.copy(), batch.targets.copy()))
        batch.inputs.fill(7)  # what a caller does with its arrays changes no later batch
        batch.targets.fill(7)
    for step, batch in reversed(list(zip(steps, first, strict=True))):
        fresh = PackedWindows(_documents([length]), context, separator=None)  # a run that resumes at this step
        assert _same(batch, used.batch(step, size, key))
        assert _same(batch, fresh.batch(step, size, key))


@settings(max_examples=80, deadline=None)
@given(length=st.integers(2, 120), context=st.integers(1, 20), size=st.integers(1, 7), epoch=st.integers(0, 50))
def test_an_epoch_has_each_window_once_without_gaps(length: int, context: int, size: int, epoch: int) -> None:
    context = min(context, length - 1)
    data = PackedWindows(_documents([length]), context, separator=None)
    first, last = epoch * data.windows, (epoch + 1) * data.windows
    rows: list[np.ndarray] = []
    for step in range(first // size, -(-last // size)):
        batch = data.batch(step, size, KEY)
        assert batch.inputs.shape == (size, context)
        rows += list(batch.inputs)
    rows = rows[first % size :][: data.windows]
    covered = sorted(int(token) - 1000 for row in rows for token in row)
    assert covered == list(range(covered[0], covered[0] + data.windows * context))
    assert all(np.array_equal(row, row[0] + np.arange(context)) for row in rows)
    left = length - 1 - len(covered)
    assert 0 <= left < 2 * context


def test_epochs_differ_in_order_and_in_the_place_of_boundaries() -> None:
    data = PackedWindows(_documents([997]), 10, separator=None)
    starts = [data.batch(epoch, data.windows, KEY).inputs[:, 0] for epoch in range(30)]
    offsets = [int(np.min(start)) - 1000 for start in starts]
    assert len(set(offsets)) > 8
    assert {offset % 10 for offset in offsets} == set(range(10))
    orders = {tuple((start - start.min()).tolist()) for start in starts}
    assert len(orders) == 30
    assert all((np.diff(start) != 10).any() for start in starts)
    assert not np.array_equal(starts[0], data.batch(0, data.windows, Key.of(2)).inputs[:, 0])


@settings(max_examples=100, deadline=None)
@given(
    lengths=LENGTHS, context=st.integers(1, 12), separator=st.sampled_from([None, SEPARATOR]), step=st.integers(0, 99)
)
def test_targets_are_inputs_shifted_once_and_segments_number_documents(
    lengths: list[int], context: int, separator: int | None, step: int
) -> None:
    stream = _stream(lengths, separator)
    if len(stream) < context + 1:
        with pytest.raises(
            UserError, match=f"has {len(stream)} tokens .* context {context} needs {context + 1}; .*give"
        ):
            PackedWindows(_documents(lengths), context, separator=separator)
        return
    data = PackedWindows(_documents(lengths), context, separator=separator)
    assert data.tokens == len(stream)
    batch = data.batch(step, 5, KEY)
    windows = {tuple(stream[start : start + context + 1]) for start in range(len(stream) - context)}
    assert {array.dtype for array in _arrays(batch)} == {np.dtype(np.int32)}
    for row in range(5):
        assert (*batch.inputs[row].tolist(), int(batch.targets[row, -1])) in windows
        assert np.array_equal(batch.inputs[row, 1:], batch.targets[row, :-1])
    assert batch.tokens == batch.targets.size
    if sum(length > 0 for length in lengths) == 1:
        assert batch.segments is None
        return
    assert batch.segments is not None
    assert (batch.segments[:, 0] == 0).all()
    for tokens, segments in zip(batch.inputs, batch.segments, strict=True):
        for place in range(1, context):
            same = tokens[place] // 1000 == tokens[place - 1] // 1000 or tokens[place - 1] == SEPARATOR
            assert segments[place] - segments[place - 1] == (0 if same else 1)


def test_the_separator_ends_a_document_as_target_and_opens_the_next_as_input() -> None:
    data = PackedWindows([[10, 11], [], [20, 21], [30]], 6, separator=SEPARATOR)
    (batch,) = data.sequential(4)
    assert batch.inputs.tolist() == [[10, 11, SEPARATOR, 20, 21, SEPARATOR]]
    assert batch.targets.tolist() == [[11, SEPARATOR, 20, 21, SEPARATOR, 30]]
    assert batch.segments is not None
    assert batch.segments.tolist() == [[0, 0, 1, 1, 1, 2]]


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    context=st.integers(1, 15),
    stride=st.none() | st.integers(1, 15),
    size=st.integers(1, 5),
    separator=st.sampled_from([None, SEPARATOR]),
)
def test_evaluation_counts_every_token_but_the_first_once(
    lengths: list[int], context: int, stride: int | None, size: int, separator: int | None
) -> None:
    stream = _stream(lengths, separator)
    stride = None if stride is None else min(stride, context)
    if len(stream) < 2:
        with pytest.raises(UserError, match=f"has {len(stream)} tokens .* needs 2; give"):
            PackedWindows(_documents(lengths), context, separator=separator, partial=True)
        return
    data = PackedWindows(_documents(lengths), context, separator=separator, partial=True)
    batches = list(data.sequential(size, stride))
    assert [len(batch.inputs) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1].inputs) <= size
    assert sum(batch.tokens for batch in batches) == len(stream) - 1
    counted: list[int] = []
    for batch in batches:
        assert (batch.segments is None) == (sum(length > 0 for length in lengths) == 1)
        assert batch.inputs.dtype == batch.targets.dtype == np.int32
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
            for place in np.flatnonzero(targets != IGNORE):
                counted.append(int(targets[place]))
                at = len(counted)
                seen = min(
                    at, int(place) + 1
                )  # what is before the target in the window is what is before it in the stream
                assert inputs[place + 1 - seen : place + 1].tolist() == stream[at - seen : at]
                if stride is not None:
                    assert seen >= min(at, context - stride + 1)
    assert counted == stream[1:]


def test_a_stream_of_part_of_a_window_serves_evaluation_alone() -> None:
    data = PackedWindows([[5, 6, 7]], 100, separator=None, partial=True, name="the validation text")
    (batch,) = data.sequential(2)
    assert (batch.inputs.tolist(), batch.targets.tolist()) == ([[5, 6]], [[6, 7]])
    with pytest.raises(
        UserError, match=r"the validation text has 3 tokens .*needs 101; lower --context to at most 2 or"
    ):
        data.batch(0, 1, KEY)


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 12), n=st.integers(1, 15), documents=st.sampled_from([1, 2]))
def test_shards_joined_are_the_batch(rows: int, n: int, documents: int) -> None:
    windows = PackedWindows(_documents([30] * documents), 6, separator=SEPARATOR).batch(0, rows, KEY)
    pairs = pair_batch(_pairs([(row % 4 + 1, row % 3) for row in range(rows)]), pad=PAD, bos=BOS, eos=EOS)
    batches: list[LanguageBatch | PairBatch] = [windows, pairs]
    for batch in batches:
        shards = batch.shards(n)
        assert {type(shard) for shard in shards} == {type(batch)}
        sizes = [len(shard.inputs) for shard in shards]
        assert len(shards) == min(n, rows)
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        joined = [np.concatenate(parts) for parts in zip(*map(_arrays, shards), strict=True)]
        assert all(np.array_equal(part, whole) for part, whole in zip(joined, _arrays(batch), strict=True))
        assert sum(shard.tokens for shard in shards) == batch.tokens


@settings(max_examples=80, deadline=None)
@given(lengths=PAIR_LENGTHS, size=st.integers(1, 9), epoch=st.integers(0, 10**6), seed=st.integers())
def test_an_epoch_has_each_pair_once_and_is_a_function_of_key_and_step(
    lengths: list[tuple[int, int]], size: int, epoch: int, seed: int
) -> None:
    data, key = _pair_data(lengths), Key.of(seed)
    steps = -(-len(lengths) // size)
    batches = [data.batch(epoch * steps + step, size, key) for step in range(steps)]
    assert sorted(number for batch in batches for number in _numbers(batch)) == list(range(len(lengths)))
    assert sorted(len(batch.inputs) for batch in batches)[1:] == [size] * (steps - 1)
    fresh = _pair_data(lengths)
    for step in reversed(range(steps)):
        assert _same(batches[step], fresh.batch(epoch * steps + step, size, key))


@settings(max_examples=80, deadline=None)
@given(lengths=PAIR_LENGTHS, size=st.integers(1, 9), max_length=st.integers(1, 13))
def test_pairs_are_padded_framed_and_dropped_where_too_long(
    lengths: list[tuple[int, int]], size: int, max_length: int
) -> None:
    fits = [max(n, m + 1) <= max_length for n, m in lengths]
    if not any(fits):
        with pytest.raises(UserError, match=f"all {len(lengths)} pairs are longer than max_length {max_length}; raise"):
            _pair_data(lengths, max_length)
        return
    data, pairs = _pair_data(lengths, max_length), _pairs(lengths)
    assert (data.dropped, len(data)) == (fits.count(False), fits.count(True))
    batches = list(data.sequential(size))
    numbers = [number for batch in batches for number in _numbers(batch)]
    assert sorted(numbers) == [number for number, fit in enumerate(fits) if fit]
    for batch in batches:
        assert batch.source.shape[1] == batch.source_lengths.max() <= max_length
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] <= max_length
        assert {array.dtype for array in _arrays(batch)} == {np.dtype(np.int32)}
        for row, number in enumerate(_numbers(batch)):
            source, target = (ids.tolist() for ids in pairs[number])
            rest = batch.inputs.shape[1] - len(target) - 1
            assert batch.source[row].tolist() == source + [PAD] * (batch.source.shape[1] - len(source))
            assert batch.source_lengths[row] == len(source)
            assert batch.inputs[row].tolist() == [BOS, *target] + [PAD] * rest
            assert batch.targets[row].tolist() == [*target, EOS] + [IGNORE] * rest
        assert batch.tokens == sum(lengths[number][1] + 1 for number in _numbers(batch))


def test_epochs_of_pairs_differ_and_their_batches_are_not_in_order_of_length() -> None:
    data = _pair_data([(1 + number % 9, number % 11) for number in range(200)])
    epochs = [[data.batch(20 * epoch + step, 10, KEY) for step in range(20)] for epoch in range(3)]
    orders = [[number for batch in batches for number in _numbers(batch)] for batches in epochs]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert Counter(orders[0]) == Counter(orders[1])
    widths = [batch.source.shape[1] for batch in epochs[0]]
    assert widths != sorted(widths)
    assert orders[0] != [number for step in range(20) for number in _numbers(data.batch(step, 10, Key.of(2)))]


def test_bucketing_leaves_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    data = _pair_data([(int(n), int(n)) for n in lengths], 101)
    batches = [data.batch(step, 20, KEY) for step in range(100)]
    padding = 1 - sum(int(batch.source_lengths.sum()) for batch in batches) / sum(b.source.size for b in batches)
    assert padding < 0.05  # half of it is padding where pairs come as they are


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: PackedWindows([], 4, separator=None),
            "has 0 tokens and a window of context 4 needs 5; give more text",
        ),
        (
            lambda: PackedWindows([[1], [2]], 4, separator=3),
            "has 3 tokens .* lower --context to at most 2 or give more",
        ),
        (lambda: _pair_data([]), "there are no pairs; give"),
        (lambda: _pair_data([(9, 4), (4, 9)], 5), r"max_length 5; raise data.max_length \(the shortest needs 9\)"),
    ],
)
def test_data_that_is_too_short_or_too_long_is_one_line_with_a_remedy(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PackedWindows([[1, 2]], 0, separator=None),
        lambda: PackedWindows([[1.5, 2.0]], 1, separator=None),
        lambda: PackedWindows([[[1, 2]]], 1, separator=None),
        lambda: PackedWindows([[1, 2]], 1, separator=None).batch(-1, 1, KEY),
        lambda: PackedWindows([[1, 2]], 1, separator=None).batch(0, 0, KEY),
        lambda: list(PackedWindows([[1, 2]], 1, separator=None).sequential(0)),
        lambda: list(PackedWindows([[1, 2]], 1, separator=None).sequential(1, 2)),
        lambda: PackedWindows([[1, 2]], 1, separator=None).batch(0, 1, KEY).shards(0),
        lambda: _pair_data([(0, 1)]),
        lambda: _pair_data([(1, 1)]).batch(-1, 1, KEY),
        lambda: list(_pair_data([(1, 1)]).sequential(0)),
    ],
)
def test_mistakes_of_programmers_raise_value_errors(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError):
        make()
