"""`minilong bench extension`: what a run predicts and recalls beyond its trained context, read in several ways."""

from __future__ import annotations

from pathlib import Path

import click

from minilong.cli.experiment import (
    begin,
    check_folder,
    common_options,
    cores,
    end,
    lasting,
    replot_results,
    running,
)
from minilong.errors import UserError


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.argument("text", nargs=-1)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/extension"),
    show_default=True,
    help="Folder of results.",
)
@click.option(
    "--factor", type=click.FloatRange(1, 64), default=2.0, show_default=True, help="Trained contexts to read."
)
@click.option("--samples", type=click.IntRange(1, 100), default=2, show_default=True, help="Stretches of text to read.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this way of reading; may be repeated.")
@common_options
@click.pass_context
def command(
    ctx: click.Context,
    run: Path | None,
    text: tuple[str, ...],
    out: Path,
    factor: float,
    samples: int,
    methods: tuple[str, ...],
    jobs: int | None,
    quick: bool,
    replot: bool,
    quiet: bool,
) -> None:
    """Read TEXT with the model of RUN up to twice its trained context, in several ways, with no weight changed.

    Ways: plain; rotary positions scaled by PI, NTK, dynamic NTK and YaRN; a window with sinks; and YaRN with caches
    that evict tokens (H2O, SnapKV) or keep them in 4 bits. Shown are the loss by position, how many numbers that were
    hidden in the text are told when they are asked for, and which ways extend memory and which only fluency.

    TEXT: files or names of shipped texts (see `minilong info`); by default persuasion and pride_and_prejudice.

    \b
    Examples:
      minilong bench extension runs/smollm2-135m-instruct
      minilong bench extension runs/book-1 --quick
      minilong bench extension runs/book-1 --method plain --method YaRN --samples 1 --factor 4
      minilong bench extension --replot
    """
    from dataclasses import replace

    from minilong.experiments import extension as experiment
    from minilong.experiments.cells import run_cells
    from minilong.experiments.extension_report import REPORT

    if replot:
        replot_results(ctx, REPORT, out, quiet)
        return
    if run is None:
        raise UserError("no run is given; name a run folder, such as runs/smollm2-135m-instruct")
    texts = [lasting(name) for name in text] or ["persuasion", "pride_and_prejudice"]
    sizes = replace(experiment.QUICK if quick else experiment.Sizes(), factor=factor)
    samples, jobs = 1 if quick else samples, jobs or cores()
    check_folder(out)
    cells = experiment.cells(str(run.absolute()), texts, sizes, samples, methods)
    with running(out, quiet) as (report, should_stop):
        begin(quiet, f"{len(cells)} readings, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"run": str(run), "text": texts, "samples": samples, "quick": quick, "jobs": jobs, **sizes.settings()}
    end(REPORT, out, settings, records, quiet)
