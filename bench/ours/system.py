"""minilong's start, batches and checkpoints."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from minilong.data.batches import LanguageBatch, PackedWindows
from minilong.data.corpora import read_text
from minilong.data.tokenizers import CharTokenizer
from minilong.keys import Key
from minilong.train import checkpoint as ck
from minilong.train.arrays import arrays_from_bytes
from minilong.train.run import RunFolder

from ..case import Arrays, Settings, Side
from .steps import WEIGHTS, Trainer


class Command(Side):
    """A Python process that runs to its end."""

    def gate(self) -> dict[str, np.ndarray]:
        """Its exit code."""
        return {"exit": np.array([self.exit_code()])}

    def run(self) -> None:
        if self.exit_code():
            raise RuntimeError(f"python {self.settings['arguments']} failed")

    def exit_code(self) -> int:
        """Of the process, once it has ended."""
        command = [sys.executable, *self.settings["arguments"]]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False).returncode


class Batches(Side):
    """Windows of a shipped text, as training reads them."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        text = read_text(settings["text"])
        tokenizer = CharTokenizer.train([text])
        self.stream = np.asarray(tokenizer.encode(text), np.int32)
        self.windows = PackedWindows([self.stream], settings["context"], separator=None)
        self.key, self.at = Key.of(8), 0

    def batch(self, step: int) -> LanguageBatch:
        """The batch of a step."""
        return self.windows.batch(step, self.settings["batch"], self.key)

    def epoch(self) -> tuple[np.ndarray, np.ndarray]:
        """All inputs and targets of the first epoch, in the order of their bytes."""
        count = self.windows.windows
        batches = [self.batch(step) for step in range(-(-count // self.settings["batch"]))]
        pairs = [np.concatenate([getattr(b, name) for b in batches])[:count] for name in ("inputs", "targets")]
        order = np.lexsort(np.concatenate(pairs, axis=1).T[::-1])
        return pairs[0][order], pairs[1][order]

    def share(self) -> dict[str, np.ndarray]:
        """The text, and where the first epoch begins to cut it."""
        context = self.settings["context"]
        known = {row.tobytes() for row in self.epoch()[0]}
        offset = next(i for i in range(2 * context) if self.stream[i : i + context].tobytes() in known)
        return {"stream": self.stream[offset : offset + self.windows.windows * context + 1]}

    def gate(self) -> dict[str, np.ndarray]:
        """All windows of an epoch."""
        return dict(zip(("inputs", "targets"), self.epoch(), strict=True))

    def run(self) -> None:
        for _ in range(self.settings["batches"]):
            self.batch(self.at)
            self.at += 1


class Checkpoint(Side):
    """A save as a training session makes it: files staged, synchronised, published by one rename."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.trainer = Trainer(settings["model"], settings["vocabulary"], 8, threads)
        self.initial = self.trainer.vector.copy()
        with self.trainer:
            self.trainer.update(self.initial)  # moments that are not zero
        self.folder = tempfile.TemporaryDirectory(prefix="minilong-bench-")
        self.saved = RunFolder.create(Path(self.folder.name) / "run")

    def share(self) -> dict[str, np.ndarray]:
        return {WEIGHTS + name: a for name, a in self.trainer.layout.slices(self.initial).items()}

    def run(self) -> None:
        layout = self.trainer.layout
        self.saved.commit(
            {
                ck.MODEL: ck.model_file(self.trainer.vector, layout),
                ck.OPTIMIZER: ck.optimizer_file(self.trainer.state, layout),
                ck.STATE: ck.state_file(ck.State(step=1)),
            }
        )

    def gate(self) -> dict[str, np.ndarray]:
        """What is read back."""
        self.run()
        names = (ck.MODEL, ck.OPTIMIZER)
        model, moments = (arrays_from_bytes(self.saved.read(name), name) for name in names)
        return {**{f"parameters.{name}": a for name, a in model.items()}, **moments}

    def close(self) -> None:
        self.saved.close()
        self.folder.cleanup()
