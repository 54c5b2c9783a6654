"""Replicas: a step's batch is split into shares, and each share is differentiated by a thread of its own.

NumPy releases the interpreter's lock while it computes, so threads over the batch use the cores better than threads
inside each matrix product; the BLAS library is held to one thread meanwhile. Every replica fills its own flat gradient,
and the sum over replicas is the gradient of the whole batch, because each share's loss is divided by the token count of
the whole: ragged shares are weighted by their tokens, not averaged as means of means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from minilong.autodiff import deliver_gradient
from minilong.backend import keep_freed_memory
from minilong.backend.workers import grant_threads, share_out
from minilong.keys import Key
from minilong.nn.flat import Layout

POLL = 0.05

PART = 1 << 18
"""Elements of a flat vector that a thread takes at a time: a tenth of a millisecond for each pass over them."""


class Abandoned(Exception):
    """A stop was asked for and the work did not end within the patience; its result is lost, nothing else is."""


class Replicas:
    """Threads that differentiate shares of a batch. Use as a context manager: it limits BLAS to one thread inside, and
    lets the process keep the memory that a step frees for the next (`keep_freed_memory`).

    inner: threads that each replica may use inside an operation, where there are fewer rows than threads.
    should_stop, patience: while waiting, ask whether to stop, and give up `patience` seconds after the answer is yes.
    The threads are daemons, so that work that was given up does not keep the process from ending.
    """

    def __init__(
        self,
        threads: int,
        layout: Layout,
        dtype: Any = np.float32,
        *,
        inner: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
        patience: float = 1.0,
    ) -> None:
        self.threads, self.layout, self.inner = threads, layout, inner
        self.should_stop, self.patience = should_stop, patience
        self.gradients = [np.zeros(layout.size, dtype) for _ in range(threads)]
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._limit: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Replicas:
        from threadpoolctl import threadpool_limits

        self._limit = threadpool_limits(1)
        self._limit.__enter__()
        keep_freed_memory()
        for i in range(self.threads):
            threading.Thread(target=_serve, args=(self._tasks, self.inner), name=f"replica-{i}", daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        for _ in range(self.threads):
            self._tasks.put(None)
        if self._limit is not None:
            self._limit.__exit__(*error)

    def gradient(
        self, loss: Callable[..., Any], model: Any, batches: Sequence[Any], key: Key | None
    ) -> tuple[float, np.ndarray]:
        """Mean loss over all tokens of the batches and its flat gradient (a buffer that the next call overwrites).

        batches: one, or several to accumulate: equal to one large batch, whatever their numbers of tokens.
        """
        tokens = float(max(1, sum(batch.tokens for batch in batches)))
        shares = [batch.shards(self.threads) for batch in batches]

        def work(replica: int) -> float:
            total, out, filled = 0.0, self.gradients[replica], False
            for i, parts in enumerate(shares):
                if replica < len(parts):
                    own = key.fold(i, replica) if key else None
                    part = partial(share, loss, parts[replica], own, tokens)
                    total += float(deliver_gradient(part, model, self.layout.receiver(out, add=filled)))
                    filled = True
            if not filled:
                out[:] = 0
            return total

        values = self.map(work, range(self.threads))
        whole = self.gradients[0]

        def add(part: slice) -> None:
            own = whole[part]
            for other in self.gradients[1:]:
                own += other[part]

        self.each(add, whole.size)
        return float(sum(values)), whole

    def each(self, f: Callable[[slice], Any], size: int) -> list[Any]:
        """`f` of consecutive parts of a vector of `size` elements, shared by the threads where that is worth it.

        The parts do not depend on the number of threads, so neither do results that add up over them.
        """
        parts = [slice(at, min(at + PART, size)) for at in range(0, size, PART)]
        found: list[Any] = [None] * len(parts)

        def work(places: Iterator[int]) -> None:
            for place in places:
                found[place] = f(parts[place])

        share_out(work, range(len(parts)), self.threads * self.inner)
        return found

    def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`f` of each item, on the replicas' threads. Raises Abandoned after a stop, and whatever `f` raises."""
        futures: list[Future[Any]] = []
        for item in items:
            future: Future[Any] = Future()
            futures.append(future)
            self._tasks.put((partial(f, item), future))
        waited = 0.0
        while wait(futures, timeout=POLL).not_done:
            if self.should_stop():
                waited += POLL
                if waited > self.patience:
                    for future in futures:
                        future.cancel()
                    raise Abandoned
        return [future.result() for future in futures]


def _serve(tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None], inner: int) -> None:
    while (task := tasks.get()) is not None:
        f, future = task
        if future.set_running_or_notify_cancel():
            try:
                # Whether numbers stay finite is asked of the loss and of the norm.
                with grant_threads(inner), np.errstate(all="ignore"):
                    future.set_result(f())
            except BaseException as error:
                future.set_exception(error)
        del task, f, future  # or the last step's arrays would live until the next


def share(loss: Callable[..., Any], batch: Any, key: Key | None, tokens: Any, model: Any) -> Any:
    """The loss of a part of a batch, so that the parts add up to the mean over all its tokens."""
    return loss(model, batch, key=key, denominator=tokens)
