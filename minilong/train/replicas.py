"""Replicas: a step's batch is split into shares, and each share is differentiated by a thread of its own.

NumPy releases the interpreter's lock while it computes, so threads over the batch use the cores better than threads
inside each matrix product; the BLAS library is held to one thread meanwhile. Every replica fills its own flat gradient,
and the sum over replicas is the gradient of the whole batch, because each share's loss is divided by the token count of
the whole: ragged shares are weighted by their tokens, not averaged as means of means.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from minilong.autodiff import value_and_grad
from minilong.keys import Key
from minilong.nn.flat import Layout


class Replicas:
    """Threads that differentiate shares of a batch. Use as a context manager: it limits BLAS to one thread inside."""

    def __init__(self, threads: int, layout: Layout, dtype: Any = np.float32) -> None:
        self.threads, self.layout = threads, layout
        self.gradients = [np.zeros(layout.size, dtype) for _ in range(threads)]
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="replica")
        self._limit: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Replicas:
        from threadpoolctl import threadpool_limits

        self._limit = threadpool_limits(1)
        self._limit.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._limit is not None:
            self._limit.__exit__(*error)
        self.pool.shutdown(wait=False, cancel_futures=True)

    def gradient(
        self, loss: Callable[..., Any], model: Any, batches: list[Any], key: Key | None
    ) -> tuple[float, np.ndarray]:
        """Mean loss over all tokens of the batches and its flat gradient (a buffer that the next call overwrites).

        batches: one, or several to accumulate: equal to one large batch, whatever their numbers of tokens.
        """
        tokens = float(max(1, sum(batch.tokens for batch in batches)))
        shares = [batch.shards(self.threads) for batch in batches]

        def work(replica: int) -> float:
            total, out = 0.0, self.gradients[replica]
            first = True
            for i, parts in enumerate(shares):
                if replica >= len(parts):
                    continue
                own = key.fold(i, replica) if key else None
                part = parts[replica]
                value, gradient = value_and_grad(partial(_share, loss, part, own, tokens))(model)
                total += float(value)
                self._add(gradient, out, first)
                first = False
            if first:
                out[:] = 0
            return total

        values = list(self.pool.map(work, range(self.threads)))
        whole = self.gradients[0]
        for other in self.gradients[1:]:
            whole += other
        return float(sum(values)), whole

    def _add(self, gradient: Any, out: np.ndarray, first: bool) -> None:
        if first:
            self.layout.gather(gradient, out)
        else:
            out += self.layout.gather(gradient, np.empty_like(out))

    def map(self, f: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """`f` of each item, on the replicas' threads."""
        return list(self.pool.map(f, items))


def _share(loss: Callable[..., Any], batch: Any, key: Key | None, tokens: float, model: Any) -> Any:
    return loss(model, batch, key=key, denominator=tokens)
