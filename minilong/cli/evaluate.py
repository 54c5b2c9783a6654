"""`minilong evaluate`: how well a language model predicts a text, or answers the questions of a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.memory import memory_options, remembered
from minilong.cli.output import console, from_command_line, plain_table, read_stdin
from minilong.cli.shared import rope_options, weights_option
from minilong.errors import UserError
from minilong.train.config import RECALL_TASKS

if TYPE_CHECKING:
    from minilong.train.evaluate import Evaluation
    from minilong.train.loaded import LoadedRun
    from minilong.train.recall import TaskResult

OF_TEXTS, OF_TASKS = ("--stride", "--per-position", "--plot"), ("--depth", "--samples")
LINES = 16


def _whole(_ctx: click.Context, _option: click.Parameter, written: str | None) -> tuple[int, ...]:
    return _numbers(written, 1, 1_000_000_000, "whole numbers from 1 on, such as 128,256")


def _percent(_ctx: click.Context, _option: click.Parameter, written: str | None) -> tuple[int, ...]:
    return _numbers(written, 0, 100, "percentages from 0 to 100, such as 0,50,100")


def _numbers(written: str | None, least: int, most: int, what: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in written.split(",")) if written is not None else ()
    except ValueError:
        raise click.BadParameter(f"{written!r} is no list of {what}") from None
    if any(not least <= number <= most for number in numbers):
        raise click.BadParameter(f"{written!r} is no list of {what}")
    return numbers


@click.command(name="evaluate", short_help="Measure a model on a text, or on questions, that it has not seen.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--task", type=click.Choice(("lm", *RECALL_TASKS)), help="What is measured [the task of RUN].")
@click.option(
    "--context",
    "contexts",
    callback=_whole,
    metavar="TOKENS",
    help="Tokens read at once, also more than in training; several for a task, such as 128,256 [that of training].",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Slide the window by this many tokens, so that each is predicted from more context [non-overlapping].",
)
@click.option("--per-position", is_flag=True, help="Show the loss by position in the window as well.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the loss by position (PNG).")
@click.option(
    "--depth", "depths", callback=_percent, metavar="PERCENT", help="Where passkeys stand, such as 0,50,100 [anywhere]."
)
@click.option("--samples", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Questions of a task.")
@rope_options
@memory_options
@weights_option
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    text: str | None,
    task: str | None,
    contexts: tuple[int, ...],
    stride: int | None,
    per_position: bool,
    plot: Path | None,
    depths: tuple[int, ...],
    samples: int,
    rope_scaling: str | None,
    rope_factor: float | None,
    memory: str | None,
    window: int | None,
    sinks: int | None,
    budget: int | None,
    cache_bits: str | None,
    weights: str,
    device: str,
    gpu_memory: str | None,
    as_json: bool,
) -> None:
    """Measure the language model of RUN on TEXT: a file, the name of a shipped text, or - for standard input.

    Without TEXT, on the end of the run's own text, which training held out. Bits per character and per byte can be
    compared across tokenizers; nats and perplexity per token cannot. A model of characters knows those of its own text
    and printable ASCII; one of bytes (`minilong train --preset byte`) can be measured on any text.

    With a task, the share of held-out questions that it answers right, by context and, for passkeys, by depth.
    Passkeys are hidden in TEXT, and any language model over a text can be asked for them.

    \b
    Examples:
      minilong evaluate runs/book-1
      minilong evaluate runs/book-1 --stride 32
      minilong evaluate runs/book-1 persuasion --context 512 --per-position --plot positions.png
      minilong evaluate runs/book-1 --context 512 --memory h2o --budget 64
      minilong evaluate runs/mqar-1 --context 64,128,256
      minilong evaluate runs/passkey-1 --context 128,256 --depth 0,25,50,75,100
      minilong evaluate runs/book-1 other.txt --json
    """
    from minilong.train.adapt import adapt
    from minilong.train.evaluate import evaluate
    from minilong.train.loaded import load
    from minilong.train.recall import evaluate_task

    where = open_device(device, gpu_memory)
    loaded = load(run, weights)
    own = loaded.config.task
    if own != "lm" and own not in RECALL_TASKS:
        raise UserError(f"{run} learnt the task {own!r}; only a run of task 'lm' or of a recall task can be measured")
    task = task or own
    misplaced = OF_TASKS if task == "lm" else OF_TEXTS
    refused = [name for name in from_command_line(ctx) if name in misplaced]
    if refused:
        remedy = "give --task passkey, or leave it out" if task == "lm" else "give --task lm, or leave it out"
        raise UserError(f"{refused[0]} does not belong to task {task!r}; {remedy}")
    if task == "lm" and own not in ("lm", "passkey"):
        raise UserError(f"{run} learnt the task {own!r}, which has no text; leave out --task lm")
    if task not in ("lm", "passkey") and text is not None:
        raise UserError(f"task {task!r} generates its questions, but the text {text!r} is given; leave it out")
    loaded = adapt(loaded, rope_scaling=rope_scaling, rope_factor=rope_factor).on(where)
    kept = remembered(loaded, memory, window, sinks, budget, cache_bits)
    if memory == "snapkv" and task == "lm":
        raise UserError("--memory snapkv chooses at the end of a prompt, and a text has none; give --task passkey")
    content = _content(loaded, text) if task in ("lm", "passkey") else None
    if content is not None and task == "lm":
        if len(contexts) > 1:
            raise UserError("a text is measured in one context at a time; give one number to --context")
        with _progress("tokens") as report:
            result = evaluate(
                loaded,
                content,
                stride=stride,
                context=contexts[0] if contexts else None,
                per_position=per_position or plot is not None,
                memory=kept,
                report=report,
            )
        if plot is not None:
            _draw(plot, result, loaded.config.model.context)
        if as_json:
            click.echo(json.dumps({"run": str(run), "step": loaded.step, "text": text, **_plain(result)}))
        else:
            _print_evaluation(result, per_position=per_position)
        return
    with _progress("cells") as report:
        found = evaluate_task(
            loaded,
            task,
            contexts=contexts,
            depths=[depth / 100 for depth in depths],
            samples=samples,
            text=content,
            memory=kept,
            report=report,
        )
    if as_json:
        click.echo(json.dumps({"run": str(run), "step": loaded.step, "text": text, **asdict(found)}))
    else:
        _print_task(found)


def _content(loaded: LoadedRun, text: str | None) -> str:
    from minilong.data.corpora import read_text
    from minilong.train.source import held_out

    if text is None:
        return held_out(loaded.config, loaded.data)
    return read_stdin() if text == "-" else read_text(text)


def _plain(result: Evaluation) -> dict[str, object]:
    """JSON values; the positions only where they were measured."""
    return {name: value for name, value in asdict(result).items() if value is not None}


def _print_evaluation(result: Evaluation, *, per_position: bool) -> None:
    table = plain_table("", "")
    for name, value in asdict(result).items():
        if name not in ("positions", "position_tokens"):
            table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console(stderr=False).print(table)
    if per_position and result.positions is not None and result.position_tokens is not None:
        from minilong.train.position_plot import pooled

        table = plain_table("position", "bits/token")
        for place, bits in zip(*pooled(result.positions, result.position_tokens, LINES), strict=True):
            table.add_row(f"{place:.0f}", f"{bits:.4f}")
        console(stderr=False).print(table)


def _print_task(found: TaskResult) -> None:
    """Exact answers in per cent: a row for each depth, a column for each context."""
    table = plain_table("depth" if found.depths else "", *(f"context {context}" for context in found.contexts))
    for row, cells in enumerate(found.cells):
        name = f"{100 * found.depths[row]:.0f}%" if found.depths else "right"
        table.add_row(name, *(f"{100 * cell.answers:.1f}%" for cell in cells))
    console(stderr=False).print(table)


def _draw(path: Path, result: Evaluation, trained: int) -> None:
    from minilong.train.position_plot import position_plot

    data = position_plot(result.positions or (), result.position_tokens or (), trained)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}; give --plot another path") from None


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while it is a terminal, that vanishes when all is done."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield lambda done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.completed}/{task.total} " + unit), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        line = bar.add_task("", total=None)
        yield lambda done, of: bar.update(line, completed=done, total=of)
