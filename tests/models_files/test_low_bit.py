"""Low-bit layers: the same numbers as of decoded weights, the same memory for any number of them, and derivatives."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.autodiff import vjp
from minilong.backend.workers import grant_threads
from minilong.nn import Embedding, Linear, blocks
from minilong.nn.lowbit import LowBit, LowBitEmbedding, LowBitLinear, planes
from minilong.nn.planes import FEW, PANEL

KINDS = tuple(blocks.FORMATS)


def random_blocks(rng: np.random.Generator, kind: str, out: int, inner: int) -> LowBit:
    """Any bytes, but for the float16 numbers, which are of usual size."""
    form = blocks.FORMATS[kind]
    data = rng.integers(0, 256, (out, inner // form.weights, form.bytes), np.uint8)
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,)}
    for at in places.get(kind, (0, 2)):
        data[..., at : at + 2] = (rng.standard_normal((*data.shape[:2], 1)) / 64).astype("<f2").view(np.uint8)
    return LowBit(data.reshape(out, -1), kind, (out, inner))


@given(
    st.sampled_from(KINDS),
    st.sampled_from((1, 15, PANEL, PANEL + 1, 3 * PANEL)),
    st.sampled_from((1, 2, 9)),
    st.sampled_from((1, FEW, FEW + 1, 40)),
    st.sampled_from((1, 2)),
)
def test_product_is_that_of_decoded_weights(kind: str, out: int, count: int, rows: int, threads: int) -> None:
    rng = np.random.default_rng(out + rows)
    low = random_blocks(rng, kind, out, count * blocks.FORMATS[kind].weights)
    bias = rng.standard_normal(out).astype(np.float32)
    x = rng.standard_normal((1, rows, low.shape[1])).astype(np.float32)
    weight = low.decode()
    with grant_threads(threads):
        y = LowBitLinear(planes(low), bias)(x)
    bound = 2e-6 * (np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64)).max() + 1e-6
    # Where integers are multiplied first, the parts of a sum are as large as the scale and the least value make them.
    bound += 2e-6 * 300 * np.abs(x).sum(-1).max() * np.abs(weight).max() / 16
    assert y.shape == (1, rows, out)
    np.testing.assert_allclose(y, x @ weight.T + bias, rtol=0, atol=bound)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_table_are_those_of_decoded_weights(kind: str) -> None:
    rng = np.random.default_rng(1)
    low = random_blocks(rng, kind, 300, 512)
    layer, plain = LowBitEmbedding(planes(low)), Embedding(low.decode())
    tokens = rng.integers(0, 300, (2, 5))
    np.testing.assert_array_equal(layer(tokens), plain(tokens))
    np.testing.assert_array_equal(layer.table.decode(), plain.table)
    x = rng.standard_normal((2, 1, 512)).astype(np.float32)
    np.testing.assert_allclose(layer.logits(x), plain.logits(x), rtol=0, atol=2e-3)
    assert layer.table.shape == (300, 512)


def test_a_derivative_passes_through() -> None:
    rng = np.random.default_rng(2)
    low = random_blocks(rng, "Q4_1", 48, 64)
    layer = LowBitLinear(planes(low), np.ones(48, np.float32))
    plain = Linear(low.decode().T, np.ones(48, np.float32))
    x, g = (rng.standard_normal((3, n)).astype(np.float32) for n in (64, 48))
    (y, pull), (z, right) = vjp(layer, x), vjp(plain, x)
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(g)[0], right(g)[0], rtol=1e-5, atol=1e-5)


def test_a_product_takes_the_memory_of_a_panel() -> None:
    low = random_blocks(np.random.default_rng(3), "Q8_0", 64 * PANEL, 512)
    layer = LowBitLinear(planes(low), None)
    assert layer.weight.nbytes < 1.2 * low.nbytes
    for rows in (1, 20):
        x = np.ones((rows, 512), np.float32)
        tracemalloc.start()
        try:
            layer(x)
            assert tracemalloc.get_traced_memory()[1] < rows * low.shape[0] * 4 + 8 * 512 * PANEL * 4
        finally:
            tracemalloc.stop()


def test_decoding_takes_no_more_than_the_result() -> None:
    low = random_blocks(np.random.default_rng(4), "Q6_K", 2000, 1024)
    tracemalloc.start()
    try:
        size = low.decode().nbytes
        assert tracemalloc.get_traced_memory()[1] < size + 4 * blocks.PIECE * 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("x", "kind", "why"),
    [
        (np.ones((2, 33)), "Q8_0", "rows of 33 weights are no whole blocks of 32"),
        (np.ones((2, 256)), "Q6_K", "Q6_K is read, not written; choose one of Q8_0, Q4_0, Q4_1"),
        (np.full((2, 32), np.nan), "Q4_1", "not finite"),
        (np.full((2, 32), 1e30), "Q8_0", "too large for a scale"),
    ],
)
def test_what_cannot_be_encoded(x: np.ndarray, kind: str, why: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=why):
        LowBit.encode(x, kind)


@pytest.mark.parametrize(
    ("blocks", "kind", "shape", "why"),
    [
        (np.zeros((2, 34), np.uint8), "Q7", (2, 32), "no low-bit format is called 'Q7'"),
        (np.zeros((2, 34), np.uint8), "Q8_0", (2, 33), "do not make the shape"),
        (np.zeros((2, 34), np.uint8), "Q8_0", (), "do not make the shape"),
        (np.zeros((2, 34), np.uint8), "Q8_0", (3, 32), r"has bytes \(3, 34\), not uint8 \(2, 34\)"),
        (np.zeros((2, 34), np.int8), "Q8_0", (2, 32), "not int8"),
        (np.zeros((0, 34), np.uint8), "Q8_0", (0, 32), "do not make the shape"),
    ],
)
def test_bytes_that_are_not_those_of_the_array(blocks: np.ndarray, kind: str, shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LowBit(blocks, kind, shape)
