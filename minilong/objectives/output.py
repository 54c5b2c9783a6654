"""The loss of a model's last hidden vectors, through its output projection."""

from __future__ import annotations

from typing import Any

from minilong.autodiff import ops, stop_gradient, token_loss
from minilong.backend import Array, beside
from minilong.nn import EncoderDecoder, LanguageModel


def output_loss(model: LanguageModel | EncoderDecoder, hidden: Any, targets: Array, denominator: Any = None) -> Any:
    """Mean negative log-likelihood in nats of targets (b, t), from hidden (b, t, width).

    The logits exist a chunk of rows at a time only (`eq:linear-cross-entropy`), in less time than all at once take
    for small vocabularies and the same for large ones, so there is no other way to choose.
    """
    if model.head is None:
        weight, bias = ops.transpose(model.input.tokens.table, order=(1, 0)), None
    else:
        weight, bias = model.head.weight, model.head.bias
    targets = beside(stop_gradient(hidden), targets)
    return token_loss(hidden, weight, bias, targets=targets, denominator=denominator)
