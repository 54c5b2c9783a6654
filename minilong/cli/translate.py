"""`minilong translate`: sentences in, sentences out, one line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.output import finite, stdin_lines
from minilong.cli.shared import weights_option
from minilong.errors import UserError

TOGETHER = 32


@click.command(name="translate", short_help="Translate sentences with a trained encoder-decoder.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sentence", nargs=-1)
@click.option("--beam", type=click.IntRange(1, 1000), default=1, show_default=True, help="Hypotheses; 1 is greedy.")
@click.option(
    "--length-penalty",
    type=click.FloatRange(min=0),
    callback=finite,
    default=0.6,
    show_default=True,
    help="Exponent that favours longer hypotheses in beam search.",
)
@click.option("--max-length", type=click.IntRange(min=1), help="Tokens at most per sentence [what the run allows].")
@weights_option
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per sentence.")
def command(
    run: Path,
    sentence: tuple[str, ...],
    beam: int,
    length_penalty: float,
    max_length: int | None,
    weights: str,
    device: str,
    gpu_memory: str | None,
    as_json: bool,
) -> None:
    """Translate each SENTENCE, or each line of standard input, with the model of RUN. Copies and reverses, too.

    \b
    Examples:
      minilong translate runs/libreoffice_help-1 "Insert a new column."
      minilong translate runs/libreoffice_help-1 --beam 4 < sentences.txt > translated.txt
      minilong translate runs/reverse-1 abc --json
    """
    from minilong.train.config import COMMAND_OF_TASK
    from minilong.train.loaded import load
    from minilong.train.translate import translate

    where = open_device(device, gpu_memory)
    loaded = load(run, weights)
    task = loaded.config.task
    if COMMAND_OF_TASK[task] != "translate":
        raise UserError(f"{run} learnt the task {task!r}; use `minilong {COMMAND_OF_TASK[task]} {run}`")
    loaded = loaded.on(where)
    # A person who types wants each line answered; a file is faster in batches.
    together = 1 if not sentence and sys.stdin is not None and sys.stdin.isatty() else TOGETHER
    number = 1
    for group in _groups(sentence or stdin_lines(), together):
        results = translate(
            loaded, group, beam=beam, length_penalty=length_penalty, max_length=max_length, first=number
        )
        number += len(group)
        for source, target in zip(group, results, strict=True):
            click.echo(json.dumps({"source": source, "target": target}, ensure_ascii=False) if as_json else target)


def _groups(items: Iterable[str], length: int) -> Iterator[list[str]]:
    rest = iter(items)
    while group := list(islice(rest, length)):
        yield group
