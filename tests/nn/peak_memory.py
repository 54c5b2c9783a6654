"""The most memory that a call has at any moment, as NumPy and Python ask for it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits


def peak(run: Callable[[], Any]) -> int:
    """Most bytes that `run` had at any moment, beyond those of its beginning."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with threadpool_limits(1):
            run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
