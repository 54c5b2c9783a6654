"""A cache in few bits, in whole models: by parts and whole, beside a full cache and a window, and its bytes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from minilong.attention import Mask, naive
from minilong.attention.parts import attention_by_parts
from minilong.autodiff.numeric import rounding_bound
from minilong.keys import Key
from minilong.memory import Full, Memory, Quantised, Window, encode
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn.past import Past

ATOL = rounding_bound(np.float32, 40.0, 100)
TOKENS = np.random.default_rng(5).integers(0, 40, (2, 90))


def model(**changes: Any) -> Any:
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 16, **changes}
    return build(ModelConfig(**sizes), 40, Key.of(3))


def streamed(model: Any, memory: Memory, cuts: list[int]) -> np.ndarray:
    stream, parts, done = model.start(memory), [], 0
    for t in cuts:
        parts.append(model.extend(TOKENS[:, done : done + t], stream))
        done += t
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("position", ["rotary", "alibi", "t5", "none", "xl"])
@pytest.mark.parametrize("window", [None, Window(12, 2), Window(20)], ids=str)
def test_many_bits_are_the_exact_cache_beyond_the_context_too(position: str, window: Window | None) -> None:
    if position == "xl" and window is not None and window.sinks:
        window = Window(12)  # xl positions count slots, and so know no distance to sinks
    m = model(position=position)
    exact = streamed(m, window or Full(), [90])
    for decoded in (1, 2048):
        y = streamed(m, Quantised(16, 4, 8, window, decoded), [5, 40, 1, 44])
        np.testing.assert_allclose(y, exact, rtol=0, atol=2e-4)
    few = streamed(m, Quantised(2, 4, 8, window), [90])
    near = 8 if window is None else 8 + window.sinks
    np.testing.assert_allclose(few[:, :near], exact[:, :near], rtol=0, atol=2 * ATOL)
    assert np.abs(few - exact).max() > 1e-3


def test_dynamic_scaling_reads_the_cache_whole() -> None:
    m = model(rope_scaling="dynamic", rope_factor=2.0)
    np.testing.assert_allclose(streamed(m, Quantised(16, 4, 8), [30, 60]), streamed(m, Full(), [90]), rtol=0, atol=2e-4)


def test_documents_that_are_kept_apart() -> None:
    m, segments = model(), np.repeat([[0, 1, 2]], 30, axis=-1).reshape(1, 90)[[0, 0]]
    quantised = m.extend(TOKENS, m.start(Quantised(16, 4, 8)), segments=segments)
    np.testing.assert_allclose(quantised, m.hidden(TOKENS, segments=segments), rtol=0, atol=2e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_and_copies(bits: int) -> None:
    m, memory = model(), Quantised(bits, 4, 8)
    stream = m.start(memory)
    m.extend(TOKENS, stream)
    assert stream.bytes == 2 * memory.predicted_bytes(88, 2, 2 * 2 * 2 * 8 * 4, head=8)
    copies = [past.state.copy() for past in stream.pasts]
    expected = m.extend(TOKENS[:, :20], stream)
    for past, state in zip(stream.pasts, copies, strict=True):
        past.state = state.select(np.array([1, 1, 0]))
    stream.seen = 90
    np.testing.assert_allclose(m.extend(TOKENS[[1, 1, 0], :20], stream), expected[[1, 1, 0]], rtol=0, atol=ATOL)


def test_parts_take_the_memory_of_a_part() -> None:
    """8,192 rows of 2 heads of 64: whole, keys and values take 8 MB; in parts of 512 rows, decoded, 0.5 MB."""
    memory = Quantised(2, 32, 128, decoded=512)
    past, row = Past(memory), np.random.default_rng(0).standard_normal((1, 2, 128, 64)).astype(np.float32)
    for _ in range(64):
        past.write(row, row)
    assert past.bytes < 0.2 * 8192 * 2 * 64 * 2 * 4
    tracemalloc.start()
    try:
        total = sum(float(k[0, 0, 0, 0]) for k, _ in past.parts())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.isfinite(total)
    assert peak < 1_500_000


def test_a_bias_of_the_first_part_only() -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, 2, n, 3)) for n in (4, 9, 9))
    bias = np.zeros((1, 2, 4, 9))
    bias[..., :3] = rng.standard_normal((1, 2, 4, 3))
    mask = Mask(causal=True, offset=5)
    parts = [(k[..., i:j, :], v[..., i:j, :]) for i, j in ((0, 3), (3, 5), (5, 9))]
    y = attention_by_parts(q, parts, mask=mask, bias=bias[..., :3])
    np.testing.assert_allclose(y, naive(q, k, v, mask=mask, bias=bias), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_numbers(dtype: Any) -> None:
    big = float(np.finfo(dtype).max) / 4
    x = np.array([[-big, big, 0.0], [0.0, 0.0, 0.0], [1e-30, 1e-30, 1e-30]], dtype)
    y = encode(x, 8).decode()
    assert y.dtype == dtype
    assert np.isfinite(y).all()
    assert np.array_equal(y[1:], x[1:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Quantised(3), "3 bits are none of 2, 4, 8, 16"),
        (lambda: Quantised(2, 32, 100), "groups of 32 rows do not fill blocks of 100"),
        (lambda: encode(np.ones(3), 5), "5 bits are none of"),
        (lambda: Quantised(2).write(Quantised(2).init(), (np.ones((1, 1, 2, 2)),)), "two arrays, not 1"),
        (lambda: Quantised(2, 1, 2).write(Quantised(2).init(), (np.ones((1, 1, 3, 2)),) * 2), "cross the block's end"),
        (lambda: Quantised(2).read(Quantised(2).init()), "nothing was written yet"),
        (lambda: attention_by_parts(np.ones((1, 1, 1, 2)), []), "there is no part"),
        (lambda: attention_by_parts(np.ones((1, 1, 1, 2)), [], mask=Mask(key_lengths=np.ones(1))), "padding"),
    ],
)
def test_what_cannot_work(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
