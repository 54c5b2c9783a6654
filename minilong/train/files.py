"""Replace a set of files in a folder all at once: after a crash at any moment, all are old or all are new.

The protocol is a write-ahead folder, so that the files keep their plain names:

1. *stage*: every new file goes to `.next/`, each one synchronised, the manifest last, then the folder itself;
2. *publish*: `.next` is renamed to `.commit`. This one rename is the commit;
3. *roll forward*: each file moves from `.commit/` over its plain name, the manifest last, and `.commit` goes away.

Step 3 may stop anywhere and start again, because of the one rule for reading: a name means `.commit/NAME` where that
exists and the plain `NAME` otherwise. So a reader that may not write finds the new set too, before it is moved. A full
disk can only strike in step 1, which touches nothing of the old set; steps 2 and 3 rename and write no data.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

NEXT = ".next"
COMMIT = ".commit"
MANIFEST = "manifest.json"


class Disk:
    """Each call that reads or changes files, one method a call, so that a test can let any of them fail.

    Reads and writes take a file descriptor and a position, and may do less than they were asked to, as in POSIX.
    """

    def open(self, path: Path, flags: int) -> int:
        # Non-blocking, so that a named pipe in place of a file cannot hang the program; no effect on regular files.
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)

    def close(self, fd: int) -> None:
        os.close(fd)

    def stat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def read(self, fd: int, size: int, position: int) -> bytes:
        return os.pread(fd, size, position)

    def map(self, fd: int, size: int) -> mmap.mmap:
        return mmap.mmap(fd, size, access=mmap.ACCESS_COPY)

    def write(self, fd: int, data: memoryview, position: int) -> int:
        return os.pwrite(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def lock(self, fd: int) -> None:
        """Take the exclusive lock or raise BlockingIOError; the system frees it when the process ends, however."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))


class OpenFile:
    """An open file that closes itself when nothing refers to it any longer."""

    def __init__(self, disk: Disk, path: Path, flags: int = os.O_RDONLY) -> None:
        self.path = path
        self._disk = disk
        self._fd = disk.open(path, flags)
        self._closer = weakref.finalize(self, disk.close, self._fd)

    def stat(self) -> os.stat_result:
        return self._disk.stat(self._fd)

    def in_place(self) -> bool:
        """Whether its path still names this file: not after another program removed or replaced it."""
        try:
            return os.path.samestat(self.stat(), os.stat(self.path))
        except FileNotFoundError:
            return False

    def read(self, size: int, position: int = 0) -> bytes:
        """The `size` bytes from `position` on, fewer only where the file ends before."""
        parts: list[bytes] = []
        while size > 0 and (part := self._disk.read(self._fd, size, position)):
            parts.append(part)
            size -= len(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self, size: int) -> mmap.mmap:
        """The first `size` bytes as memory, which may be written to and never changes the file. It outlives this."""
        return self._disk.map(self._fd, size)

    def write(self, data: bytes, position: int = 0) -> None:
        """Write all of `data` at `position`."""
        view = memoryview(data)
        while view:
            done = self._disk.write(self._fd, view, position)
            view = view[done:]
            position += done

    def truncate(self, size: int) -> None:
        self._disk.truncate(self._fd, size)

    def sync(self) -> None:
        """Wait until the content is on the medium."""
        self._disk.fsync(self._fd)

    def lock(self) -> None:
        """Take the exclusive lock of the file, or raise BlockingIOError."""
        self._disk.lock(self._fd)

    def close(self) -> None:
        """Close it now; a second time does nothing."""
        self._closer()


def write_file(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the medium."""
    file = OpenFile(disk, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()


def sync_folder(disk: Disk, path: Path) -> None:
    """Wait until the names in a folder are on the medium, where the file system can do that."""
    folder = OpenFile(disk, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        folder.sync()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not synchronise folders
            raise
    finally:
        folder.close()


def make_folders(disk: Disk, path: Path) -> None:
    """Make a folder and its missing parents, each name synchronised; one that exists is left as it is."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            disk.mkdir(folder)
        except FileExistsError:  # another process made it in between
            continue
        sync_folder(disk, folder.parent)


def open_latest(disk: Disk, folder: Path, name: str) -> OpenFile | None:
    """A file of the committed set, moved to its plain name already or not; None where it is at neither place."""
    for path in (folder / COMMIT / name, folder / name):
        try:
            return OpenFile(disk, path)
        except FileNotFoundError:
            continue
    return None


def stage(disk: Disk, folder: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    """Step 1: write the new files and, last, their manifest into `.next`. The committed set is not touched.

    Needs `.next` to be away: discard it first.
    """
    disk.mkdir(folder / NEXT)
    for name, data in files.items():
        write_file(disk, folder / NEXT / name, data)
    write_file(disk, folder / NEXT / MANIFEST, manifest)
    sync_folder(disk, folder / NEXT)


def publish(disk: Disk, folder: Path) -> None:
    """Step 2: commit what is staged. Needs `.commit` to be away: roll forward first."""
    disk.replace(folder / NEXT, folder / COMMIT)
    sync_folder(disk, folder)


def roll_forward(disk: Disk, folder: Path, obsolete: Iterable[str]) -> None:
    """Step 3, from wherever it stopped: move the committed files over their plain names, remove `obsolete` ones."""
    try:
        names = disk.names(folder / COMMIT)
    except FileNotFoundError:
        return
    for name in names:
        if name != MANIFEST:
            disk.replace(folder / COMMIT / name, folder / name)
    for name in obsolete:
        _unlink(disk, folder / name)
    if MANIFEST in names:
        # Last, because the old manifest is what tells a second attempt which files are obsolete.
        disk.replace(folder / COMMIT / MANIFEST, folder / MANIFEST)
    sync_folder(disk, folder)
    disk.rmdir(folder / COMMIT)


def discard(disk: Disk, folder: Path) -> None:
    """Remove what a stopped attempt left in `.next`."""
    try:
        names = disk.names(folder / NEXT)
    except FileNotFoundError:
        return
    for name in names:
        _unlink(disk, folder / NEXT / name)
    disk.rmdir(folder / NEXT)


def _unlink(disk: Disk, path: Path) -> None:
    with suppress(FileNotFoundError):
        disk.unlink(path)
