"""Activation functions and their rules, computed again from the input: one launch each, and nothing to be kept.

`eq:gelu`, `eq:gelu-tanh`, `eq:silu`, and the product of `eq:swiglu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.rows import aligned, alike

KINDS = ("gelu", "gelu_tanh", "silu", "relu")

THREADS, MOST_BLOCKS = 256, 4096


def activate(xp: Any, kind: str, x: Array) -> Array:
    """The activation of this name (`KINDS`), elementwise. Raises ValueError for another name."""
    return _elementwise(xp, _known(kind), 1, x)[0]


def activate_vjp(xp: Any, kind: str, g: Array, x: Array) -> Array:
    """The cotangent of `x` by that of activate(x)."""
    return _elementwise(xp, f"{_known(kind)}_vjp", 1, g, x)[0]


def swiglu(xp: Any, gate: Array, up: Array) -> Array:
    """silu(gate) up, elementwise"""
    return _elementwise(xp, "swiglu", 1, gate, up)[0]


def swiglu_vjp(xp: Any, g: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    """The cotangents of `gate` and `up`."""
    for_gate, for_up = _elementwise(xp, "swiglu_vjp", 2, g, gate, up)
    return for_gate, for_up


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no activation {kind!r}; there are: {', '.join(KINDS)}")
    return kind


def _elementwise(xp: Any, name: str, results: int, *arrays: Array) -> list[Array]:
    """What the kernel `name` makes of the arrays: so many results of their shape and type."""
    shape, dtype = arrays[0].shape, arrays[0].dtype
    arrays = alike(xp, *arrays)
    out = [xp.empty(shape, dtype) for _ in range(results)]
    n, lanes = arrays[0].size, 16 // dtype.itemsize
    blocks = min(-(-n // (THREADS * lanes)), MOST_BLOCKS)
    define = aligned(lanes, *arrays, *out)  # the elements after the last 16 bytes are taken singly
    launch(xp, "activation.cu", name, dtype, (blocks,), (THREADS,), (*arrays, *out, np.int64(n)), defines=(define,))
    return out
