"""`minilong generate`: continue a prompt, piece by piece as it is made."""

from __future__ import annotations

from pathlib import Path

import click

from minilong.cli.output import finite, read_stdin
from minilong.errors import UserError


@click.command(name="generate", short_help="Continue a prompt with a trained language model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", default="", metavar="TEXT", help="Text to continue; - reads standard input [none].")
@click.option("--length", type=click.IntRange(min=1), default=500, show_default=True, help="Tokens to generate.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    callback=finite,
    default=0.8,
    show_default=True,
    help="Divides the logits: 0 takes the likeliest token, 1 samples as learnt.",
)
@click.option(
    "--top-k", type=click.IntRange(min=0), default=0, show_default=True, help="Choose among the K likeliest (0 = all)."
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    callback=finite,
    default=1.0,
    show_default=True,
    help="Choose among the likeliest that together reach probability P.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same text.")
@click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Weights of the best validation, or of the last step.",
)
def command(
    run: Path, prompt: str, length: int, temperature: float, top_k: int, top_p: float, seed: int, weights: str
) -> None:
    """Continue a prompt with the language model of RUN. Prompt and text go to stdout as they are made.

    \b
    Examples:
      minilong generate runs/book-1 --prompt "It is a truth"
      minilong generate runs/book-1 --temperature 1 --top-k 40 --seed 3 --length 2000
      head -c 200 book.txt | minilong generate runs/book-1 --prompt -
    """
    from minilong.train.generate import generate
    from minilong.train.loaded import load

    loaded = load(run, weights)
    if loaded.config.task != "lm":
        raise UserError(
            f"{run} learnt the task {loaded.config.task!r}, which has no text to continue; "
            f"use `minilong translate {run}`"
        )
    # The line break that ends a piped line is no part of the prompt: `echo "It was" | minilong generate ...`.
    start = read_stdin().removesuffix("\n") if prompt == "-" else prompt
    pieces = generate(loaded, start, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    first = next(pieces, "")  # an unknown character in the prompt is reported before anything is printed
    click.echo(start + first, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()
