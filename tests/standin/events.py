"""What would make the host wait, what is copied to the device and what is launched: counted, or forbidden."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS: deque[tuple[str, str]] = deque(maxlen=10_000)
"""The latest ("sync", what) and ("h2d", what), oldest first."""


class ImplicitSync(AssertionError):
    """The host waited for the device, or sent it data, where that was forbidden."""


class Counts:
    """What happened inside `counting()`. names: how often each operation was launched, by name."""

    def __init__(self) -> None:
        self.syncs = self.h2d = self.launches = 0
        self.names: Counter[str] = Counter()
        self.causes: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"Counts(syncs={self.syncs}, h2d={self.h2d}, launches={self.launches})"


class _State:
    no_sync = no_h2d = False
    counters: tuple[Counts, ...] = ()


STATE = _State()


def sync(what: str) -> None:
    """The host waits here until the device has done all that it was given."""
    EVENTS.append(("sync", what))
    for counts in STATE.counters:
        counts.syncs += 1
        counts.causes.append(("sync", what))
    if STATE.no_sync:
        raise ImplicitSync(f"{what} waits for the device")


def h2d(what: str) -> None:
    """Data go from the host to the device here."""
    EVENTS.append(("h2d", what))
    for counts in STATE.counters:
        counts.h2d += 1
        counts.causes.append(("h2d", what))
    if STATE.no_h2d:
        raise ImplicitSync(f"{what} copies from the host to the device")


def launch(name: str) -> None:
    """A kernel is launched here."""
    for counts in STATE.counters:
        counts.launches += 1
        counts.names[name] += 1


@contextmanager
def no_sync(*, h2d: bool = True) -> Iterator[None]:
    """Raise ImplicitSync where the host would wait, and, where `h2d` is False, where it copies to the device."""
    before = STATE.no_sync, STATE.no_h2d
    STATE.no_sync, STATE.no_h2d = True, before[1] or not h2d
    try:
        yield
    finally:
        STATE.no_sync, STATE.no_h2d = before


@contextmanager
def counting() -> Iterator[Counts]:
    """Count inside. Blocks may be nested; each counts all that is inside of it."""
    counts = Counts()
    STATE.counters += (counts,)
    try:
        yield counts
    finally:
        STATE.counters = tuple(c for c in STATE.counters if c is not counts)
