"""Data must never be what training waits for: bounds about ten times above what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from minilong.data.batches import PackedWindows, PairData
from minilong.data.corpora import read_text
from minilong.data.tokenizers import ByteTokenizer, CharTokenizer
from minilong.keys import Key


def _best(work: Callable[[], object]) -> float:
    """The shortest of ten times in seconds, which other processes disturb least."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture(scope="module")
def text() -> str:
    return read_text("pride_and_prejudice")


def test_a_novel_is_encoded_within_20_ms(text: str) -> None:
    for tokenizer in (ByteTokenizer(), CharTokenizer.train([text])):
        assert _best(lambda tokenizer=tokenizer: tokenizer.encode(text)) < 0.020  # type: ignore[misc]


def test_a_batch_of_32_rows_is_built_within_1_ms(text: str) -> None:
    ids = ByteTokenizer().encode(text)
    windows = PackedWindows([ids, ids], 128, separator=3)
    pairs = PairData(
        [(ids[n : n + 60], ids[n : n + 50]) for n in range(0, 60_000, 60)], pad=0, bos=1, eos=2, max_length=64
    )
    assert _best(lambda: windows.batch(7, 32, Key.of(1))) < 0.001
    assert _best(lambda: pairs.batch(7, 32, Key.of(1))) < 0.001
