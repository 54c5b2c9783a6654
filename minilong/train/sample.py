"""What a run writes, to show what it has learnt."""

from __future__ import annotations

from minilong.train.generate import generate
from minilong.train.loaded import LoadedRun
from minilong.train.source import sample_source
from minilong.train.translate import translate


def sample(loaded: LoadedRun, length: int, prompt: str | None = None) -> str:
    """A continuation of the prompt, `length` tokens; or the answer to the prompt, else to a held-out source."""
    if loaded.config.task == "lm":
        return (prompt or "") + "".join(generate(loaded, prompt or "", length=length))
    source = sample_source(loaded.config) if prompt is None else prompt
    return f"{source}\n-> {translate(loaded, [source])[0]}"
