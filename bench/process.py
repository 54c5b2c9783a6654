"""A worker process as its runner sees it: ask, get an answer, or learn in one line why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PATIENCE = 2.0
ROOT = str(Path(__file__).resolve().parents[len(__package__.split("."))])
"""Where the package is imported from."""


class Failed(Exception):
    """A side could not do what it was asked for; the text says why, in one line."""


class Worker:
    """A fresh process. Use as a context manager. name: for messages. environment: more variables than ours."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open for the life of the process)
        path = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker"],  # -P: nothing that lies in the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches the runner alone, which ends the workers
            text=True,
            encoding="utf-8",
        )

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """The answer to a command of `worker.Server`. Raises Failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise Failed(f"{self.name}: {self.end_reason()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Failed(f"{self.name}: {found['error']}")
        return found

    def end_reason(self) -> str:
        """How the process ended, and the last line that it wrote to its standard error."""
        self.end()
        code = self.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        memory = " (mostly a lack of memory)" if code == -9 else ""
        return f"its process {how}{memory}" + (f": {last}" if last else "")

    def end(self) -> None:
        """Let the process end, or end it, and wait."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None:
            self.process.kill()  # nobody waits for what it is at
        self.end()
        self.said.close()
