"""Numbers in 2, 4, 8 or 16 bits: groups that share a scale and a zero, packed into bytes (`eq:quantise`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.backend import Array, array_module

BITS = (2, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class Packed:
    """Groups (..., n) as codes of `bits` bits: a number is zero + code * scale.

    codes (..., m) bytes (of 16 bits: (..., n) numbers), scale and zero (...) in the type of the numbers. The codes of
    one byte are m apart, so that each shift of all bytes gives neighbours.
    """

    codes: Array
    scale: Array
    zero: Array
    bits: int
    size: int

    def decode(self, out: Array | None = None) -> Array:
        """The numbers (..., n), into `out` if it is given."""
        xp = array_module(self.codes)
        y = xp.zeros((*self.scale.shape, self.size), self.scale.dtype) if out is None else out
        each = 8 // self.bits
        if each < 2:
            y[...] = self.codes
        else:
            m = self.codes.shape[-1]
            for i in range(each):
                part = y[..., i * m : (i + 1) * m]
                part[...] = ((self.codes >> (i * self.bits)) & (2**self.bits - 1))[..., : part.shape[-1]]
        y *= self.scale[..., None]
        y += self.zero[..., None]
        return y

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All that is held."""
        return self.codes, self.scale, self.zero

    def over(self, f: Any) -> Packed:
        """The same with each array mapped."""
        return Packed(f(self.codes), f(self.scale), f(self.zero), self.bits, self.size)


def encode(x: Array, bits: int) -> Packed:
    """Groups (..., n) of numbers, each with its least as zero and a scale that reaches its largest (`eq:quantise`).

    The error is at most scale / 2, and none in a group of equal numbers, whose scale is 0.
    """
    if bits not in BITS:
        raise ValueError(f"packing: {bits} bits are none of {', '.join(map(str, BITS))}")
    xp, levels = array_module(x), 2**bits - 1
    zero = x.min(axis=-1)
    scale = (x.max(axis=-1) - zero) / levels
    steps = (x - zero[..., None]) / xp.where(scale > 0, scale, 1.0).astype(x.dtype)[..., None]
    codes = xp.clip(xp.rint(steps), 0, levels).astype(np.uint16 if bits == 16 else np.uint8)
    return Packed(_packed(xp, codes, bits), scale, zero, bits, x.shape[-1])


def _packed(xp: Any, codes: Array, bits: int) -> Array:
    each = 8 // bits
    if each < 2:
        return codes
    n, m = codes.shape[-1], packed_bytes(codes.shape[-1], bits)
    y = xp.zeros((*codes.shape[:-1], m), np.uint8)
    for i in range(each):
        part = codes[..., i * m : min((i + 1) * m, n)]
        y[..., : part.shape[-1]] |= part << (i * bits)
    return y


def packed_bytes(n: int, bits: int) -> int:
    """Bytes of the codes of a group of n numbers."""
    return -(-n * bits // 8)
