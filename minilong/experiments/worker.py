"""The process that computes one cell: `python -m minilong.experiments.worker`, a task on standard input.

Standard output carries a line of JSON for each report of progress, and one for an error that a person can mend. The
result is written to the task's file, whole, as the last thing. What a process that is killed was writing, the next run
removes (`cells.sweep`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from minilong.errors import Diverged, UserError
from minilong.experiments.cells import write_whole

INTERVAL = 0.5


def compute(task: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Compute the cell of a task and write its record."""
    from threadpoolctl import threadpool_limits

    module, _, name = task["computation"].partition(":")
    if not module.startswith("minilong."):
        raise ValueError(f"computation {module!r} is not one of minilong's")
    latest = 0.0

    def report(share: float) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest > INTERVAL:
            latest = now
            say({"share": share})

    begin, spent = time.perf_counter(), time.process_time()
    computation = getattr(import_module(module), name)  # before the limit, which holds for libraries that are loaded
    with threadpool_limits(1):
        result = computation(task["settings"], report)
    seconds, processor = time.perf_counter() - begin, time.process_time() - spent
    record = {"settings": task["settings"], "result": result, "seconds": seconds, "processor_seconds": processor}
    write_whole(Path(task["file"]), json.dumps(record, allow_nan=False).encode())


def main() -> int:
    """Read the task, compute, answer; the exit code is 0 where the record was written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it ends this process by SIGTERM
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # what a computation might print is no answer

    def say(words: dict[str, Any]) -> None:
        answer.write(json.dumps(words) + "\n")
        answer.flush()

    try:
        compute(json.loads(sys.stdin.buffer.read()), say)
    except UserError as error:
        say({"error": str(error), "diverged": isinstance(error, Diverged)})
        return 1
    except BrokenPipeError:  # the parent is gone, and so is the need for a result
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
