"""Named arrays to the bytes of a safetensors file and back, with a checksum of each array in its header.

The file stays readable for every safetensors reader. Nothing in it is executed. The checksums (CRC-32) are there to
name the damaged array; that a file is whole is what the manifest of a run proves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np

from minilong.errors import UserError

_KEY = "minilong"
_REMEDY = "restore it from a copy of the run, or train anew"


def arrays_to_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The safetensors file of named arrays; equal arrays and metadata give equal bytes.

    Any shape, order and layout; booleans, integers, float16/32/64. Raises ValueError, naming the array, for a value
    that is not finite, so that a broken state is never written over a whole one, and for a type that the format lacks.
    """
    from safetensors.numpy import save

    plain: dict[str, np.ndarray] = {}
    for name in sorted(arrays):
        # The library writes the memory of an array as it lies there, whatever its strides and byte order.
        array = np.ascontiguousarray(arrays[name]).reshape(np.shape(arrays[name]))
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"array {name!r} is of type {array.dtype}, which a safetensors file cannot hold")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"array {name!r} has a value that is not finite; a non-finite state is never written")
        plain[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # One key only: the library writes the keys of its metadata in random order.
    header = {"crc32": {name: _crc(a) for name, a in plain.items()}, "metadata": dict(sorted((metadata or {}).items()))}
    return save(plain, {_KEY: json.dumps(header)})


def arrays_from_bytes(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The named arrays of a safetensors file, as writable copies; `source` is how errors name the file.

    UserError for anything that is not such a file, and for an array that differs from its checksum. A file without our
    checksums, written by another program, is accepted.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except SafetensorError as error:
        raise UserError(f"{source} is not a whole safetensors file ({_line(error)}); {_REMEDY}") from error
    except KeyError as error:
        raise UserError(f"{source} has an array of the type {error}, which NumPy lacks; convert it to F32") from error
    checksums = _header(data, source).get("crc32")
    if checksums is not None:
        if not isinstance(checksums, dict) or checksums.keys() != arrays.keys():
            raise UserError(f"{source} is damaged: its header lists other arrays than it holds; {_REMEDY}")
        for name, array in arrays.items():
            if checksums[name] != _crc(array):
                raise UserError(f"{source} is damaged: array {name!r} does not match its checksum; {_REMEDY}")
    return arrays


def arrays_in(data: memoryview, source: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The named arrays of a safetensors file as views of its memory, and its metadata (`arrays_to_bytes`).

    For the files of a run, which its manifest has proved: the arrays are not read, so their own checksums neither.
    UserError for anything that is not such a file: every array lies inside of it.
    """
    size = int.from_bytes(data[:8], "little")
    bad = f"{source} is not a whole safetensors file"
    try:
        header = json.loads(bytes(data[8 : 8 + size])) if size <= len(data) - 8 else None
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"} if header else None
        if entries is None:
            raise ValueError("its header goes beyond its end")
        arrays = {name: _view(data[8 + size :], entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{bad} ({_line(error)}); {_REMEDY}") from error
    return arrays, _metadata(_header(data, source))


def _view(data: memoryview, entry: dict[str, Any]) -> np.ndarray:
    """One array, in its place. ValueError and the like where it has none."""
    kind, shape, (start, end) = _KINDS[entry["dtype"]], entry["shape"], entry["data_offsets"]
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, start, end))
    if not whole or end > len(data) or end - start != math.prod(shape) * kind.itemsize:
        raise ValueError("an array lies outside")
    array: np.ndarray = np.frombuffer(data[start:end], kind).reshape(shape)
    return array if array.flags.aligned else array.copy()


_KINDS = {
    "BOOL": np.dtype("?"),
    **{f"{name}{8 * size}": np.dtype(f"<{name.lower()}{size}") for name in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""NumPy's types by the names of the format: those that `arrays_to_bytes` writes."""


def metadata_from_bytes(data: bytes, source: str) -> dict[str, str]:
    """The metadata given to `arrays_to_bytes`; empty for a file of another program. UserError as above."""
    arrays_from_bytes(data, source)
    return _metadata(_header(data, source))


def _metadata(header: dict[str, object]) -> dict[str, str]:
    metadata = header.get("metadata", {})
    return {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}


def _header(data: bytes | memoryview, source: str) -> dict[str, object]:
    """Our part of the header: empty where there is none. The library has checked the file's frame already."""
    size = int.from_bytes(data[:8], "little")
    try:
        text = json.loads(bytes(data[8 : 8 + size])).get("__metadata__", {}).get(_KEY)
        header = {} if text is None else json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("not a table")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is damaged: its header is unreadable; {_REMEDY}") from error
    return header


def _crc(array: np.ndarray) -> int:
    return crc32(array.reshape(-1).view(np.uint8).data)


def _line(error: Exception) -> str:
    """The library's text, in one line of printable characters: it may quote bytes of the damaged file."""
    return "".join(c if c.isprintable() else "?" for c in str(error))[:200]
