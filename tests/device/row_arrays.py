"""Rows for the kernels over rows, how far results may be from exact ones, and what holds for every operation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, UNIT, close, normal, same_bits, wide

from minilong.backend.kernels import rows

BUILDS: tuple[tuple[Any, tuple[int, ...]], ...] = (
    (FLOAT32, (1, 3, 1028)),
    (FLOAT32, (5, 264)),
    (FLOAT32, (2, 2308)),
    (BFLOAT16, (2, 2309)),
    (BFLOAT16, (2, 3, 33)),
)
"""Types and shapes for a small check of a kernel over rows: a row for a warp, for a block, and (with `narrow_blocks`)
longer than what threads keep; in vectors of 16 bytes and not."""

COLUMNS = st.sampled_from((1, 2, 31, 32, 33, 64, 257, 1000, 1025, 4099)) | st.integers(1, 300)
LEADING = st.sampled_from(((), (0,), (1,), (5,), (2, 3), (2, 0, 3)))
DTYPES = st.sampled_from((FLOAT32, BFLOAT16, FLOAT64))
"""float16 differs from bfloat16 in its conversions only: it is tested by examples, since each build takes a while."""


def narrow_blocks() -> AbstractContextManager[Any]:
    """Blocks of two warps at most: a row of moderate length then exceeds what their threads keep in registers."""
    return patch.object(rows, "MOST_THREADS", 64)


def exactly(x: np.ndarray) -> np.ndarray:
    """The same numbers in float64."""
    return x.astype(np.float64)


def near(xp: Any, device: Any, exact: np.ndarray, dtype: Any, scale: Any, units: float = 16) -> None:
    """No element is farther from the exact one than `units` roundings of a number of size `scale` in the type that
    kernels compute in, and one rounding to the type of the result."""
    bound = units * UNIT[wide(dtype)] * scale
    if dtype in (FLOAT16, BFLOAT16):
        bound = bound + UNIT[dtype] * (np.abs(exact) + bound) + 2.0**-25  # half of float16's least number
    close(xp, device, exact, dtype, bound)


def to_device(xp: Any, *arrays: np.ndarray) -> tuple[Any, ...]:
    """The arrays on the device."""
    return tuple(xp.asarray(x) for x in arrays)


def normals(seed: int, dtype: Any, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """An array of normal numbers for each shape."""
    return tuple(normal(seed + i, shape, dtype) for i, shape in enumerate(shapes))


def same_in_any_order(cupy: Any, run: Callable[[], dict[str, Any]]) -> None:
    """Every result has the same bits in three orders of the threads."""
    first = run()
    for order in ("descending", "random"):
        with cupy.thread_order(order, seed=3):
            for name, value in run().items():
                same_bits(cupy, value, cupy.asnumpy(first[name]))


def alone(cupy: Any, operation: Callable[[], Any]) -> int:
    """The launches of an operation, during which the host neither waits nor copies."""
    with cupy.no_sync(h2d=False), cupy.counting() as counts:
        operation()
    launches: int = counts.launches
    return launches


def all_refuse(cupy: Any, error: type[Exception], *calls: Callable[[], Any]) -> None:
    """Each of the calls raises the error, before any kernel is launched."""
    for call in calls:
        with cupy.counting() as counts, pytest.raises(error):
            call()
        assert counts.names.keys() <= {"astype", "ascontiguousarray", "copy"}, counts.names
