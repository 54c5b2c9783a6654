"""Next-sentence prediction: whether the second part of a row follows the first in the text (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minilong.autodiff import log_softmax, ops, stop_gradient
from minilong.backend import beside, to_host
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.nn import LanguageModel


def next_sentence_loss(model: LanguageModel, hidden: Any, batch: MaskedBatch, denominator: Any = None) -> Any:
    """Mean negative log-likelihood in nats of the labels (`eq:next-sentence`), from hidden (b, t, width).

    A row weighs as many times as it has masks, as in the loss of these: so the losses of parts of a batch, each divided
    by the `denominator` of the whole, add up to the whole's.
    """
    assert model.pooler is not None
    assert batch.follows is not None
    weights = np.count_nonzero(batch.targets != IGNORE, axis=1)
    picked = np.zeros((len(weights), 2), np.float32)
    picked[np.arange(len(weights)), batch.follows] = weights
    likelihoods = log_softmax(model.pooler(hidden))
    by = beside(stop_gradient(likelihoods), picked).astype(likelihoods.dtype, copy=False)
    return -ops.sum(likelihoods * by) / (max(1, batch.tokens) if denominator is None else denominator)


def next_sentence_accuracy(model: LanguageModel, batches: Iterable[MaskedBatch]) -> float:
    """The share of rows whose likelier label is right."""
    right = rows = 0
    for batch in batches:
        assert model.pooler is not None
        hidden = model.hidden(batch.inputs, lengths=batch.lengths, types=batch.types)
        right += int(np.sum(to_host(model.pooler(hidden)).argmax(axis=-1) == batch.follows))
        rows += len(batch.inputs)
    return right / max(1, rows)
