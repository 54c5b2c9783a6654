"""Disks that fail or stop at a chosen call, and the small states that the run folder tests save."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minilong.errors import UserError
from minilong.train.arrays import arrays_to_bytes
from minilong.train.files import Disk
from minilong.train.metrics import METRICS
from minilong.train.run import RunFolder

CALLS = ("open", "read", "write", "truncate", "fsync", "lock", "replace", "unlink", "mkdir", "rmdir", "names", "stat")
NOTHING: dict[str, bytes] = {}


def state(step: int, *extra: str) -> dict[str, bytes]:
    """A state that tells its step in every file."""
    files = {
        "config.toml": f"seed = {step}\n".encode(),
        "model.safetensors": arrays_to_bytes(
            {"weight": np.full((2, 3), step, np.float32), "bias": np.arange(3) + step}
        ),
        "optimizer.safetensors": arrays_to_bytes({"m": np.full(4, step, np.float64)}),
        "state.json": f'{{"step": {step}}}\n'.encode(),
    }
    return files | {name: f"{name} {step}".encode() for name in extra}


class QuickDisk(Disk):
    """Does not wait for the medium: a real fsync takes milliseconds, and only a loss of power tells the difference."""

    def fsync(self, fd: int) -> None:
        pass


def contents(path: Path) -> dict[str, bytes]:
    """All files of the committed state, verified; NOTHING where no state was ever committed."""
    if not path.exists() or not {"manifest.json", ".commit"} & set(os.listdir(path)):
        return NOTHING
    with RunFolder.open(path) as run:
        return {name: run.read(name) for name in run.files}


def saved(path: Path, step: int, *extra: str) -> dict[str, bytes]:
    """Make a run with one state and one metrics record, and give what `contents` finds in it."""
    with RunFolder.create(path, disk=QuickDisk()) as run:
        run.append_metrics({"step": step})
        run.commit(state(step, *extra))
    return state(step, *extra) | {METRICS: f'{{"step": {step}}}\n'.encode()}


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where the system has such: the tests make thousands of small files."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


class Crash(BaseException):
    """The process ends here: nothing after it is executed."""


class FaultyDisk(QuickDisk):
    """Counts calls; `fault` is called at call `at` with the call to do, and at every later one if `lasting`.

    A write that fails has written its first half. `close` cannot fail: after fsync it has nothing left to report.
    """

    def __init__(self, at: int, fault: Callable[[], BaseException], *, lasting: bool = False, late: bool = False):
        self.at, self.fault, self.lasting, self.late = at, fault, lasting, late
        self.calls = 0
        self.dead = False
        self.fds: set[int] = set()

    @property
    def struck(self) -> bool:
        return self.calls > self.at

    def _call(self, name: str, *args: Any) -> Any:
        call = getattr(super(), name)
        strikes = self.calls == self.at or (self.lasting and self.calls > self.at)
        self.calls += 1
        if strikes and not self.late:
            if name == "write":
                fd, data, position = args
                call(fd, data[: len(data) // 2], position)
            raise self.strike()
        result = call(*args)
        if name == "open":
            self.fds.add(result)
        if strikes:
            raise self.strike()
        return result

    def strike(self) -> BaseException:
        error = self.fault()
        if isinstance(error, Crash):
            self.dead = True
            for fd in self.fds:  # as the system does for a process that ends, the lock included
                os.close(fd)
        return error

    def close(self, fd: int) -> None:
        if not self.dead:
            self.fds.discard(fd)
            super().close(fd)


def _counted(name: str) -> Callable[..., Any]:
    return lambda self, *args: self._call(name, *args)


for _name in CALLS:
    setattr(FaultyDisk, _name, _counted(_name))


class PowerCutDisk(FaultyDisk):
    """Crashes at call `at`, and then loses what was not synchronised, of file contents and of names.

    Of contents: all, or all but a random beginning. Of names (created, renamed, removed): a suffix of random length of
    those after the last synchronisation of a folder they are in, which is what a journalling file system may lose.
    """

    def __init__(self, at: int, seed: int, backups: Path):
        super().__init__(at, Crash)
        self.random = random.Random(seed)
        self.backups = backups  # an empty folder on the same file system: for what is removed and may come back
        self.names_log: list[tuple[set[str], Callable[[], None]]] = []
        self.contents_log: dict[int, tuple[int, bytes]] = {}  # inode -> (descriptor of ours, synchronised content)
        self.paths: dict[int, str] = {}

    def _call(self, name: str, *args: Any) -> Any:
        undo = self._prepare(name, *args)
        result = super()._call(name, *args)
        if undo is not None:
            self.names_log.append(undo)
        if name == "open":
            self._opened(result, *args)
        elif name == "fsync":
            self._synchronised(*args)
        return result

    def _prepare(self, name: str, *args: Any) -> tuple[set[str], Callable[[], None]] | None:
        if name == "open" and args[1] & os.O_CREAT and not os.path.exists(args[0]):
            return {str(args[0].parent)}, lambda: os.unlink(args[0])
        if name == "mkdir":
            return {str(args[0].parent)}, lambda: os.rmdir(args[0])
        if name == "rmdir":
            return {str(args[0].parent)}, lambda: os.mkdir(args[0])
        if name in ("unlink", "replace"):
            target = args[-1]
            backup = self.backups / str(self.calls)
            kept = target.is_file()
            if kept:
                os.link(target, backup)

            def undo() -> None:
                if name == "replace":
                    os.rename(target, args[0])
                if kept:
                    os.rename(backup, target)

            return {str(path.parent) for path in args}, undo
        return None

    def _opened(self, fd: int, path: Path, flags: int) -> None:
        self.paths[fd] = str(path)
        inode = os.fstat(fd).st_ino
        if flags & (os.O_WRONLY | os.O_RDWR) and inode not in self.contents_log:
            size = os.fstat(fd).st_size
            self.contents_log[inode] = os.dup(fd), os.pread(fd, size, 0) if flags & os.O_RDWR else b""

    def _synchronised(self, fd: int) -> None:
        if os.path.isdir(self.paths[fd]):
            touched = [i for i, (folders, _) in enumerate(self.names_log) if self.paths[fd] in folders]
            del self.names_log[: touched[-1] + 1 if touched else 0]
        else:
            ours, _ = self.contents_log[os.fstat(fd).st_ino]
            self.contents_log[os.fstat(fd).st_ino] = ours, Path(self.paths[fd]).read_bytes()

    def strike(self) -> BaseException:
        for ours, content in self.contents_log.values():
            kept = os.fstat(ours).st_size
            beginning = self.random.choice([0, self.random.randint(0, kept)])
            if beginning <= len(content):
                os.ftruncate(ours, 0)
                os.pwrite(ours, content, 0)
            else:
                os.ftruncate(ours, beginning)
            os.close(ours)
        lost = self.random.choice([0, len(self.names_log), self.random.randint(0, len(self.names_log))])
        for _ in range(lost):
            self.names_log.pop()[1]()
        return super().strike()


def is_one_line(error: UserError) -> bool:
    """A fact and a remedy, in one line."""
    text = str(error)
    return "; " in text and text.isprintable()
