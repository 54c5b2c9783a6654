"""K-quants and the five-bit formats, from bytes to numbers: read, not written.

A K-quant block holds 256 weights in runs of 16 or 32, each with a scale (and a least value) of a few bits that one
float16 multiplies. The layouts are ggml's; bits of a weight that do not fit a byte lie apart, hence the shifts. Every
function takes blocks (n, bytes) and gives integers int8 (n, weights), scales float32 (n, runs), and what is added.
"""

from __future__ import annotations

import numpy as np

Unsigned = tuple[np.ndarray, np.ndarray, np.ndarray]
Signed = tuple[np.ndarray, np.ndarray, None]
LOW = np.uint8(15)


def halves(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 numbers at a byte of each block, as float32 (n, 1)."""
    numbers: np.ndarray = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)
    return numbers


def nibbles(packed: np.ndarray) -> np.ndarray:
    """Two integers of each byte, int8: (n, k) -> (n, 2k), all low halves before all high ones."""
    return np.concatenate([packed & LOW, packed >> np.uint8(4)], 1).view(np.int8)


def shifted(data: np.ndarray, bits: int) -> np.ndarray:
    """All fields of so many bits: (n, ..., k) -> (n, ..., 8 / bits, k), lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields: np.ndarray = (data[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)
    return fields


def unpack_q5_0(blocks: np.ndarray) -> Signed:
    """d (q - 16), 22 bytes: scale, high bits, nibbles."""
    return _five_bits(blocks[:, 6:], blocks[:, 2:6]) - np.int8(16), halves(blocks, 0), None


def unpack_q5_1(blocks: np.ndarray) -> Unsigned:
    """d q + m, 24 bytes: scale, least value, high bits, nibbles."""
    return _five_bits(blocks[:, 8:], blocks[:, 4:8]), halves(blocks, 0), halves(blocks, 2)


def unpack_q2_k(blocks: np.ndarray) -> Unsigned:
    """d s q - dmin m, 84 bytes: 16 bytes of s and m (4 bits each), 64 of q (2 bits), d, dmin."""
    q = shifted(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 256).view(np.int8)
    return q, halves(blocks, 80) * (blocks[:, :16] & LOW), -(halves(blocks, 82) * (blocks[:, :16] >> np.uint8(4)))


def unpack_q3_k(blocks: np.ndarray) -> Signed:
    """d (s - 32) (q - 4), 110 bytes: 32 of q's bit 2, 64 of its bits 0 and 1, 12 of s (6 bits), d."""
    low = nibbles(blocks[:, 96:104])
    high = shifted(blocks[:, 104:108], 2).reshape(-1, 16).view(np.int8)
    q = shifted(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 8, 32) | shifted(blocks[:, :32], 1) << np.uint8(2)
    s = (low | high << np.int8(4)) - np.int8(32)
    return q.reshape(-1, 256).view(np.int8) - np.int8(4), halves(blocks, 108) * s, None


def unpack_q4_k(blocks: np.ndarray) -> Unsigned:
    """d s q - dmin m, 144 bytes: d, dmin, 12 bytes of s and m (6 bits each), 128 of q (4 bits)."""
    q = shifted(blocks[:, 16:].reshape(-1, 4, 32), 4).reshape(-1, 256)
    return (q.view(np.int8), *_six_bits(blocks))


def unpack_q5_k(blocks: np.ndarray) -> Unsigned:
    """d s q - dmin m, 176 bytes: as Q4_K, with 32 bytes of q's bit 4 before the others."""
    low = shifted(blocks[:, 48:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    q = (low | shifted(blocks[:, 16:48], 1) << np.uint8(4)).reshape(-1, 256)
    return (q.view(np.int8), *_six_bits(blocks))


def unpack_q6_k(blocks: np.ndarray) -> Signed:
    """d s (q - 32), 210 bytes: 128 of q's low 4 bits, 64 of its high 2, 16 of s (signed), d."""
    low = shifted(blocks[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 2, 4, 32)
    q = (low | shifted(blocks[:, 128:192].reshape(-1, 2, 32), 2) << np.uint8(4)).reshape(-1, 256)
    return q.view(np.int8) - np.int8(32), halves(blocks, 208) * blocks[:, 192:208].view(np.int8), None


def _five_bits(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """low (n, 16) bytes of nibbles, high (n, 4) bytes of one bit each -> integers 0..31 (n, 32)."""
    q: np.ndarray = nibbles(low) | np.unpackbits(high, axis=1, bitorder="little").view(np.int8) << np.int8(4)
    return q


def _six_bits(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d s and -dmin m of Q4_K and Q5_K, float32 (n, 8) each.

    Of the 12 bytes, 0 to 3 and 4 to 7 hold the first four s and m in their low six bits, and in their high two bits
    those of the last four, whose low four bits are in bytes 8 to 11.
    """
    a, b, c = (blocks[:, i : i + 4] for i in (4, 8, 12))
    top = np.uint8(6), np.uint8(4)
    s = np.concatenate([a & np.uint8(63), (c & LOW) | (a >> top[0]) << top[1]], 1)
    m = np.concatenate([b & np.uint8(63), (c >> top[1]) | (b >> top[0]) << top[1]], 1)
    return halves(blocks, 0) * s, -(halves(blocks, 2) * m)
