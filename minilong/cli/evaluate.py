"""`minilong evaluate`: how well a language model predicts a text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from minilong.cli.output import console, plain_table, read_stdin
from minilong.errors import UserError


@click.command(name="evaluate", short_help="Measure a language model on a text it has not seen.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Slide the window by this many tokens, so that each is predicted from more context [non-overlapping].",
)
@click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Weights of the best validation, or of the last step.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path, text: str | None, stride: int | None, weights: str, as_json: bool) -> None:
    """Measure the language model of RUN on TEXT: a file, the name of a shipped text, or - for standard input.

    Without TEXT, on the end of the run's own text, which training held out. Bits per character and per byte can be
    compared across tokenizers; nats and perplexity per token cannot. A model of characters knows those of its own text
    and printable ASCII; one of bytes (`minilong train --preset byte`) can be measured on any text.

    \b
    Examples:
      minilong evaluate runs/book-1
      minilong evaluate runs/book-1 --stride 32
      minilong evaluate runs/book-1 persuasion
      minilong evaluate runs/book-1 other.txt --json
    """
    from minilong.data.corpora import read_text
    from minilong.train.evaluate import evaluate
    from minilong.train.loaded import load
    from minilong.train.source import held_out

    loaded = load(run, weights)
    if loaded.config.task != "lm":
        raise UserError(f"{run} learnt the task {loaded.config.task!r}; only a run of task 'lm' can be measured")
    if text is None:
        content = held_out(loaded.config, loaded.data)
    else:
        content = read_stdin() if text == "-" else read_text(text)
    result = evaluate(loaded, content, stride=stride)
    if as_json:
        click.echo(json.dumps({"run": str(run), "step": loaded.step, "text": text, **asdict(result)}))
        return
    table = plain_table("", "")
    for name, value in asdict(result).items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console(stderr=False).print(table)
