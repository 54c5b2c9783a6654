"""What the commands of `minilong bench` share that run an experiment: options, progress, stopping, and the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from minilong.cli.errors import INTERRUPTED, drop_unwritable_output
from minilong.cli.output import console, duration, from_command_line, plain_table
from minilong.cli.stopping import stop_requests
from minilong.errors import UserError

if TYPE_CHECKING:
    from minilong.experiments.cells import Cell, State
    from minilong.experiments.results import Report

LIVE_INTERVAL, PLAIN_INTERVAL = 0.2, 20.0


def common_options(f: Callable[..., None]) -> Callable[..., None]:
    """The options that all experiments have."""
    for option in (
        click.option("--quiet", is_flag=True, help="Print nothing but errors, and at the end the folder on stdout."),
        click.option("--replot", is_flag=True, help="Only write tables and picture anew from results.json."),
        click.option("--quick", is_flag=True, help="Tiny models and few steps: the numbers then mean nothing."),
        click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each.  [default: the cores]"),
    ):
        f = option(f)
    return f


def begin(quiet: bool, what: str, out: Path, cells: Sequence[Cell]) -> None:
    """Say what will be done, and what is done already."""
    from minilong.experiments.cells import kept

    if not quiet:
        there = sum(kept(cell, out) is not None for cell in cells)
        click.echo(f"work        {what}" + (f"; {there} are there from before" if there else ""), err=True)
        click.echo(f"folder      {out}; after Ctrl-C the same command goes on", err=True)


def end(report: Report, out: Path, settings: dict[str, Any], records: Sequence[dict[str, Any]], quiet: bool) -> None:
    """Save the results, and show them."""
    from minilong.experiments.results import save

    results = save(out, report.name, settings, records)
    _show(report, out, results, quiet)


def replot_results(ctx: click.Context, report: Report, out: Path, quiet: bool) -> None:
    """Show the results that a folder holds."""
    from minilong.experiments.results import load

    other = [name for name in from_command_line(ctx) if name not in ("--out", "--replot", "--quiet")]
    if other:
        raise UserError(f"--replot shows what results.json holds, so {other[0]} cannot be given; leave it out")
    _show(report, out, load(out, report.name), quiet)


def _show(report: Report, out: Path, results: dict[str, Any], quiet: bool) -> None:
    """Write tables and picture, and print the tables and what they say."""
    files = report.write(out, results)
    if quiet:
        click.echo(out)
        return
    screen = console(stderr=False)
    for table in report.tables(results):
        shown = plain_table(*table.titles)
        for row in table.rows:
            shown.add_row(*row)
        screen.print(f"\n{table.caption}")
        screen.print(shown)
    screen.print("")
    for line in report.findings(results):
        screen.print(line)
    if results["settings"]["quick"]:
        screen.print("these are the numbers of a --quick run, which mean nothing")
    written = ", ".join(str(path) for path in (out / "results.json", *files))
    click.echo(f"written     {written}; {duration(results['processor_seconds'])} of processor time", err=True)


@contextmanager
def running(out: Path, quiet: bool) -> Iterator[tuple[Callable[[State], None], Callable[[], bool]]]:
    """A report of progress and a question whether to stop; a stop becomes one line and exit code 130."""
    from minilong.experiments.cells import Stopped

    with stop_requests() as should_stop, _progress(quiet) as report:
        try:
            yield report, should_stop
        except Stopped as stopped:
            click.echo(
                f"interrupted: {stopped.done} of {stopped.cells} parts are kept in {out}; the same command goes on",
                err=True,
            )
            raise Exit(INTERRUPTED) from None


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[State], None]]:
    """A function that shows a `State` on stderr: a line rewritten in place, or a line a finished part."""
    if quiet:
        yield lambda state: None
    elif sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.live import Live
        from rich.text import Text

        live = Live(console=console(stderr=True), auto_refresh=False, transient=True)
        with live:
            yield _Report(
                lambda line: live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True), LIVE_INTERVAL
            )
    else:
        yield _Report(lambda line: click.echo(line, err=True), PLAIN_INTERVAL)


class _Report:
    """Shows a state at most once per interval, and whenever a part is finished. A stream that is gone ends nothing."""

    def __init__(self, show: Callable[[str], None], interval: float) -> None:
        self._show, self._interval, self._next, self._broken = show, interval, 0.0, False

    def __call__(self, state: State) -> None:
        now = time.monotonic()
        if self._broken or (state.finished is None and now < self._next):
            return
        self._next = now + self._interval
        try:
            self._show(state_line(state))
        except OSError:
            self._broken = True
            with suppress(OSError):
                drop_unwritable_output()


def state_line(state: State) -> str:
    """Parts done, what is at work, and times, in one line."""
    width = len(str(state.cells))
    parts = [f"{state.done:>{width}}/{state.cells}", duration(state.elapsed)]
    if state.remaining is not None and state.done < state.cells:
        parts.append(f"{duration(state.remaining)} left")
    if state.finished is not None:
        parts.append(f"done: {state.finished}")
    return "  ".join([*parts, *(f"{name} {100 * share:.0f}%" for name, share in state.running)])


def cores() -> int:
    """How many processes are at work at once, unless --jobs says otherwise."""
    from minilong.train.config import available_threads

    return available_threads()


def lasting(name: str) -> str:
    """A path that exists made absolute, so that it is the same text from another folder; other names as they are."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def check_folder(out: Path) -> None:
    """UserError where results cannot be put there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
