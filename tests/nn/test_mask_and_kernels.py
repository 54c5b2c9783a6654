"""Every kernel equals `naive` under every mask, and every field of the mask does what its definition says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilong.attention import Mask, dense, naive
from minilong.autodiff import vjp
from minilong.autodiff.numeric import rounding_bound

MANY = settings(max_examples=10 * settings().max_examples)
"""Ten times the profile's examples: there are many combinations, and each is small."""


@st.composite
def masks(draw: st.DrawFn, batch: int, queries: int, keys: int) -> Mask:
    """Any combination of the fields, fully masked rows and empty keys included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    window = draw(st.none() | st.integers(1, keys + 2))
    return Mask(
        causal=draw(st.booleans()),
        window=window,
        sinks=draw(st.integers(0, 3)) if window else 0,
        offset=draw(st.integers(0, keys - queries)),
        key_lengths=rng.integers(0, keys + 1, batch) if draw(st.booleans()) else None,
        segments=np.sort(rng.integers(0, 3, (batch, keys)), axis=1) if draw(st.booleans()) else None,
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[np.ndarray], Mask]:
    """q, k, v and a cotangent in float64, and a mask; grouped heads too."""
    batch, groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    queries = draw(st.sampled_from([1, 2, 3, 7, 11]))
    keys = queries + draw(st.sampled_from([0, 0, 1, 4]))
    d, e = draw(st.sampled_from([(1, 1), (3, 5), (4, 4)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [
        (batch, groups * each, queries, d),
        (batch, groups, keys, d),
        (batch, groups, keys, e),
        (batch, groups * each, queries, e),
    ]
    return [rng.standard_normal(shape) for shape in shapes], draw(masks(batch, queries, keys))


def visible_by_loops(mask: Mask, batch: int, queries: int, keys: int) -> np.ndarray:
    """The docstring of `Mask`, one pair at a time."""
    seen = np.zeros((batch, queries, keys), bool)
    for b in range(batch):
        for query in range(queries):
            for j in range(keys):
                i = query + mask.offset
                ok = not mask.causal or j <= i
                if mask.window is not None:
                    ok = ok and (i - mask.window < j or j < mask.sinks)
                if mask.key_lengths is not None:
                    ok = ok and j < mask.key_lengths[b]
                if mask.segments is not None:
                    ok = ok and mask.segments[b, i] == mask.segments[b, j]
                seen[b, query, j] = ok
    return seen


@given(problems())
@MANY
def test_dense_equals_naive_in_values_and_cotangents(problem: tuple[list[np.ndarray], Mask]) -> None:
    (q, k, v, g), mask = problem
    for x in (q, k, v, g):
        x.flags.writeable = False
    found, pull = vjp(lambda *x: dense(*x, mask=mask), q, k, v)
    right, pull_naive = vjp(lambda *x: naive(*x, mask=mask), q, k, v)
    bound = rounding_bound(np.float64, 30.0, k.shape[-2])
    np.testing.assert_allclose(found, right, rtol=0, atol=bound)
    for ours, theirs in zip(pull(g), pull_naive(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


@given(problems())
@MANY
def test_naive_is_the_softmax_over_what_the_mask_allows(problem: tuple[list[np.ndarray], Mask]) -> None:
    (q, k, v, _), mask = problem
    batch, heads, queries, d = q.shape
    seen = visible_by_loops(mask, batch, queries, k.shape[-2])
    right = np.zeros((batch, heads, queries, v.shape[-1]))
    for b, h, i in np.ndindex(batch, heads, queries):
        j = np.flatnonzero(seen[b, i])
        if len(j):
            group = h // (heads // k.shape[1])  # consecutive query heads share a key head
            e = np.exp(k[b, group, j] @ q[b, h, i] / math.sqrt(d))
            right[b, h, i] = e @ v[b, group, j] / e.sum()
    np.testing.assert_allclose(naive(q, k, v, mask=mask), right, rtol=0, atol=rounding_bound(np.float64, 10.0, 8))


@given(problems())
@MANY
def test_a_query_that_sees_nothing_gives_exact_zeros_both_ways(problem: tuple[list[np.ndarray], Mask]) -> None:
    (q, k, v, g), mask = problem
    blind = ~visible_by_loops(mask, q.shape[0], q.shape[2], k.shape[2]).any(-1)
    for kernel in (naive, dense):
        y, pull = vjp(lambda *x, kernel=kernel: kernel(*x, mask=mask), q, k, v)
        rows = np.broadcast_to(blind[:, None], y.shape[:3])
        assert np.all(y[rows] == 0)
        assert np.all(pull(g)[0][rows] == 0)
        # Nor does its cotangent reach any key or value.
        _, pull = vjp(lambda *x, kernel=kernel: kernel(*x, mask=mask), q, k, v)
        only_blind = np.where(rows[..., None], g, 0.0)
        assert all(np.all(c == 0) for c in pull(only_blind))


@pytest.mark.parametrize("kernel", [naive, dense])
def test_a_row_with_key_length_zero_is_zero_in_float32(kernel: Any) -> None:
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, 3, 5, 4)).astype(np.float32) for _ in range(4))
    y, pull = vjp(lambda *x: kernel(*x, mask=Mask(key_lengths=np.array([0, 5]))), q, k, v)
    cotangents = pull(g)
    assert y.dtype == np.float32
    assert all(c.dtype == np.float32 for c in cotangents)
    assert np.all(y[0] == 0)
    assert np.all(y[1] != 0)
    assert all(np.all(c[0] == 0) and np.any(c[1] != 0) for c in cotangents)


@pytest.mark.parametrize("kernel", [naive, dense])
def test_scores_of_thousands_stay_finite(kernel: Any) -> None:
    q = np.full((1, 1, 2, 4), 60.0, np.float32)
    k = np.stack([np.full(4, 60.0), np.full(4, -60.0)])[None, None].astype(np.float32)
    v = np.array([[[[1.0], [5.0]]]], np.float32)
    y, pull = vjp(lambda *x: kernel(*x), q, k, v)
    np.testing.assert_array_equal(y, np.ones((1, 1, 2, 1), np.float32))
    assert all(np.all(np.isfinite(c)) for c in pull(np.ones_like(y)))


FULL = Mask(
    causal=True,
    window=3,
    sinks=1,
    offset=2,
    key_lengths=np.array([7, 9]),
    segments=np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 2, 2]]),
)
FLIPS = {
    "causal": {"causal": False},
    "window": {"window": 2},
    "sinks": {"sinks": 2},
    "offset": {"offset": 1},
    "key_lengths": {"key_lengths": None},
    "segments": {"segments": None},
}


def test_flips_cover_every_field() -> None:
    assert set(FLIPS) == {f.name for f in dataclasses.fields(Mask)}


@pytest.mark.parametrize("kernel", [naive, dense])
@pytest.mark.parametrize("name", FLIPS)
def test_each_field_changes_the_result(name: str, kernel: Any) -> None:
    """A kernel that ignored a field would pass by luck where the field changes nothing: here each one does."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, 2, n, 4)) for n in (7, 9, 9))
    flipped = dataclasses.replace(FULL, **FLIPS[name])
    assert np.abs(kernel(q, k, v, mask=FULL) - kernel(q, k, v, mask=flipped)).max() > 1e-3


