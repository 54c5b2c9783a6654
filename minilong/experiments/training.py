"""What the cells of all experiments do: train a small model for a number of steps, and measure a text in windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from minilong.autodiff import value_and_grad
from minilong.data.batches import LanguageBatch, PackedWindows
from minilong.data.vocabulary import Ids
from minilong.errors import Diverged
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import LanguageModel
from minilong.nn.flat import flatten
from minilong.objectives import causal_loss
from minilong.optim import Adam, Schedule, clip

TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to learn: AdamW with warm-up and cosine decay, gradients clipped to norm 1."""

    steps: int
    lr: float
    seed: int
    weight_decay: float = 0.1
    beta2: float = 0.99

    @property
    def warmup(self) -> int:
        """Steps over which the learning rate rises."""
        return min(100, self.steps // 10)


def fit(
    config: ModelConfig,
    vocabulary: int,
    loss: Callable[[LanguageModel, int, Key], Any],
    recipe: Recipe,
    report: Callable[[float], None],
) -> LanguageModel:
    """A trained model. loss: of a model at a step, with the key that orders the data. report: the share done.

    Raises Diverged where the loss or its gradient is not finite.
    """
    key = Key.of(recipe.seed)
    vector, model, layout = flatten(build(config, vocabulary, key))
    assert isinstance(model, LanguageModel)
    optimizer = Adam(beta2=recipe.beta2, weight_decay=recipe.weight_decay, decoupled=True)
    state, schedule = optimizer.init(vector), Schedule(recipe.lr, recipe.steps, recipe.warmup)
    flat, order = np.zeros_like(vector), key.fold("order")
    for step in range(recipe.steps):
        value, gradient = value_and_grad(partial(_at_step, loss, step, order))(model)
        layout.gather(gradient, flat)
        if not math.isfinite(float(value)) or not math.isfinite(clip(flat, 1.0)):
            raise Diverged(f"the training diverged at step {step + 1} of {recipe.steps}; give a lower --lr")
        optimizer.step(state, vector, flat, schedule(step), decayed=layout.decayed)
        report((step + 1) / recipe.steps)
    return model


def _at_step(loss: Callable[[LanguageModel, int, Key], Any], step: int, order: Key, model: LanguageModel) -> Any:
    return loss(model, step, order)


def bits(model: LanguageModel, batches: Iterable[LanguageBatch]) -> float:
    """Mean bits per counted token."""
    nats = tokens = 0.0
    for batch in batches:
        nats += float(causal_loss(model, batch)) * batch.tokens
        tokens += batch.tokens
    return nats / math.log(2) / tokens


def windows(ids: Ids, length: int, stride: int | None = None) -> Iterable[LanguageBatch]:
    """Windows over a text in which each token but the first is a target once: side by side, or `stride` apart."""
    rows = max(1, TOKENS_AT_ONCE // length)
    return PackedWindows([ids], length, separator=None, partial=True).sequential(rows, stride)


def rounded(value: Any) -> Any:
    """Floats of a result to 5 decimals: more is noise, and files stay readable."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def digest(texts: Iterable[str]) -> str:
    """Changes with any character of the texts."""
    return blake2b("\0".join(texts).encode(), digest_size=10).hexdigest()
