"""The benchmark lives in `bench/`, beside the package: make that folder importable."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

PLANTED = """
import os
from bench.case import Side
from bench.ours.operations import Operation

class Right(Operation):
    pass

class Wrong(Operation):
    def gate(self):
        found = super().gate()
        return {**found, "gradient.0": found["gradient.0"] * 1.001}

class Short(Operation):
    def gate(self):
        return {"output": super().gate()["output"]}

class Dies(Operation):
    def run(self):
        os.write(2, b"out of luck\\n")
        os._exit(3)

class Raises(Operation):
    def gate(self):
        raise ValueError("no such\\nluck")

class Talks(Operation):
    def run(self):
        print("what a library prints is no answer")
        super().run()
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that gives the case `op-gelu`, tiny, with a side `peer` of the named class of PLANTED."""
    from dataclasses import replace

    from bench import CASES

    (tmp_path / "planted.py").write_text(PLANTED, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))

    def case(peer: str, ours: str = "Right") -> Any:
        sides = {"minilong": f"planted:{ours}", "peer": f"planted:{peer}"}
        return replace(CASES["op-gelu"].shrunk(), sides=sides)

    yield case
    sys.modules.pop("planted", None)
