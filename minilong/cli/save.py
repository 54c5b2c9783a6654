"""`minilong save`: a run becomes a folder that transformers opens."""

from __future__ import annotations

from pathlib import Path

import click

from minilong.cli.shared import weights_option


@click.command(name="save", short_help="Write a run as a folder that transformers opens.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
@weights_option
def command(run: Path, to: Path, weights: str) -> None:
    """Write the model of RUN, opened, fine-tuned (adapters are merged in) or trained, as config.json,
    model.safetensors and the tokenizer's files.

    A model that was trained here can be saved if a published family computes the same: rotary positions, rms norms
    and swiglu (Llama, Mistral), learned positions (GPT-2), an encoder as BERT, an encoder-decoder as T5. Otherwise the
    setting is named that has no counterpart.

    \b
    Examples:
      minilong save runs/finetuned --to folder
      minilong save runs/book-1 --to folder --weights last
      minilong save runs/opened --to exports/model
      python -c "from transformers import AutoModelForCausalLM as A; A.from_pretrained('folder')"
    """
    from minilong.train.saved import save_run

    family, tokenizer = save_run(run, to, weights=weights)
    click.echo(f"saved       {to} ({family})", err=True)
    if not tokenizer:
        click.echo("tokenizer   that of the run has no form in transformers; give ids to the model", err=True)
