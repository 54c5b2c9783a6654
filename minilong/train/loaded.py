"""A trained run opened for use: configuration, model with its weights, tokenizer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import keep_freed_memory
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError
from minilong.train import checkpoint as ck
from minilong.train.config import RunConfig
from minilong.train.run import RunFolder


@dataclass(frozen=True)
class LoadedRun:
    """What `generate`, `evaluate` and `translate` work on. `step`: the step whose weights these are; `data`: the digest
    of the texts that training read, where they are known."""

    config: RunConfig
    model: Any
    tokenizer: Tokenizer
    step: int
    data: str = ""


def load(path: Path, weights: str = "best") -> LoadedRun:
    """Open a run, every file verified. weights: "best" (lowest validation loss, if any was measured) or "last"."""
    with RunFolder.open(Path(path)) as run:
        config, tokenizer, state = ck.read_config(run), ck.read_tokenizer(run), ck.read_state(run)
        best = weights == "best" and ck.BEST in run.files
        _, model, _ = ck.read_model(run, ck.BEST if best else ck.MODEL, config, tokenizer.size)
        step = state.best_step if best and state.best_step is not None else state.step
        return LoadedRun(config, model, tokenizer, step, state.data)


def finite(logits: np.ndarray) -> np.ndarray:
    """The logits, as they are. UserError where they hold a NaN or an infinity: such a model has no answer."""
    if not np.isfinite(logits).all():
        raise UserError(
            "the model's output is not finite, because its training diverged; use --weights best, "
            "or train it again with a lower --lr"
        )
    return logits


def ready_to_read() -> AbstractContextManager[Any]:
    """Holds the BLAS library to one thread inside, and lets the process keep the memory that it frees.

    The products of a few rows of tokens are too small to share: waiting for one another, the threads take three times
    as long on a quiet machine, and up to a hundred times as long beside other work.
    """
    from threadpoolctl import threadpool_limits

    keep_freed_memory()
    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def as_row(ids: np.ndarray) -> np.ndarray:
    """Token ids (n,) as a batch of one row."""
    return np.asarray(ids, np.int32)[None, :]
