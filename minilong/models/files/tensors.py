"""Named arrays of a checkpoint file, as views of its bytes in memory, whatever its format.

The file is mapped: nothing is read before it is used, and what holds float32 is never copied. A reader of a format
(`safetensors.py`, `gguf.py`) proves that each array lies inside the file before it makes an `Entry`; the mapping lives
as long as any array of it. A file must not be shortened while it is open, as with every mapping; the writers here
replace a file by a new one instead.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np

from minilong.errors import UserError, did_you_mean
from minilong.nn.blocks import FORMATS
from minilong.nn.lowbit import LowBit

TYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),
        "I64": np.dtype("<i8"),
        "I32": np.dtype("<i4"),
        "I16": np.dtype("<i2"),
        "I8": np.dtype("<i1"),
        "U64": np.dtype("<u8"),
        "U32": np.dtype("<u4"),
        "U16": np.dtype("<u2"),
        "U8": np.dtype("<u1"),
        "BOOL": np.dtype("<u1"),
    }
)
"""Kinds of one number at a time, by safetensors' names, and how each lies in a file. NumPy lacks bfloat16."""

AXES = 8
"""More axes than any weight has; the formats know no limit, NumPy does."""

NAME = 1 << 10
"""Bytes or characters of a name, at most."""


def is_name(name: str) -> bool:
    """Whether an array may be called so: errors print it."""
    return 0 < len(name) <= NAME and name.isprintable()


@dataclass(frozen=True)
class Entry:
    """One array of a file: a kind of `TYPES` or `blocks.FORMATS`, shape, and bytes (a view), of the right number."""

    kind: str
    shape: tuple[int, ...]
    data: np.ndarray


class TensorFile:
    """The arrays of an open checkpoint by name, and its metadata."""

    def __init__(self, source: str, entries: Mapping[str, Entry], metadata: Mapping[str, object]) -> None:
        self.source = source
        self.metadata: Mapping[str, object] = MappingProxyType(dict(metadata))
        self._entries = dict(entries)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the file."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Rows first, as in NumPy: a linear map's weight is (out, in) in both formats."""
        return self._entry(name).shape

    def kind(self, name: str) -> str:
        """How its numbers are stored: "F32", "F16", "BF16", "I64", "Q8_0" and so on."""
        return self._entry(name).kind

    def stored(self, name: str) -> np.ndarray | LowBit:
        """The array as it lies in the file, read-only and without a copy: low-bit blocks stay blocks.

        bfloat16, which NumPy lacks, comes as float32: a copy.
        """
        entry = self._entry(name)
        if entry.kind in FORMATS:
            return LowBit(entry.data.reshape(_rows(entry.shape), -1), entry.kind, entry.shape)
        if entry.kind == "BOOL" and entry.data.size and entry.data.max() > 1:
            raise UserError(f"{self.source} has other bytes than 0 and 1 in the booleans {name!r}; it is damaged")
        array = entry.data.view(TYPES[entry.kind]).reshape(entry.shape)
        if entry.kind == "BOOL":
            return array.view(np.bool_)
        if entry.kind == "BF16":
            return (array.astype("<u4") << np.uint32(16)).view("<f4")
        return array if array.flags.aligned else array.copy()

    def array(self, name: str) -> np.ndarray:
        """The array in float32, or in its own type where it holds integers or booleans.

        A read-only view of the file where that holds float32 (`F32`) or integers; a new array otherwise.
        """
        stored = self.stored(name)
        if isinstance(stored, LowBit):
            return stored.decode()
        if stored.dtype.kind != "f" or stored.itemsize == 4:
            return stored
        with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 becomes infinite
            return stored.astype(np.float32)

    def close(self) -> None:
        """Forget the arrays. The file's mapping ends with the last array that was taken from it."""
        self._entries.clear()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UserError(f"{self.source} has no array {name!r}{did_you_mean(name, self._entries)}") from None


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file as a read-only array, mapped and not read.

    UserError for a path that is no regular file, or an empty one; OSError as the system says.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe must not wait for a writer
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise UserError(f"{str(path)!r} does not exist; check the path") from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{str(path)!r} is no file; give a checkpoint file")
        if about.st_size == 0:
            raise UserError(f"{str(path)!r} is empty; fetch it again")
        return np.frombuffer(mmap.mmap(fd, about.st_size, access=mmap.ACCESS_READ), np.uint8)
    finally:
        os.close(fd)


def _rows(shape: tuple[int, ...]) -> int:
    """How many rows of blocks: blocks run along the last axis."""
    rows = 1
    for n in shape[:-1]:
        rows *= n
    return rows
