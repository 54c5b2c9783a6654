"""A trained run opened for use: configuration, model with its weights, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilong.data.vocabulary import Tokenizer
from minilong.train import checkpoint as ck
from minilong.train.config import RunConfig
from minilong.train.run import RunFolder


@dataclass(frozen=True)
class LoadedRun:
    """What `generate`, `evaluate` and `translate` work on. `step`: the step whose weights these are."""

    config: RunConfig
    model: Any
    tokenizer: Tokenizer
    step: int

    def sample(self, length: int, prompt: str | None = None) -> str:
        """What the model writes: a continuation of the prompt, or its answer to the prompt as a source sentence."""
        from minilong.train.generate import generate
        from minilong.train.source import sample_source
        from minilong.train.translate import translate

        if self.config.task == "lm":
            return (prompt or "") + "".join(generate(self, prompt or "", length=length))
        source = sample_source(self.config) if prompt is None else prompt
        return f"{source}\n-> {translate(self, [source])[0]}"


def load(path: Path, weights: str = "best") -> LoadedRun:
    """Open a run, every file verified. weights: "best" (lowest validation loss, if any was measured) or "last"."""
    with RunFolder.open(Path(path)) as run:
        config, tokenizer, state = ck.read_config(run), ck.read_tokenizer(run), ck.read_state(run)
        best = weights == "best" and ck.BEST in run.files
        _, model, _ = ck.read_model(run, ck.BEST if best else ck.MODEL, config, tokenizer.size)
        step = state.best_step if best and state.best_step is not None else state.step
        return LoadedRun(config, model, tokenizer, step)


def as_row(ids: np.ndarray) -> np.ndarray:
    """Token ids (n,) as a batch of one row."""
    return np.asarray(ids, np.int32)[None, :]
