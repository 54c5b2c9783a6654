"""Sequence to sequence: predict each token of the target from those before it and from the source."""

from __future__ import annotations

from typing import Any

from minilong.autodiff import cross_entropy
from minilong.data.batches import PairBatch
from minilong.keys import Key
from minilong.nn import EncoderDecoder


def sequence_loss(
    model: EncoderDecoder, batch: PairBatch, *, key: Key | None = None, denominator: float | None = None
) -> Any:
    """Mean negative log-likelihood in nats of the target tokens, end of sequence included (`eq:sequence-loss`).

    Teacher forcing: the decoder reads the true target, shifted by the start token. `denominator` as in `causal_loss`.
    """
    logits = model(batch.source, batch.inputs, lengths=batch.source_lengths, key=key)
    return cross_entropy(logits, targets=batch.targets, denominator=denominator)
