"""Biases by distance, Transformer-XL's term, layouts, and tables of positions that begin anywhere."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from minilong.attention import DistanceBias, Mask, naive
from minilong.autodiff import vjp
from minilong.autodiff.numeric import directional, rounding_bound
from minilong.positions import (
    alibi,
    alibi_bias,
    cas,
    cas_at,
    half_to_interleaved,
    interleaved_to_half,
    relative_term,
    sinusoidal,
    sinusoidal_at,
    t5_bucket,
    t5_values,
    to_half,
    to_interleaved,
)  # fmt: skip

RNG = np.random.default_rng(0)


# T5


def test_the_published_buckets() -> None:
    """Causal, 32 ranges: 0 to 15 one each; then e.g. 16 to 18 in the sixteenth, and all from 113 on in the last."""
    found = t5_bucket(np.array([-5, 0, 1, 15, 16, 18, 19, 31, 64, 112, 113, 127, 128, 10_000]), causal=True)
    assert found.tolist() == [0, 0, 1, 15, 16, 16, 17, 21, 26, 30, 31, 31, 31, 31]
    both = t5_bucket(np.array([-128, -8, -1, 0, 1, 7, 8, 11, 12, 16, 32, 64, 128]), causal=False)
    assert both.tolist() == [31, 24, 17, 0, 1, 7, 8, 8, 9, 10, 12, 14, 15]


def logarithms(distance: np.ndarray, causal: bool, buckets: int, longest: int) -> np.ndarray:
    """The authors' way: logarithms in single precision, rounded down."""
    b = buckets if causal else buckets // 2
    n = np.maximum(distance, 0) if causal else np.abs(distance)
    e = b // 2
    share = np.log(np.maximum(n, 1).astype(np.float32) / np.float32(e)) / np.float32(math.log(longest / e))
    large = np.minimum(e + (share * np.float32(b - e)).astype(int), b - 1)
    return np.where(n < e, n, large) + (0 if causal else np.where(distance < 0, b, 0))


@pytest.mark.parametrize("buckets, longest", [(32, 128), (8, 20), (64, 256), (32, 64)])
@pytest.mark.parametrize("causal", [True, False])
def test_whole_numbers_put_every_distance_where_single_precision_does(causal: bool, buckets: int, longest: int) -> None:
    distance = np.arange(-4 * longest, 4 * longest)
    found = t5_bucket(distance, causal=causal, buckets=buckets, longest=longest)
    np.testing.assert_array_equal(found, logarithms(distance, causal, buckets, longest))


def test_t5_refuses_ranges_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="even number"):
        t5_bucket(np.arange(3), causal=False, buckets=7)
    with pytest.raises(ValueError, match="half of them"):
        t5_bucket(np.arange(3), causal=True, buckets=32, longest=16)
    with pytest.raises(ValueError, match="at least 2 ranges"):
        t5_bucket(np.arange(3), causal=True, buckets=1)


@pytest.mark.parametrize("causal", [True, False])
def test_the_table_learns_through_attention(causal: bool) -> None:
    table, (q, k, v) = RNG.normal(size=(8, 2)), RNG.normal(size=(3, 1, 2, 7, 3))
    mask = Mask(causal=causal)

    def attend(table: Any) -> Any:
        return naive(q, k, v, mask=mask, bias=t5_values(table, causal=causal, longest=5).dense(7, 7))

    g, direction = RNG.normal(size=(1, 2, 7, 3)), RNG.normal(size=(8, 2))
    slope = directional(attend, [table], [direction], g)
    assert abs(float(np.sum(vjp(attend, table)[1](g)[0] * direction)) - slope.value) <= slope.bound


def test_the_table_gets_the_sum_of_each_range() -> None:
    table, g = np.zeros((8, 2), np.float32), RNG.normal(size=(2, 4, 30)).astype(np.float32)
    _, pull = vjp(lambda a: t5_values(a, causal=False, longest=10).dense(4, 30, 13), table)
    found = pull(g)[0]
    assert found.dtype == np.float32
    bucket = t5_bucket(np.arange(4)[:, None] + 13 - np.arange(30), causal=False, buckets=8, longest=10)
    right = np.stack([g[:, bucket == n].sum(axis=-1) for n in range(8)])
    np.testing.assert_allclose(found, right, atol=rounding_bound(np.float32, 4.0, 120))


def test_values_hold_distances_up_to_the_longest_only() -> None:
    table = RNG.normal(size=(32, 4))
    assert t5_values(table, causal=True).values.shape == (4, 129)
    assert t5_values(table, causal=False).values.shape == (4, 257)
    assert t5_values(table, causal=False).least == -128


# ALiBi


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_alibi_by_distance_is_alibi(heads: int) -> None:
    for t, s, offset in ((5, 5, 0), (3, 9, 6), (1, 4, 3), (4, 2, 0)):
        longest = max(offset + t, s)
        dense = alibi(heads, t, s, offset=offset)
        found = alibi_bias(heads, longest, causal=False)
        assert found.values.dtype == np.float32
        np.testing.assert_array_equal(found.dense(t, s, offset), dense)
        behind = np.arange(s) <= np.arange(t)[:, None] + offset
        causal = alibi_bias(heads, longest).dense(t, s, offset)
        np.testing.assert_array_equal(causal, np.where(behind, dense, 0.0))
    assert not np.signbit(alibi_bias(2, 0).values).any()
    with pytest.raises(ValueError, match="at least 0"):
        alibi_bias(2, -1)


