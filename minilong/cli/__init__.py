"""The command line `minilong`: one file per command, loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from minilong.cli.errors import ending
from minilong.errors import did_you_mean

COMMANDS = {
    "train": "Train a model on a text, or on a generated task.",
    "generate": "Continue a prompt with a trained language model.",
    "chat": "Talk with a language model.",
    "evaluate": "Measure a model on a text, or on questions, that it has not seen.",
    "translate": "Translate sentences with a trained encoder-decoder.",
    "fill": "Fill the blanks of a text with a trained model.",
    "open": "Make a run of a pretrained model.",
    "save": "Write a run as a folder that transformers opens.",
    "finetune": "Go on training a model on a text, by adapters or as a whole.",
    "embed": "Train vectors of words or documents, and ask them.",
    "info": "Show presets, a run, or what a model would need.",
    "trace": "Show every intermediate of one forward pass, or compare it.",
    "ledger": "Predict and measure the memory of a training step.",
    "bench": "Time minilong beside its peers; compare schemes and memories.",
    "audit": "Check equations, code and laws; or a function of your own.",
}


class Commands(click.Group):
    """A group that imports a command's file only when that command runs, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"minilong.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called, or suggest the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}{did_you_mean(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group itself; errors end in one line."""
        with ending(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Parse and run a command; errors end in one line."""
        with ending(ctx):
            return super().invoke(ctx)


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from minilong import __version__

        click.echo(f"minilong {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def main() -> None:
    """Train, use and inspect long-context Transformers that a person can audit.

    \b
    Examples:
      minilong train book.txt --budget 5m       train on a text of your own
      minilong train --dry-run                  what the default run would need
      minilong generate runs/book-1 --prompt "It was"
      minilong train --resume runs/book-1       go on after a stop
      minilong audit                            check formulas, code and laws
      minilong COMMAND --help                   options and examples of a command

    \b
    Exit codes:
      0    done
      1    the training diverged: its loss or a gradient was not finite; or the audit found a hole, or a trace differs
      2    something in the command, the input or the machine prevents it; one line says what
      130  interrupted; a training run was saved before
    """
