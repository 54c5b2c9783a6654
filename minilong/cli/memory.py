"""The options that say what a model remembers while it reads, the same in every command that reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from minilong.models.config import READING

if TYPE_CHECKING:
    from minilong.memory import Memory
    from minilong.train.loaded import LoadedRun


def memory_options(f: Callable[..., None]) -> Callable[..., None]:
    """--memory, --window, --sinks, --budget and --cache-bits, for `remembered`."""
    for option in (
        click.option(
            "--cache-bits", type=click.Choice(["2", "4", "8"]), help="Keep the cache's older tokens in so few bits."
        ),
        click.option("--budget", type=click.IntRange(min=2), metavar="TOKENS", help="Kept by h2o, snapkv [context/4]."),
        click.option("--sinks", type=click.IntRange(min=0), metavar="TOKENS", help="First keys that stay as well [4]."),
        click.option(
            "--window", type=click.IntRange(min=1), metavar="TOKENS", help="Keys that stay [context - sinks]."
        ),
        click.option("--memory", type=click.Choice(READING), help="What the model remembers of the text [model]."),
    ):
        f = option(f)
    return f


def remembered(
    loaded: LoadedRun,
    memory: str | None,
    window: int | None,
    sinks: int | None,
    budget: int | None,
    cache_bits: str | None,
) -> Memory | None:
    """The memory that the options ask for; None for what the model was built for. UserError for what does not fit."""
    from minilong.train.adapt import memory_of

    bits = int(cache_bits) if cache_bits else None
    return memory_of(loaded, memory, window=window, sinks=sinks, budget=budget, cache_bits=bits)
