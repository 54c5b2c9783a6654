"""`minilong ledger`: what a step of training needs by the formulas, and what a real one takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from minilong.cli.output import console, count, plain_table, size
from minilong.cli.train import check_memory
from minilong.models.config import DEPTHS, KERNELS, MEMORIES, POSITIONS
from minilong.train.config import TASKS, RunConfig
from minilong.train.presets import layered


@click.command(name="ledger", short_help="Predict and measure the memory of a training step.")
@click.argument("text", nargs=-1)
@click.option("--preset", metavar="NAME", help="Shipped settings to start from (`minilong info` lists them).")
@click.option("--task", type=click.Choice(TASKS), help="What to learn [lm].")
@click.option("--context", type=int, metavar="TOKENS", help="Tokens that the model sees at once.")
@click.option("--batch", type=int, help="Sequences in one step.")
@click.option("--position", type=click.Choice(POSITIONS), help="Position encoding.")
@click.option("--attention", type=click.Choice(KERNELS), help="How attention is computed; all give the same numbers.")
@click.option("--window", type=int, metavar="TOKENS", help="Keys that a query sees (0 = all before it).")
@click.option("--sinks", type=int, metavar="TOKENS", help="First keys that stay visible in spite of the window.")
@click.option("--depth", type=click.Choice(DEPTHS), help="How a stack keeps what its derivative needs.")
@click.option("--memory", type=click.Choice(MEMORIES), help="Recurrence over segments of the context.")
@click.option("--layers", type=int, help="Layers of each stack.")
@click.option("--width", type=int, help="Components of a token's vector.")
@click.option("--threads", type=int, help="Replicas that share a batch (0 = cores available, at most 8).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings from a TOML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; may be repeated.")
@click.option("--no-measure", is_flag=True, help="Print the predictions alone, at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    text: tuple[str, ...],
    preset: str | None,
    task: str | None,
    context: int | None,
    batch: int | None,
    position: str | None,
    attention: str | None,
    window: int | None,
    sinks: int | None,
    depth: str | None,
    memory: str | None,
    layers: int | None,
    width: int | None,
    threads: int | None,
    config: Path | None,
    assignments: tuple[str, ...],
    no_measure: bool,
    as_json: bool,
) -> None:
    """Memory by part: predicted from the settings, and measured in a real gradient step in this process.

    Settings are those of `minilong train`. The peak is that of all arrays at once; Python and its libraries take about
    70 MB more.

    \b
    Examples:
      minilong ledger
      minilong ledger --context 4096 --batch 1 --depth reversible
      minilong ledger --preset medium --set vocabulary=8192 --no-measure
    """
    options = {
        "data.text": text or None,
        "task": task,
        "model.context": context,
        "model.position": position,
        "model.attention": attention,
        "model.window": window,
        "model.sinks": sinks,
        "model.depth": depth,
        "model.memory": memory,
        "model.layers": layers,
        "model.width": width,
        "train.batch": batch,
        "train.threads": threads,
    }
    given = {key: value for key, value in options.items() if value is not None}
    run = layered(preset=preset, file=config, options=given, assignments=assignments)
    facts = ledger(run, measured=not no_measure)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show(facts)


def ledger(config: RunConfig, *, measured: bool) -> dict[str, Any]:
    """Bytes by part: what the formulas say and, if asked for, what a step and a cache took."""
    from minilong.train.estimate import count_parameters, usual_vocabulary
    from minilong.train.ledger import INTERPRETER
    from minilong.train.ledger_measure import measure_cache, measure_step, predict
    from minilong.train.source import open_source

    if not measured:
        vocabulary = usual_vocabulary(config)
        found = None
    else:
        check_memory(config)
        source = open_source(config)
        vocabulary = source.tokenizer.size
        found = measure_step(config, source)
    predicted = predict(config, vocabulary)
    facts: dict[str, Any] = {
        "parameters": count_parameters(config.model, vocabulary),
        "vocabulary": vocabulary,
        "predicted": predicted.by_part(),
        "measured": None if found is None else found.by_part(),
        "cache": None,
        "python": INTERPRETER,
    }
    if config.model.kind == "decoder":
        from minilong.train.ledger import cache_bytes, cache_bytes_per_token

        facts["cache"] = {
            "per token": cache_bytes_per_token(config.model),
            "tokens": config.model.context,
            "predicted": cache_bytes(config.model, config.model.context),
            "measured": measure_cache(config, vocabulary) if measured else None,
        }
    return facts


def show(facts: dict[str, Any]) -> None:
    """A table of parts, the cache, and what is not counted."""
    out, predicted, measured = console(stderr=False), facts["predicted"], facts["measured"]
    table = plain_table("part", "predicted", "measured", "ratio")

    def add(name: str, says: int, took: int | None) -> None:
        ratio = f"{says / took:.2f}" if took else ""
        table.add_row(name, size(says), "" if took is None else size(took), ratio)

    for name in predicted:
        add(name, predicted[name], None if measured is None else measured.get(name, 0))
    cache = facts["cache"]
    if cache is not None:
        add(f"cache of {cache['tokens']} tokens", cache["predicted"], cache["measured"])
    out.print(table)
    out.print()
    if cache is not None:
        out.print(f"generating: a token adds {size(cache['per token'])} to the cache, until a window or memory forgets")
    model = f"{count(facts['parameters'])} parameters, {facts['vocabulary']} tokens in the vocabulary"
    out.print(f"{model}; and about {size(facts['python'])} for Python and its libraries")
