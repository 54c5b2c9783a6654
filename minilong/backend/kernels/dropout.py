"""Dropout on the device, with the numbers that NumPy's Philox generator would draw on the host, bit for bit.

The generator is counter-based (Salmon et al. 2011), so each thread makes the numbers of its own elements, and a mask
needs no memory: the backward pass makes it again from the key.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.grid import THREADS, striding
from minilong.backend.kernels.launch import launch

NUMBERS = 8
"""Numbers of 32 bits in a block of the generator."""


def dropout(xp: Any, x: Array, key_words: tuple[int, int], rate: float) -> Array:
    """Elements of x zeroed with probability `rate`, the others times 1 / (1 - rate) (`eq:dropout`).

    key_words: low and high 64 bits of the key. Element i, in C order, is kept where the i-th float32 of
    `Generator(Philox(key=...)).random` is at least `rate`. The rule for the cotangent is the same call on it.
    """
    return _run(xp, xp.ascontiguousarray(x), x.shape, x.dtype, key_words, rate)  # contiguous: of one axis or more


def kept(xp: Any, shape: tuple[int, ...], key_words: tuple[int, int], rate: float, dtype: Any) -> Array:
    """What `dropout` multiplies by: 0 or 1 / (1 - rate), of the shape and type asked for."""
    return _run(xp, np.uint64(0), shape, xp.dtype(dtype), key_words, rate)


def _run(xp: Any, x: Any, shape: tuple[int, ...], dtype: Any, key_words: tuple[int, int], rate: float) -> Array:
    y = xp.empty(shape, dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    # NumPy compares float32 numbers with a Python float as with a float32, and the numbers are multiples of 2^-24.
    threshold = np.uint32(math.ceil(float(np.float32(rate)) * 2**24))
    factor = np.asarray(1 / (1 - rate), dtype).astype(wide)[()]
    arguments = (x, y, np.int64(y.size), *(np.uint64(word) for word in key_words), threshold, factor)
    launch(xp, "dropout.cu", "dropout", dtype, striding(-(-y.size // NUMBERS)), (THREADS,), arguments)
    return y
