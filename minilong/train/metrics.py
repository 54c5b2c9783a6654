"""The growing file of a run: one JSON record a line, appended at once, committed together with the rest of the state.

A manifest covers the beginning that was there when it was written; lines after it belong to steps that a resumed run
does again, so they are dropped on opening for writing.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from minilong.train.files import Disk, OpenFile
from minilong.train.manifest import Entry

METRICS = "metrics.jsonl"


def to_line(record: Mapping[str, object]) -> bytes:
    """One record as a line of JSON. ValueError, naming the field, for a number that is not finite."""
    parts = []
    for key, value in record.items():
        try:
            parts.append(f"{json.dumps(str(key))}: {json.dumps(value, allow_nan=False, default=_plain)}")
        except ValueError as error:
            raise ValueError(f"metrics field {key!r} is not a finite number: {value!r}") from error
    return ("{" + ", ".join(parts) + "}\n").encode("ascii")


def from_lines(data: bytes) -> list[dict[str, object]]:
    """The records of such lines. ValueError where a line is not a JSON table."""
    records = [json.loads(line) for line in data.splitlines()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("a line is not a table")
    return records


class MetricsLog:
    """The writer's end: where the file stands, with its checksum so far.

    Before the first commit there is no file and the lines wait in memory, so that a run that replaces another one
    leaves the old one whole.
    """

    def __init__(self, disk: Disk, content: bytes = b"") -> None:
        self._disk = disk
        self._file: OpenFile | None = None
        self._waiting = content
        self._size = len(content)
        self._hash = sha256(content)
        self._suspect = False

    @property
    def entry(self) -> Entry:
        """What the manifest says of the file."""
        return Entry(self._size, self._hash.hexdigest())

    @property
    def attached(self) -> bool:
        """Whether the lines go into a file already."""
        return self._file is not None

    def attach(self, path: Path) -> None:
        """Go on in the file at `path`, which holds this log's content; what comes after it is cut off."""
        self.close()
        self._file = OpenFile(self._disk, path, os.O_RDWR)
        self._file.truncate(self._size)
        self._waiting = b""

    def append(self, line: bytes) -> None:
        """Add a line. After an error the log stands where it stood before."""
        if self._file is None:
            self._waiting += line
        else:
            try:
                # At its own position, not at the end of the file: the rest of a failed write is written over.
                self._file.write(line, self._size)
            except OSError:
                self._suspect = True
                raise
        self._size += len(line)
        self._hash.update(line)

    def content(self) -> bytes:
        """All lines so far."""
        if self._file is None:
            return self._waiting
        data = self._file.read(self._size)
        if sha256(data).digest() != self._hash.digest():
            raise OSError(errno.EIO, f"{METRICS} was changed by another program")
        return data

    def settle(self) -> bytes | None:
        """Bring the file to the medium before a commit, or return the content where the commit has to write it anew.

        The latter after an error of the file system, for a failed fsync may have lost what a second one calls written,
        and after another program took the file away.
        """
        if self._file is None or self._suspect or not self._file.in_place():
            return self.content()
        try:
            self._file.truncate(self._size)
            self._file.sync()
        except OSError:
            self._suspect = True
            raise
        return None

    def renewed(self) -> None:
        """The content was committed anew: the file that `attach` gets next is sound."""
        self._suspect = False

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _plain(value: object) -> object:
    """NumPy's scalars as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"metrics cannot hold a {type(value).__name__}")
