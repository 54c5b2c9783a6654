"""A run folder: the whole state of a training run in a few plain files, of one step at any moment.

`commit` replaces the state at once (files.py says how); `manifest.json` holds the checksum of every file and of itself,
so that opening finds every changed byte. One process writes at a time; any number may read while it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from minilong.errors import UserError
from minilong.train import files as fs
from minilong.train.manifest import Entry, Manifest, ManifestError, is_plain
from minilong.train.metrics import METRICS, MetricsLog, from_lines, to_line
from minilong.train.run_errors import as_user_errors, damaged, mend, quoted, reason
from minilong.train.run_finding import STATE, is_run, require_run
from minilong.train.snapshot import Snapshot, read_manifest

LOCK = ".lock"


class RunFolder:
    """An open run folder. A writer (`create`, `open(write=True)`) holds its lock until `close` or the process ends.

    A reader sees the state that it opened, whatever a writer commits meanwhile. A writer sees its own last commit. Not
    for several threads at once. The parameter `disk` of the constructors is for tests.
    """

    def __init__(self, path: Path, disk: fs.Disk) -> None:
        """For `create` and `open`, which check the folder."""
        self.path = path
        self._disk = disk
        self._manifest = Manifest(0, {})
        self._step: int | None = None
        # What the last commit published, or was about to when it failed.
        self._attempt: tuple[Manifest, int | None] = self._manifest, self._step
        self._settled = True  # False from the start of a commit to its end: an error or an interrupt leaves it so
        self._snapshot: Snapshot | None = None
        self._log: MetricsLog | None = None  # a writer has one
        self._lock: fs.OpenFile | None = None
        self._replaces = False

    @classmethod
    def create(cls, path: Path, *, replace: bool = False, disk: fs.Disk | None = None) -> RunFolder:
        """A new run for writing, with nothing in it before the first commit.

        With `replace` the folder may hold a run, even a damaged one; it stays whole until the first commit. UserError:
        the folder is in use (or, with `replace`, by something that is no run), a parent is a file, no permission.
        """
        run = cls(Path(path), disk or fs.Disk())
        try:
            with as_user_errors(f"cannot make the run folder {run.path}"):
                run._require_free(replace)
                fs.make_folders(run._disk, run.path)
                run._acquire()
                run._require_free(replace)  # once more: another process may have come before the lock
                fs.discard(run._disk, run.path)
                if replace:
                    run._step_aside()
            run._log = MetricsLog(run._disk)
        except BaseException:
            run.close()
            raise
        return run

    @staticmethod
    def check_free(path: Path, *, replace: bool = False) -> None:
        """UserError where `create` would refuse the folder for what is in it. Writes nothing."""
        with as_user_errors(f"cannot make the run folder {path}"):
            RunFolder(Path(path), fs.Disk())._require_free(replace)

    @classmethod
    def open(cls, path: Path, *, write: bool = False, disk: fs.Disk | None = None) -> RunFolder:
        """A run that exists, every file verified; with `write` to go on with it, from the last commit.

        Reading needs no permission to write. UserError: no such folder, not a run, damaged (which file, which array),
        of a newer format, and with `write`: another process writes, not writable.
        """
        run = cls(Path(path), disk or fs.Disk())
        try:
            with as_user_errors(f"cannot open the run {run.path}"):
                require_run(run.path)
                if write:
                    run._acquire()
                snapshot = run._latest()
                snapshot.verify()
                run._manifest = snapshot.manifest
                run._step = _step_of(snapshot.read(STATE)) if STATE in run.files else None
                run._attempt = run._manifest, run._step
                if write:
                    run._log = MetricsLog(run._disk, snapshot.read(METRICS))
                    run._settled = False
                    run._settle(run._log)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files of the committed state, sorted."""
        return tuple(sorted(self._manifest.files))

    @property
    def step(self) -> int | None:
        """The `step` of the committed `state.json`; None before a commit, or where it has none."""
        return self._step

    def commit(self, files: Mapping[str, bytes]) -> None:
        """Replace the state: the given files are new, all others stay, and so does what was added to the metrics.

        When it returns, the state is on the medium. UserError, in one line, for a full or failing disk; it says which
        step is whole. After an error or an interrupt the run is still good for further commits.
        """
        log = self._writer()
        for name in files:
            if not is_plain(name) or name == METRICS:
                raise ValueError(f"{name!r} cannot be the name of a committed file")
        with self._save_errors(sum(map(len, files.values()))):
            self._settle(log)
            self._settled = False
            new = dict(files)
            metrics = log.settle()
            if metrics is not None:
                new[METRICS] = metrics
            entries = {name: Entry.of(data) for name, data in new.items()}
            manifest = Manifest(self._manifest.commit + 1, {**self._manifest.files, **entries, METRICS: log.entry})
            self._attempt = manifest, _step_of(files[STATE]) if STATE in files else self._step
            try:
                fs.stage(self._disk, self.path, new, manifest.to_bytes())
            except OSError:
                self._give_space_back()
                raise
            fs.publish(self._disk, self.path)
            if metrics is not None:
                log.renewed()
            self._settle(log)

    def read(self, name: str) -> bytes:
        """A file of the committed state, verified now. UserError where there is none, or it is damaged."""
        with as_user_errors(f"cannot read {self.path / name}"):
            if not self._manifest.files:
                raise UserError(f"{self.path} has no {name}; nothing was saved in it yet")
            return self._latest().read(name)

    def map(self, name: str) -> memoryview:
        """A file of the committed state as memory that is read when it is used: views of it cost nothing.

        Verified when the run was opened, not again. It may be written to, which changes no file, and it stays what it
        is whatever is committed, also after `close`. UserError where there is no such file.
        """
        with as_user_errors(f"cannot read {self.path / name}"):
            return self._latest().map(name)

    def sha256(self, name: str) -> str:
        """The checksum of a file of the committed state. UserError where there is no such file."""
        if name not in self._manifest.files:
            raise UserError(f"{self.path} has no {name}; it has {', '.join(self.files)}")
        return self._manifest.files[name].sha256

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """Add one line to `metrics.jsonl`; the next commit makes it part of the state.

        ValueError for a number that is not finite, UserError for a full disk.
        """
        log = self._writer()
        line = to_line(record)
        with self._save_errors(len(line)):
            self._settle(log)
            log.append(line)

    def metrics(self) -> list[dict[str, object]]:
        """The records of the committed state; of a run open for writing, those added since as well."""
        with as_user_errors(f"cannot read {self.path / METRICS}"):
            data = self._log.content() if self._log is not None else self.read(METRICS)
        try:
            return from_lines(data)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path / METRICS, "is not one JSON record a line") from error

    def close(self) -> None:
        """Let go of the files and the lock. What was added to the metrics since the last commit is not kept."""
        self._snapshot = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _writer(self) -> MetricsLog:
        if self._log is None:
            raise ValueError(f"the run {self.path} is not open for writing: RunFolder.open(path, write=True)")
        return self._log

    def _latest(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Snapshot.take(self._disk, self.path)
        if self._snapshot is None:
            raise damaged(self.path / fs.MANIFEST, "is missing")
        return self._snapshot

    def _acquire(self) -> None:
        lock = fs.OpenFile(self._disk, self.path / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            lock.lock()
        except BlockingIOError as error:
            owner = lock.read(20).decode("ascii", "replace")
            process = f"process {owner}" if owner.isdigit() else "another process"
            raise UserError(
                f"the run {self.path} is being written by {process}; wait for it, stop it, or choose another --out"
            ) from error
        self._lock = lock
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())

    def _require_free(self, replace: bool) -> None:
        """UserError unless the folder is missing or empty, leftovers of a run that never saved aside."""
        if not self.path.exists():
            above = next(folder for folder in self.path.absolute().parents if folder.exists())
            if not above.is_dir():
                raise UserError(f"cannot make the run folder {self.path}: {above} is a file; choose another --out")
            if not os.access(above, os.W_OK | os.X_OK):
                raise UserError(
                    f"cannot make the run folder {self.path}: {above} cannot be written to; "
                    "make it writable, or choose another --out"
                )
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a folder; choose another --out")
        names = sorted(set(self._disk.names(self.path)) - {LOCK, fs.NEXT})
        if is_run(self.path) and not replace:
            resume = f"go on with it by `minilong train --resume {quoted(self.path)}`"
            raise UserError(f"{self.path} holds a run already; choose another --out, {resume}, or add --replace")
        if names and not is_run(self.path):
            raise UserError(f"{self.path} is not empty and not a run (it has {names[0]}); choose another --out")

    def _step_aside(self) -> None:
        """Start after the commits of the run to be replaced; its own unfinished commit is finished."""
        self._replaces = is_run(self.path)
        try:
            old = Snapshot.take(self._disk, self.path)
        except UserError:  # damaged or of a newer format: to be replaced all the same
            old = None
        if old is not None:
            self._manifest = old.manifest
        fs.roll_forward(self._disk, self.path, self._obsolete())
        self._manifest = Manifest(self._manifest.commit, {})

    def _obsolete(self) -> list[str]:
        """The files of a replaced run that the new one lacks; none in every other commit."""
        try:
            file = fs.OpenFile(self._disk, self.path / fs.MANIFEST)
            old = Manifest.from_bytes(file.read(file.stat().st_size))
        except (FileNotFoundError, ManifestError):
            return []
        return [name for name in old.files if name not in self._manifest.files]

    def _settle(self, log: MetricsLog) -> None:
        """Bring folder and object into step: from after a commit, a failed or interrupted one, or a crash."""
        if self._settled:
            return
        published = self._adopt()
        fs.discard(self._disk, self.path)
        if self._manifest.files:
            fs.roll_forward(self._disk, self.path, self._obsolete())
            if published or not log.attached:
                log.attach(self.path / METRICS)
        self._settled = True

    def _adopt(self) -> bool:
        """Whether the last attempt was published, which makes it the state of this run."""
        published = read_manifest(self._disk, self.path) == self._attempt[0].to_bytes()
        if published:
            self._manifest, self._step = self._attempt
            self._snapshot = None
        return published

    def _give_space_back(self) -> None:
        with suppress(OSError):  # the error that led here is the one to tell; the next commit or opening tries again
            fs.discard(self._disk, self.path)

    @contextmanager
    def _save_errors(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError, UserError):  # where the disk fails altogether, tell of the first error
                self._adopt()
            whole = f"the state of step {self._step} is whole" if self._step is not None else "no state was saved yet"
            if self._replaces and not self._manifest.files:
                whole = "the run that it replaces is whole"
            resume = f", then `minilong train --resume {quoted(self.path)}`" if self._manifest.files else ""
            fact = f"cannot save to {self.path}: {reason(error)} (to write: {size:,} bytes)"
            raise UserError(f"{fact}; {whole}: {mend(error)}{resume}") from error


def _step_of(state: bytes) -> int | None:
    try:
        step = json.loads(state)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None
