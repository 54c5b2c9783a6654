"""`minilong finetune`: a model that was trained or opened goes on learning on other texts."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from minilong.cli.device import device_options, open_device
from minilong.cli.errors import INTERRUPTED, drop_unwritable_output
from minilong.cli.output import estimate_lines, from_command_line
from minilong.cli.progress import progress_report
from minilong.cli.stopping import stop_requests
from minilong.cli.train import budget_option, free_folder, lasting, outcome_lines, settings_lines
from minilong.errors import UserError, did_you_mean
from minilong.nn.lora import TARGETS, USUAL

if TYPE_CHECKING:
    from minilong.train.loop import Outcome
    from minilong.train.session import Session

WITH_RESUME = {"--resume", "--steps", "--quiet", "--dry-run", "--device", "--gpu-memory"}
OF_ADAPTERS = {"--rank", "--alpha", "--targets"}


def _targets(_ctx: click.Context, _option: click.Parameter, written: str) -> tuple[str, ...]:
    if written == "all":
        return ()
    names = tuple(name.strip() for name in written.split(","))
    for name in names:
        if name not in TARGETS:
            hint = did_you_mean(name, TARGETS)
            raise click.BadParameter(f"{name!r} is no target{hint}; choose among {', '.join(TARGETS)}, or all")
    return names


@click.command(name="finetune", short_help="Go on training a model on a text, by adapters or as a whole.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.argument("text", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the new run [the first free runs/NAME-1].")
@click.option("--rank", type=click.IntRange(min=1), default=8, show_default=True, help="Rank of the adapters.")
@click.option(
    "--alpha",
    type=click.FloatRange(min=0, min_open=True),
    default=16.0,
    show_default=True,
    help="The adapters are scaled by alpha / rank.",
)
@click.option(
    "--targets",
    callback=_targets,
    default=",".join(USUAL),
    show_default=True,
    metavar="NAMES",
    help=f"Layers that get one: {', '.join(TARGETS)}; or all.",
)
@click.option("--full", is_flag=True, help="Train all weights, not adapters.")
@click.option("--steps", type=int, help="Updates [100]; with --resume, a new total.")
@click.option(
    "--budget", callback=budget_option, metavar="TIME", help="Train for about this time, such as 90s, 5m or 1h."
)
@click.option("--batch", type=int, help="Sequences in one step [4].")
@click.option("--context", type=int, metavar="TOKENS", help="Tokens of a sequence in training [256, or the model's].")
@click.option("--lr", type=float, help="Highest learning rate [1e-3; with --full 3e-5].")
@click.option("--threads", type=int, help="Replicas that share a batch (0 = cores available, at most 8).")
@device_options
@click.option("--seed", type=int, help="Seed of the adapters, of the order of data and dropout.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any data.* or train.* setting.")
@click.option("--replace", is_flag=True, help="Overwrite the run in --out.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN2", help="Go on with a fine-tuning, exactly.")
@click.option("--dry-run", is_flag=True, help="Show settings, parameters, memory and time, and stop there.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors, and at the end the run's path on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    run: Path | None,
    text: tuple[str, ...],
    out: Path | None,
    rank: int,
    alpha: float,
    targets: tuple[str, ...],
    full: bool,
    steps: int | None,
    budget: float | None,
    batch: int | None,
    context: int | None,
    lr: float | None,
    threads: int | None,
    device: str,
    gpu_memory: str | None,
    seed: int | None,
    assignments: tuple[str, ...],
    replace: bool,
    resume: Path | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Train the model of RUN (a language model, a masked one, or T5) on TEXT (UTF-8 files, or shipped texts) and save
    it as another run.

    RUN, trained or opened, is never written to. By low-rank adapters (LoRA) the new run holds the adapters alone and
    needs RUN beside it: `minilong generate`, `chat` and `evaluate` merge the two when they read them, and
    `minilong open` makes one run of both.
    Ctrl-C saves and says how to go on.

    \b
    Examples:
      minilong finetune runs/smol persuasion --budget 5m
      minilong finetune runs/smol book.txt --rank 16 --targets all --out runs/mine
      minilong finetune runs/book-1 other.txt --full --steps 100
      minilong finetune --resume runs/mine
    """
    where = open_device(device, gpu_memory)
    given = from_command_line(ctx)
    if resume is not None:
        refused = [name for name in given if name not in WITH_RESUME]
        if refused:
            raise UserError(f"--resume goes on with what {resume} was started with; leave out {refused[0]}")
        from minilong.train import finetune

        session, folder = finetune.resume(resume, steps=steps, device=where), resume
    else:
        if run is None or not text:
            raise UserError("fine-tuning needs a run and a text: minilong finetune RUN book.txt")
        of_adapters = [name for name in given if name in OF_ADAPTERS]
        if full and of_adapters:
            raise UserError(
                f"{of_adapters[0]} is for adapters, but --full trains all weights; leave out one of the two"
            )
        if budget is not None and steps is not None:
            raise UserError("--budget derives the number of steps, but --steps gives it; leave out one of the two")
        if replace and out is None:
            raise UserError("--replace overwrites the run that --out names; give --out RUN")
        settings = {
            "train.steps": steps,
            "train.batch": batch,
            "data.length": context,
            "train.lr": lr,
            "train.threads": threads,
            "train.seed": seed,
        }
        session, folder = _start(
            run, text, out, (rank, alpha, targets), full, settings, assignments, replace, budget, where
        )

    def say(*lines: str) -> None:
        if quiet:
            return
        try:
            for line in lines:
                click.echo(line, err=True)
        except OSError:  # the training matters more than what is said of it
            drop_unwritable_output()

    say(*settings_lines(session.config.to_dict()), *estimate_lines(session.estimate), f"run         {folder}")
    if dry_run:
        say("dry run     nothing was trained or written")
        return
    with stop_requests() as should_stop:
        say("stop        Ctrl-C saves and says how to go on", "")
        with progress_report(quiet=quiet) as report, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the loop checks every loss and gradient
            outcome = session.run(report, should_stop)
    if outcome.interrupted:
        path = shlex.quote(str(outcome.path))
        say(f"interrupted after step {outcome.step}, saved; go on with:", f"  minilong finetune --resume {path}")
        raise Exit(INTERRUPTED)
    if quiet:
        click.echo(outcome.path)
        return
    say(*outcome_lines(outcome), _held_out(outcome), f"next        {_next_command(session, outcome.path)}")


