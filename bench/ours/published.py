"""minilong's reading with a model of Llama's family: the reader that `minilong generate` and `minilong chat` use."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from minilong.autodiff.tree import named
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES
from minilong.models.families.places import arrays_there
from minilong.nn.past import Past
from minilong.train.loaded import ready_to_read
from minilong.train.reader import Reader

from ..case import Arrays, Settings, Side
from .steps import INPUTS, WEIGHTS


class Prompt(Side):
    """A prompt is read into a new cache."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.config = ModelConfig(**settings["model"]).resolved()
        self.model = build(self.config, settings["vocabulary"], Key.of(1))
        length = settings["prompt"] + settings["new"]
        self.text = Key.of(4).generator().integers(0, settings["vocabulary"], (1, length)).astype(np.int32)
        self.limit = ready_to_read()

    def share(self) -> dict[str, np.ndarray]:
        theirs = arrays_there(FAMILIES["llama"].places(self.config), named(self.model))
        return {INPUTS + "text": self.text, **{WEIGHTS + name: x for name, x in theirs.items()}}

    def gate(self) -> dict[str, np.ndarray]:
        return {"logits": self.start()[1]}

    def run(self) -> None:
        self.start()

    def start(self) -> tuple[Reader, np.ndarray]:
        """A reader that has read the prompt, and the logits (1, vocabulary) after it."""
        reader = Reader(self.model, length=self.text.shape[1], threads=self.threads)
        return reader, reader.read(self.text[:, : self.settings["prompt"]])

    def close(self) -> None:
        self.limit.__exit__(None, None, None)


class Decoding(Prompt):
    """Tokens are read one by one, after a prompt that was read before; every time from a copy of its cache."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.read, _ = self.start()

    def gate(self) -> dict[str, np.ndarray]:
        return {"logits": np.concatenate(self.decoded())}

    def run(self) -> None:
        self.decoded()

    def decoded(self) -> list[np.ndarray]:
        """The logits after each token of the text behind the prompt."""
        reader = copy(self.read)
        reader.stream = replace(self.read.stream, pasts=tuple(map(forked, self.read.stream.pasts)))
        first = self.settings["prompt"]
        return [reader.read(self.text[:, i : i + 1]) for i in range(first, self.text.shape[1])]


def forked(past: Past) -> Past:
    """The same past in memory of its own."""
    fork = copy(past)
    fork.state = past.state.copy()
    return fork
