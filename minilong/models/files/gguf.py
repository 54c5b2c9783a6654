"""GGUF files, versions 2 and 3, read strictly from a mapping.

Layout, little-endian: "GGUF", version, numbers of arrays and of metadata; metadata (key, type, value); for each array
name, axes (the fastest first), type and place; then the arrays, each aligned. Strings and lists have their length
before them. Arrays must lie one after another, as the program `llama.cpp` asks too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minilong.errors import UserError
from minilong.models.fields import show
from minilong.models.files.tensors import NAME, TYPES, Entry, TensorFile, is_name, map_file
from minilong.nn.blocks import FORMATS

NUMBERS: Mapping[int, np.dtype] = MappingProxyType(
    {
        0: np.dtype("u1"),
        1: np.dtype("i1"),
        2: np.dtype("<u2"),
        3: np.dtype("<i2"),
        4: np.dtype("<u4"),
        5: np.dtype("<i4"),
        6: np.dtype("<f4"),
        7: np.dtype("?"),
        10: np.dtype("<u8"),
        11: np.dtype("<i8"),
        12: np.dtype("<f8"),
    }
)
"""Types of metadata that are numbers, and the boolean, 7."""

BOOLEAN, STRING, LIST = 7, 8, 9

KINDS: Mapping[int, str] = MappingProxyType(
    {
        0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0",
        10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
        24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16",
    }
)  # fmt: skip
"""ggml's numbers of types. Those that are missing here (IQ and ternary ones, MXFP4) are not read."""

AXES, KEY = 4, 1 << 16
ALIGNMENT = 32
LARGEST_ALIGNMENT = 1 << 16

_DAMAGED = "it is damaged, fetch it again"


def open_gguf(path: Path) -> TensorFile:
    """The arrays and metadata of a GGUF file. Shapes are reversed: rows first, as in NumPy.

    Metadata are Python numbers, strings and booleans; lists of strings are tuples, of numbers arrays. UserError for
    whatever is not exactly such a file: no length is believed before it is held against the bytes that are left.
    """
    data = map_file(path)
    reader = _Reader(data, repr(str(path)))
    arrays, count = reader.head()
    metadata: dict[str, object] = {}
    for _ in range(count):
        key = reader.string("a key", KEY)
        if key in metadata:
            reader.refuse(f"holds the key {show(key)} twice")
        metadata[key] = reader.value(key)
    alignment: Any = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        reader.refuse(f"has the alignment {show(alignment)}, which is no power of two up to {LARGEST_ALIGNMENT}")
    told = [reader.array() for _ in range(arrays)]
    return TensorFile(reader.source, _entries(told, data, reader, alignment), metadata)


def _entries(
    told: list[tuple[str, str, tuple[int, ...], int]], data: np.ndarray, reader: _Reader, alignment: int
) -> dict[str, Entry]:
    """Each array with its bytes; together they are the rest of the file, but for what aligns them."""
    first = _aligned(reader.at, alignment)
    end, entries = first, {}
    for name, kind, shape, offset in told:
        if name in entries:
            reader.refuse(f"has two arrays {show(name)}")
        if first + offset != _aligned(end, alignment):
            reader.refuse(f"has the array {show(name)} at {offset}, but the one before ends at {end - first}")
        start = first + offset
        end = start + _size(name, kind, shape, reader)
        if end > len(data):
            reader.refuse(f"ends before its array {show(name)} does")
        entries[name] = Entry(kind, shape, data[start:end])
    if len(data) > _aligned(end, alignment):
        reader.refuse(f"has {len(data) - end} bytes after its last array")
    return entries


def _size(name: str, kind: str, shape: tuple[int, ...], reader: _Reader) -> int:
    """Bytes of an array."""
    if kind in TYPES:
        return math.prod(shape) * TYPES[kind].itemsize
    form = FORMATS[kind]
    if shape[-1] % form.weights:
        reader.refuse(f"has rows of {shape[-1]} in the array {show(name)}, no whole blocks of {form.weights}")
    return math.prod(shape) // form.weights * form.bytes


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment


