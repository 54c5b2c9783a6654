"""Matrix products on the device against float64: every type and layout, results of float32, sums into them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES, UNIT, normal

from minilong.backend.products import allow_tf32, matmul

View = Callable[[Any, Any], Any]

VIEWS: dict[str, View] = {
    "plain": lambda xp, x: x,
    "transposed": lambda xp, x: xp.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "heads": lambda xp, x: xp.ascontiguousarray(x.swapaxes(-3, -2)).swapaxes(-3, -2) if x.ndim > 2 else x,
    "part": lambda xp, x: xp.concatenate([x, x * 0 + 7], axis=-1)[..., : x.shape[-1]],
    "every other column": lambda xp, x: xp.stack([x, x], axis=-1).reshape(*x.shape[:-1], -1)[..., ::2],
}
"""How the same numbers may lie in memory; the last one no library of products reads without a copy."""

RESULTS = [kind for kind in VIEWS if kind != "heads"]
"""How `out` lies. Heads, whose matrices interleave, are in test_product_plan.py: the stand-in's cuBLAS refuses them."""

SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((2, 3, 40, 33), (2, 3, 33, 24)),
    ((2, 1, 9, 16), (3, 16, 8)),
    ((70, 65), (65, 130)),
    ((3, 1, 64), (64, 31)),
    ((5, 64), (2, 64, 1)),
)
TEN_BITS = 2.0**-10
"""Relative error of a number that is cut to ten bits behind the first, as TF32 is; rounded, half of it."""


def check(xp: Any) -> None:
    """All layouts in one shape, all shapes in one layout, in every type; TF32; long sums."""
    for dtype in TYPES:
        for first, second, third in itertools.product(VIEWS, VIEWS, RESULTS):
            compare(xp, dtype, *SHAPES[0], (first, second, third))
        for shapes in SHAPES:
            compare(xp, dtype, *shapes, ("plain", "transposed", "plain"))
    for shapes in SHAPES:
        with allow_tf32():
            compare(xp, FLOAT32, *shapes, ("plain", "plain", "plain"), TEN_BITS)
    long_sums(xp)


def compare(
    xp: Any, dtype: Any, a: tuple[int, ...], b: tuple[int, ...], layouts: tuple[str, str, str], rounding: float = 0.0
) -> None:
    """A product by itself; written to and added to an `out` of its type, and of float32 where the type has 16 bits."""
    x, y = normal(1, a, dtype), normal(2, b, dtype)
    exact = np.matmul(x.astype(np.float64), y.astype(np.float64))
    size = np.matmul(np.abs(x.astype(np.float64)), np.abs(y.astype(np.float64)))
    summed = UNIT[FLOAT64 if dtype == FLOAT64 else FLOAT32]
    error = size * (x.shape[-1] * summed + 2 * rounding)
    first, second = (VIEWS[kind](xp, xp.asarray(z)) for kind, z in zip(layouts, (x, y), strict=False))
    near(xp, matmul(xp, first, second), exact, error, dtype)
    for wide in {dtype, FLOAT32} if dtype in (FLOAT16, BFLOAT16) else {dtype}:
        before = normal(3, exact.shape, wide)
        for add in (False, True):
            out = VIEWS[layouts[2]](xp, xp.asarray(before))
            assert matmul(xp, first, second, out, add=add) is out
            near(xp, out, exact + add * before.astype(np.float64), error + 4 * summed * np.abs(exact), wide)


def near(xp: Any, got: Any, exact: np.ndarray, error: np.ndarray, dtype: Any) -> None:
    """No element is farther from the exact one than the error of its sum, and the rounding to its type."""
    assert got.dtype == dtype
    assert got.shape == exact.shape
    bound = error + UNIT[dtype] * (np.abs(exact) + error)
    assert np.all(np.abs(xp.asnumpy(got).astype(np.float64) - exact) <= bound)


def long_sums(xp: Any) -> None:
    """Ones, whose sum in bfloat16 would stop at 256 and in float16 at 2048, parts of it that are added at the end
    included: one row and one column, so that a GPU cuts the sum into parts."""
    for dtype, shape in itertools.product((FLOAT16, BFLOAT16), ((1, 20481), (3, 1, 20481))):
        a, b = xp.ones(shape, dtype), xp.ones((*shape[:-2], 20481, 1), dtype)
        assert np.all(xp.asnumpy(matmul(xp, a, b, xp.empty((*shape[:-1], 1), FLOAT32))) == 20481)
        assert np.all(xp.asnumpy(matmul(xp, a, b)) == np.float32(20481).astype(dtype))
