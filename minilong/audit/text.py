"""A report for the terminal: a table of the equations, counts, and the holes. It fits 100 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilong.audit.report import ClaimReport, EquationReport, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
VERDICTS = ("holds", "corrected", "reading", "unchecked")
LIMIT = (
    "What no program can check is whether a formula says what its block computes: read the two, one below the other."
)


def show(report: Report, out: Console, *, quiet: bool = False) -> None:
    """Print the table and the counts (unless quiet), then the result and every hole."""
    from rich.text import Text

    if not quiet and not report.on_cpu:
        for line in device_lines(report):
            out.print(line)
        out.print()
    elif not quiet:
        if report.equations:
            out.print(table(report.equations, min(WIDTH, out.width) if out.is_terminal else WIDTH))
            out.print()
        if len(report.claims) and not len(report.equations):
            for claim in report.claims:
                out.print(claim_line(claim))
            out.print()
        for line in summary(report):
            out.print(line)
        out.print(LIMIT)
        out.print()
    for hole in report.holes:
        out.print(Text(f"hole: {hole}", style="red"))
    out.print(Text(result(report), style="red" if report.holes else "green"))


def result(report: Report) -> str:
    """The last line: whether the audit passes."""
    of = f"audit of minilong {report.version}"
    of = of if report.on_cpu else f"{of} on {report.device}, laws only"
    what = f"{of}, {report.examples} examples a law, {report.seconds:.0f}s"
    holes = len(report.holes)
    return f"FAILED: {holes} hole{'s'[: holes != 1]}; {what}" if holes else f"passed: no hole; {what}"


def table(equations: Iterable[EquationReport], width: int) -> Table:
    """Each equation: id and place in specs/; code and the definition it must equal; laws, examples, worst error as a
    share of its bound, mutants killed and planted; the verdict on what the article prints."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold", width=width)
    made.add_column("equation\n  stated at", overflow="fold", ratio=29)
    made.add_column("code\n  = definition", overflow="fold", ratio=34)
    for title, width in (("laws", 4), ("exam-\nples", 5), ("worst/\nbound", 6), ("mutants\nkilled", 7)):
        made.add_column(title, justify="right", min_width=width, max_width=width)
    made.add_column("article", min_width=9, max_width=9)
    for e in equations:
        code = [f"{short(file)}:{line}" for file, line, _ in e.code] or ["MISSING"]
        shown = code[0] + (f" +{len(code) - 1}" if len(code) > 1 else "")
        if e.reference is not None:
            shown += f"\n  = {e.reference.rpartition('.')[2]}"
        killed = sum(dead for _, dead in e.mutants)
        made.add_row(
            f"{e.id}\n  {e.stated.removeprefix('specs/')}",
            shown,
            f"{len(e.laws)}",
            figure(e.examples),
            share(max(e.worst, e.agreement_worst)) if e.examples or e.agreement_examples else "-",
            f"{killed}/{len(e.mutants)}",
            e.verdict or "-",
        )
    return made


def claim_line(claim: ClaimReport) -> str:
    """One claim: id, verdict, and whether its check ran through."""
    checked = {True: "checked", False: "FAILS", None: "no check"}[claim.passed]
    return f"{claim.id}  {claim.verdict}, {checked}  ({claim.stated})"


def summary(report: Report) -> Iterator[str]:
    """Counts of equations, claims, laws and mutants."""
    equations = Counter(e.verdict for e in report.equations)
    claims = Counter(c.verdict for c in report.claims)
    agree = Counter(e.agrees for e in report.equations)
    yield f"equations  {len(report.equations)}: {_counts(equations)}; {equations[None]} not printed by the article"
    yield f"blocks     {agree[True]} agree with the code, {agree[False]} disagree, {agree[None]} are to read"
    yield f"claims     {len(report.claims)}: {_counts(claims)}"
    yield _laws_held(report)
    killed = sum(m.killed for m in report.mutants)
    yield f"mutants    {len(report.mutants)} planted, {killed} found"


