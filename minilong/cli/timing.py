"""`minilong bench [CASE...]`: minilong beside its peers on this machine, each case behind a gate of equal results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, util
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit

from minilong.cli.errors import INTERRUPTED
from minilong.cli.output import console, duration, plain_table
from minilong.errors import UserError, did_you_mean

NO_PEERS = "none"
FAILED = 1
QUICK_ROUNDS, ROUNDS = 1, 5


def registry(part: str = "") -> Any:
    """The benchmark's package, or a module of it: beside the package in a checkout, inside of it when installed."""
    for name in ("minilong.bench", "bench"):
        if util.find_spec(name) is not None:
            return import_module(f"{name}.{part}" if part else name)
    raise UserError("the benchmark is not part of this installation; install minilong from its wheel or a checkout")


@click.command(name="timing", hidden=True)
@click.argument("cases", nargs=-1, metavar="[CASE...]")
@click.option(
    "--against",
    default="torch,transformers",
    show_default=True,
    metavar="PEERS",
    help="Peers, joined by commas: torch, torch-compile, jax, transformers; or none.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write every number here.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw ratios and curves (PNG).")
@click.option("--rounds", type=click.IntRange(1, 1000), metavar="N", help="Turns of each side.  [default: 5]")
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=2, show_default=True, metavar="N", help="Threads of each side."
)
@click.option("--profile", is_flag=True, help="Show where the time of minilong's training steps goes, by primitive.")
@click.option("--list", "listed", is_flag=True, help="Only list the cases.")
@click.option("--quick", is_flag=True, help="Tiny sizes and one round: the numbers then mean nothing.")
def command(
    cases: tuple[str, ...],
    against: str,
    file: Path | None,
    plot: Path | None,
    rounds: int | None,
    threads: int,
    profile: bool,
    listed: bool,
    quick: bool,
) -> None:
    """Time minilong beside its peers. Without a CASE all are run, which takes about a quarter of an hour.

    Each side of a case has a process of its own; results must agree before anything is timed, then the sides take
    turns. Exit code 1 where a gate is red or a side failed. A glob selects several cases.

    \b
    Examples:
      minilong bench --list
      minilong bench step-0.8m                         beside PyTorch, half a minute
      minilong bench 'step-*' --against torch,torch-compile,jax
      minilong bench step-10.7m --profile --against none
      minilong bench --json bench.json --plot bench.png
    """
    bench = registry()
    chosen = _selected(bench, cases)
    peers = _peers(bench.PEERS, against)
    if listed:
        _list(chosen)
        return
    for path in (file, plot):
        _check_target(path)
    if plot is not None and util.find_spec("matplotlib") is None:
        raise UserError('--plot needs matplotlib; pip install "minilong[plot]"')
    settings = {
        "cases": [case.name for case in chosen],
        "against": peers,
        "rounds": rounds or (QUICK_ROUNDS if quick else ROUNDS),
        "threads": threads,
        "quick": quick,
    }
    results, interrupted = _measure(chosen, settings, profile)
    _show(results, profile)
    written = _write(results, file, plot)
    if interrupted:
        done = sum(case["status"] != "unfinished" for case in results["cases"])
        click.echo(f"interrupted: {done} of {len(chosen)} cases were measured{written and f'; {written}'}", err=True)
        raise Exit(INTERRUPTED)
    if written:
        click.echo(written, err=True)
    if not all(map(registry("results").good, results["cases"])):
        raise Exit(FAILED)


