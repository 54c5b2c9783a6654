"""The overhead of the engine per operation, by the script that measures it, against a limit that no machine reaches."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_an_operation_costs_microseconds() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "engine.py"))
    assert script["microseconds_per_operation"](20) < 30
