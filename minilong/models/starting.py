"""Initial values with which a small T5 learns to read its source within minutes.

As usually started, it does not. A decoder finds its sentinel in the source by content alone, and what stands beside the
sentinel is found by the encoder's learned biases of distance alone. Neither is of use without the other, so neither is
learnt: for a thousand steps and more a model of this size told spans no better from its own source than from another's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minilong.keys import Key
from minilong.nn import DecoderLayer, EncoderDecoder
from minilong.nn.scheme import Scheme

SPREAD = 2.0
"""Standard deviation of a bias, in units of a score: enough that a head looks at a few distances above all."""


def ready_for_spans(model: EncoderDecoder, key: Key) -> EncoderDecoder:
    """The model with biases of distance (T5's) that differ from the start, not zeros, and with keys of cross-attention
    made as queries are, so that equal tokens find each other in source and target."""
    return replace(
        model,
        decoder=replace(model.decoder, layers=tuple(map(_matching, model.decoder.layers))),
        encoder_scheme=_spread(model.encoder_scheme, key.fold("encoder")),
        decoder_scheme=_spread(model.decoder_scheme, key.fold("decoder")),
    )


def _matching(layer: DecoderLayer) -> DecoderLayer:
    cross = layer.cross
    if cross is None or cross.kv_heads != cross.heads:  # shared keys have no query of their own
        return layer
    return replace(layer, cross=replace(cross, key=replace(cross.key, weight=cross.query.weight.copy())))


def _spread(scheme: Scheme, key: Key) -> Scheme:
    assert scheme.table is not None, "a scheme of T5 has a table"
    return replace(scheme, table=(SPREAD * key.generator().standard_normal(scheme.table.shape)).astype(np.float32))