def device_lines(report: Report) -> Iterator[str]:
    """Which laws ran on a device, and which say nothing of it."""
    kinds = list(dict.fromkeys(law.name.partition("/")[0] for law in report.laws))
    for kind in kinds:
        laws = [law for law in report.laws if law.name.partition("/")[0] == kind]
        held, worst = sum(law.passed for law in laws), max(law.worst for law in laws)
        examples = figure(sum(law.examples for law in laws))
        yield f"{kind:<26}  {held:3d} of {len(laws):3d} hold  {examples:>5} examples  worst error {share(worst)}"
    yield ""
    for kind, reason in {name.partition("/")[0]: reason for name, reason in report.left_out}.items():
        whole = kind not in kinds
        names = [name for name, _ in report.left_out if name.partition("/")[0] == kind]
        yield f"left out: {kind if whole else ', '.join(names)} ({len(names)}): {reason}"
    yield ""
    yield _laws_held(report)
    yield f"device     {report.device}; {len(report.left_out)} laws are the host's and were left out"


def _laws_held(report: Report) -> str:
    """How many laws hold, on how many examples."""
    held = sum(law.passed for law in report.laws)
    examples = sum(law.examples for law in report.laws)
    worst = max((law.worst for law in report.laws), default=0.0)
    ran = f"on {examples:,} examples; worst error {share(worst)} of its bound"
    return f"laws       {len(report.laws)}: {held} hold, {ran}"


def entry(report: Report, name: str, root: Path) -> Iterator[str]:
    """Everything about one equation or claim of a report: formula, block, source of the code, laws, last failure.

    root: the folder that the file names of the code start from.
    """
    for e in report.equations:
        if e.id == name:
            yield from _equation(report, e, root)
    for c in report.claims:
        if c.id == name:
            yield f"{c.id}  {c.title}"
            yield f"stated at  {c.stated}; article {c.article}; verdict {claim_line(c).split('  ')[1]}"
            yield f"\nSays: {c.says}\n\nRight: {c.right}"
            if c.block:
                yield f"\nThe check:\n\n{_indented(c.block)}"
            yield from _laws(report, c.laws)


def _equation(report: Report, e: EquationReport, root: Path) -> Iterator[str]:
    yield f"{e.id}  {e.title}"
    article = f"; article {e.article}{f', {e.verdict}' if e.verdict else ''}" if e.article else ""
    yield f"stated at  {e.stated}{article}"
    if e.source:
        yield f"source     {e.source}"
    yield f"\n{_indented(e.latex)}\n\n{_indented(e.block)}"
    for label, text in (("Reading", e.reading), ("Deviations", e.deviations)):
        if text:
            yield f"\n{label}: {text}"
    agreement = {True: "agree", False: "DISAGREE", None: "are not compared: the block is to read"}[e.agrees]
    ran = f" on {e.agreement_examples} examples (worst error {share(e.agreement_worst)} of its bound)"
    yield f"\nBlock and code {agreement}{ran if e.agrees is not None else ''}."
    for file, line, name in e.code:
        yield f"\n{file}:{line}  {name}\n\n{_indented(_source(root / file, line, name))}"
    if e.reference is not None:
        yield f"\ndefinition  {e.reference}"
    yield from _laws(report, e.laws)


def _laws(report: Report, names: Sequence[str]) -> Iterator[str]:
    for law in report.laws:
        if law.name in names:
            killed = f"{sum(dead for _, dead in law.mutants)} of {len(law.mutants)} mutants found"
            ran = f"{law.examples} examples, worst error {share(law.worst)} of its bound, {killed}"
            yield f"\nlaw {law.name}  {'holds' if law.passed else 'FAILS'}; {ran}"
            yield f"  {law.statement}"
            if law.failure is not None:
                yield _indented(law.failure)


def _source(path: Path, line: int, name: str) -> str:
    """The definition that starts at a line of a file; of a module, its docstring."""
    import ast

    text = path.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno == line and line > 1:
            first = min((d.lineno for d in node.decorator_list), default=line)
            return "\n".join(text.split("\n")[first - 1 : node.end_lineno])
    return f'"""{ast.get_docstring(ast.parse(text)) or name}"""'


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip("\n").split("\n"))


def _counts(counts: Counter[str] | Counter[str | None]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or "none judged"


def short(file: str) -> str:
    """A file of the package without the package's name."""
    return file.removeprefix("minilong/")


def share(part: float) -> str:
    """An error as a share of its bound, to two digits: 0, 1e-05, 0.0043, 0.74."""
    return "0" if part == 0 else f"{part:.0e}" if part < 1e-3 else f"{part:.2g}"


def figure(number: int) -> str:
    """A count in at most five signs: 950, 1.2k, 38k, 1.2M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= 10 * size:
            return f"{number / size:.0f}{letter}"
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return str(number)
