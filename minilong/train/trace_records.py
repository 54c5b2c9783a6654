"""What a trace consists of: a record for each intermediate, in the order of computation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minilong
from minilong.backend import to_host
from minilong.train.trace_statistics import Statistics, Tally

HERE = Path(minilong.__file__).parents[1]
NAMED = re.compile(r"`(eq:[a-z0-9]+(?:-[a-z0-9]+)*)`")


@dataclass(frozen=True)
class Origin:
    """Where an array comes from: the equation's id in `specs/`, and file and line of the code that computed it."""

    equation: str
    code: str

    @staticmethod
    def of(function: Callable[..., Any], equation: str = "") -> Origin:
        """equation: by default what the function's docstring names, in the order of naming."""
        code = function.__code__
        named = ", ".join(dict.fromkeys(NAMED.findall(function.__doc__ or "")))
        return Origin(equation or named, f"{Path(code.co_filename).relative_to(HERE).as_posix()}:{code.co_firstlineno}")


@dataclass(frozen=True)
class Record:
    """One intermediate. The name is the field path of the layer that gave it, such as
    `stack.layers.0.attention.query`, and what is no layer's result has a name behind that path."""

    name: str
    equation: str
    shape: tuple[int, ...]
    dtype: str
    statistics: Statistics
    code: str


def everything(_: str) -> bool:
    """The choice that leaves nothing out."""
    return True


def nothing(_: str) -> bool:
    """The choice that leaves all out."""
    return False


def ignore(_: str) -> None:
    """The report that nobody reads."""


class Recorder:
    """Takes what the layers of a traced model give. wanted: names that are recorded; kept: names whose arrays stay as
    well; report: is told each wanted name when it comes. A name that comes again, as in a model that reads in pieces,
    is numbered: `name#2`.

    No dataclass, since those are parts of a model: a stack that is rebuilt would take a copy along.
    """

    def __init__(
        self,
        wanted: Callable[[str], bool] = everything,
        kept: Callable[[str], bool] = nothing,
        report: Callable[[str], None] = ignore,
    ) -> None:
        self.wanted, self.kept, self.report = wanted, kept, report
        self.records: list[Record] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.times: dict[str, int] = {}

    def add(self, name: str, origin: Origin, x: Any) -> None:
        """Record an array that was computed."""
        if not self.wanted(name):
            return
        self.report(name)
        on_host = to_host(x)
        if self.kept(name):
            on_host = np.array(on_host, order="C")  # what is computed next may change it in place
        tally = Tally()
        tally.add(on_host)
        self.enter(name, origin, on_host.shape, str(on_host.dtype), tally, on_host if self.kept(name) else None)

    def enter(
        self, name: str, origin: Origin, shape: tuple[int, ...], dtype: str, tally: Tally, whole: np.ndarray | None
    ) -> None:
        """Record an array whose statistics are known. whole: itself, where it is to be kept."""
        self.times[name] = time = self.times.get(name, 0) + 1
        name = name if time == 1 else f"{name}#{time}"
        self.records.append(Record(name, origin.equation, tuple(shape), dtype, tally.result(), origin.code))
        if whole is not None:
            self.arrays[name] = whole
