"""Safetensors files (one, or shards with an index) read strictly from a mapping, and written without a second copy.

The library `safetensors` copies each array that NumPy asks for, knows no bfloat16 there, and writes from copies; so
this is a reader and a writer of its own, held against the library by tests: what is accepted here, it accepts.

Layout: eight bytes with the header's size (little-endian), the header in JSON, the arrays one after another. The header
names each array's type, shape and place after the header, and may hold strings under `__metadata__`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from minilong.errors import UserError
from minilong.models.fields import show
from minilong.models.files.strict_json import strict_object
from minilong.models.files.tensors import AXES, TYPES, Entry, TensorFile, is_name, map_file

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER = 1 << 24
"""Bytes of a header or an index that are read at most; an array takes about a hundred. (The format allows 100 MB.)"""

PIECE = 1 << 20
"""Numbers written at a time."""

_DAMAGED = "it is damaged, fetch it again"


def open_safetensors(path: Path) -> TensorFile:
    """The arrays of a file, or of a folder with `model.safetensors` or an index of shards.

    UserError for whatever is not exactly such a file: nothing is read or allocated by a number that was not checked
    against the file's size first.
    """
    if not path.is_dir():
        entries, metadata = _read(path)
        return TensorFile(repr(str(path)), entries, metadata)
    if (path / FILE).exists():
        entries, metadata = _read(path / FILE)
        return TensorFile(repr(str(path / FILE)), entries, metadata)
    if (path / INDEX).exists():
        return _sharded(path)
    pickled = next((name for name in ("pytorch_model.bin", "tf_model.h5", "model.ckpt") if (path / name).exists()), "")
    why = f", and {pickled} is not opened, since such files can execute code" if pickled else ""
    raise UserError(f"{str(path)!r} has no {FILE}{why}; convert it to safetensors first")


def _read(path: Path) -> tuple[dict[str, Entry], Mapping[str, object]]:
    """The arrays and metadata of one file."""
    source, data = repr(str(path)), map_file(path)
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or size > len(data) - 8:
        raise UserError(f"{source} is no whole safetensors file: its header goes beyond its end; fetch it again")
    if size > HEADER:
        raise UserError(f"{source} has a header of {size} bytes, and {HEADER} are read at most; it is no checkpoint")
    text = data[8 : 8 + size].tobytes()
    if text[:1] != b"{":
        raise UserError(f"{source} is no safetensors file: its header is no JSON object; fetch it again")
    header = strict_object(text, f"the header of {source}", HEADER)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"the header of {source} has metadata that are no strings; {_DAMAGED}")
    return _entries(header, data[8 + size :], source), metadata


def _entries(header: Mapping[str, Any], data: np.ndarray, source: str) -> dict[str, Entry]:
    """The arrays, in the order in which they lie. Together they are the data: no gap, no overlap, no rest."""
    found = {name: _entry(name, about, source) for name, about in header.items()}
    end, last, entries = 0, "the header", {}
    for name, (kind, shape, start, stop) in sorted(found.items(), key=lambda item: item[1][2:]):
        if start != end:
            what = "a gap" if start > end else "an overlap"
            raise UserError(f"{source} has {what} between {last} and the array {show(name)}; {_DAMAGED}")
        if stop > len(data):
            raise UserError(f"{source} ends before its array {show(name)} does; {_DAMAGED}")
        entries[name] = Entry(kind, shape, data[start:stop])
        end, last = stop, f"the array {show(name)}"
    if end != len(data):
        raise UserError(f"{source} has {len(data) - end} bytes after {last}; {_DAMAGED}")
    return entries


def _entry(name: str, about: Any, source: str) -> tuple[str, tuple[int, ...], int, int]:
    """Kind, shape, first byte and end of an array, its shape held against the number of its bytes."""
    what = f"the array {show(name)} of {source}"
    if not is_name(name):
        raise UserError(f"{what} has a name that no array has; {_DAMAGED}")
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"{what} is not described by dtype, shape and data_offsets; {_DAMAGED}")
    kind, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"{what} is of the type {show(kind)}, which is not read; convert it to F32, F16 or BF16")
    if not _whole(shape) or len(shape) > AXES:
        raise UserError(f"{what} has the shape {show(shape)}, which is none; {_DAMAGED}")
    if not _whole(offsets) or len(offsets) != 2:
        raise UserError(f"{what} has the place {show(offsets)}, which is none; {_DAMAGED}")
    size = TYPES[kind].itemsize
    for n in shape:
        size *= n  # Python's integers do not overflow
    if offsets[1] - offsets[0] != size:
        raise UserError(
            f"{what} has {size} bytes by its shape, but its place has {offsets[1] - offsets[0]}; {_DAMAGED}"
        )
    return kind, tuple(shape), offsets[0], offsets[1]


def _whole(values: Any) -> bool:
    """Whether this is a list of integers from 0 to 2^63 - 1 (True is none)."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in values)


