"""Sequence to sequence: predict each token of the target from those before it and from the source."""

from __future__ import annotations

from typing import Any

from minilong.data.batches import PairBatch
from minilong.keys import Key
from minilong.nn import EncoderDecoder
from minilong.objectives.output import output_loss


def sequence_loss(
    model: EncoderDecoder, batch: PairBatch, *, key: Key | None = None, denominator: float | None = None
) -> Any:
    """Mean negative log-likelihood in nats of the target tokens, end of sequence included (`eq:sequence-loss`).

    Teacher forcing: the decoder reads the true target, shifted by the start token. `denominator` as in `causal_loss`.
    """
    memory = model.encode(batch.source, batch.source_lengths, key)
    hidden = model.decode_hidden(memory, batch.inputs, batch.source_lengths, key)
    return output_loss(model, hidden, batch.targets, denominator)
