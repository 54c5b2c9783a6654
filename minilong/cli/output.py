"""What commands share for reading and showing: consoles, figures for people, standard input."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import click

from minilong.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from minilong.train.estimate import Estimate


def console(*, stderr: bool) -> Console:
    """A rich console that prints text verbatim: no markup, no emoji codes, no highlighting, no wrapping of words."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def plain_table(*titles: str) -> Table:
    """A table without lines, fit for a narrow terminal and for copying."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=any(titles), header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def count(number: float) -> str:
    """A count for people: 950, 1.2k, 0.83M, 10.7M."""
    if number < 1000:
        return f"{number:.0f}"
    if number < 100_000:
        return f"{number / 1e3:.1f}k"
    unit, letter = (1e9, "G") if number >= 1e9 else (1e6, "M")
    return f"{number / unit:.1f}{letter}" if number >= 10 * unit else f"{number / unit:.2f}{letter}"


def size(amount: float) -> str:
    """An amount of bytes for people, in powers of 1000: 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} EB"


def bytes_of(written: str) -> int:
    """The inverse of `size`: 8GB, 1.5 GB, 500MB, or a number of bytes. ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?B)?", written.strip())
    if match is None:
        raise ValueError(f"{written!r} is no size; write 500MB or 8GB, say")
    unit = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[match[2] or "B"]
    return round(float(match[1]) * unit)


def duration(seconds: float) -> str:
    """A duration for people: 0.4s, 42s, 3m07s, 2h05m, 3d04h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def seconds_of(written: str) -> float:
    """Seconds of a written duration such as `90s`, `5m`, `1h` or `1h30m`. ValueError, with the reason, otherwise."""
    parts = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", written)
    if not parts or not any(parts.groups()):
        raise ValueError(f"{written!r} is not a duration; write for example 90s, 5m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise ValueError(f"{written!r} is no time to train in; write for example 5m")
    return float(total)


def finite(_ctx: click.Context, _option: click.Parameter, value: float) -> float:
    """Callback of an option: refuse infinity and NaN, which a range lets pass."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def estimate_lines(estimate: Estimate) -> list[str]:
    """Parameters, memory by part and time of a run, as lines to print before it starts."""
    total = sum(estimate.memory.values())
    parts = ", ".join(f"{name} {size(amount)}" for name, amount in estimate.memory.items() if amount)
    worker = f"{estimate.threads} thread{'s'[: estimate.threads != 1]}" if estimate.threads else "one GPU"
    pace = f"{count(estimate.tokens_per_step)} tokens a step, {worker}"
    time = f", about {duration(estimate.seconds)}" if estimate.seconds is not None else ""
    return [
        f"parameters  {count(estimate.parameters)}",
        f"memory      about {size(total)} ({parts}), and 70 MB for Python",
        f"work        {estimate.steps} steps{time}; {pace}",
    ]


def read_stdin() -> str:
    """All of standard input as UTF-8 text. `UserError` names the byte that is not."""
    return decode(_stdin().read())


def stdin_lines() -> Iterator[str]:
    """Lines of standard input as they arrive, without their ends."""
    for line in _stdin():
        yield decode(line).rstrip("\r\n")


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UserError("standard input is closed; give the text on the command line, or redirect a file")
    return sys.stdin.buffer


def decode(data: bytes) -> str:
    """UTF-8 text of bytes from standard input."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not UTF-8 text (byte {error.start}); convert it, for example with iconv -t utf-8"
        ) from None


def from_command_line(ctx: click.Context) -> list[str]:
    """Names of the options and arguments that were typed, as typed (`--lr`, `TEXT`), in the order of the help."""
    from click.core import ParameterSource

    typed = []
    for param in ctx.command.params:
        if param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            typed.append(param.opts[0] if isinstance(param, click.Option) else param.make_metavar(ctx).strip("[]."))
    return typed