class TimingGroup(click.Group):
    """A group whose experiments are subcommands; every other word, or none, means cases that are timed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the hidden subcommand `timing` before what names no subcommand."""
        if not args or (args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx)):
            args = ["timing", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual, but that timing goes by the group's own name, which is what a message should tell."""
        name, found, rest = super().resolve_command(ctx, args)
        return ("" if found is command else name), found, rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Both ways to call it."""
        return ["[OPTIONS] [CASE...]", "| EXPERIMENT ..."]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of timing, then the experiments."""
        own = [option for option in command.params if isinstance(option, click.Option)]
        shown = [record for option in (*own, *self.get_params(ctx)) if (record := option.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(shown)
        self.format_commands(ctx, formatter)


def _selected(bench: Any, patterns: tuple[str, ...]) -> list[Any]:
    chosen, unknown = registry("registry").select(patterns, bench.CASES)
    if unknown:
        near = did_you_mean(unknown[0], [*bench.CASES, "extrapolation", "recall"])
        raise UserError(
            f"No such command {unknown[0]!r}, nor a case{near}; cases are {', '.join(bench.CASES)}, or a glob of them"
        )
    found: list[Any] = chosen
    return found


def _peers(known: dict[str, str], against: str) -> list[str]:
    names = [] if against == NO_PEERS else list(dict.fromkeys(filter(None, against.split(","))))
    for name in names:
        if name not in known:
            raise UserError(
                f"--against names {name!r}{did_you_mean(name, known)}; peers are {', '.join(known)}, or {NO_PEERS}"
            )
    return names


def _list(cases: list[Any]) -> None:
    width = max(len(case.name) for case in cases)
    for case in cases:
        peers = ", ".join(name for name in case.sides if name != "minilong")
        click.echo(f"{case.name:<{width}}  {case.about}" + (f" [{peers}]" if peers else ""))


def _check_target(path: Path | None) -> None:
    if path is not None and path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"{path.parent} is no folder; make it first, or choose another path")


def _measure(cases: list[Any], settings: dict[str, Any], profile: bool) -> tuple[dict[str, Any], bool]:
    """Run the cases; what was found, and whether Ctrl-C cut it short."""
    runner, results = registry("runner"), registry("results")
    quick, peers, rounds = settings["quick"], settings["against"], settings["rounds"]
    options = runner.Options(settings["threads"], rounds, 0.0 if quick else runner.PAUSE, profile)
    missing = results.absent_peers(peers, {m: util.find_spec(m) is not None for m in registry().PEERS.values()})
    ours = [case.shrunk() if quick else case for case in cases]
    expected = sum(c.estimate(sum(p in c.sides and p not in missing for p in peers), rounds) for c in ours)
    count = f"{len(ours)} case{'s'[: len(ours) != 1]}"
    click.echo(f"work        {count}, {rounds} rounds; about {'seconds' if quick else duration(expected)}", err=True)
    records: list[dict[str, Any]] = []
    ceilings: list[dict[str, Any]] = []
    interrupted = False
    with _progress() as report:
        try:
            report("ceilings", "of this machine", False)
            ceilings.append(runner.ceilings(settings["threads"], quick=quick))
            for i, case in enumerate(ours):
                title = f"{i + 1:>{len(str(len(ours)))}}/{len(ours)}  {case.name}"
                run = runner.Run(case, peers, options, lambda text, title=title: report(title, text, False), missing)
                records.append(run.record)
                run()
                report(title, run.record["status"], True)
            report("ceilings", "once more", False)
            ceilings.append(runner.ceilings(settings["threads"], quick=quick))
        except KeyboardInterrupt:
            interrupted = True
        except runner.Failed as failure:
            raise UserError(f"the ceilings of this machine could not be measured: {failure}; try once more") from None
    return results.assemble(records, ceilings, settings), interrupted


def _show(results: dict[str, Any], profile: bool) -> None:
    report, screen = registry("report"), console(stderr=False)
    for part in (report.head, report.table, report.findings):
        for line in part(results):
            screen.print(line)
        screen.print("")
    for case in results["cases"] if profile else []:
        if case["profile"] is not None:
            parts = plain_table("part", "direction", "calls", "ms", "%")
            for row in report.profile_rows(case["profile"]):
                parts.add_row(*row)
            screen.print(f"{case['name']}: where a step of minilong goes, over {case['profile']['threads']} replicas")
            screen.print(parts)
            screen.print("")
    if results["settings"]["quick"]:
        screen.print("these are the numbers of a --quick run, which mean nothing")


def _write(results: dict[str, Any], file: Path | None, plot: Path | None) -> str:
    """Write what was asked for; a line that says what, or nothing."""
    from minilong.experiments.cells import write_whole

    written = []
    if file is not None:
        write_whole(file, (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
        written.append(str(file))
    if plot is not None:
        drawn = registry("plot").picture(results)
        if drawn is not None:
            write_whole(plot, drawn)
            written.append(str(plot))
    return f"written     {', '.join(written)}" if written else ""


@contextmanager
def _progress() -> Iterator[Callable[[str, str, bool], None]]:
    """A function of title, state and whether the title is done: a line rewritten in place, or a line a title."""
    if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.live import Live
        from rich.text import Text

        with Live(console=console(stderr=True), auto_refresh=False, transient=True) as live:
            yield lambda title, text, _: live.update(
                Text(f"{title}  {text}", no_wrap=True, overflow="ellipsis"), refresh=True
            )
    else:
        yield lambda title, text, done: click.echo(f"{title}  {text}", err=True) if done else None
