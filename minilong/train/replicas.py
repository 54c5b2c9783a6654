"""Replicas: a step's batch is split into shares, and each share is differentiated by a thread of its own.

NumPy releases the interpreter's lock while it computes, so threads over the batch use the cores better than threads
inside each matrix product; the BLAS library is held to one thread meanwhile. Every replica fills its own flat gradient,
and the sum over replicas is the gradient of the whole batch, because each share's loss is divided by the token count of
the whole: ragged shares are weighted by their tokens, not averaged as means of means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from minilong.autodiff import value_and_grad
from minilong.keys import Key
from minilong.nn.flat import Layout

POLL = 0.05


class Abandoned(Exception):
    """A stop was asked for and the work did not end within the patience; its result is lost, nothing else is."""


class Replicas:
    """Threads that differentiate shares of a batch. Use as a context manager: it limits BLAS to one thread inside.

    should_stop, patience: while waiting, ask whether to stop, and give up `patience` seconds after the answer is yes.
    The threads are daemons, so that work that was given up does not keep the process from ending.
    """

    def __init__(
        self,
        threads: int,
        layout: Layout,
        dtype: Any = np.float32,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        patience: float = 1.0,
    ) -> None:
        self.threads, self.layout, self.should_stop, self.patience = threads, layout, should_stop, patience
        self.gradients = [np.zeros(layout.size, dtype) for _ in range(threads)]
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._limit: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Replicas:
        from threadpoolctl import threadpool_limits

        self._limit = threadpool_limits(1)
        self._limit.__enter__()
        for i in range(self.threads):
            threading.Thread(target=_serve, args=(self._tasks,), name=f"replica-{i}", daemon=True).start()
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
                    value, gradient = value_and_grad(partial(_share, loss, parts[replica], own, tokens))(model)
                    total += float(value)
                    if filled:
                        self.layout.accumulate(gradient, out)
                    else:
                        self.layout.gather(gradient, out)
                    filled = True
            if not filled:
                out[:] = 0
            return total

        values = self.map(work, range(self.threads))
        whole = self.gradients[0]
        for other in self.gradients[1:]:
            whole += other
        return float(sum(values)), whole

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


def _serve(tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    while (task := tasks.get()) is not None:
        f, future = task
        if future.set_running_or_notify_cancel():
            try:
                with np.errstate(all="ignore"):  # whether numbers stay finite is asked of the loss and of the norm
                    future.set_result(f())
            except BaseException as error:
                future.set_exception(error)
        del task, f, future  # or the last step's arrays would live until the next


def _share(loss: Callable[..., Any], batch: Any, key: Key | None, tokens: float, model: Any) -> Any:
    return loss(model, batch, key=key, denominator=tokens)
