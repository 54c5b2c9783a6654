"""The engine of experiments: a list of cells, computed in worker processes, each kept on disk once it is finished.

A cell is a value: which function computes it, and settings that JSON can hold. Its result is a function of these alone,
so that what was kept is as good as what would be computed anew, and an experiment that was stopped goes on where it
was. Pictures and tables are functions of what is on disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from minilong.errors import Diverged, UserError

POLL = 0.05
PATIENCE = 2.0
KEPT = "cells"
ROOT = str(Path(__file__).resolve().parents[2])
"""Where the package is imported from."""


@dataclass(frozen=True)
class Cell:
    """One piece of an experiment: `settings` (JSON values) go to the function `computation`, `module:name`.

    name: what people call it. weight: about how long it takes, in any unit that the cells share.
    """

    name: str
    computation: str
    settings: Mapping[str, Any]
    weight: float = 1.0

    @property
    def file(self) -> str:
        """The name of its file: it changes with any setting."""
        whole = json.dumps([self.computation, self.settings], sort_keys=True)
        return f"{blake2b(whole.encode(), digest_size=10).hexdigest()}.json"


@dataclass(frozen=True)
class State:
    """How far an experiment is. `running`: names and shares of the cells at work. Times in seconds; `remaining` is
    None until there is something to tell it from."""

    done: int
    cells: int
    running: tuple[tuple[str, float], ...]
    elapsed: float
    remaining: float | None
    finished: str | None = None
    """The cell that has just been finished."""


class Stopped(Exception):
    """A stop was asked for. `done` of `cells` cells are kept."""

    def __init__(self, done: int, cells: int) -> None:
        super().__init__(f"{done} of {cells} cells are kept")
        self.done, self.cells = done, cells


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    workers: int = 2,
    report: Callable[[State], None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """The records of all cells, in order: those that `folder` keeps, and the others computed now.

    Each is computed by a fresh process of one thread, `workers` at once. A record has `name`, `settings`, `result`,
    `seconds` and `processor_seconds`. Raises Stopped after a stop, and what a computation raised: the other cells that
    are at work are given up, those finished stay.
    """
    return _Run(cells, folder, workers, report, should_stop).all()


def kept(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The record of a cell that was finished before; None where there is none, or a damaged one."""
    try:
        record = json.loads((folder / KEPT / cell.file).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    settings = json.loads(json.dumps(cell.settings))
    fits = isinstance(record, dict) and record.get("settings") == settings and "result" in record
    return {**record, "name": cell.name} if fits else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file at once: a reader, and a crash at any moment, finds the old file or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote (`write_whole`) have left in a folder."""
    for part in folder.glob(".*.*"):
        owner = part.name.rpartition(".")[2]
        if not owner.isdigit():
            continue
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except (OSError, OverflowError):  # another user's, or no number of a process
            continue


class _Worker:
    """A process that computes one cell, in a session of its own: Ctrl-C reaches the parent alone, which ends it."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.share, self.error, self.diverged = cell, 0.0, "", False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minilong.experiments.worker"],  # -P: nothing that lies in the working folder
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        task = {"computation": cell.computation, "settings": cell.settings, "file": str(folder / KEPT / cell.file)}
        self.process.stdin.write(json.dumps(task).encode())
        self.process.stdin.close()
        self.listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self.listener.start()

    def _listen(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                said = json.loads(line)
                self.share = said.get("share", self.share)
                self.error, self.diverged = said.get("error", ""), said.get("diverged", False)

    def end(self) -> None:
        """End the process, if it has not ended by itself, and wait for it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.listener.join()

    def check(self) -> None:
        """Raise what the process failed of."""
        if self.error:
            raise (Diverged if self.diverged else UserError)(f"{self.cell.name}: {self.error}")
        if self.process.returncode:
            code = self.process.returncode
            how = f"was ended by signal {-code}" if code < 0 else f"failed with code {code}"
            raise UserError(
                f"the process of {self.cell.name} {how} (signal 9 is mostly a lack of memory); "
                "run the same command again to go on, or give a lower --jobs"
            )


class _Run:
    def __init__(
        self,
        cells: Sequence[Cell],
        folder: Path,
        workers: int,
        report: Callable[[State], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.cells, self.folder, self.workers, self.report, self.should_stop = (
            cells,
            folder,
            workers,
            report,
            should_stop,
        )
        self.records = {cell.file: record for cell in cells if (record := kept(cell, folder)) is not None}
        self.waiting = [cell for cell in cells if cell.file not in self.records]
        self.running: list[_Worker] = []
        self.begin, self.computed = time.perf_counter(), 0.0

    def all(self) -> list[dict[str, Any]]:
        (self.folder / KEPT).mkdir(parents=True, exist_ok=True)
        sweep(self.folder / KEPT)
        try:
            while self.waiting or self.running:
                if self.should_stop():
                    raise Stopped(self.done, len(self.cells))
                while self.waiting and len(self.running) < self.workers:
                    self.running.append(_Worker(self.waiting.pop(0), self.folder))
                self.report(self.state())
                time.sleep(POLL)
                for worker in [w for w in self.running if w.process.poll() is not None]:
                    self.finish(worker)
        finally:
            for worker in self.running:
                worker.end()
            sweep(self.folder / KEPT)
        return [self.records[cell.file] for cell in self.cells]

    def finish(self, worker: _Worker) -> None:
        worker.end()
        self.running.remove(worker)
        worker.check()
        record = kept(worker.cell, self.folder)
        assert record is not None, "the worker ended well, so its record is there"
        self.records[worker.cell.file] = record
        self.computed += worker.cell.weight
        self.report(self.state(worker.cell.name))

    @property
    def done(self) -> int:
        return sum(cell.file in self.records for cell in self.cells)

    def state(self, finished: str | None = None) -> State:
        elapsed = time.perf_counter() - self.begin
        half = sum(w.cell.weight * w.share for w in self.running)
        left = sum(c.weight for c in self.waiting) + sum(w.cell.weight for w in self.running) - half
        passed = self.computed + half
        remaining = elapsed * left / passed if passed > 0 and elapsed > 3 else None
        running = tuple((w.cell.name, w.share) for w in self.running)
        return State(self.done, len(self.cells), running, elapsed, remaining, finished)
