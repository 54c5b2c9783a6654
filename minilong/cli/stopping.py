"""Stop requests from outside: the first one lets the run save, the second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SAVING = b"\nstopping after this step to save; once more leaves at once without saving\n"
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C, a termination or a hang-up arrived while the context is open.

    A second signal ends the process with exit code 130. A signal that the caller ignores (`nohup`) stays ignored.
    Handlers can be set from the main thread only; elsewhere the function always answers False.
    """
    asked = threading.Event()

    def handler(_number: int, _frame: FrameType | None) -> None:
        # Only async-signal-safe calls: the handler may interrupt a write to the very stream that print would use.
        if asked.is_set():
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(130)
        asked.set()
        try:
            os.write(2, SAVING)
        except OSError:
            return  # the terminal is gone (hang-up); saving matters, the notice does not

    before: dict[int, object] = {}
    if threading.current_thread() is threading.main_thread():
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield asked.is_set
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)  # type: ignore[arg-type]
