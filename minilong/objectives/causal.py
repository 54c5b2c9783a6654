"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from typing import Any

from minilong.data.batches import LanguageBatch
from minilong.keys import Key
from minilong.nn import LanguageModel
from minilong.objectives.compression import gradient_only, hidden_and_compression, learns_compression
from minilong.objectives.output import output_loss


def causal_loss(
    model: LanguageModel, batch: LanguageBatch, *, key: Key | None = None, denominator: float | None = None
) -> Any:
    """Mean negative log-likelihood in nats of the batch's targets (`eq:causal-loss`).

    Inputs and targets are shifted against one another once, along time, when the batch is cut. `denominator` replaces
    the number of counted targets, so that the losses of parts add up to the mean of the whole. A compressor with
    weights gets the gradient of its own loss, which the value leaves out.
    """
    if not learns_compression(model):
        hidden = model.hidden(batch.inputs, segments=batch.segments, key=key)
        return output_loss(model, hidden, batch.targets, denominator)
    hidden, compression = hidden_and_compression(model, batch, key)
    share = 1.0 if denominator is None else batch.tokens / denominator
    return output_loss(model, hidden, batch.targets, denominator) + gradient_only(compression * share)
