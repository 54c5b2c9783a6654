"""Tiles and pictures at sizes with many blocks; their memory; refusals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from minilong.attention import Blockwise, Mask, attention_picture, attention_row, attention_tile, naive

MASK = Mask(causal=True, window=400, sinks=3)


def arrays(n: int, heads: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.standard_normal((1, heads, n, 8)), rng.standard_normal((1, 1, n, 8))


@pytest.mark.parametrize("size", [1, 7, (3, 700), (700, 2)])
@pytest.mark.parametrize("by", ["mean", "max"])
def test_a_picture_reduces_the_whole_map(size: int | tuple[int, int], by: str) -> None:
    q, k = arrays(1201)
    whole = naive(q, k, np.eye(1201)[None, None], mask=MASK)
    lse = Blockwise().with_lse(q, k, k, mask=MASK)[1]
    picture = attention_picture(q, k, lse, size, by=by, mask=MASK)
    rows, columns = (size, size) if isinstance(size, int) else size
    assert picture.shape == (1, 2, rows, columns)
    for a, b in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3), (rows // 2, columns // 2)}:
        cell = whole[..., a * 1201 // rows : (a + 1) * 1201 // rows, b * 1201 // columns : (b + 1) * 1201 // columns]
        np.testing.assert_allclose(picture[..., a, b], getattr(cell, by)((-2, -1)), rtol=1e-10, atol=1e-14)
    if by == "mean":  # no weight is lost: they sum to the number of queries
        areas = np.outer(np.diff([i * 1201 // rows for i in range(rows + 1)]),
                         np.diff([i * 1201 // columns for i in range(columns + 1)]))  # fmt: skip
        np.testing.assert_allclose((picture * areas).sum((-2, -1)), 1201, rtol=1e-10)
    np.testing.assert_allclose(attention_row(q, k, lse, 900, mask=MASK), whole[..., 900, :], rtol=0, atol=1e-13)


def test_a_picture_takes_little_memory() -> None:
    q, k = arrays(8192, heads=1)
    mask = Mask(causal=True, window=64)
    lse = Blockwise().with_lse(q, k, k, mask=mask)[1]
    tracemalloc.start()
    picture = attention_picture(q, k, lse, 64, mask=mask)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 6 * 2**20  # the map would take 512 MiB
    assert np.all(picture[0, 0].diagonal() > 0)


def test_what_is_outside_is_refused() -> None:
    q, k = arrays(10)
    lse = Blockwise().with_lse(q, k, k)[1]
    with pytest.raises(ValueError, match="rows 3 to 11 do not lie within 0 to 10"):
        attention_tile(q, k, lse, (3, 11), (0, 2))
    with pytest.raises(ValueError, match="one for each query"):
        attention_tile(q, k, lse[..., :9], (0, 1), (0, 1))
    with pytest.raises(ValueError, match='it is "mean" or "max"'):
        attention_picture(q, k, lse, 3, by="sum")
    with pytest.raises(ValueError, match="shows nothing"):
        attention_picture(q, k, lse, 0)
