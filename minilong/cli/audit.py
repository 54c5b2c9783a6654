"""`minilong audit`: equations, code, laws and mutants joined, or the same laws on a function of your own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import click

from minilong.cli.device import open_device
from minilong.cli.output import console, duration, from_command_line
from minilong.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from minilong.audit.report import Report
    from minilong.audit.user import Verdict

PLAIN_INTERVAL, LIVE_INTERVAL = 10.0, 0.1
EXAMPLES = 100


@click.command(name="audit", short_help="Check equations, code and laws; or a function of your own.")
@click.option("--only", metavar="PATTERN", help="Equations, claims, laws or kinds that contain this, or fit this glob.")
@click.option("--examples", type=click.IntRange(1), default=EXAMPLES, show_default=True, help="Random cases per law.")
@click.option("--seed", type=click.IntRange(0), help="Draw other cases than the usual ones, which never change.")
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: the processors, at most 8; one for a GPU]")
@click.option("--show", metavar="ID", help="One equation or claim with formula, block, source, laws and failures.")
@click.option("--list", "listing", is_flag=True, help="List kinds, signatures, laws, equations and claims.")
@click.option("--json", "as_json", metavar="FILE", help="Write the report as JSON; - for standard output.")
@click.option("--html", metavar="FILE", help="Write the report as one page that needs no network.")
@click.option("--on", "target", metavar="FILE.py[:NAME]", help="Check this function instead; see --as.")
@click.option("--as", "kind", metavar="KIND", help="What the function of --on is: attention, softmax, ... (--list)")
@click.option(
    "--device", default="cpu", show_default=True, metavar="NAME", help="Where the laws compute: cpu, cuda, or cuda:N."
)
@click.option("--quiet", is_flag=True, help="Print the result and the holes only.")
@click.pass_context
def command(
    ctx: click.Context,
    only: str | None,
    examples: int,
    seed: int | None,
    jobs: int | None,
    show: str | None,
    listing: bool,
    as_json: str | None,
    html: str | None,
    target: str | None,
    kind: str | None,
    device: str,
    quiet: bool,
) -> None:
    """Join the equations of specs/ with the code that implements them, laws that bind it, and mutants that the laws
    must find; print what is missing or wrong. Or check a function of your own by the same laws.

    \b
    Examples:
      minilong audit
      minilong audit --only attention --examples 2000
      minilong audit --show eq:softmax
      minilong audit --html audit.html --json audit.json
      minilong audit --on mine.py --as layer-norm
      minilong audit --on model.py:my_attention --as attention
      minilong audit --device cuda --only primitive

    \b
    A function for --on takes float64 NumPy arrays in the order that --list shows. One that
    wants PyTorch tensors gets them, if its file imports torch; so does a torch.nn.Module.

    \b
    With --device the laws run on our functions with all arrays on that GPU, in float64. What
    only the host does (files, data, tables) is left out, and so are specs/ and the mutants.

    \b
    Exit codes:
      0  no hole; all laws hold
      1  a hole, or a law that fails: with a case that pastes into Python
      2  the file, the name, the signature or an option is wrong
    """
    if find_spec("hypothesis") is None:
        raise UserError('the audit needs Hypothesis, which is not installed; pip install "minilong[audit]"')
    _refuse_mixtures(ctx)
    _refuse_path("--json", as_json)
    _refuse_path("--html", html)
    if html == "-":
        raise UserError("--html writes a file, not standard output; name one")
    if kind is not None:
        _check_kind(kind)
        if target is None:
            raise UserError(f"--as {kind} says what the function of --on is; give --on FILE.py as well")
    if target is not None:
        ctx.exit(_on(target, kind, examples, seed, quiet))
    elif listing:
        _list()
    else:
        pattern = _entry(show) if show is not None else only
        report = _report(pattern, examples, seed, jobs, quiet, device)
        _write(report, as_json, html)
        if show is not None:
            _show_entry(report, pattern or "")
        elif as_json != "-":
            from minilong.audit.text import show as show_report

            show_report(report, console(stderr=False), quiet=quiet)
        ctx.exit(0 if report.passed else 1)


def _refuse_mixtures(ctx: click.Context) -> None:
    typed = from_command_line(ctx)
    modes = [name for name in typed if name in ("--only", "--show", "--list", "--on")]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} are different things to ask for; give one of them")
    if "--device" in typed and (other := [name for name in typed if name in ("--show", "--list", "--on", "--html")]):
        raise UserError(f"{other[0]} concerns the audit on a CPU, whose laws --device runs elsewhere; leave out one")
    outputs = [name for name in typed if name in ("--json", "--html")]
    if outputs and modes and modes[0] in ("--list", "--on"):
        raise UserError(f"{outputs[0]} holds the audit of minilong itself, not {modes[0]}; leave out one of the two")


def _check_kind(kind: str) -> None:
    from minilong.audit.user import public_kind

    public_kind(kind)


def _refuse_path(option: str, path: str | None) -> None:
    """Refuse a file that cannot be written before the minutes that its content takes, not after."""
    if path is None or path == "-":
        return
    if Path(path).is_dir():
        raise UserError(f"{option} {path} is a folder; name a file")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"there is no folder for {option} {path}; create it, or choose another file")


def _report(only: str | None, examples: int, seed: int | None, jobs: int | None, quiet: bool, device: str) -> Report:
    from minilong.audit.join import audit
    from minilong.train.config import available_threads

    where = open_device(device)
    most = 8 if where.is_cpu else 1  # processes share a GPU, but each takes half a gigabyte of it
    with _progress(quiet) as progress:
        return audit(
            examples, only, progress, seed, min(most, available_threads()) if jobs is None else jobs, device=where
        )


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A function that shows on stderr how far an audit is: one line rewritten in place, or a line now and then."""
    if quiet or sys.stderr is None:
        yield None
        return
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    begin, due = time.monotonic(), time.monotonic() + (LIVE_INTERVAL if live else PLAIN_INTERVAL)

    def show(done: int, of: int, name: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + (LIVE_INTERVAL if live else PLAIN_INTERVAL)
            text = f"{100 * done // of:3d}%  {done}/{of}  {duration(time.monotonic() - begin)}  {name}"
            click.echo(f"\r{text[:78]:<78}" if live else text, err=True, nl=not live)

    try:
        yield show
    finally:
        if live:
            click.echo(f"\r{'':<78}\r", err=True, nl=False)


def _entry(name: str) -> str:
    """The id of an entry, with or without its first part. UserError names the nearest."""
    from minilong.audit.specs import read_specs

    specs = read_specs()
    known = [*specs.equations, *specs.claims]
    for spelling in (name, f"eq:{name}", f"claim:{name}"):
        if spelling in known:
            return spelling
    near = did_you_mean(name, known) or did_you_mean(f"eq:{name}", known)
    raise UserError(f"there is no equation or claim {name!r}{near}; `minilong audit --list` lists them")


def _show_entry(report: Report, name: str) -> None:
    import minilong
    from minilong.audit.text import entry

    for line in entry(report, name, Path(minilong.__file__).resolve().parents[1]):
        click.echo(line)
    for hole in report.holes:
        click.echo(f"hole: {hole}")


def _write(report: Report, as_json: str | None, html: str | None) -> None:
    if as_json is not None:
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
        click.echo(text) if as_json == "-" else Path(as_json).write_text(text + "\n", "utf-8")
    if html is not None:
        from minilong.audit.page import render

        Path(html).write_text(render(report), "utf-8")


def _list() -> None:
    from minilong.audit import KINDS, laws_for, load
    from minilong.audit.specs import read_specs

    load()
    for kind in sorted(KINDS.values(), key=lambda k: not k.public):
        laws = laws_for(kind.name)
        use = "" if kind.public else "  (internal: not for --as)"
        click.echo(f"{kind.name}{use}\n{_indented(kind.signature)}\n{_indented(kind.about)}")
        for law in laws:
            click.echo(fill(f"{law.name}: {law.statement}", 98, initial_indent="    ", subsequent_indent="      "))
        click.echo()
    specs = read_specs()
    titles = {e.id: e.title for e in specs.equations.values()} | {c.id: c.title for c in specs.claims.values()}
    for name, title in titles.items():
        click.echo(fill(f"{name}: {title}", 98, subsequent_indent="  "))


def _indented(text: str) -> str:
    return fill(text, 98, initial_indent="  ", subsequent_indent="  ")


def _on(target: str, kind: str | None, examples: int, seed: int | None, quiet: bool) -> int:
    from minilong.audit import KINDS, load
    from minilong.audit.text import share
    from minilong.audit.user import audit_function, split_target

    path, name = split_target(target)
    if kind is None:
        load()
        public = ", ".join(k.name for k in KINDS.values() if k.public)
        raise UserError(f"--on {target} needs --as KIND, to say what it is; choose one of {public}")
    verdicts = audit_function(path, name, kind, examples=examples, seed=seed)
    failed = [v for v in verdicts if v.found is not None]
    if not quiet:
        for v in verdicts:
            held = f"{v.examples} examples, worst error {share(v.worst)} of its bound"
            result = held if v.found is None else "FAILS"
            click.echo(f"{v.law.name:<40}  {result}")
        click.echo()
    for v in failed:
        click.echo(_failure(v))
    said = f"{len(failed)} of {len(verdicts)} laws fail" if failed else f"all {len(verdicts)} laws of {kind} hold"
    click.echo(f"{path}: {said}")
    return 1 if failed else 0


def _failure(verdict: Verdict) -> str:
    """A failing law: statement, equation, what was found, and the case."""
    from minilong.audit.specs import read_specs

    equations = read_specs().equations
    lines = [f"law {verdict.law.name}", _indented(verdict.law.statement)]
    for name in verdict.law.serves:
        latex = f"  {' '.join(equations[name].latex.split())}" if name in equations else ""
        lines.append(f"  {name}{latex}")
    lines += [f"found: {verdict.found}", "minimal counterexample:", "", verdict.counterexample or "", ""]
    return "\n".join(lines)
