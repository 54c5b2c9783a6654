"""`minilong chat`: talk with a language model, turn by turn."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.memory import memory_options, remembered
from minilong.cli.shared import require_decoder, rope_options, sampling_options, weights_option
from minilong.errors import UserError
from minilong.models.config import KERNELS

LONGEST = 2**20
"""Characters of a line that is read."""


@click.command(name="chat", short_help="Talk with a language model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--system", metavar="TEXT", help="What the model is told before the first turn [as its template says].")
@click.option(
    "--template",
    metavar="NAME|FILE",
    help="Chat template: plain, chatml, or a file in Jinja [the one that came with the model].",
)
@click.option("--length", type=click.IntRange(min=1), default=512, show_default=True, help="Tokens of an answer.")
@sampling_options(temperature=0.6, top_p=0.9)
@weights_option
@memory_options
@rope_options
@device_options
@click.option("--attention", type=click.Choice(KERNELS), help="How attention is computed.")
def command(
    run: Path,
    system: str | None,
    template: str | None,
    length: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    weights: str,
    memory: str | None,
    window: int | None,
    sinks: int | None,
    budget: int | None,
    cache_bits: str | None,
    rope_scaling: str | None,
    rope_factor: float | None,
    device: str,
    gpu_memory: str | None,
    attention: str | None,
) -> None:
    """Talk with the language model of RUN: a line is a turn, and the answer comes as it is made.

    Lines can be piped in as well; answers then go to stdout, one after another. /quit ends the talk and /reset begins a
    new one. Ctrl-C stops an answer; a second one leaves. The whole talk stays in the model's memory while it fits into
    the context; then the oldest turns are left out. With --memory window it goes on for ever, in constant memory.

    \b
    Examples:
      minilong chat runs/smollm2-135m-instruct
      minilong chat runs/smollm2-135m-instruct --system "Answer in one sentence." --temperature 0
      minilong chat runs/smollm2-135m-instruct --memory window --window 2000 --sinks 4
      printf 'Who wrote Emma?\\nWhen?\\n' | minilong chat runs/smollm2-135m-instruct
      minilong chat runs/book-1 --template plain
    """
    from minilong.data.chat_template import ChatTemplate
    from minilong.train.adapt import adapt
    from minilong.train.chat import Chat, Sampling
    from minilong.train.loaded import load

    text = None if template is None else named_template(template)
    where = open_device(device, gpu_memory)
    loaded = load(run, weights)
    require_decoder(run, loaded.config)
    if text is None:
        text = own_template(run)
    loaded = adapt(loaded, rope_scaling=rope_scaling, rope_factor=rope_factor, attention=attention)
    loaded = loaded.on(where)
    kept = remembered(loaded, memory, window, sinks, budget, cache_bits)
    sampling = Sampling(temperature, top_k, top_p, seed, length)

    def begin() -> Chat:
        return Chat(loaded, ChatTemplate(text, loaded.tokenizer), system=system, sampling=sampling, memory=kept)

    chat, forgotten = begin(), 0
    for line in lines():
        if line == "/reset":
            chat, forgotten = begin(), 0
            continue
        with one_interrupt() as stopped:
            for piece in leading_space_off(chat.ask(line, stopped)):
                click.echo(piece, nl=False)
        click.echo()
        if chat.forgotten > forgotten:
            forgotten = chat.forgotten
            click.echo(f"({forgotten} messages of the beginning no longer fit into the context)", err=True)


def named_template(name: str) -> str:
    """A template by its name, or from a file. UserError where there is no such file."""
    from minilong.data.chat_template import NAMED
    from minilong.data.tokenizer_folder import read_text

    if name not in NAMED and not Path(name).is_file():
        raise UserError(f"there is no chat template {name!r}: give {', '.join(sorted(NAMED))}, or a file in Jinja")
    return NAMED[name] if name in NAMED else read_text(Path(name))


def own_template(run: Path) -> str:
    """The template that came with a run. UserError where there is none."""
    from minilong.train.chat import run_template

    text = run_template(run)
    if text is None:
        raise UserError(
            f"{run} has no chat template; give --template FILE, or --template plain to try one that any language "
            "model may follow"
        )
    return text


def lines() -> Iterator[str]:
    """What is said, line by line, without empty lines: typed after a prompt, or piped in. Ends at /quit."""
    if sys.stdin.isatty():
        with suppress(ImportError):  # arrow keys and history, where the system has them
            import readline  # noqa: F401
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline(LONGEST)
        except EOFError:
            click.echo()
            return
        if not line and not sys.stdin.isatty():
            return
        line = line.strip()
        if line == "/quit":
            return
        if line:
            yield line


def leading_space_off(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces without white space before the first word."""
    for piece in pieces:
        if shown := piece.lstrip():
            yield shown
            break
    yield from pieces


@contextmanager
def one_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C came while the context is open; the second one interrupts as usual.

    Handlers can be set from the main thread only; elsewhere the function always answers False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