def test_mask_by_hand() -> None:
    seen = Mask(causal=True, window=2, sinks=1, offset=1).dense(np, 3, 5)
    assert seen is not None
    np.testing.assert_array_equal(seen.astype(int), [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
    assert Mask().dense(np, 3, 5) is None


def test_masks_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="window >= 1"):
        Mask(window=0)
    with pytest.raises(ValueError, match="sinks without a window"):
        Mask(sinks=1)


def test_a_window_as_long_as_the_text_is_causal_attention() -> None:
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal((1, 2, 7, 3)) for _ in range(3))
    wide = dense(q, k, v, mask=Mask(causal=True, window=7))
    np.testing.assert_array_equal(wide, dense(q, k, v, mask=Mask(causal=True)))
    assert np.any(wide != dense(q, k, v, mask=Mask(causal=True, window=6)))


def test_decoding_at_an_offset_equals_rows_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((2, 2, 11, 4)) for _ in range(3))
    segments = np.sort(rng.integers(0, 3, (2, 11)), axis=1)
    whole = naive(q, k, v, mask=Mask(causal=True, window=5, sinks=2, segments=segments))
    for start, stop in ((0, 4), (4, 5), (5, 11)):
        part = Mask(causal=True, window=5, sinks=2, segments=segments, offset=start)
        np.testing.assert_allclose(
            naive(q[:, :, start:stop], k, v, mask=part),
            whole[:, :, start:stop],
            rtol=0,
            atol=rounding_bound(np.float64, 4.0, 11),
        )


@pytest.mark.parametrize("kernel", [naive, dense])
def test_bias_and_scale(kernel: Any) -> None:
    """A bias is added to the scores after scaling, before the mask; its cotangent reaches it."""
    rng = np.random.default_rng(4)
    q, k, v, g = (rng.standard_normal((2, 2, 5, 3)) for _ in range(4))
    bias = rng.standard_normal((2, 5, 5))
    y, pull = vjp(lambda b: kernel(q, k, v, mask=Mask(causal=True), scale=0.3, bias=b), bias)
    s = q @ k.swapaxes(-1, -2) * 0.3 + bias
    p = np.exp(s) * np.tri(5)
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(y, p @ v, rtol=0, atol=rounding_bound(np.float64, 10.0, 5))
    gp = g @ v.swapaxes(-1, -2)
    gs = p * (gp - (p * gp).sum(-1, keepdims=True))
    np.testing.assert_allclose(pull(g)[0], gs.sum(0), rtol=0, atol=rounding_bound(np.float64, 30.0, 10))


@pytest.mark.parametrize("kernel", [naive, dense])
def test_grouped_heads_are_repeated_keys(kernel: Any) -> None:
    rng = np.random.default_rng(5)
    q = rng.standard_normal((2, 6, 5, 3))
    k, v = rng.standard_normal((2, 2, 2, 7, 3))
    grouped = kernel(q, k, v)
    np.testing.assert_array_equal(grouped, kernel(q, k.repeat(3, axis=1), v.repeat(3, axis=1)))
    assert np.any(grouped != kernel(q, np.tile(k, (1, 3, 1, 1)), np.tile(v, (1, 3, 1, 1))))
    with pytest.raises(ValueError, match="6 query heads are no multiple of 4"):
        kernel(q, np.zeros((2, 4, 7, 3)), np.zeros((2, 4, 7, 3)))
