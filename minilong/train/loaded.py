"""A trained run opened for use: configuration, model with its weights, tokenizer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import Array, Device, keep_freed_memory, to_host
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError
from minilong.nn.lora import merge
from minilong.train import checkpoint as ck
from minilong.train.adapters import ADAPTER, BEST_ADAPTER, adapters_of, read_base
from minilong.train.config import RunConfig
from minilong.train.run import RunFolder
from minilong.train.worker import put_model


@dataclass(frozen=True)
class LoadedRun:
    """What `generate`, `evaluate` and `translate` work on. `step`: the step whose weights these are; `data`: the digest
    of the texts that training read, where they are known."""

    config: RunConfig
    model: Any
    tokenizer: Tokenizer
    step: int
    data: str = ""

    def on(self, device: Device) -> LoadedRun:
        """The same with the model's arrays on a device."""
        return replace(self, model=put_model(self.model, device))


def load(path: Path, weights: str = "best", *, decode: bool = False) -> LoadedRun:
    """Open a run, every file verified. weights: "best" (lowest validation loss, if any was measured) or "last".

    The model's arrays are those of the file, mapped into memory and read when they are used. Of a run of adapters, the
    model that they adapt with the adapters merged in. decode: low-bit weights as float32.
    """
    with RunFolder.open(Path(path)) as run:
        config, tokenizer, state = ck.read_config(run), ck.read_tokenizer(run), ck.read_state(run)
        adapted = ADAPTER in run.files
        last, best = (ADAPTER, BEST_ADAPTER) if adapted else (ck.MODEL, ck.BEST)
        file = best if weights == "best" and best in run.files else last
        step = state.best_step if file == best and state.best_step is not None else state.step
        if adapted:
            base = read_base(run)
            model = merge(base.load(run.path).model, adapters_of(run, file), base.alpha)
        else:
            model = ck.open_model(run, file, config, tokenizer.size, decode=decode)
        return LoadedRun(config, model, tokenizer, step, state.data)


def finite(logits: Array) -> np.ndarray:
    """The logits, on the host. UserError where they hold a NaN or an infinity: such a model has no answer."""
    on_host = to_host(logits)
    if not np.isfinite(on_host).all():
        raise UserError(
            "the model's output is not finite, because its training diverged; use --weights best, "
            "or train it again with a lower --lr"
        )
    return on_host


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