def test_a_bias_by_distance_takes_the_memory_of_one_row() -> None:
    n = 20_000
    tracemalloc.start()
    bias = alibi_bias(8, n)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert isinstance(bias, DistanceBias)
    assert held <= 1.1 * 4 * 8 * (n + 1)  # dense it would be 12.8 GB


# Transformer-XL


def test_the_term_is_differentiable_with_memory() -> None:
    q, r = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(3, 11, 5))
    for keys, offset, least in ((7, 3, 0), (4, 0, 0), (7, 3, -3), (5, 6, 0)):

        def term(q: Any, r: Any, keys: int = keys, offset: int = offset, least: int = least) -> Any:
            return relative_term(q, r, keys=keys, offset=offset, least=least)

        g, vs = RNG.normal(size=(2, 3, 4, keys)), [RNG.normal(size=x.shape) for x in (q, r)]
        _, pull = vjp(term, q, r)
        slope = directional(term, [q, r], vs, g)
        assert abs(sum(float(np.sum(a * b)) for a, b in zip(pull(g), vs, strict=True)) - slope.value) <= slope.bound


def test_the_term_stays_single_takes_a_scale_and_says_what_is_missing() -> None:
    q, r = RNG.normal(size=(2, 4, 5)).astype(np.float32), RNG.normal(size=(2, 6, 5)).astype(np.float32)
    found = relative_term(q, r, keys=6, offset=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(relative_term(q, r, keys=6, offset=2, scale=1.0), found * math.sqrt(5), rtol=1e-5)
    with pytest.raises(ValueError, match="distances 0 to 5 are given, and 0 to 6 needed"):
        relative_term(q, r, keys=7, offset=3)
    with pytest.raises(ValueError, match="are given"):
        relative_term(q, r, keys=6, offset=2, least=1)


def test_segments_with_all_memory_are_one_pass() -> None:
    """Attention with both of Transformer-XL's terms, read at once and in segments that keep all earlier keys."""
    heads, t, d = 2, 11, 4
    q, k, v = RNG.normal(size=(3, 1, heads, t, d))
    u, w, project = RNG.normal(size=(heads, 1, d)), RNG.normal(size=(heads, 1, d)), RNG.normal(size=(heads, d, d))

    def read(begin: int, end: int) -> Any:
        r = sinusoidal_at(np.arange(end), d, dtype="float64") @ project
        here, mask = q[..., begin:end, :], Mask(causal=True, offset=begin)
        bias = relative_term(here + w, r, keys=end, offset=begin)
        return naive(here + u, k[..., :end, :], v[..., :end, :], mask=mask, bias=bias)

    whole, table = read(0, t), sinusoidal(t, d, dtype="float64")
    for cuts in ([11], [1, 11], [4, 5, 11], [3, 6, 9, 11], [*range(1, 12)]):
        parts = [read(a, b) for a, b in zip([0, *cuts], cuts, strict=False)]
        np.testing.assert_allclose(np.concatenate(parts, axis=-2), whole, atol=1e-13)
    for i in range(t):
        direct = [
            (q[0, :, i] + u[:, 0]) * k[0, :, j] + (q[0, :, i] + w[:, 0]) * (table[i - j] @ project)
            for j in range(i + 1)
        ]
        scores = np.stack(direct, axis=1).sum(axis=-1) / math.sqrt(d)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(whole[0, :, i], np.einsum("hj,hjd->hd", weights, v[0, :, : i + 1]), atol=1e-13)


# Layouts of rotary pairs


def test_the_permutation_and_its_inverse() -> None:
    assert interleaved_to_half(6).tolist() == [0, 2, 4, 1, 3, 5]
    assert half_to_interleaved(6).tolist() == [0, 3, 1, 4, 2, 5]
    for d in (2, 4, 10, 64):
        np.testing.assert_array_equal(interleaved_to_half(d)[half_to_interleaved(d)], np.arange(d))
    with pytest.raises(ValueError, match="even"):
        interleaved_to_half(5)


def test_weights_and_biases_are_converted_head_by_head_in_a_copy() -> None:
    bias = np.arange(12, dtype=np.float32)
    assert to_half(bias, 2).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    weight = RNG.normal(size=(3, 12)).astype(np.float32)
    there = to_half(weight, 3)
    assert there.dtype == np.float32
    assert not np.shares_memory(there, weight)
    np.testing.assert_array_equal(to_interleaved(there, 3), weight)
    np.testing.assert_array_equal(to_half(to_interleaved(weight, 3), 3), weight)
    with pytest.raises(ValueError, match="5 heads do not divide 12 columns"):
        to_half(weight, 5)


# Tables that begin anywhere


@pytest.mark.parametrize("table, at", [(sinusoidal, sinusoidal_at), (cas, cas_at)])
@pytest.mark.parametrize("width", [1, 5, 8])
def test_a_table_goes_on_at_any_position(table: Any, at: Any, width: int) -> None:
    whole = table(50, width)
    np.testing.assert_array_equal(at(np.arange(50), width), whole)
    np.testing.assert_array_equal(at(np.arange(17, 50), width), whole[17:])
    ragged = np.array([[3, 4, 5], [40, 41, 42]])
    np.testing.assert_array_equal(at(ragged, width), whole[ragged])
    assert at(7, width, dtype="float64").shape == (width,)
    halfway = at(np.array([7.5]), width, dtype="float64")
    assert np.any(halfway != at(np.array([7]), width, dtype="float64"))
    with pytest.raises(ValueError, match="must be at least"):
        at(np.arange(3), 0)
