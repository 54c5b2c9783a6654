"""The product behind linear layers: x W + b for few rows and many, odd widths, one thread and several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.autodiff import affine, linear
from minilong.autodiff.linear import product
from minilong.autodiff.numeric import rounding_bound
from minilong.backend import workers
from minilong.backend.workers import grant_threads

ROWS = (0, 1, 2, 3, 16, 17, 24, 25, 100)
WIDTHS = (1, 127, 128, 129, 300)


def drawn(rows: int, k: int, n: int, dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(rows + n)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((rows, k), (k, n), (n,))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_rows_and_columns(threads: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH", 0.0)  # every product is shared
    for rows in ROWS:
        for n in WIDTHS:
            for k in (1, 65):
                x, w, b = drawn(rows, k, n, dtype)
                wide = x.astype(np.float64) @ w.astype(np.float64)
                with grant_threads(threads):
                    plain, biased = product(np, x, w), product(np, x, w, b)
                    assert np.array_equal(linear(x, w), plain)
                    assert np.array_equal(affine(x, w, b), biased)
                bound = rounding_bound(dtype, 1 + float((np.abs(x) @ np.abs(w)).max(initial=0.0)), k)
                for y, right in ((plain, wide), (biased, wide + b)):
                    assert y.dtype == dtype
                    assert y.shape == (rows, n)
                    assert np.abs(y - right).max(initial=0.0) <= bound


def test_leading_axes_and_views_are_taken_as_they_are() -> None:
    x, w, b = drawn(24, 65, 129, np.float64)
    right = x @ w + b
    np.testing.assert_allclose(affine(x.reshape(2, 3, 4, 65), w, b).reshape(24, 129), right, rtol=0, atol=1e-12)
    np.testing.assert_allclose(product(np, np.asfortranarray(x), w, b), right, rtol=0, atol=1e-12)
    np.testing.assert_allclose(product(np, x, np.asfortranarray(w), b), right, rtol=0, atol=1e-12)
    np.testing.assert_allclose(product(np, np.repeat(x, 2, axis=0)[::2], w, b), right, rtol=0, atol=1e-12)
