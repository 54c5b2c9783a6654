"""`minilong trace`: every intermediate of one forward pass, and where it differs from another program's."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.output import console, finite, plain_table, read_stdin
from minilong.cli.shared import weights_option
from minilong.errors import UserError
from minilong.models.config import KERNELS

if TYPE_CHECKING:
    import numpy as np

    from minilong.train.loaded import LoadedRun
    from minilong.train.trace import Trace
    from minilong.train.trace_compare import Comparison
    from minilong.train.trace_statistics import Statistics

LAYER = re.compile(r"\w+\.layers\.\d+")
WIDE = 200


@click.command(name="trace", short_help="Show every intermediate of one forward pass, or compare it.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", required=True, metavar="TEXT", help="What the model reads; - reads standard input.")
@click.option("--target", default="", metavar="TEXT", help="What an encoder-decoder has answered so far [nothing].")
@click.option("--layer", "layers", type=click.IntRange(min=0), multiple=True, metavar="N", help="This layer only.")
@click.option("--only", "patterns", multiple=True, metavar="PATTERN", help="These names only, such as '*.weights'.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the arrays (safetensors).")
@click.option(
    "--against", metavar="WHAT", help="Compare with transformers, a folder that it opens, or a saved FILE.safetensors."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    callback=finite,
    default=1e-4,
    show_default=True,
    help="Difference that is rounding, of a number or of the root mean square of its row.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the residual stream (PNG).")
@weights_option
@click.option("--attention", type=click.Choice(KERNELS), help="How attention is computed.")
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    prompt: str,
    target: str,
    layers: tuple[int, ...],
    patterns: tuple[str, ...],
    save: Path | None,
    against: str | None,
    tolerance: float,
    plot: Path | None,
    weights: str,
    attention: str | None,
    device: str,
    gpu_memory: str | None,
    as_json: bool,
) -> None:
    """Show what the model of RUN computes on the way from a prompt to its logits: for each array its name, the equation
    in specs/ that it follows, shape, root mean square, least and greatest element, how many are not finite, a checksum
    of its bits, and the line of code.

    With --against, the same pass by another program or version, array by array: the first that differs by more than
    rounding is shown, and the exit code is 1. A saved trace is a safetensors file of arrays under these names, so any
    program can write one.

    \b
    Examples:
      minilong trace runs/book-1 --prompt "It is a truth"
      minilong trace runs/book-1 --prompt "It is a truth" --layer 0 --only '*.attention.*' --save layer.safetensors
      minilong trace runs/book-1 --prompt "It is a truth" --against transformers
      minilong trace runs/book-1 --prompt "It is a truth" --attention naive --save naive.safetensors
      minilong trace runs/book-1 --prompt "It is a truth" --attention blockwise --against naive.safetensors
    """
    from minilong.train.adapt import adapt
    from minilong.train.loaded import load
    from minilong.train.trace import choice, tokens_of, trace
    from minilong.train.trace_compare import compare, first_divergence
    from minilong.train.trace_file import save_trace
    from minilong.train.trace_records import everything, nothing

    where = open_device(device, gpu_memory)
    loaded = load(run, weights)
    if attention is not None:
        if loaded.config.model.kind == "encoder-decoder":
            raise UserError("--attention chooses the kernel of one stack, and an encoder-decoder has two; leave it out")
        loaded = adapt(loaded, attention=attention)
    text = read_stdin().removesuffix("\n") if prompt == "-" else prompt
    tokens = tokens_of(loaded, text, target)
    theirs = None if against is None else _reference(run, weights, loaded, against, tokens)
    kept = everything if save is not None else nothing if theirs is None else theirs.__contains__
    with _progress() as report:
        traced = trace(loaded.on(where), tokens, wanted=choice(patterns, layers), kept=kept, report=report)
    if not traced.records:
        raise UserError("no array has such a name; leave out --only and --layer to see all names")
    if save is not None:
        save_trace(save, traced)
    if plot is not None:
        _draw(plot, traced)
    found = None if theirs is None else compare(traced.records, traced.arrays, theirs, tolerance)
    first = None if found is None else first_divergence(found)
    if as_json:
        click.echo(json.dumps(_plain(run, loaded, traced, found, first)))
    elif found is None:
        _print(traced)
    else:
        _print_comparison(found, first, str(against), tolerance)
    if first is not None:
        ctx.exit(1)


def _reference(
    run: Path, weights: str, loaded: LoadedRun, against: str, tokens: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays that are compared with, by our names."""
    from minilong.train.saved import save_run
    from minilong.train.trace_file import read_trace
    from minilong.train.trace_transformers import reference

    model = loaded.config.model
    if against == "transformers":
        with tempfile.TemporaryDirectory() as folder:
            save_run(run, Path(folder) / "model", weights=weights)
            return reference(Path(folder) / "model", tokens, model)
    path = Path(against)
    if path.is_dir():
        return reference(path, tokens, model)
    if path.suffix != ".safetensors" or not path.exists():
        raise UserError(f"there is no {against!r} to compare with; give transformers, a folder, or a saved trace")
    return read_trace(path, tokens)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is computed, on stderr while it is a terminal; gone when all is done."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield lambda name: None
        return
    with shown.status("") as status:
        yield status.update


