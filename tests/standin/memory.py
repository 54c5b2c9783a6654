"""Device memory: NumPy memory between two guard zones, counted while it lives, limited like a pool of CuPy's."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

GUARD = 512
"""Bytes on either side. CuPy aligns memory to as much."""

KINDS = 63
_UNITS = np.array([0xFF81 + (i % KINDS) for i in range(KINDS + GUARD // 2)], "<u2")
PATTERNS = [_UNITS[i : i + GUARD // 2].copy().view(np.uint8) for i in range(KINDS)]
"""What guards hold: NaN in every floating-point type, and in float32 and bfloat16 one that arithmetic changes. Another
for each array, so that a kernel that copies an element too many is seen as well."""

_PATTERN_BYTES = [pattern.tobytes() for pattern in PATTERNS]


class OutOfMemoryError(MemoryError):
    """The limit was reached. In CuPy it is `cupy.cuda.memory.OutOfMemoryError`."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


class GuardError(AssertionError):
    """Something was written beyond the ends of an array."""


class _Pool:
    used = held = limit = peak = 0
    allocations = 0


POOL = _Pool()
BROKEN: list[str] = []
EXPOSED: weakref.WeakSet[Memory] = weakref.WeakSet()
"""Memory of which some pointer was asked for: where raw pointers may lead."""


class Memory:
    """One allocation. owner: the NumPy array whose memory it is; guarded: whether guard zones surround it; kind: which
    pattern they hold; counted: whether it counts as the device's."""

    __slots__ = ("__weakref__", "guarded", "kind", "nbytes", "owner", "ptr", "size")

    def __init__(
        self, owner: np.ndarray, nbytes: int, guarded: bool = False, ptr: int = 0, kind: int = 0, counted: bool = True
    ) -> None:
        size = -(-nbytes // GUARD) * GUARD if counted else 0
        if POOL.limit and POOL.used + size > POOL.limit:
            self.size = 0
            raise OutOfMemoryError(size, POOL.used, POOL.limit)
        self.owner, self.nbytes, self.guarded, self.size = owner, nbytes, guarded, size
        self.ptr, self.kind = ptr, kind
        POOL.used += size
        POOL.allocations += 1
        if POOL.used > POOL.peak:
            POOL.peak = POOL.used
        if POOL.used > POOL.held:
            POOL.held = POOL.used

    def __del__(self) -> None:
        POOL.used -= self.size
        if self.size and self.guarded and not self.intact():
            BROKEN.append(f"an array of {self.nbytes} bytes, found when it was freed")

    def intact(self) -> bool:
        """Whether both guard zones are as they were."""
        buffer = self.owner
        start = self.ptr - buffer.__array_interface__["data"][0]
        end = start + self.nbytes
        pattern = _PATTERN_BYTES[self.kind]
        return bool(buffer[start - GUARD : start].tobytes() == pattern == buffer[end : end + GUARD].tobytes())

    def mend(self) -> None:
        """Put the guards back, so that one mistake is reported once."""
        start = self.ptr - int(self.owner.__array_interface__["data"][0])
        end = start + self.nbytes
        self.owner[start - GUARD : start] = self.owner[end : end + GUARD] = PATTERNS[self.kind]

    def bytes(self) -> np.ndarray:
        """All its bytes, as they lie in memory whatever the order of the owner's axes."""
        pointer = ctypes.cast(self.address, ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(pointer, (self.nbytes,))

    @property
    def address(self) -> int:
        """Where the memory begins."""
        return self.ptr or int(self.owner.__array_interface__["data"][0])


def allocate(shape: Any, dtype: Any, order: str = "C", counted: bool = True) -> tuple[np.ndarray, Memory]:
    """Memory between guards, full of NaN (floating point), True, or 0x5A in each byte: nothing that passes for 0."""
    shape = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
    dtype = np.dtype(dtype)
    size = 1
    for n in shape:
        if n < 0:
            raise ValueError("negative dimensions are not allowed")
        size *= n
    nbytes = size * dtype.itemsize
    if counted and POOL.limit and POOL.used + nbytes > POOL.limit:
        raise OutOfMemoryError(nbytes, POOL.used, POOL.limit)
    buffer = np.empty(nbytes + 3 * GUARD, np.uint8)
    begin = buffer.__array_interface__["data"][0]
    ptr = -(-(begin + GUARD) // GUARD) * GUARD
    start = ptr - begin
    buffer[start : start + nbytes] = {"b": 1, "i": 0x5A, "u": 0x5A}.get(dtype.kind, 0xFF)
    kind = POOL.allocations % KINDS
    buffer[start - GUARD : start] = buffer[start + nbytes : start + nbytes + GUARD] = PATTERNS[kind]
    array: np.ndarray = np.ndarray(shape, dtype, buffer, start, order=order)  # type: ignore[call-overload]
    return array, Memory(buffer, nbytes, True, ptr, kind, counted)


def check_guards() -> None:
    """Raise GuardError where something was written beyond the ends of an array that lives, or did when it was freed."""
    found = [*BROKEN, *(f"an array of {m.nbytes} bytes" for m in list(EXPOSED) if m.guarded and not m.intact())]
    BROKEN.clear()
    if found:
        raise GuardError("written beyond the ends of " + "; ".join(found))


def memory_at(pointer: int) -> Memory:
    """The live allocation that the pointer leads into; GuardError where it leads into none."""
    for memory in list(EXPOSED):
        if memory.address <= pointer < memory.address + max(memory.nbytes, 1):
            return memory
    raise GuardError(f"pointer {pointer:#x} leads into no live array: was it taken from a temporary?")


@contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Let only so many bytes more be allocated inside."""
    before = POOL.limit
    POOL.limit = POOL.used + nbytes
    try:
        yield
    finally:
        POOL.limit = before


class Peak:
    """nbytes: the most that was allocated at once inside `peak_memory`, beyond what was there before."""

    nbytes = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the memory that something takes."""
    peak, before, outer = Peak(), POOL.used, POOL.peak
    POOL.peak = before
    try:
        yield peak
    finally:
        peak.nbytes = POOL.peak - before
        POOL.peak = max(outer, POOL.peak)
