"""Threads that share the parts of one operation, with the matrix library held to one thread meanwhile.

NumPy releases the interpreter's lock while it computes. How many threads an operation may use is granted from above
(`grant_threads`), as the matrix library's own threads are: it is no property of a model, and no number depends on it
but for the last bits of large products and sums, whose parts are cut by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")

WORTH = 200_000.0
"""Nanoseconds of work that are worth a second thread, which takes a fifth of that to be woken."""

_granted: ContextVar[int] = ContextVar("minilong_threads", default=1)


@contextmanager
def grant_threads(threads: int) -> Iterator[None]:
    """Let each operation inside use so many threads where it is large enough; one unless this says otherwise.

    Holds for the calling thread only: a thread that it starts, or that takes a part of its work, has one.
    """
    token = _granted.set(threads)
    try:
        yield
    finally:
        _granted.reset(token)


def granted_threads() -> int:
    """How many threads an operation may use here."""
    return _granted.get()


def share_rows(work: Callable[[slice], None], rows: int, nanoseconds: float) -> None:
    """`work(part)` for slices that together are `rows`: one for each thread that was granted, or one for all rows where
    the work of about so many nanoseconds is not worth sharing."""
    threads = min(_granted.get(), rows) if nanoseconds >= WORTH else 1
    if threads <= 1:
        work(slice(0, rows))
        return
    ends = [rows * i // threads for i in range(threads + 1)]

    def run(parts: Iterator[slice]) -> None:
        for part in parts:
            work(part)

    share_out(run, [slice(a, b) for a, b in itertools.pairwise(ends)], threads)


def share_out(work: Callable[[Iterator[Item]], None], items: Sequence[Item], threads: int | None = None) -> None:
    """Call `work` once on each of some threads, with one iterator over the items that all of them draw from.

    threads: as many as were granted unless given. The calling thread is one of them, so the work is done even where
    all others are taken, and calls may be nested.
    """
    supply = iter(items)  # a list's iterator gives each item once, to whichever thread asks
    threads = min(_granted.get() if threads is None else threads, len(items))
    if threads <= 1:
        _run(work, supply)
        return
    with one_blas_thread():
        others = [_pool(threads).submit(_run, work, supply) for _ in range(threads - 1)]
        try:
            _run(work, supply)
        finally:
            begun = [other for other in others if not other.cancel()]
            wait(begun)
        for other in begun:
            other.result()


def _run(work: Callable[[Iterator[Item]], None], supply: Iterator[Item]) -> None:
    with np.errstate(all="ignore"):  # a thread has error settings of its own; blind rows and padding overflow
        work(supply)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work: to begin and end them for each operation would take three times as long."""
    return ThreadPoolExecutor(threads, thread_name_prefix="share")


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
