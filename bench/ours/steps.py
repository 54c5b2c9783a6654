"""minilong's training step, as `minilong train` takes it: replicas over the batch, clipping, AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minilong.data.batches import LanguageBatch, PairBatch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn.flat import Layout, flatten
from minilong.objectives import causal_loss, sequence_loss
from minilong.optim import Adam, clip
from minilong.train.config import TrainConfig
from minilong.train.replicas import Replicas

from ..case import Arrays, Settings, Side
from ..profiling import profile

GATE_STEPS = 3
WEIGHTS, INPUTS = "weights.", "inputs."
RATE, MAX_NORM = 1e-3, 1.0
BETAS, EPS, DECAY = (0.9, 0.99), 1e-8, 0.1


def fresh(model: Mapping[str, Any], vocabulary: int) -> tuple[np.ndarray, Any, Layout]:
    """Flat vector, model and layout of a new model; biases and gains are moved from where they would hide mistakes."""
    vector, built, layout = flatten(build(ModelConfig(**model), vocabulary, Key.of(1)))
    vector[layout.decayed :] += np.float32(0.02) * drawn(2, (vector.size - layout.decayed,))
    return vector, built, layout


def drawn(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers."""
    return Key.of(seed).generator().standard_normal(shape, np.float32)


class Trainer:
    """A model in training: `step(batch)` is what one step of the training loop does. Use as a context manager.

    rows: of the batches to come, which decide whether threads go to rows or inside attention.
    """

    def __init__(self, model: Mapping[str, Any], vocabulary: int, rows: int, threads: int) -> None:
        inner = TrainConfig(batch=rows, threads=threads).inner_threads
        self.vector, self.model, self.layout = fresh(model, vocabulary)
        self.loss = sequence_loss if model["kind"] == "encoder-decoder" else causal_loss
        self.adam = Adam(*BETAS, EPS, DECAY, decoupled=True)
        self.state = self.adam.init(self.vector)
        self.replicas = Replicas(threads // inner, self.layout, inner=inner)

    def __enter__(self) -> Trainer:
        self.replicas.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.replicas.__exit__(*error)

    def gradient(self, batch: Any) -> tuple[float, np.ndarray]:
        """Loss and flat gradient: forward and backward."""
        return self.replicas.gradient(self.loss, self.model, [batch], None)

    def clip(self, gradient: np.ndarray) -> None:
        """To a norm of 1."""
        clip(gradient, MAX_NORM)

    def update(self, gradient: np.ndarray) -> None:
        """AdamW, decay on matrices."""
        self.adam.step(self.state, self.vector, gradient, RATE, decayed=self.layout.decayed, each=self.replicas.each)

    def step(self, batch: Any) -> float:
        """One step; its loss."""
        loss, gradient = self.gradient(batch)
        self.clip(gradient)
        self.update(gradient)
        return loss


def tokens(settings: Settings) -> dict[str, np.ndarray]:
    """Random tokens of a batch: `inputs` and `targets` (b, t), and `source` for an encoder-decoder."""
    numbers = Key.of(3).generator()
    names = ["inputs", "targets"] + ["source"] * (settings["model"]["kind"] == "encoder-decoder")
    shape = settings["batch"], settings["length"]
    return {name: numbers.integers(0, settings["vocabulary"], shape).astype(np.int32) for name in names}


def as_batch(found: Mapping[str, np.ndarray]) -> LanguageBatch | PairBatch:
    """The batch of `tokens`."""
    if "source" not in found:
        return LanguageBatch(found["inputs"], found["targets"])
    rows, length = found["source"].shape
    return PairBatch(found["source"], np.full(rows, length, np.int32), found["inputs"], found["targets"])


class Step(Side):
    """A training step."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.tokens = tokens(settings)
        self.batch = as_batch(self.tokens)
        self.trainer = Trainer(settings["model"], settings["vocabulary"], settings["batch"], threads).__enter__()

    def share(self) -> dict[str, np.ndarray]:
        weights = {WEIGHTS + name: a.copy() for name, a in self.trainer.layout.slices(self.trainer.vector).items()}
        return weights | {INPUTS + name: a for name, a in self.tokens.items()}

    def gate(self) -> dict[str, np.ndarray]:
        losses = [self.trainer.step(self.batch) for _ in range(GATE_STEPS)]
        after = self.trainer.layout.slices(self.trainer.vector)
        return {"loss": np.array(losses), **{f"parameters.{name}": a.copy() for name, a in after.items()}}

    def run(self) -> None:
        self.trainer.step(self.batch)

    def profile(self, steps: int) -> dict[str, Any]:
        return profile(self.trainer, self.batch, steps)

    def close(self) -> None:
        self.trainer.__exit__(None, None, None)
