"""minilong's generation with a cache: the reader that `minilong generate` uses, and the likeliest token each time."""

from __future__ import annotations

import numpy as np

from minilong.keys import Key
from minilong.train.loaded import ready_to_read
from minilong.train.reader import Reader

from ..case import Arrays, Settings, Side
from .steps import INPUTS, WEIGHTS, fresh


class Generation(Side):
    """Greedy continuation of a batch of prompts."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.vector, self.model, self.layout = fresh(settings["model"], settings["vocabulary"])
        shape = settings["batch"], settings["prompt"] + settings["new"]
        self.text = Key.of(4).generator().integers(0, settings["vocabulary"], shape).astype(np.int32)
        self.limit = ready_to_read()

    def share(self) -> dict[str, np.ndarray]:
        weights = {WEIGHTS + name: a.copy() for name, a in self.layout.slices(self.vector).items()}
        return {**weights, INPUTS + "text": self.text}

    def gate(self) -> dict[str, np.ndarray]:
        """Logits of a text that is read token by token, and the continuation."""
        new = min(self.settings["new"], 64)
        return {"logits": self.read(new), "tokens": self.write(new)}

    def run(self) -> None:
        self.write(self.settings["new"])

    def read(self, new: int) -> np.ndarray:
        """Logits (b, new, vocabulary) after the prompt, and after each token of the text that follows it."""
        first = self.settings["prompt"]
        reader = Reader(self.model, length=first + new, threads=self.threads)
        logits = [reader.read(self.text[:, :first])]
        logits += [reader.read(self.text[:, i : i + 1]) for i in range(first, first + new - 1)]
        return np.stack(logits, axis=1)

    def write(self, new: int) -> np.ndarray:
        """The likeliest continuation (b, new)."""
        tokens = self.text[:, : self.settings["prompt"]]
        reader = Reader(self.model, length=tokens.shape[1] + new, threads=self.threads)
        written = []
        for _ in range(new):
            tokens = reader.read(tokens).argmax(axis=-1).astype(np.int32)[:, None]
            written.append(tokens)
        return np.concatenate(written, axis=1)

    def close(self) -> None:
        self.limit.__exit__(None, None, None)
