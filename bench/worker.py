"""The process of one side: `python -m <package>.worker`, a line of JSON for each command, one for each answer.

It builds its state once, sleeps while the others compute, and ends when its input ends. Commands are the methods of
`Server`. An answer is an object; where the command failed it has `error`, in one line.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from . import memory
from .case import Side


def class_of(name: str) -> Any:
    """The class at `.module:Class` of this package, or `module:Class` of any other."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module, __package__), attribute)


class Server:
    """The commands. Files are `.npz`."""

    def __init__(self) -> None:
        self.side: Side | None = None
        self.before: int | None = None

    @property
    def built(self) -> Side:
        """The side. Raises RuntimeError before `prepare`."""
        if self.side is None:
            raise RuntimeError("no side was prepared yet")
        return self.side

    def prepare(
        self, side: str, settings: Mapping[str, Any], threads: int, shared: str | None, cores: int | None
    ) -> dict[str, Any]:
        """Import the side, then build it. cores: how many the process may use from now on, None for all."""
        if cores is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        begin = time.perf_counter()
        found = class_of(side)
        imported = time.perf_counter()
        memory.reset()
        self.before = memory.resident()
        self.side = found(settings, threads, {} if shared is None else dict(np.load(shared)))
        return {"import": imported - begin, "build": time.perf_counter() - imported}

    def share(self, file: str) -> dict[str, Any]:
        """Weights and inputs, for the others."""
        np.savez(file, **self.built.share())  # type: ignore[arg-type]
        return {}

    def gate(self, file: str) -> dict[str, Any]:
        """Results that must agree; and the seconds that this took, compilation included."""
        begin = time.perf_counter()
        results = self.built.gate()
        seconds = time.perf_counter() - begin
        np.savez(file, **results)  # type: ignore[arg-type]
        return {"seconds": seconds}

    def warm(self) -> dict[str, Any]:
        """One repetition that does not count. From here on the peak of memory counts."""
        gc.collect()
        resettable = memory.reset()
        begin = time.perf_counter()
        self.built.run()
        return {"seconds": time.perf_counter() - begin, "resettable": resettable}

    def run(self, seconds: float) -> dict[str, Any]:
        """A round: as many repetitions as fill the seconds, at least one."""
        gc.collect()
        times: list[float] = []
        side, begin = self.built, time.perf_counter()
        while not times or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            side.run()
            times.append(time.perf_counter() - start)
        return {"best": min(times), "median": statistics.median(times), "repetitions": len(times)}

    def memory(self) -> dict[str, Any]:
        """The peak of the repetitions, and by how much it is above what was resident once imports were done."""
        peak = memory.peak()
        growth = None if peak is None or self.before is None else peak - self.before
        return {"peak": peak, "growth": growth}

    def sweep(self, rounds: int, seconds: float) -> dict[str, Any]:
        """The points of a growth case."""
        return {"points": self.built.sweep(rounds, seconds)}

    def profile(self, steps: int) -> dict[str, Any]:
        """Where the time goes."""
        return self.built.profile(steps)

    def ceiling(self, threads: int, repeats: int, quick: bool) -> dict[str, Any]:
        """What the machine can do at most."""
        from .ceiling import measure

        return measure(threads, repeats=repeats, quick=quick)


COMMANDS = ("prepare", "share", "gate", "warm", "run", "memory", "sweep", "profile", "ceiling")


def answer(server: Server, line: str) -> dict[str, Any]:
    """What a line asks for."""
    asked = json.loads(line)
    name = asked.pop("do")
    if name not in COMMANDS:
        return {"error": f"there is no command {name!r}"}
    try:
        found: dict[str, Any] = getattr(server, name)(**asked)
    except Exception as error:  # the other sides and cases go on
        text = " ".join(str(error).split())[:300]
        return {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
    return found


def main() -> int:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    server = Server()
    for line in sys.stdin:
        try:
            out.write(json.dumps(answer(server, line)) + "\n")
            out.flush()
        except BrokenPipeError:
            return 1
    if server.side is not None:
        server.side.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
