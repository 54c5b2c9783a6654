"""`minilong generate`: continue a prompt, piece by piece as it is made."""

from __future__ import annotations

from pathlib import Path

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.memory import memory_options, remembered
from minilong.cli.output import read_stdin
from minilong.cli.shared import require_decoder, rope_options, sampling_options, weights_option
from minilong.models.config import KERNELS


@click.command(name="generate", short_help="Continue a prompt with a trained language model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Text to continue; - reads standard input [none]. Several are continued together.",
)
@click.option("--length", type=click.IntRange(min=1), default=500, show_default=True, help="Tokens to generate.")
@sampling_options(temperature=0.8, top_p=1.0)
@weights_option
@memory_options
@rope_options
@device_options
@click.option("--attention", type=click.Choice(KERNELS), help="How attention is computed.")
def command(
    run: Path,
    prompts: tuple[str, ...],
    length: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    weights: str,
    memory: str | None,
    window: int | None,
    sinks: int | None,
    budget: int | None,
    cache_bits: str | None,
    rope_scaling: str | None,
    rope_factor: float | None,
    device: str,
    gpu_memory: str | None,
    attention: str | None,
) -> None:
    """Continue a prompt with the language model of RUN. Prompt and text go to stdout as they are made.

    A model sees its context at most: a longer text starts afresh from the second half of it. With a window (and a few
    attention sinks, the first tokens) it goes on for ever, in constant memory and time a token; so it does if it
    learnt with a window or with a memory.

    \b
    Examples:
      minilong generate runs/book-1 --prompt "It is a truth"
      minilong generate runs/book-1 --temperature 1 --top-k 40 --seed 3 --length 2000
      minilong generate runs/book-1 --memory window --window 120 --sinks 4 --length 100000
      minilong generate runs/book-1 --memory h2o --budget 64 --prompt "It was"
      minilong generate runs/book-1 --cache-bits 4
      minilong generate runs/book-1 --rope-scaling yarn --rope-factor 4 --length 400
      head -c 200 book.txt | minilong generate runs/book-1 --prompt -
    """
    from minilong.train.adapt import adapt
    from minilong.train.generate import generate, generate_batch
    from minilong.train.loaded import load

    where = open_device(device, gpu_memory)
    loaded = load(run, weights)
    require_decoder(run, loaded.config)
    # The line break that ends a piped line is no part of the prompt: `echo "It was" | minilong generate ...`.
    starts = [read_stdin().removesuffix("\n") if prompt == "-" else prompt for prompt in prompts or ("",)]
    loaded = adapt(loaded, rope_scaling=rope_scaling, rope_factor=rope_factor, attention=attention)
    loaded = loaded.on(where)
    kept = remembered(loaded, memory, window, sinks, budget, cache_bits)
    if len(starts) > 1:
        texts = generate_batch(
            loaded,
            starts,
            length=length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            memory=kept,
        )
        for start, text in zip(starts, texts, strict=True):
            click.echo(start + text + "\n")
        return
    (start,) = starts
    pieces = generate(
        loaded,
        start,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        memory=kept,
    )
    first = next(pieces, "")  # an unknown character in the prompt is reported before anything is printed
    click.echo(start + first, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()
