"""`minilong bench`: timing beside peers, and experiments that reproduce published findings small, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from minilong.cli.bench_extension import command as extension
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
from minilong.cli.output import seconds_of
from minilong.cli.timing import TimingGroup
from minilong.cli.timing import command as timing
from minilong.errors import UserError


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
      minilong bench extension runs/book-1    a run beyond its trained context, read in several ways
      minilong bench retrieval                what vectors of sentences find
    """


command.add_command(timing)
command.add_command(extension, "extension")


def _budget(_ctx: click.Context, _option: click.Parameter, written: str | None) -> float | None:
    try:
        return None if written is None else seconds_of(written)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


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
@common_options
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
        replot_results(ctx, REPORT, out, quiet)
        return
    if steps is not None and budget is not None:
        raise UserError("--budget derives the number of steps, but --steps gives it; leave out one of the two")
    texts = [lasting(name) for name in text] or ["pride_and_prejudice"]
    sizes = experiment.QUICK if quick else experiment.Sizes()
    sizes = replace(sizes, steps=steps) if steps is not None else sizes
    jobs = jobs or cores()
    check_folder(out)
    with running(out, quiet) as (report, should_stop):
        if budget is not None:
            timings = experiment.timing_cells(texts, sizes, budget)
            timed = run_cells(timings, out, workers=jobs, report=report, should_stop=should_stop)
            sizes = replace(sizes, steps=experiment.steps_for(budget, timed, seeds, jobs))
        cells = experiment.cells(texts, sizes, seeds)
        begin(quiet, f"{len(cells)} trainings of {sizes.steps} steps, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"text": texts, "seeds": seeds, "quick": quick, "jobs": jobs, **sizes.settings()}
    end(REPORT, out, settings, records, quiet)


@command.command()
@click.argument("text", required=False, default="pride_and_prejudice")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/recall"), show_default=True, help="Folder of results."
)
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Trainings of each memory.")
@common_options
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
        replot_results(ctx, REPORT, out, quiet)
        return
    sizes = experiment.QUICK if quick else experiment.Sizes()
    text, jobs = lasting(text), jobs or cores()
    check_folder(out)
    cells = experiment.cells(text, sizes, seeds)
    with running(out, quiet) as (report, should_stop):
        begin(quiet, f"{len(cells)} trainings, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"text": text, "seeds": seeds, "quick": quick, "jobs": jobs, **sizes.settings()}
    end(REPORT, out, settings, records, quiet)


@command.command()
@click.argument("text", nargs=-1)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/retrieval"),
    show_default=True,
    help="Folder of results.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Trainings of each method.")
@click.option("--steps", type=click.IntRange(10), help="Steps of each encoder.  [default: those of its preset]")
@click.option(
    "--run", "runs", multiple=True, type=click.Path(path_type=Path), help="Compare this trained run too, as it is."
)
@common_options
@click.pass_context
def retrieval(
    ctx: click.Context,
    text: tuple[str, ...],
    out: Path,
    seeds: int,
    steps: int | None,
    runs: tuple[Path, ...],
    jobs: int | None,
    quick: bool,
    replot: bool,
    quiet: bool,
) -> None:
    """Learn vectors of sentences from TEXT in several ways, and search its held-out end, the last fifth, with them.

    Two searches: the passage that follows a passage, and the second half of a sentence by its first. Pooled states of
    the presets roberta, mlm and t5 beside means of word vectors, Doc2Vec and TF-IDF. TEXT: files or names of shipped
    texts (see `minilong info`); by default pride_and_prejudice and persuasion. About 20 minutes on two idle cores.

    \b
    Examples:
      minilong bench retrieval
      minilong bench retrieval sanguo --out runs/retrieval-zh
      minilong bench retrieval --run runs/minilm
      minilong bench retrieval --replot
    """
    from dataclasses import replace

    from minilong.experiments import retrieval as experiment
    from minilong.experiments.cells import run_cells
    from minilong.experiments.retrieval_report import REPORT

    if replot:
        replot_results(ctx, REPORT, out, quiet)
        return
    sizes = experiment.QUICK if quick else experiment.Sizes()
    sizes = replace(sizes, steps=steps) if steps is not None else sizes
    texts, jobs = [lasting(name) for name in text] or ["pride_and_prejudice", "persuasion"], jobs or cores()
    folders = [str(Path(run).absolute()) for run in runs]
    check_folder(out)
    cells = experiment.cells(texts, sizes, seeds, folders)
    with running(out, quiet) as (report, should_stop):
        begin(quiet, f"{len(cells)} methods, {jobs} at once", out, cells)
        records = run_cells(cells, out, workers=jobs, report=report, should_stop=should_stop)
    settings = {"text": texts, "seeds": seeds, "quick": quick, "jobs": jobs, "runs": folders, **sizes.settings()}
    end(REPORT, out, settings, records, quiet)
