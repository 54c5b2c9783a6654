"""What a launch may be given: sizes that a GPU takes, and arguments that agree with the kernel's signature."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

STATIC_LIMIT = 48 * 1024
"""Bytes of dynamic shared memory that may be used without raising the kernel's limit."""

DEVICE_LIMIT = 227 * 1024
"""The most that the limit can be raised to (compute capability 9.0)."""


class Pointer(NamedTuple):
    """Device memory as an argument. dtype None: the element type is not checked."""

    address: int
    dtype: Any = None


def check_sizes(
    name: str, grid: Sequence[int], block: Sequence[int], shared: int, max_shared: int, bound: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block with three axes each. Raises ValueError where a GPU would refuse the launch."""
    whole = tuple(tuple(int(n) for n in size) + (1,) * (3 - len(size)) for size in (grid, block))
    for what, size, most in zip(("grid", "block"), whole, ((2**31 - 1, 65535, 65535), (1024, 1024, 64)), strict=True):
        if len(size) != 3 or any(not 1 <= n <= m for n, m in zip(size, most, strict=True)):
            raise ValueError(f"kernel {name}: the {what} {size} is not within 1 to {most}")
    threads = whole[1][0] * whole[1][1] * whole[1][2]
    if threads > min(1024, bound):
        raise ValueError(f"kernel {name}: {threads} threads a block, at most {min(1024, bound)}")
    if not 0 <= shared <= min(max_shared, DEVICE_LIMIT):
        raise ValueError(f"kernel {name}: {shared} bytes of shared memory, at most {min(max_shared, DEVICE_LIMIT)}")
    return whole[0], whole[1]


def check_arguments(name: str, signature: tuple[str, ...], arguments: Sequence[Any]) -> list[Any]:
    """The arguments as ctypes objects of the sizes that the kernel reads. Raises TypeError."""
    if len(arguments) != len(signature):
        raise TypeError(f"kernel {name} takes {len(signature)} arguments, not {len(arguments)}")
    boxes: list[Any] = []
    for i, (wanted, given) in enumerate(zip(signature, arguments, strict=True)):
        where = f"kernel {name}, argument {i + 1} of {len(signature)}"
        if wanted[0] in "pP":
            boxes.append(ctypes.c_void_p(_pointer(where, wanted[1:], given)))
        elif not isinstance(given, np.generic):
            why = "a Python number has no size" if isinstance(given, int | float) else type(given).__name__
            raise TypeError(f"{where}: {_spell(wanted)} is wanted, not {given!r} ({why})")
        elif wanted != f"{given.dtype.kind}{given.dtype.itemsize}":
            raise TypeError(f"{where}: {_spell(wanted)} is wanted, not {given.dtype}")
        else:
            boxes.append(ctypes.create_string_buffer(given.tobytes(), 16))
    return boxes


def _pointer(where: str, wanted: str, given: Any) -> int:
    if isinstance(given, np.uint64) and given == 0:
        return 0
    if isinstance(given, np.ndarray) and given.ndim > 0:
        if not given.flags.c_contiguous:
            raise TypeError(f"{where}: a NumPy array that is not contiguous")
        given = Pointer(given.ctypes.data, given.dtype)
    if not isinstance(given, Pointer):
        raise TypeError(f"{where}: a pointer is wanted, not {given!r} ({type(given).__name__})")
    if given.dtype is not None and not _points_to(wanted, np.dtype(given.dtype)):
        raise TypeError(f"{where}: a pointer to {_spell(wanted)} is wanted, not an array of {np.dtype(given.dtype)}")
    return given.address


def _points_to(wanted: str, dtype: np.dtype[Any]) -> bool:
    kind, size = wanted[0], int(re.sub(r"\D", "", wanted))
    if kind == "v":
        return True
    if kind == "s":  # half_t for a half type; float4 for float32, where the kernel has seen to the alignment
        return size % dtype.itemsize == 0
    if kind == "f":
        return (dtype.kind == "f" and size == dtype.itemsize) or (dtype.kind == "c" and 2 * size == dtype.itemsize)
    return size == dtype.itemsize and (dtype.kind in "iub" or size == 2)  # u16: the bits of a half type


def _spell(wanted: str) -> str:
    names = {"f": "float", "i": "int", "u": "uint", "b": "bool", "s": "struct", "v": "void", "p": "pointer"}
    return names[wanted[0].lower()] + (str(8 * int(wanted[1:])) if wanted[1:].isdigit() and wanted[0] != "v" else "")
