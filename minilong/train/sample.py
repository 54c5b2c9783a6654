"""What a run writes, to show what it has learnt."""

from __future__ import annotations

import numpy as np

from minilong.data.batches import IGNORE
from minilong.train.config import RECALL_TASKS
from minilong.train.generate import generate
from minilong.train.loaded import LoadedRun, finite
from minilong.train.source import sample_row, sample_source
from minilong.train.translate import translate


def sample(loaded: LoadedRun, length: int, prompt: str | None = None) -> str:
    """A continuation of the prompt, `length` tokens; or the answer to the prompt, else to a held-out source."""
    if loaded.config.task == "lm":
        return (prompt or "") + "".join(generate(loaded, prompt or "", length=length))
    if loaded.config.task in RECALL_TASKS:
        return _answered(loaded)
    source = sample_source(loaded.config) if prompt is None else prompt
    return f"{source}\n-> {translate(loaded, [source])[0]}"


def _answered(loaded: LoadedRun) -> str:
    """A held-out row of a recall task, and under it the likeliest token where one is asked for."""
    batch = sample_row(loaded.config, loaded.tokenizer)
    asked = np.flatnonzero(batch.targets[0] != IGNORE)
    told = finite(loaded.model(batch.inputs)[0, asked]).argmax(axis=-1)
    answers = [loaded.tokenizer.decode([token]) for token in told]
    right = loaded.tokenizer.decode(batch.targets[0, asked])
    shown = "".join(answers)
    return f"{loaded.tokenizer.decode(batch.inputs[0])}\n-> {shown}" + (f" (right: {right})" if shown != right else "")
