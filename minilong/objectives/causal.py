"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from typing import Any

from minilong.autodiff import cross_entropy
from minilong.data.batches import LanguageBatch
from minilong.keys import Key
from minilong.nn import LanguageModel


def causal_loss(
    model: LanguageModel, batch: LanguageBatch, *, key: Key | None = None, denominator: float | None = None
) -> Any:
    """Mean negative log-likelihood in nats of the batch's targets (`eq:causal-loss`).

    Inputs and targets are shifted against one another once, along time, when the batch is cut. `denominator` replaces
    the number of counted targets, so that the losses of parts add up to the mean of the whole.
    """
    logits = model(batch.inputs, segments=batch.segments, key=key)
    return cross_entropy(logits, targets=batch.targets, denominator=denominator)
