"""`minilong fill`: the words that may stand in the blanks of a text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.output import console, plain_table, read_stdin
from minilong.cli.shared import weights_option

if TYPE_CHECKING:
    from minilong.train.fill import Filling


@click.command(name="fill", short_help="Fill the blanks of a text with a trained model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="Fillings to show.")
@weights_option
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path, text: str, top: int, weights: str, device: str, gpu_memory: str | None, as_json: bool) -> None:
    """Show what may stand in the blanks of TEXT, each written ___ or [MASK]. TEXT - reads standard input.

    A run of task mlm or roberta fills each blank with one token (of characters: write a blank for each), given that the
    others are blank. One of task t5 fills each with as many tokens as it likes, all blanks together. The percentages
    are the model's probabilities.

    \b
    Examples:
      minilong fill runs/pride_and_prejudice-1 "She was a very ___ woman."
      minilong fill runs/pride_and_prejudice-1 "Mr. ___ and his ___" --top 10
      minilong fill runs/pride_and_prejudice-1 "It is a ___ acknowledged" --json
    """
    from minilong.train.fill import fill
    from minilong.train.loaded import load

    where = open_device(device, gpu_memory)
    loaded = load(run, weights).on(where)
    content = read_stdin().removesuffix("\n") if text == "-" else text
    filling = fill(loaded, content, top)
    if as_json:
        click.echo(json.dumps({"run": str(run), "step": loaded.step, **asdict(filling)}, ensure_ascii=False))
    else:
        _print(filling)


def _print(filling: Filling) -> None:
    """A table for each list of candidates, then the text with the likeliest."""
    shown = console(stderr=False)
    for number, candidates in enumerate(filling.candidates, start=1):
        together = len(filling.candidates) == 1
        table = plain_table("" if together else f"blank {number}", "")
        for candidate in candidates:
            table.add_row(
                " / ".join(word.strip() or repr(word) for word in candidate.words), _percent(candidate.probability)
            )
        shown.print(table)
    shown.print(filling.text)


def _percent(probability: float) -> str:
    """A probability to two digits that count: 100%, 12%, 3.4%, 0.058%."""
    percent = 100 * probability
    if percent < 1e-4:
        return "0%"
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:#.2g}%"