def _start(
    run: Path,
    text: tuple[str, ...],
    out: Path | None,
    adapting: tuple[int, float, tuple[str, ...]],
    full: bool,
    settings: dict[str, Any],
    assignments: tuple[str, ...],
    replace: bool,
    budget: float | None,
    device: Any,
) -> tuple[Session, Path]:
    from minilong.train import finetune
    from minilong.train.presets import parse_assignment

    values = {key: value for key, value in settings.items() if value is not None} | dict(
        map(parse_assignment, assignments)
    )
    foreign = [key for key in values if key.startswith("model.") or key == "task"]
    if foreign:
        raise UserError(f"{foreign[0]} is a setting of the model, which is that of {run}; leave it out")
    config = finetune.settings_for(run, tuple(map(lasting, text)), full=full, given=values)
    folder = out or free_folder(Path("runs"), config)
    if full:
        return finetune.start_full(run, config, folder, replace_run=replace, budget=budget, device=device), folder
    how = finetune.Adapting(*adapting)
    session = finetune.start_adapters(run, config, how, folder, replace_run=replace, budget=budget, device=device)
    return session, folder


def _held_out(outcome: Outcome) -> str:
    before, best = outcome.first_validation, outcome.validation_loss
    if before is None or best is None:
        return "held out    not measured"
    return f"held out    {before:.4f} nats/token before, {best:.4f} now"


def _next_command(session: Session, path: Path) -> str:
    run = shlex.quote(str(path))
    if session.config.task == "lm":
        return f'minilong generate {run} --prompt "..."'
    return f'minilong fill {run} "... ___ ..."'
