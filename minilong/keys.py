"""Randomness as a value: a key is split and folded, never advanced.

The same key gives the same numbers on every machine, in every thread and on every device, because the numbers are drawn
on the host from a counter-based generator (Philox 4x64, Salmon et al. 2011) keyed by 128 bits, and nothing has a hidden
state that a stop and a resume could lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np


@dataclass(frozen=True)
class Key:
    """A 128-bit key. `Key.of(seed)` starts, `fold` derives a child by name or number, `generator` draws."""

    bits: int

    @staticmethod
    def of(seed: int) -> Key:
        """The key of a seed: any integer, of any size or sign."""
        return Key(_digest(f"seed:{seed}".encode()))

    def fold(self, *names: str | int) -> Key:
        """The child of this key under each name in turn; different names give independent keys."""
        bits = self.bits
        for name in names:
            kind = "s" if isinstance(name, str) else "i"
            bits = _digest(bits.to_bytes(16, "little") + f"{kind}:{name}".encode())
        return Key(bits)

    def split(self, n: int) -> tuple[Key, ...]:
        """`n` independent children."""
        return tuple(self.fold(i) for i in range(n))

    @property
    def words(self) -> tuple[int, int]:
        """The key as the two 64-bit words of Philox 4x64, the lower one first."""
        return self.bits & (2**64 - 1), self.bits >> 64

    def generator(self) -> np.random.Generator:
        """A NumPy generator that starts at this key's first number: two calls give the same numbers."""
        return np.random.Generator(np.random.Philox(key=self.bits))


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=16).digest(), "little")