def _sharded(folder: Path) -> TensorFile:
    """The arrays of all shards that the index names: each array in the shard that it names, and no other."""
    source, data = repr(str(folder / INDEX)), map_file(folder / INDEX)
    if len(data) > HEADER:
        raise UserError(f"{source} has {len(data)} bytes, and {HEADER} are read at most; it is no index")
    places = strict_object(data.tobytes(), source, HEADER).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{source} has no weight_map from arrays to files; {_DAMAGED}")
    entries: dict[str, Entry] = {}
    metadata: dict[str, object] = {}
    for shard in sorted(set(places.values())):
        if not _plain(shard):
            raise UserError(
                f"{source} names the shard {show(shard)}, which is no safetensors file beside it; {_DAMAGED}"
            )
        if not (folder / shard).exists():
            raise UserError(f"{source} names the shard {show(shard)}, which is missing; fetch it too")
        arrays, about = _read(folder / shard)
        metadata |= about
        for name, entry in arrays.items():
            if places.get(name) != shard:
                where = f"in {show(places[name])}" if name in places else "nowhere"
                raise UserError(f"{source} has the array {show(name)} {where}, but {show(shard)} holds it; {_DAMAGED}")
            entries[name] = entry
    missing = [name for name in places if name not in entries]
    if missing:
        raise UserError(
            f"{source} has the array {show(missing[0])} in {show(places[missing[0]])}, which lacks it "
            f"({len(missing)} such arrays); {_DAMAGED}"
        )
    return TensorFile(source, entries, metadata)


def _plain(name: str) -> bool:
    """Whether this names a safetensors file in the same folder, on every system."""
    fits = name.isascii() and name.isprintable() and len(name) < 256 and not any(c in "/\\:" for c in name)
    return fits and name.endswith(".safetensors") and not name.startswith(".")


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays in pieces, whatever their layout, to a file that is there whole or not at all.

    The memory it takes is that of a piece. Equal arrays and metadata give equal bytes. Raises ValueError, naming the
    array, for a type that the format lacks and for values that are not finite; OSError as the system says.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that each lies aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _kind(name, array),
            "shape": list(array.shape),
            "data_offsets": [end, end := end + array.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    fd, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with FileIO(fd, "w") as file:
            _write(file, memoryview(len(text).to_bytes(8, "little") + text))
            for name in order:
                for piece in _pieces(name, arrays[name]):
                    _write(file, piece)
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    _sync_folder(path.absolute().parent)


def _kind(name: str, array: np.ndarray) -> str:
    """The format's name of an array's type. bfloat16 is not written: NumPy has no arrays of it."""
    kinds = {dtype: kind for kind, dtype in TYPES.items() if kind not in ("BF16", "BOOL")} | {np.dtype(bool): "BOOL"}
    try:
        return kinds[array.dtype.newbyteorder("<")]
    except KeyError:
        raise ValueError(f"array {name!r} is of type {array.dtype}, which a safetensors file cannot hold") from None


def _pieces(name: str, array: np.ndarray) -> Iterator[memoryview]:
    """The bytes of an array, little-endian and by rows, some megabytes at a time."""
    rows = array.reshape(1, 1) if array.ndim == 0 else array if array.ndim > 1 else array[:, None]
    if array.size == 0:
        return
    step = max(1, PIECE * len(rows) // array.size)
    for start in range(0, len(rows), step):
        piece: Any = np.ascontiguousarray(rows[start : start + step], array.dtype.newbyteorder("<"))
        if piece.dtype.kind == "f" and not np.isfinite(piece).all():
            raise ValueError(f"array {name!r} has a value that is not finite; a non-finite state is never written")
        yield piece.reshape(-1).view(np.uint8).data


def _write(file: FileIO, data: memoryview) -> None:
    """All of it: an unbuffered file may take less than it is given."""
    while data:
        data = data[file.write(data) :]


def _sync_folder(path: Path) -> None:
    """Wait until the new name is on the medium, where the system can do that."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
