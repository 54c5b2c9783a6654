"""Heads and rows of a batch that share a block: which may, that it changes nothing, and how outputs lie in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilong.attention import Blockwise, DistanceBias, Mask, dense, naive
from minilong.attention.layout import Layout, token_major
from minilong.attention.reach import Reach
from minilong.autodiff import vjp

T = 37
SEGMENTS = np.sort(np.random.default_rng(5).integers(0, 4, (3, T)), axis=1)
MASKS = {
    "all": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=9, sinks=2),
    "one length for all": Mask(key_lengths=np.array([30])),
    "one text for all": Mask(causal=True, segments=SEGMENTS[:1]),
}
BY_ROW = {
    "lengths": Mask(key_lengths=np.array([T, 5, 0])),
    "packed": Mask(causal=True, segments=SEGMENTS),
    "packed window": Mask(causal=True, window=7, segments=SEGMENTS),
}


def arrays(heads: int, groups: int, dtype: Any = np.float64) -> list[Any]:
    """Queries, keys, values and a cotangent for three rows, with scores that need no shift."""
    rng = np.random.default_rng(heads)
    return [rng.standard_normal((3, h, T, 6)).astype(dtype) for h in (heads, groups, groups, heads)]


def everything(kernel: Callable[..., Any], xs: list[Any], mask: Mask, values: Any = None) -> list[Any]:
    """Output and cotangents of queries, keys and values."""
    bias = None if values is None else DistanceBias(values, -2)
    y, pull = vjp(lambda q, k, v: kernel(q, k, v, mask=mask, bias=bias), *xs[:3])
    return [y, *pull(xs[3])]


HEADS = [(1, 1), (4, 4), (4, 1), (6, 2), (5, 5)]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("name", MASKS | BY_ROW)
@pytest.mark.parametrize("biased", [False, True])
def test_any_number_of_rows_and_heads_in_a_block(heads: int, groups: int, name: str, biased: bool) -> None:
    xs, mask = arrays(heads, groups), (MASKS | BY_ROW)[name]
    values = np.random.default_rng(1).standard_normal((heads, 11)) if biased else None
    right = everything(naive, xs, mask, values)
    for rows, columns in ((8, 8), (T, T), (64, 100), (64, 400), (1000, 1000)):
        for found, expected in zip(everything(Blockwise(1, rows, columns), xs, mask, values), right, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def sizes(outer: tuple[int, ...], scores: int, area: int, *, by_row: bool) -> list[tuple[int, ...]]:
    """What the groups of a layout with these axes cut out."""
    zero = np.float32(0)
    layout = Layout(*(np.broadcast_to(zero, (*outer, 1, 1)) for _ in range(3)), None, outer)
    groups = layout.groups(scores, area, by_row=by_row)
    seen = np.zeros(outer, int)
    for at in groups:
        seen[at] += 1
    assert np.all(seen == 1)  # each head of each row is in one group
    return [tuple(part.stop - part.start for part in at) for at in groups]


def test_groups_hold_as_many_heads_as_fill_a_block_and_rows_only_if_they_see_the_same() -> None:
    assert sizes((2, 3), 10, 10, by_row=False) == [(1, 1)] * 6
    assert sizes((2, 3), 10, 20, by_row=False) == [(1, 2), (1, 1)] * 2
    assert sizes((3, 3), 10, 60, by_row=False) == [(2, 3), (1, 3)]
    assert sizes((3, 3), 10, 60, by_row=True) == [(1, 3)] * 3
    assert sizes((3, 3), 10, 9, by_row=False) == [(1, 1)] * 9
    assert sizes((5,), 10, 30, by_row=True) == [(3,), (2,)]
    assert sizes((2, 3, 2), 1, 100, by_row=False) == [(2, 3, 2)]
    assert sizes((2, 3, 2), 1, 5, by_row=False) == [(1, 2, 2), (1, 1, 2)] * 2
    assert sizes((2, 3, 1), 1, 100, by_row=True) == [(1, 3, 1)] * 2  # query heads that share key heads
    assert sizes((0, 3), 10, 60, by_row=False) == []


def test_rows_see_keys_of_their_own_only_where_a_mask_has_several() -> None:
    def by_row(mask: Mask) -> bool:
        return Reach(np, mask, T, T, None, None).by_row

    assert [by_row(mask) for mask in MASKS.values()] == [False] * len(MASKS)
    assert [by_row(mask) for mask in BY_ROW.values()] == [True] * len(BY_ROW)


@pytest.mark.parametrize("name", BY_ROW)
def test_grouping_rows_with_masks_of_their_own_would_be_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reach, "by_row", property(lambda self: False))
    with pytest.raises(AssertionError):
        test_any_number_of_rows_and_heads_in_a_block(4, 4, name, biased=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MASKS)
def test_what_shares_a_block_changes_no_bit_of_an_output(name: str, dtype: Any) -> None:
    """Where scores need no shift, as here: each matrix of a stack is multiplied by itself."""
    q, k, v, _ = arrays(4, 4, dtype)
    kernel = Blockwise(1, 64, 400)
    together = kernel(q, k, v, mask=MASKS[name])
    for b in range(3):
        alone = kernel(q[b : b + 1], k[b : b + 1], v[b : b + 1], mask=MASKS[name])
        np.testing.assert_array_equal(alone, together[b : b + 1])


@pytest.mark.parametrize("area", [1, 4 * T * T, 8 * T * T, 8 * T * T + 1, 10**9])
def test_dense_takes_any_number_of_rows_at_a_time(area: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xs, bias = arrays(4, 2), np.random.default_rng(2).standard_normal((4, T, T))
    monkeypatch.setattr(sys.modules["minilong.attention.dense"], "AREA", area)
    for mask in (MASKS | BY_ROW).values():
        for found, right in zip(everything(dense, xs, mask), everything(naive, xs, mask), strict=True):
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)
        found, right = (with_bias(kernel, xs, mask, bias) for kernel in (dense, naive))
        for x, y in zip(found, right, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


def with_bias(kernel: Callable[..., Any], xs: list[Any], mask: Mask, bias: Any) -> list[Any]:
    """Output and cotangents, with a table of numbers added to all rows' scores, which has a cotangent too."""
    y, pull = vjp(lambda q, k, v, b: kernel(q, k, v, mask=mask, bias=b), *xs[:3], bias)
    return [y, *pull(xs[3])]


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0, 1000.0])
def test_dense_leaves_the_maximum_out_only_where_it_may(size: float) -> None:
    for dtype, atol in ((np.float64, 1e-9), (np.float32, 2e-4)):
        q, k, v, g = arrays(4, 2, dtype)
        q = q * dtype(size)
        right = everything(naive, [x.astype(np.float64) for x in (q, k, v, g)], Mask(causal=True))
        for found, expected in zip(everything(dense, [q, k, v, g], Mask(causal=True)), right, strict=True):
            assert np.abs(found - expected).max() <= atol * max(1.0, np.abs(expected).max())


# Memory


def test_token_major_memory() -> None:
    x = token_major(np, (2, 3), 5, 4, np.float32)
    assert (x.shape, x.dtype) == ((2, 3, 5, 4), np.float32)
    assert x.transpose(0, 2, 1, 3).flags.c_contiguous
    assert token_major(np, (2, 3, 4), 5, 6, np.float64).transpose(0, 3, 1, 2, 4).flags.c_contiguous
    assert token_major(np, (), 5, 6, np.float64).flags.c_contiguous


@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("kernel", [dense, Blockwise(1, 16, 20)], ids=["dense", "blockwise"])
def test_joining_the_heads_of_outputs_and_cotangents_copies_nothing(heads: int, groups: int, kernel: Any) -> None:
    for x in everything(kernel, arrays(heads, groups), Mask(causal=True)):
        joined = x.transpose(0, 2, 1, 3).reshape(3, T, -1)
        assert np.shares_memory(joined, x)
