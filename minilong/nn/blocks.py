"""Low-bit blocks: bytes to float32 and back, for the formats whose blocks hold 32 weights.

A block is a run of weights along a row, stored as a few bytes: a scale in float16, for some a least value, and a small
integer for each weight. The layouts are those of GGUF files (ggml's `block_q8_0` and so on), so that a file's bytes are
used as they lie. The K-quants, blocks of 256, are in `kblocks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from minilong.nn import kblocks
from minilong.nn.kblocks import halves, nibbles

PIECE = 1 << 16
"""Weights decoded or encoded at a time, so that what lies between stays in the processor's cache."""

Numbers = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Of n blocks: integers int8 (n, weights), scales and, where there is one, what is added, float32 (n, runs)."""


@dataclass(frozen=True)
class BlockFormat:
    """weights, bytes: of a block. run: weights that share a scale. unpack: (n, bytes) -> the numbers. encode: from
    weights (n, weights) to blocks, where this is written too.

    zero: the integers plus this fit four bits; None: they need eight.
    """

    weights: int
    bytes: int
    run: int
    zero: int | None
    unpack: Callable[[np.ndarray], Numbers]
    encode: Callable[[np.ndarray], np.ndarray] | None = None


def decode(blocks: np.ndarray, kind: str) -> np.ndarray:
    """The weights of rows of blocks (`eq:block`): uint8 (rows, bytes) -> float32 (rows, weights)."""
    form = FORMATS[kind]
    rows, size = blocks.shape
    width = size // form.bytes * form.weights
    out = np.empty((rows, width), np.float32)
    step = max(1, PIECE // max(width, 1))
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged file's scales are infinite, or no numbers
        for start in range(0, rows, step):
            q, scales, added = form.unpack(blocks[start : start + step].reshape(-1, form.bytes))
            w = out[start : start + step].reshape(-1, form.weights // form.run, form.run)
            np.multiply(q.reshape(w.shape), scales[:, :, None], out=w)
            if added is not None:
                w += added[:, :, None]
    return out


def encode(x: np.ndarray, kind: str) -> np.ndarray:
    """Rows of weights as blocks (`eq:low-bit`): float (rows, weights) -> uint8 (rows, bytes).

    Raises ValueError for a kind that is read only, for rows that are no whole number of blocks, and for weights that
    are not finite or so large that no float16 holds their scale.
    """
    form = FORMATS[kind]
    rows, width = x.shape
    if form.encode is None:
        raise ValueError(f"{kind} is read, not written; choose one of {', '.join(WRITTEN)}")
    if width % form.weights:
        raise ValueError(f"rows of {width} weights are no whole blocks of {form.weights}, as {kind} has them")
    out = np.empty((rows, width // form.weights * form.bytes), np.uint8)
    step = max(1, PIECE // max(width, 1))
    for start in range(0, rows, step):
        piece = np.asarray(x[start : start + step], np.float32)
        out[start : start + step] = form.encode(piece.reshape(-1, form.weights)).reshape(len(piece), -1)
    return out


def unpack_q8_0(blocks: np.ndarray) -> Numbers:
    """d q, 34 bytes: a scale and 32 signed bytes."""
    return blocks[:, 2:].view(np.int8), halves(blocks, 0), None


def unpack_q4_0(blocks: np.ndarray) -> Numbers:
    """d (q - 8), 18 bytes: a scale and 32 half bytes, weight i and weight i + 16 in one byte."""
    return nibbles(blocks[:, 2:]) - np.int8(8), halves(blocks, 0), None


def unpack_q4_1(blocks: np.ndarray) -> Numbers:
    """d q + m, 20 bytes: a scale, a least value, and half bytes as in Q4_0."""
    return nibbles(blocks[:, 4:]), halves(blocks, 0), halves(blocks, 2)


def encode_q8_0(x: np.ndarray) -> np.ndarray:
    """The nearest integers for a scale that gives the largest magnitude 127."""
    top = np.abs(x).max(1, keepdims=True)
    scale = half_scale(top, 127)
    q = np.clip(np.rint(x / _never_zero(scale)), -127, 127).astype(np.int8)
    return np.concatenate([_bytes(scale), q.view(np.uint8)], 1)


def encode_q4_0(x: np.ndarray) -> np.ndarray:
    """The nearest integers for a scale that gives the weight of largest magnitude -8; its opposite becomes 7."""
    top = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    scale = np.copysign(half_scale(np.abs(top), 8), -top)
    q = np.clip(np.floor(x / _never_zero(scale) + np.float32(8.5)), 0, 15).astype(np.uint8)
    return np.concatenate([_bytes(scale), _paired(q)], 1)


def encode_q4_1(x: np.ndarray) -> np.ndarray:
    """The nearest integers between the least weight, 0, and the largest, 15.

    ggml rounds both numbers of a block and takes neither rounding into account; here the scale and the integers follow
    from what was stored, so that no weight is off by more than half a scale.
    """
    least = x.min(1, keepdims=True)
    low = least.astype(np.float16)
    low = np.where(low > least, np.nextafter(low, np.float16(-np.inf)), low)
    scale = half_scale(x.max(1, keepdims=True) - low.astype(np.float32), 15)
    q = np.clip(np.floor((x - low) / _never_zero(scale) + np.float32(0.5)), 0, 15).astype(np.uint8)
    return np.concatenate([_bytes(scale), _bytes(low), _paired(q)], 1)


def half_scale(top: np.ndarray, levels: int) -> np.ndarray:
    """float16 (n, 1): top / levels rounded, but so that top is at most half a scale beyond the last level.

    Rounding to nearest leaves the top further beyond where float16 has few digits left; such scales are the next larger
    number. Raises ValueError where the top is not finite or float16 ends below the scale.
    """
    with np.errstate(over="ignore"):
        scale = (top / np.float32(levels)).astype(np.float16)
    if not np.isfinite(scale).all():
        raise ValueError("weights that are not finite, or too large for a scale in float16; they are damaged")
    return np.where(top > (levels + 0.5) * scale.astype(np.float64), np.nextafter(scale, np.float16(np.inf)), scale)


def _never_zero(scale: np.ndarray) -> np.ndarray:
    """The scales as float32, 1 for 0: then all weights are equal, and any divisor will do."""
    return np.where(scale == 0, 1, scale).astype(np.float32)


def _bytes(numbers: np.ndarray) -> np.ndarray:
    """float16 (n, 1) -> its two bytes (n, 2)."""
    return numbers.astype("<f2").view(np.uint8)


def _paired(q: np.ndarray) -> np.ndarray:
    """Integers 0..15 (n, 32) -> bytes (n, 16), weight i in the low half beside weight i + 16 in the high one."""
    paired: np.ndarray = q[:, :16] | q[:, 16:] << 4
    return paired


FORMATS: Mapping[str, BlockFormat] = MappingProxyType(
    {
        "Q8_0": BlockFormat(32, 34, 32, None, unpack_q8_0, encode_q8_0),
        "Q4_0": BlockFormat(32, 18, 32, 8, unpack_q4_0, encode_q4_0),
        "Q4_1": BlockFormat(32, 20, 32, 0, unpack_q4_1, encode_q4_1),
        "Q5_0": BlockFormat(32, 22, 32, None, kblocks.unpack_q5_0),
        "Q5_1": BlockFormat(32, 24, 32, None, kblocks.unpack_q5_1),
        "Q2_K": BlockFormat(256, 84, 16, 0, kblocks.unpack_q2_k),
        "Q3_K": BlockFormat(256, 110, 16, 4, kblocks.unpack_q3_k),
        "Q4_K": BlockFormat(256, 144, 32, 0, kblocks.unpack_q4_k),
        "Q5_K": BlockFormat(256, 176, 32, None, kblocks.unpack_q5_k),
        "Q6_K": BlockFormat(256, 210, 16, None, kblocks.unpack_q6_k),
    }
)
"""By GGUF's names."""

WRITTEN = tuple(name for name, form in FORMATS.items() if form.encode is not None)
"""The formats that are written too."""
