"""BLEU of a translation run on its held-out pairs: `python bench/bleu.py RUN [--pairs 500] [--beam 1]`.

Needs the extra `bench` (sacrebleu). Chinese is scored by characters, as sacrebleu's tokenizer `zh` cuts it.
"""

from __future__ import annotations

from pathlib import Path

import click

from minilong.train.loaded import load
from minilong.train.source import validation_text_pairs
from minilong.train.translate import translate

TOGETHER = 32


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--pairs", default=500, show_default=True, help="The first held-out pairs that fit the run's lengths.")
@click.option("--beam", default=1, show_default=True)
def main(run: Path, pairs: int, beam: int) -> None:
    """Translate held-out sentences and print the corpus BLEU with its signature, and a few examples."""
    from sacrebleu.metrics import BLEU

    loaded = load(run)
    longest = loaded.config.data.max_length
    held = [
        (source, target)
        for source, target in validation_text_pairs(loaded.config)
        if len(loaded.tokenizer.encode(source)) <= longest and len(loaded.tokenizer.encode(target)) < longest
    ][:pairs]
    answers: list[str] = []
    for i in range(0, len(held), TOGETHER):
        answers += translate(loaded, [source for source, _ in held[i : i + TOGETHER]], beam=beam)
    bleu = BLEU(tokenize="zh")
    score = bleu.corpus_score(answers, [[target for _, target in held]])
    click.echo(f"{score} on {len(held)} pairs, beam {beam}, step {loaded.step}; {bleu.get_signature()}")
    for (source, target), answer in list(zip(held, answers, strict=True))[:5]:
        click.echo(f"\n{source}\n  = {target}\n  > {answer}")


if __name__ == "__main__":
    main()
