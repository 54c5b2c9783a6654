"""What an experiment leaves: `results.json` with every number, and what the machine was; means and bands over seeds."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minilong
from minilong.errors import UserError
from minilong.experiments.cells import write_whole

RESULTS = "results.json"
FORMAT = 1


@dataclass(frozen=True)
class Band:
    """The mean over seeds, the least and the most."""

    mean: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float | None]) -> Band | None:
        """Of one value a seed; None where there is none."""
        present = [value for value in values if value is not None]
        if not present or len(present) < len(values):
            return None
        return Band(float(np.mean(present)), min(present), max(present))

    def __str__(self) -> str:
        """The mean, and half of the band's width."""
        spread = (self.most - self.least) / 2
        return f"{self.mean:.3f}" + (f" ±{spread:.3f}" if spread else "")


@dataclass(frozen=True)
class Table:
    """Cells as they are shown."""

    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


def save(folder: Path, experiment: str, settings: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write `results.json`, and give what it holds: experiment, settings, machine, versions, and every cell."""
    results = {
        "format": FORMAT,
        "experiment": experiment,
        "settings": settings,
        "machine": machine(),
        "versions": versions(),
        "processor_seconds": round(sum(record["processor_seconds"] for record in records), 1),
        "cells": list(records),
    }
    write_whole(folder / RESULTS, (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    return results


def load(folder: Path, experiment: str) -> dict[str, Any]:
    """What `save` wrote. UserError where there is nothing to read, or that of another experiment."""
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `minilong bench {experiment}` without --replot first") from None
    except ValueError:
        raise UserError(
            f"{path} is damaged; run `minilong bench {experiment}` again, finished cells are kept"
        ) from None
    if not isinstance(results, dict) or results.get("format") != FORMAT or results.get("experiment") != experiment:
        raise UserError(f"{path} does not hold results of {experiment!r} of this version; choose another --out")
    return results


@dataclass(frozen=True)
class Report:
    """How an experiment shows its results: all three are functions of what `save` wrote."""

    name: str
    tables: Callable[[dict[str, Any]], list[Table]]
    findings: Callable[[dict[str, Any]], list[str]]
    picture: Callable[[dict[str, Any]], bytes | None]

    def write(self, folder: Path, results: dict[str, Any]) -> list[Path]:
        """Write `tables.md`, and `NAME.png` where matplotlib is installed (extra `plot`)."""
        parts = [f"# {self.name}\n"]
        parts += [f"{table.caption}\n\n{markdown(table.titles, table.rows)}" for table in self.tables(results)]
        parts.append("".join(f"- {line}\n" for line in self.findings(results)))
        files = {"tables.md": "\n".join(parts).encode()}
        drawn = self.picture(results)
        if drawn is not None:
            files[f"{self.name}.png"] = drawn
        for name, data in files.items():
            write_whole(folder / name, data)
        return [folder / name for name in files]


def machine() -> dict[str, Any]:
    """What the numbers of seconds depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": platform.system(), "processor": platform.machine(), "cores": cores}


def versions() -> dict[str, str]:
    """Of what computed."""
    return {"minilong": minilong.__version__, "python": platform.python_version(), "numpy": np.__version__}


def finding(holds: bool, text: str) -> str:
    """A line that says whether what was published is found here too, and the numbers."""
    return f"{'reproduced' if holds else 'not reproduced'}: {text}"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned so that it can be read as it is."""
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (titles, *rows)]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])) + "\n"
