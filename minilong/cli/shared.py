"""What several commands share: options that are declared once, and which runs continue a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from minilong.cli.output import finite
from minilong.errors import UserError
from minilong.models.config import SCALINGS

if TYPE_CHECKING:
    from minilong.train.config import RunConfig

F = TypeVar("F", bound=Callable[..., Any])


def weights_option(command: F) -> F:
    """--weights, which gives the command `weights`, for `train.loaded.load`."""
    return click.option(
        "--weights",
        type=click.Choice(["best", "last"]),
        default="best",
        show_default=True,
        help="Weights of the best validation, or of the last step.",
    )(command)


def require_decoder(run: Path, config: RunConfig) -> None:
    """UserError where a run's model continues no text, with the command that it is for."""
    from minilong.train.config import COMMAND_OF_TASK

    if config.model.kind != "decoder":
        raise UserError(
            f"{run} learnt the task {config.task!r}, which has no text to continue; use "
            f"`minilong {COMMAND_OF_TASK[config.task]} {run}`"
        )


def rope_options(command: F) -> F:
    """--rope-scaling and --rope-factor, or --factor for short, for `train.adapt.adapt`."""
    factor = click.option(
        "--rope-factor",
        "--factor",
        type=click.FloatRange(min=1),
        help="How many times further; the context grows with it.",
    )
    scaling = click.option(
        "--rope-scaling", type=click.Choice(SCALINGS), help="How rotary positions reach beyond the context."
    )
    return scaling(factor(command))


def sampling_options(*, temperature: float, top_p: float) -> Callable[[F], F]:
    """--temperature, --top-k, --top-p and --seed (`eq:sampling`), with these usual values."""

    def add(command: F) -> F:
        for option in (
            click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same text."),
            click.option(
                "--top-p",
                type=click.FloatRange(min=0, max=1, min_open=True),
                callback=finite,
                default=top_p,
                show_default=True,
                help="Choose among the likeliest that together reach probability P.",
            ),
            click.option(
                "--top-k",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Choose among the K likeliest (0 = all).",
            ),
            click.option(
                "--temperature",
                type=click.FloatRange(min=0),
                callback=finite,
                default=temperature,
                show_default=True,
                help="Divides the logits: 0 takes the likeliest token, 1 samples as learnt.",
            ),
        ):
            command = option(command)
        return command

    return add
