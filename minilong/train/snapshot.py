"""One committed state of a run folder, held open: checked against its manifest, unmoved by commits that follow."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

from minilong.errors import UserError, did_you_mean
from minilong.train.arrays import arrays_from_bytes
from minilong.train.files import MANIFEST, Disk, OpenFile, open_latest
from minilong.train.manifest import Manifest, ManifestError, NewerFormat
from minilong.train.metrics import METRICS
from minilong.train.run_errors import damaged

_CHUNK = 1 << 20
"""Bytes that are hashed at a time."""


class Snapshot:
    """The files of one state. Commits replace files, never write into them, so the open ones keep their content."""

    def __init__(self, folder: Path, manifest: Manifest, files: dict[str, OpenFile | None]) -> None:
        """For `take`."""
        self.folder = folder
        self.manifest = manifest
        self._files = files

    @classmethod
    def take(cls, disk: Disk, folder: Path) -> Snapshot | None:
        """The latest committed state of a folder, not verified yet; None where nothing was ever committed.

        UserError for a damaged manifest; OSError as the file system says.
        """
        latest = read_manifest(disk, folder)
        while latest is not None:
            before = latest
            manifest = _parse(before, folder)
            files = {name: open_latest(disk, folder, name) for name in manifest.files}
            # The same manifest before and after: so no commit came in between, and all files are of one state.
            latest = read_manifest(disk, folder)
            if latest == before:
                return cls(folder, manifest, files)
        return None

    def verify(self) -> None:
        """Compare every file with the manifest. UserError that names the first one that differs."""
        for name in self.manifest.files:
            file = self._open(name)
            digest, position = sha256(), 0
            end = self.manifest.files[name].size
            while chunk := file.read(min(_CHUNK, end - position), position):
                digest.update(chunk)
                position += len(chunk)
            self._compare(name, digest.hexdigest())

    def map(self, name: str) -> memoryview:
        """The content of a file as mapped memory, not verified again. UserError where the state has no such file."""
        self._require(name)
        file, size = self._open(name), self.manifest.files[name].size
        return memoryview(file.map(size)) if size else memoryview(b"")

    def read(self, name: str) -> bytes:
        """The content of a file, verified now. UserError where the state has no such file, or it is damaged."""
        self._require(name)
        data = self._open(name).read(self.manifest.files[name].size)
        self._compare(name, sha256(data).hexdigest())
        return data

    def _require(self, name: str) -> None:
        if name not in self.manifest.files:
            guess = did_you_mean(name, self.manifest.files)
            raise UserError(f"{self.folder} has no {name}{guess}; it has {', '.join(sorted(self.manifest.files))}")

    def _open(self, name: str) -> OpenFile:
        file = self._files[name]
        if file is None:
            raise damaged(self.folder / name, "is missing")
        status, expected = file.stat(), self.manifest.files[name].size
        if not stat.S_ISREG(status.st_mode):
            raise damaged(file.path, "is not a file")
        # Lines that a writer added since the commit follow in the metrics: they are not part of this state.
        if status.st_size < expected or (status.st_size > expected and name != METRICS):
            raise damaged(file.path, f"has {status.st_size:,} bytes in place of {expected:,}")
        return file

    def _compare(self, name: str, digest: str) -> None:
        if digest == self.manifest.files[name].sha256:
            return
        file = self._files[name]
        assert file is not None  # read a moment ago
        if name.endswith(".safetensors"):
            # Names the array where the damage lies in one; passes where only the file's frame differs.
            arrays_from_bytes(file.read(self.manifest.files[name].size), str(file.path))
        raise damaged(file.path, f"does not match its checksum in {MANIFEST}")


def read_manifest(disk: Disk, folder: Path) -> bytes | None:
    """The bytes of the latest committed manifest, unchecked; None where nothing was ever committed."""
    file = open_latest(disk, folder, MANIFEST)
    if file is None:
        return None
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise damaged(file.path, "is not a file")
        return file.read(file.stat().st_size)
    finally:
        file.close()


def _parse(data: bytes, folder: Path) -> Manifest:
    try:
        return Manifest.from_bytes(data)
    except NewerFormat as error:
        raise UserError(
            f"{folder} was written by a newer minilong ({error}); run pip install --upgrade minilong"
        ) from error
    except ManifestError as error:
        raise damaged(folder / MANIFEST, f"is damaged: {error}") from error
