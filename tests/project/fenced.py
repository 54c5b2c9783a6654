"""The fenced code blocks of the project's documents, and the tools that their examples need to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (empty if none is named), its text, and the line of its fence."""

    language: str
    text: str
    line: int


def blocks(document: str, *languages: str) -> list[Block]:
    """The blocks of a document (a path below the root) in the given languages, in order; all if none is given."""
    text = (ROOT / document).read_text("utf-8")
    found = [
        Block(m[1], m[2], text.count("\n", 0, m.start()) + 1)
        for m in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    assert text.count("```") == 2 * len(found), f"{document} has a fence that is not closed"
    return [b for b in found if not languages or b.language in languages]


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process with the environment's own programs first on its path; exit code 0 is asserted."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    # Threads of the BLAS that wait by spinning make a machine that others use ten times slower.
    ours = {"PATH": path, "PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | ours | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done