def _print(traced: Trace) -> None:
    """A row for each array, in the order of computation; names of a layer without its own before them."""
    shown = console(stderr=False)
    shown.width = max(shown.width, WIDE)  # figures of a row belong on one line, whatever the terminal
    table = plain_table("name", "equation", "shape", "rms", "least", "greatest", "not finite", "checksum", "code")
    group = ""
    for r in traced.records:
        match = LAYER.match(r.name)
        if match is not None and match[0] != group:
            table.add_row(match[0])
        group = "" if match is None else match[0]
        name = f"  {r.name.removeprefix(group).removeprefix('.') or 'the stream behind it'}" if group else r.name
        s = r.statistics
        numbers = [_number(x) for x in (s.rms, s.least, s.greatest)]
        table.add_row(
            name, r.equation, "x".join(map(str, r.shape)), *numbers, str(s.nonfinite or ""), s.checksum, r.code
        )
    shown.print(table)
    types = sorted({r.dtype for r in traced.records})
    read = ", ".join(f"{ids.size} {name}" for name, ids in traced.tokens.items())
    shown.print(f"{len(traced.records)} arrays ({', '.join(types)}) of one pass over {read}")


def _print_comparison(found: list[Comparison], first: Comparison | None, other: str, tolerance: float) -> None:
    """The arrays up to the first divergence, then that one in full."""
    shown = console(stderr=False)
    table = plain_table("name", "largest difference", "of what is rounding")
    last = len(found) if first is None else found.index(first) + 1
    for c in found[:last]:
        table.add_row(c.name, f"{c.difference:.3g}", f"{100 * c.excess:.3g}%")
    shown.print(table)
    if first is None:
        worst = max(found, key=lambda c: c.excess)
        shown.print(
            f"{len(found)} arrays agree with {other} to {tolerance:g} of a row; "
            f"nearest to it is {worst.name}, by {100 * worst.excess:.2g}% of that"
        )
        return
    shown.print(f"{first.name} is the first of {len(found)} arrays that differs from {other}:")
    ours, theirs = first.shapes
    if first.index == ():
        shown.print(f"  shape       ours {ours}, theirs {theirs}")
    else:
        a, b = first.pair
        shown.print(f"  difference  {first.difference:.3g} at {list(first.index)}: ours {a:.6g}, theirs {b:.6g}")
    shown.print(f"  ours        {_line(first.ours)}")
    shown.print(f"  theirs      {_line(first.theirs)}")


def _line(s: Statistics) -> str:
    parts = (("rms", s.rms), ("mean", s.mean), ("least", s.least), ("greatest", s.greatest))
    return ", ".join(f"{name} {_number(x)}" for name, x in parts) + f", {s.nonfinite} not finite"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.4g}"


def _plain(
    run: Path, loaded: LoadedRun, traced: Trace, found: list[Comparison] | None, first: Comparison | None
) -> dict[str, object]:
    """JSON values. What is not finite is text, which JSON has no number for."""
    facts: dict[str, object] = {
        "run": str(run),
        "step": loaded.step,
        "tokens": {name: ids[0].tolist() for name, ids in traced.tokens.items()},
        "records": [asdict(r) for r in traced.records],
    }
    if found is not None:
        facts["compared"] = [_finite(asdict(c) | {"diverges": c.diverges}) for c in found]
        facts["first_divergence"] = None if first is None else first.name
    return facts


def _finite(values: dict[str, object]) -> dict[str, object]:
    """The same with text in place of infinities and what is no number."""

    def plain(x: object) -> object:
        if isinstance(x, tuple):
            return [plain(part) for part in x]
        return str(x) if isinstance(x, float) and x - x != 0 else x

    return {name: plain(x) for name, x in values.items()}


def _draw(path: Path, traced: Trace) -> None:
    from minilong.train.trace_plot import stream_plot

    data = stream_plot(traced.records)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}; give --plot another path") from None
