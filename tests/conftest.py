"""What every test runs under: one Hypothesis profile, floating-point errors raised, fresh memory full of NaN."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minilong.backend
import minilong.backend.arrays

# `pytest --hypothesis-profile deep` chooses another one. No deadline: the machines are shared.
settings.register_profile("dev", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def poisoned(xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Stands in for `workspace`: memory that a kernel reads before it writes shows up as NaN."""
    return xp.full(shape, np.nan, dtype) if np.dtype(dtype).kind in "fc" else xp.full(shape, 77, dtype)


# A shell that starts pytest in the background has it ignore Ctrl-C, and child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any other module of the package is imported, since each takes the name from here.
minilong.backend.arrays.workspace = minilong.backend.workspace = poisoned


@pytest.fixture(autouse=True)
def floating_point_errors() -> Iterator[None]:
    """Overflow, division by zero and invalid operations raise. Underflow is meant: exp of a hidden score is 0."""
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """A function (what, how many) whose sums over all tests stand at the end of the report."""
    return lambda what, number: record_property("counted", (what, number))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests counted."""
    sums: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "counted":
                what, number = value
                sums[what] += number
    for what, number in sorted(sums.items()):
        terminalreporter.write_line(f"{number} {what}")
