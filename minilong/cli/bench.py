"""`minilong bench`: timing beside peers, and experiments that reproduce published findings small, on this machine."""

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
from minilong.cli.output import console, duration, from_command_line, plain_table, seconds_of
from minilong.cli.stopping import stop_requests
from minilong.cli.timing import TimingGroup
from minilong.cli.timing import command as timing
from minilong.errors import UserError

if TYPE_CHECKING:
    from minilong.experiments.cells import Cell, State
    from minilong.experiments.results import Report

LIVE_INTERVAL, PLAIN_INTERVAL = 0.2, 20.0


@click.group(name="bench", cls=TimingGroup, short_help="Time minilong beside its peers; compare schemes and memories.")
def command() -> None:
    """Time minilong beside its peers, or run an experiment that reproduces a published finding small.

    A CASE is a training step, generation, an operation, a start, a save; --list shows them. Without one all are timed,
    in about a quarter of an hour. Results must agree with the peer's before anything is timed. Experiments train
    models over several seeds; their finished parts are kept, so that the same command goes on.

    \b
    Examples:
      minilong bench --list                   what can be timed
      minilong bench step-0.8m                a training step beside PyTorch's
      minilong bench 'step-*' --against torch,torch-compile,jax
      minilong bench --json bench.json --plot bench.png
      minilong bench step-10.7m --profile     where the time of a step goes
      minilong bench extrapolation            train at 64 characters, read up to 2,048
      minilong bench recall                   what memories recall, by bytes and by perplexity
    """


command.add_command(timing)


def _budget(_ctx: click.Context, _option: click.Parameter, written: str | None) -> float | None:
    try:
        return None if written is None else seconds_of(written)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _common(f: Callable[..., None]) -> Callable[..., None]:
    """The options that all experiments have."""
    for option in (
        click.option("--quiet", is_flag=True, help="Print nothing but errors, and at the end the folder on stdout."),
        click.option("--replot", is_flag=True, help="Only write tables and picture anew from results.json."),
        click.option("--quick", is_flag=True, help="Tiny models and few steps: the numbers then mean nothing."),
        click.option("--jobs", type=click.IntRange(1), help="Processes, of one thread each.  [default: the cores]"),
    ):
        f = option(f)
    return f


@command.command()
@click.argument("text", nargs=-1)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/extrapolation"),
    show_default=True,
    help="Folder of results.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Trainings of each scheme.")
@click.option("--steps", type=click.IntRange(10), help="Steps of each training.  [default: 900]")
@click.option("--budget", callback=_budget, metavar="TIME", help="Choose the steps for about this time, such as 20m.")
@_common
@click.pass_context
def extrapolation(
    ctx: click.Context,
    text: tuple[str, ...],
    out: Path,
    seeds: int,
    steps: int | None,
    budget: float | None,
    jobs: int | None,
    quick: bool,
    replot: bool,
    quiet: bool,
) -> None:
    """Train small models in windows of 64 characters of TEXT, and read its held-out end in windows of up to 2,048.

    Ten position schemes, each read in windows side by side and in overlapping ones, with the same characters scored;
    then trained rotary models read at 2, 4 and 8 times their context with scaled frequencies. TEXT: files or names of
    shipped texts (see `minilong info`); by default pride_and_prejudice. About 15 minutes on two idle cores.

    \b
    Examples:
      minilong bench extrapolation
      minilong bench extrapolation persuasion --seeds 1 --budget 5m --out runs/short
      minilong bench extrapolation --replot
    """
    from dataclasses import replace

    from minilong.experiments import extrapolation as experiment
    from minilong.experiments.cells import run_cells
    from minilong.experiments.extrapolation_report import REPORT

    if replot:
        _replot(ctx, REPORT, out, quiet)
        return
    if steps is not None and budget is not None:
        raise UserError("--budget derives the number of steps, but --steps gives it; leave out one of the two")
    texts = [_lasting(name) for name in text] or ["pride_and_prejudice"]
    sizes = experiment.QUICK if quick else experiment.Sizes()
    sizes = replace(sizes, steps=steps) if steps is not None else sizes
    jobs = jobs or _cores()
    _check_folder(out)
    with _running(out, quiet) as (report, should_stop):
        if budget is not None:
            timings = experiment.timing_cells(texts, sizes, budget)
            timed = run_cells(timings, out, workers=jobs, report=report, should_stop=should_stop)
            sizes = replace(sizes, steps=experiment.steps_for(budget, timed, seeds, jobs))
        cells = experiment.cells(texts, sizes, seeds)
        _begin(quiet, f"{len(cells)} trainings of {sizes.steps} steps, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"text": texts, "seeds": seeds, "quick": quick, "jobs": jobs, **sizes.settings()}
    _end(REPORT, out, settings, records, quiet)


@command.command()
@click.argument("text", required=False, default="pride_and_prejudice")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/recall"), show_default=True, help="Folder of results."
)
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Trainings of each memory.")
@_common
@click.pass_context
def recall(
    ctx: click.Context, text: str, out: Path, seeds: int, jobs: int | None, quick: bool, replot: bool, quiet: bool
) -> None:
    """Train small models with memories of several kinds and sizes, and measure what they recall.

    Two tasks: key-value pairs (MQAR), and a number hidden in TEXT (passkey), whose models learn the text as well, so
    that recall and bits per character come from one model. Both are shown against the bytes of the memory. TEXT: a file
    or the name of a shipped text; by default pride_and_prejudice. About 15 minutes on two idle cores.

    \b
    Examples:
      minilong bench recall
      minilong bench recall --seeds 3 --jobs 8 --out runs/recall-3
      minilong bench recall --replot
    """
    from minilong.experiments import recall as experiment
    from minilong.experiments.cells import run_cells
    from minilong.experiments.recall_report import REPORT

    if replot:
        _replot(ctx, REPORT, out, quiet)
        return
    sizes = experiment.QUICK if quick else experiment.Sizes()
    text, jobs = _lasting(text), jobs or _cores()
    _check_folder(out)
    cells = experiment.cells(text, sizes, seeds)
    with _running(out, quiet) as (report, should_stop):
        _begin(quiet, f"{len(cells)} trainings, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"text": text, "seeds": seeds, "quick": quick, "jobs": jobs, **sizes.settings()}
    _end(REPORT, out, settings, records, quiet)


def _begin(quiet: bool, what: str, out: Path, cells: Sequence[Cell]) -> None:
    from minilong.experiments.cells import kept

    if not quiet:
        there = sum(kept(cell, out) is not None for cell in cells)
        click.echo(f"work        {what}" + (f"; {there} are there from before" if there else ""), err=True)
        click.echo(f"folder      {out}; after Ctrl-C the same command goes on", err=True)


def _end(report: Report, out: Path, settings: dict[str, Any], records: Sequence[dict[str, Any]], quiet: bool) -> None:
    from minilong.experiments.results import save

    results = save(out, report.name, settings, records)
    _show(report, out, results, quiet)


def _replot(ctx: click.Context, report: Report, out: Path, quiet: bool) -> None:
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
def _running(out: Path, quiet: bool) -> Iterator[tuple[Callable[[State], None], Callable[[], bool]]]:
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


def _cores() -> int:
    from minilong.train.config import available_threads

    return available_threads()


def _lasting(name: str) -> str:
    """A path that exists made absolute, so that it is the same text from another folder; other names as they are."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
