"""`minilong train`: say what will happen, train, save, say what to type next."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from minilong.cli.device import device_options, open_device
from minilong.cli.errors import INTERRUPTED, drop_unwritable_output
from minilong.cli.output import duration, estimate_lines, from_command_line, seconds_of, size
from minilong.cli.progress import progress_report
from minilong.cli.stopping import stop_requests
from minilong.errors import UserError
from minilong.models.config import DEPTHS, KERNELS, MEMORIES, NORMS, POSITIONS, SCALINGS
from minilong.train.config import FILLING_TASKS, PRECISIONS, RECALL_TASKS, TASKS, RunConfig
from minilong.train.presets import layered

if TYPE_CHECKING:
    from minilong.train.loop import Outcome
    from minilong.train.session import Session

WITH_RESUME = {"TEXT", "--resume", "--steps", "--quiet", "--dry-run", "--device", "--gpu-memory", "--precision"}
SAMPLE_LENGTH = 300


def budget_option(_ctx: click.Context, _option: click.Parameter, written: str | None) -> float | None:
    """The seconds of --budget."""
    try:
        return None if written is None else seconds_of(written)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(name="train", short_help="Train a model on a text, or on a generated task.")
@click.argument("text", nargs=-1)
@click.option("--preset", metavar="NAME", help="Shipped settings to start from (`minilong info` lists them).")
@click.option("--task", type=click.Choice(TASKS), help="What to learn [lm]; each task has its own preset.")
@click.option("--context", type=int, metavar="TOKENS", help="Tokens that the model sees at once.")
@click.option("--steps", type=int, help="Updates of the parameters; with --resume, a new total.")
@click.option(
    "--budget", callback=budget_option, metavar="TIME", help="Train for about this time, such as 90s, 5m or 1h."
)
@click.option("--batch", type=int, help="Sequences in one step.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--position", type=click.Choice(POSITIONS), help="Position encoding.")
@click.option("--norm", type=click.Choice(NORMS), help="Normalise before or after each sub-layer.")
@click.option("--attention", type=click.Choice(KERNELS), help="How attention is computed; all give the same numbers.")
@click.option("--window", type=int, metavar="TOKENS", help="Keys that a query sees (0 = all before it).")
@click.option("--sinks", type=int, metavar="TOKENS", help="First keys that stay visible in spite of the window.")
@click.option("--rope-scaling", type=click.Choice(SCALINGS), help="How rotary positions reach beyond rope_context.")
@click.option("--rope-factor", type=float, help="How many times further they reach.")
@click.option("--depth", type=click.Choice(DEPTHS), help="How a stack keeps what its derivative needs.")
@click.option("--memory", type=click.Choice(MEMORIES), help="Recurrence over segments of the context.")
@click.option("--layers", type=int, help="Layers of each stack.")
@click.option("--width", type=int, help="Components of a token's vector.")
@click.option("--threads", type=int, help="Replicas that share a batch (0 = cores available, at most 8).")
@device_options
@click.option("--precision", type=click.Choice(PRECISIONS), help="Numbers that a GPU computes in [float32].")
@click.option("--seed", type=int, help="Seed of initial values, order of data and dropout.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [the first free runs/NAME-1].")
@click.option("--replace", is_flag=True, help="Overwrite the run in --out.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run, exactly.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings from a TOML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show settings, parameters, memory and time, and stop there.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors, and at the end the run's path on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    text: tuple[str, ...],
    preset: str | None,
    task: str | None,
    context: int | None,
    steps: int | None,
    budget: float | None,
    batch: int | None,
    lr: float | None,
    position: str | None,
    norm: str | None,
    attention: str | None,
    window: int | None,
    sinks: int | None,
    rope_scaling: str | None,
    rope_factor: float | None,
    depth: str | None,
    memory: str | None,
    layers: int | None,
    width: int | None,
    threads: int | None,
    device: str,
    gpu_memory: str | None,
    precision: str | None,
    seed: int | None,
    out: Path | None,
    replace: bool,
    resume: Path | None,
    config: Path | None,
    assignments: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
) -> None:
    """Train a model on TEXT: UTF-8 files, or names of shipped texts (see `minilong info`).

    Settings come from a preset, overruled by --config, then by options, then by --set. They are printed together with
    parameters, memory and time before the start. Ctrl-C saves and says how to go on.

    \b
    Examples:
      minilong train                             the small preset on the shipped text
      minilong train book.txt --budget 5m        your own text, for five minutes
      minilong train --task reverse --steps 500  an encoder-decoder on a generated task
      minilong train book.txt --task mlm         an encoder that restores masked words
      minilong train book.txt --layers 6 --set dropout=0.1 --dry-run
      minilong train book.txt --context 4096 --batch 1 --window 512 --depth checkpoint
      minilong train --resume runs/book-1        go on where it stopped
      minilong train --resume runs/opened book.txt  go on with a model that was opened
      minilong train --preset medium --device cuda --precision bfloat16
    """
    where = open_device(device, gpu_memory)
    if resume is not None:
        refused = [name for name in from_command_line(ctx) if name not in WITH_RESUME]
        if refused:
            raise UserError(
                f"--resume goes on with the settings of {resume}, so {refused[0]} cannot be given; leave it out, "
                f"or start anew with --config {resume / 'config.toml'}"
            )
        from minilong.train import finetune

        texts = tuple(map(lasting, text))
        session = finetune.resume(resume, text=texts, steps=steps, device=where, precision=precision)
        folder = resume
    else:
        options = {
            "data.text": text or None,
            "task": task,
            "model.context": context,
            "model.position": position,
            "model.norm": norm,
            "model.attention": attention,
            "model.window": window,
            "model.sinks": sinks,
            "model.rope_scaling": rope_scaling,
            "model.rope_factor": rope_factor,
            "model.depth": depth,
            "model.memory": memory,
            "model.layers": layers,
            "model.width": width,
            "train.steps": steps,
            "train.batch": batch,
            "train.lr": lr,
            "train.threads": threads,
            "train.precision": precision,
            "train.seed": seed,
        }
        given = {key: value for key, value in options.items() if value is not None}
        run = layered(preset=preset, file=config, options=given, assignments=assignments)
        run = replace_fields(run, data=replace_fields(run.data, text=tuple(map(lasting, run.data.text))))
        if budget is not None and steps is not None:
            raise UserError("--budget derives the number of steps, but --steps gives it; leave out one of the two")
        if replace and out is None:
            raise UserError("--replace overwrites the run that --out names; give --out RUN")
        from minilong.train import session as sessions

        if where.is_cpu:
            check_memory(run)
        folder = out or free_folder(Path("runs"), run)
        session = sessions.start(run, folder, replace=replace, budget=budget, device=where)

    def say(*lines: str) -> None:
        if quiet:
            return
        try:
            for line in lines:
                click.echo(line, err=True)
        except OSError:  # a log on a full disk, a reader that left: the training matters more than what is said of it
            drop_unwritable_output()

    say(*settings_lines(session.config.to_dict()), *estimate_lines(session.estimate), f"run         {folder}")
    if dry_run:
        say("dry run     nothing was trained or written")
        return
    with stop_requests() as should_stop:
        say("stop        Ctrl-C saves and says how to go on", "")  # said when it has become true
        with progress_report(quiet=quiet) as report, warnings.catch_warnings():
            # The loop checks every loss and gradient and says what to try; NumPy's warnings would only blur that line.
            warnings.simplefilter("ignore", RuntimeWarning)
            outcome = session.run(report, should_stop)
    if outcome.interrupted:
        say(f"interrupted after step {outcome.step}, saved; go on with:", f"  {_resume(outcome.path)}")
        raise Exit(INTERRUPTED)
    if quiet:
        click.echo(outcome.path)
        return
    say(*outcome_lines(outcome))  # before the sample, which takes a moment and may be interrupted
    say(*_sample_lines(session), f"next        {_next_command(session.config, outcome.path)}")


def free_folder(parent: Path, config: RunConfig) -> Path:
    """`parent/NAME-N`: the name of the first text or of the task, with the first number that is free."""
    first = config.data.text[0] if config.data.text else config.task
    name = re.sub(r"[^\w.-]+", "-", Path(first).stem).strip("-.") or config.task
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def settings_lines(values: Mapping[str, Any]) -> list[str]:
    """Every setting of `RunConfig.to_dict` as `key=value`, a paragraph a section, as wide as the terminal up to 110."""
    lines = [f"task        {values['task']}"]
    for section in ("data", "model", "train"):
        table = values[section]
        words = " ".join(f"{key}={bare(value)}" for key, value in table.items())
        wide = min(shutil.get_terminal_size().columns, 110)
        lines += textwrap.wrap(
            words,
            max(wide, 40),
            initial_indent=f"{section:<12}",
            subsequent_indent=" " * 12,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def outcome_lines(outcome: Outcome) -> list[str]:
    """What came out: steps, time, losses in nats per token, and the measures that the task has."""
    figures = [f"train {outcome.train_loss:.4f}"]
    if outcome.validation_loss is not None:
        figures.append(f"validation {outcome.validation_loss:.4f}")
    measures = ", ".join(figures) + " nats/token"
    if outcome.bits_per_character is not None:
        measures += f"; {outcome.bits_per_character:.4f} bits/character"
    if outcome.accuracy is not None:
        measures += f"; {100 * outcome.accuracy:.1f}% exact"
    done = f"done        {outcome.step} steps in {duration(outcome.seconds)}, saved in {outcome.path}"
    return [done, f"loss        {measures}"]


def _sample_lines(session: Session) -> list[str]:
    sample = session.sample(SAMPLE_LENGTH)
    return ["", "a sample:", textwrap.indent(sample, "  "), ""]


def _next_command(config: RunConfig, path: Path) -> str:
    run = shlex.quote(str(path))
    if config.task == "lm":
        return f'minilong generate {run} --prompt "..."'
    if config.task in RECALL_TASKS:
        return f"minilong evaluate {run} --context {config.model.context},{2 * config.model.context}"
    if config.task in FILLING_TASKS:
        return f'minilong fill {run} "... ___ ..."'
    return f'minilong translate {run} "..."'


def _resume(path: Path) -> str:
    return f"minilong train --resume {shlex.quote(str(path))}"


def lasting(name: str) -> str:
    """A path that exists made absolute, so that the run can be resumed from another folder; other names as they are."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def bare(value: Any) -> str:
    """A setting's value for people: no quotes, a list joined by commas, no text as `none`."""
    if isinstance(value, list):
        return ",".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def check_memory(config: RunConfig) -> None:
    """Refuse a run that this machine's memory cannot hold, before anything is allocated."""
    from minilong.train.estimate import describe

    needed = sum(describe(config, None).memory.values())
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present:
        raise UserError(
            f"this run needs about {size(needed)} of memory and the machine has {size(present)}; "
            "lower --batch, --context, --width or --layers, or give --depth checkpoint or --set accumulate=N"
        )
