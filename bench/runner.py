"""Run a case: build every side in a process of its own, compare their results, then time them in turn.

The order is turned round from round to round, so that a machine that slows down slows both sides; between two turns is
a pause, in which the threads of the last side fall asleep (those of OpenMP spin for a while).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .case import OURS, Case
from .gate import compare
from .process import Failed, Worker

PAUSE = 0.3
PROFILED_STEPS = 5


@dataclass(frozen=True)
class Options:
    """How cases are run. threads: of each side, unless the case says."""

    threads: int = 2
    rounds: int = 5
    pause: float = PAUSE
    profile: bool = False


@dataclass
class Run:
    """A case in the making: its record grows, and is whole enough to be shown at any moment."""

    case: Case
    peers: Sequence[str]
    options: Options
    report: Callable[[str], None]
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        work = self.case.least_work()
        self.threads = self.case.threads or self.options.threads
        self.record: dict[str, Any] = {
            "name": self.case.name,
            "kind": self.case.kind,
            "about": self.case.about,
            "settings": dict(self.case.settings),
            "threads": self.threads,
            "work": None if work is None else {"ceiling": work.ceiling, "amount": work.amount},
            "status": "unfinished",
            "sides": {},
            "absent": {p: text for p, text in self.missing.items() if p in self.peers and p in self.case.sides},
            "broken": {},
            "gates": {},
            "points": [],
            "profile": None,
        }

    def __call__(self) -> dict[str, Any]:
        """The record: `status` is `timed`, `red` (a gate), or `failed` with `error` (minilong's own side)."""
        try:
            with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="minilong-bench-") as folder:
                if self.case.growth:
                    self.grow(stack)
                else:
                    self.alternate(stack, Path(folder))
        except Failed as failure:
            self.record["status"], self.record["error"] = "failed", str(failure)
        return self.record

    def start(self, stack: ExitStack, side: str, shared: Path | None) -> Worker:
        """A process with the side built in it."""
        worker = stack.enter_context(Worker(side, environment(side, self.threads)))
        built = worker.ask(
            "prepare",
            side=self.case.sides[side],
            settings=dict(self.case.settings),
            threads=self.threads,
            shared=None if shared is None else str(shared),
            cores=self.threads if side == "jax" else None,
        )
        self.record["sides"][side] = {"built": built, "rounds": []}
        return worker

    def grow(self, stack: ExitStack) -> None:
        """Points over sizes."""
        self.report("measuring sizes")
        worker = self.start(stack, OURS, None)
        rounds = max(1, min(self.options.rounds, 3))
        self.record["points"] = worker.ask("sweep", rounds=rounds, seconds=self.case.seconds)["points"]
        self.record["sides"][OURS] |= worker.ask("memory")
        self.record["status"] = "timed"

    def alternate(self, stack: ExitStack, folder: Path) -> None:
        """Gate, then rounds."""
        self.report("building")
        workers = {OURS: self.start(stack, OURS, None)}
        present = [p for p in self.peers if p in self.case.sides and p not in self.missing]
        if present:
            workers[OURS].ask("share", file=str(folder / "shared.npz"))
        for peer in present:
            self.report(f"building {peer}")
            try:
                workers[peer] = self.start(stack, peer, folder / "shared.npz")
                self.gate(workers, peer, folder)
            except Failed as failure:
                self.record["sides"].pop(peer, None)
                self.record["broken"][peer] = str(failure)
                workers.pop(peer, None)
        if not all(gate["green"] for gate in self.record["gates"].values()):
            self.record["status"] = "red"
            return
        for side, worker in workers.items():
            self.report(f"warming up {side}")
            self.record["sides"][side]["warm"] = worker.ask("warm")["seconds"]
        self.time(workers)
        if self.case.kind != "start":  # there the worker only waits for the process that counts
            for side, worker in workers.items():
                self.record["sides"][side] |= worker.ask("memory")
        self.record["status"] = "timed"
        if self.options.profile and self.case.kind == "step":
            self.report("profiling")
            self.record["profile"] = workers[OURS].ask("profile", steps=PROFILED_STEPS)

    def gate(self, workers: Mapping[str, Worker], peer: str, folder: Path) -> None:
        """Compare a peer's results with ours."""
        files = {OURS: folder / "ours.npz", peer: folder / f"{peer}.npz"}
        for side, file in files.items():
            if not file.exists():
                self.report(f"gate: {side}")
                self.record["sides"][side]["gate_seconds"] = workers[side].ask("gate", file=str(file))["seconds"]
        with np.load(files[OURS]) as ours, np.load(files[peer]) as theirs:
            self.record["gates"][peer] = compare(dict(ours), dict(theirs), self.case.tolerance)
        files[peer].unlink()

    def time(self, workers: Mapping[str, Worker]) -> None:
        """Rounds, their order turned each time."""
        for turn in range(self.options.rounds):
            for side in list(workers)[:: 1 if turn % 2 == 0 else -1]:
                self.report(f"round {turn + 1}/{self.options.rounds}: {side}")
                time.sleep(self.options.pause)
                found = workers[side].ask("run", seconds=self.case.seconds)
                self.record["sides"][side]["rounds"].append(found)


def environment(side: str, threads: int) -> dict[str, str]:
    """Variables that a side's library reads when it is imported. XLA takes as many threads as the process may use
    cores, so its worker is held to these (`worker.Server.prepare`); its matrix products are told here."""
    if side != "jax":
        return {}
    return {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}", "JAX_PLATFORMS": "cpu"}


def ceilings(threads: int, *, quick: bool = False) -> dict[str, Any]:
    """What the machine can do at most, by a fresh process."""
    with Worker(OURS) as worker:
        return worker.ask("ceiling", threads=threads, repeats=1 if quick else 5, quick=quick)
