"""Dropout on the device against NumPy's generator, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_arrays import TYPES, normal, same_bits

from minilong.backend.kernels.dropout import dropout, kept
from minilong.keys import Key

MUTANTS = [
    ("philox((u64)block + 1,", "philox((u64)block,"),
    (">= threshold", "> threshold"),
    ("32 * (lane & 1)", "32 * (1 - (lane & 1))"),
    ("lane >> 1]", "lane & 3]"),
    ("round < 10", "round < 9"),
    ("c.x[1] ^ key0", "c.x[1] ^ key1"),
    ("{block, 0, 0, 0}", "{0, block, 0, 0}"),
    ("key0 += 0x9E3779B97F4A7C15ull", "key0 += 0x9E3779B97F4A7C14ull"),
    ("key1 += 0xBB67AE8584CAA73Bull", "key1 += 0xBB67AE8584CAA73Aull"),
    ("out.x[i] = store<scalar_t>(x ? load(in.x[i]) * kept : kept)", "out.x[i] = kept ? in.x[i] : scalar_t()"),
    ("bool whole = aligned(x) && aligned(y);", "bool whole = true;"),
    ("if (start + i < n) {", "if (start + i + 1 < n) {"),
]


def numpy_mask(shape: tuple[int, ...], key: Key, rate: float, dtype: Any) -> np.ndarray:
    """What `Dropout` in nn/layers.py multiplies by."""
    uniform = key.generator().random(shape, dtype=np.float32)
    return (uniform >= rate).astype(dtype) * np.asarray(1 / (1 - rate), dtype)


def check(xp: Any) -> None:
    """Masks and products, all types, odd sizes and addresses, and a number that equals the rate."""
    for dtype in TYPES:
        for n in (0, 1, 7, 8, 9, 4099):
            key = Key.of(n).fold(str(dtype))
            tie = float(key.generator().random(n, dtype=np.float32)[-1]) if n else 0.5
            x = normal(n, n, dtype)
            for rate in (0.1, tie):
                mask = numpy_mask((n,), key, rate, dtype)
                same_bits(xp, kept(xp, (n,), key.words, rate, dtype), mask)
                same_bits(xp, dropout(xp, xp.asarray(x), key.words, rate), x * mask)
        key, x = Key.of(3), normal(3, 101, dtype)
        mask = numpy_mask((100,), key, 0.25, dtype)
        same_bits(xp, dropout(xp, xp.asarray(x)[1:], key.words, 0.25), x[1:] * mask)  # where no vector begins
