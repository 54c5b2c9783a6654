"""Threads that share the blocks of one operation, with the matrix library held to one thread meanwhile.

NumPy releases the interpreter's lock while it computes. Every piece of work writes where no other does, so the result
has the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")


def share_out(work: Callable[[Iterator[Item]], None], items: Sequence[Item], threads: int) -> None:
    """Call `work` once on each of `threads` threads, with one iterator over the items that all of them draw from."""
    supply = iter(items)  # a list's iterator gives each item once, to whichever thread asks

    def run() -> None:
        with np.errstate(all="ignore"):  # a thread has error settings of its own; blind rows and padding overflow
            work(supply)

    threads = min(threads, len(items))
    if threads <= 1:
        run()
        return
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run) for _ in range(threads)]:
            done.result()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold the matrix library to one thread; nothing where the caller has done so already.

    The numbers to restore are read here rather than by threadpoolctl's own context: of two operations that overlap, the
    later would take the earlier one's limit for the setting and leave it behind.
    """
    limited = [(library, n) for library in _blas() if (n := library.num_threads) > 1]
    for library, _ in limited:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, n in limited:
            library.set_num_threads(n)


@cache
def _blas() -> tuple[Any, ...]:
    """The loaded matrix libraries. Finding them takes 0.2 ms, setting their threads a hundredth of that."""
    from threadpoolctl import ThreadpoolController

    return tuple(x for x in ThreadpoolController().lib_controllers if x.user_api == "blas")