class _Reader:
    """A position in the bytes of a file, which moves forward only."""

    def __init__(self, data: np.ndarray, source: str) -> None:
        self.data, self.source, self.at = data, source, 0

    def refuse(self, fact: str) -> Any:
        """Raise the UserError `source fact; remedy`."""
        raise UserError(f"{self.source} {fact}; {_DAMAGED}")

    def take(self, size: int, what: str) -> np.ndarray:
        """The next bytes, a view."""
        if size > len(self.data) - self.at:
            self.refuse(f"ends within {what}")
        self.at += size
        return self.data[self.at - size : self.at]

    def whole(self, size: int, what: str) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size, what).tobytes(), "little")

    def string(self, what: str, most: int | None = None) -> str:
        """UTF-8 text with its length before it."""
        size = self.whole(8, what)
        if most is not None and size > most:
            self.refuse(f"has {size} bytes in {what}, and {most} are read at most")
        try:
            return self.take(size, what).tobytes().decode("utf-8")
        except UnicodeDecodeError:
            return str(self.refuse(f"has text that is not UTF-8 in {what}"))

    def head(self) -> tuple[int, int]:
        """Numbers of arrays and of metadata, each held against what the file could list."""
        if self.data[:4].tobytes() != b"GGUF":
            raise UserError(f"{self.source} is no GGUF file; give one, or a folder with config.json")
        self.take(4, "its head")
        version = self.whole(4, "its head")
        if version not in (2, 3):
            why = "written for big-endian machines" if version in (2 << 24, 3 << 24) else f"of GGUF's version {version}"
            raise UserError(f"{self.source} is {why}, and versions 2 and 3, little-endian, are read; convert it anew")
        arrays, count = self.whole(8, "its head"), self.whole(8, "its head")
        if arrays * 24 + count * 13 > len(self.data) - self.at:
            self.refuse(f"tells of {arrays} arrays and {count} metadata, more than it can hold")
        return arrays, count

    def value(self, key: str) -> object:
        """A value of metadata with its type before it."""
        what = f"the value of {show(key)}"
        kind = self.whole(4, what)
        if kind == STRING:
            return self.string(what)
        if kind == LIST:
            return self.list(what)
        return self.numbers(kind, 1, what)[0].item()

    def list(self, what: str) -> tuple[str, ...] | np.ndarray:
        """A list of strings or of numbers."""
        kind, count = self.whole(4, what), self.whole(8, what)
        if kind != STRING:
            return self.numbers(kind, count, what)
        if count * 8 > len(self.data) - self.at:
            self.refuse(f"tells of {count} strings in {what}, more than it can hold")
        return tuple(self.string(what) for _ in range(count))

    def numbers(self, kind: int, count: int, what: str) -> np.ndarray:
        """So many numbers or booleans, as a copy: where they lie in the file is not aligned."""
        if kind not in NUMBERS:
            self.refuse(f"has the type {kind} in {what}, which is none")
        found = self.take(count * NUMBERS[kind].itemsize, what).copy()
        if kind == BOOLEAN and count and found.max() > 1:
            self.refuse(f"has the boolean {found.max()} in {what}")
        numbers: np.ndarray = found.view(NUMBERS[kind])
        return numbers

    def array(self) -> tuple[str, str, tuple[int, ...], int]:
        """Name, kind, shape and place of an array."""
        name = self.string("the name of an array", NAME)
        what = f"the array {show(name)}"
        if not is_name(name):
            self.refuse(f"calls an array {show(name)}")
        axes = self.whole(4, what)
        if not 0 < axes <= AXES:
            self.refuse(f"has {axes} axes in {what}")
        shape = tuple(self.whole(8, what) for _ in range(axes))[::-1]
        if not all(0 < n < 1 << 63 for n in shape):
            self.refuse(f"has the shape {show(shape)} in {what}")
        kind = self.whole(4, what)
        if kind not in KINDS:
            raise UserError(
                f"{self.source} has the array {show(name)} in ggml's type {kind}, which is not read; "
                f"use a file of {', '.join(('F32', 'F16', 'BF16', *FORMATS))}"
            )
        return name, KINDS[kind], shape, self.whole(8, what)
