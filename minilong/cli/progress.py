"""How a running training shows itself: one line rewritten in place, or a plain line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from minilong.cli.output import console, count, duration

if TYPE_CHECKING:
    from rich.live import Live

    from minilong.train.loop import Progress

PLAIN_INTERVAL, LIVE_INTERVAL = 10.0, 0.1


@contextmanager
def progress_report(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a `Progress` on stderr, in the way that fits where stderr goes.

    A stream that can no longer be written (its reader left, its disk is full) silences the report; it never ends the
    training.
    """
    if quiet:
        yield lambda progress: None
    elif sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.live import Live

        live = Live(console=console(stderr=True), auto_refresh=False, transient=True)
        with suppress(OSError):
            live.start()
        try:
            yield _Report(lambda text: _show(live, text), live.console.print, LIVE_INTERVAL)
        finally:
            with suppress(OSError):
                live.stop()
    else:
        yield _Report(_echo, _echo, PLAIN_INTERVAL)


class _Report:
    """Passes lines to `now` at most once per interval, and to `keep` at every validation."""

    def __init__(self, now: Callable[[str], None], keep: Callable[[str], None], interval: float) -> None:
        self._now, self._keep, self._interval = now, keep, interval
        self._next = 0.0
        self._latest: tuple[float, float | None] | None = None
        self._broken = False

    def __call__(self, progress: Progress) -> None:
        if progress.validation is not None:
            self._latest = (progress.validation, progress.bits_per_character)
        if self._broken or (progress.validation is None and time.monotonic() < self._next):
            return
        text = progress_line(progress, self._latest)
        try:
            if progress.validation is not None:
                self._keep(text)
            if progress.validation is None or self._keep is not self._now:
                self._now(text)
        except OSError:
            self._broken = True
        self._next = time.monotonic() + self._interval


def progress_line(progress: Progress, latest: tuple[float, float | None] | None) -> str:
    """Step, share, losses, speed and times in one line that fits 80 columns.

    `latest` is the last validation loss in nats per token, with its bits per character (bpc) if known.
    """
    width = len(str(progress.steps))
    parts = [f"{progress.step:>{width}}/{progress.steps} {100 * progress.step // max(progress.steps, 1):3d}%"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if latest is not None:
        parts.append(f"val {latest[0]:.3f}" + (f" bpc {latest[1]:.3f}" if latest[1] is not None else ""))
    parts.append(f"{count(progress.tokens_per_second)} tok/s")
    parts.append(f"{duration(progress.elapsed)}, {duration(progress.remaining)} left")
    return "  ".join(parts)


def _echo(text: str) -> None:
    click.echo(text, err=True)


def _show(live: Live, text: str) -> None:
    from rich.text import Text

    live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
