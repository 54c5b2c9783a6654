"""Masked language modelling: restore the tokens that were replaced, from both sides of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.autodiff import embedding, ops, stop_gradient, token_loss
from minilong.backend import beside
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.keys import Key
from minilong.nn import LanguageModel
from minilong.objectives.compression import gradient_only
from minilong.objectives.next_sentence import next_sentence_loss


def masked_loss(model: LanguageModel, batch: MaskedBatch, *, key: Key | None = None, denominator: Any = None) -> Any:
    """Mean negative log-likelihood in nats of the tokens at the batch's masks (`eq:masked-loss`).

    Where rows are pairs and the model has a pooler, it gets the gradient of the loss of next sentences too, which the
    value leaves out. `denominator` as in `causal_loss`.
    """
    hidden = model.hidden(batch.inputs, lengths=batch.lengths, types=batch.types, key=key)
    loss = restored_loss(model, hidden, batch, denominator)
    if batch.follows is None or model.pooler is None:
        return loss
    return loss + gradient_only(next_sentence_loss(model, hidden, batch, denominator))


def restored_loss(model: LanguageModel, hidden: Any, batch: MaskedBatch, denominator: Any = None) -> Any:
    """The loss of the masks from hidden (b, t, width): no other place is projected to the vocabulary."""
    flat = ops.reshape(hidden, shape=(-1, hidden.shape[-1]))
    places = np.flatnonzero(batch.targets != IGNORE)
    x = embedding(flat, indices=beside(stop_gradient(flat), places))
    if model.transform is not None:
        x = model.transform(x)
    bias = None if model.transform is None else model.transform.bias
    weight = ops.transpose(model.input.tokens.table, order=(1, 0)) if model.head is None else model.head.weight
    targets = beside(stop_gradient(x), batch.targets.ravel()[places])
    return token_loss(x, weight, bias, targets=targets, denominator=denominator)
