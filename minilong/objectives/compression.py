"""What a learned compressor is trained for: that attention to compressed rows gives what attention to the rows gave."""

from __future__ import annotations

from typing import Any

from minilong.autodiff import ops, stop_gradient
from minilong.data.batches import LanguageBatch
from minilong.keys import Key
from minilong.memory import Compressive, reconstruction_loss
from minilong.memory.base import Rows
from minilong.nn import LanguageModel, MultiHeadAttention
from minilong.nn.models import Stream


def learns_compression(model: LanguageModel) -> bool:
    """Whether the model's memory has a compressor with weights."""
    return isinstance(model.memory, Compressive) and model.memory.compressor.weight is not None


def hidden_and_compression(model: LanguageModel, batch: LanguageBatch, key: Key | None) -> tuple[Any, Any]:
    """The model's hidden vectors of a batch (b, t, width), and the compressor's loss (`eq:reconstruction-loss`): the
    mean over layers, and over segments from which rows move into the compressed memory."""
    memory, stream, parts, losses = model.memory, model.start(), [], []
    assert isinstance(memory, Compressive)
    for first in range(0, batch.inputs.shape[1], memory.segment):
        piece = slice(first, first + memory.segment)
        segments = None if batch.segments is None else batch.segments[:, piece]
        parts.append(model.extend(batch.inputs[:, piece], stream, segments=segments, key=key))
        if stream.seen < batch.inputs.shape[1]:  # nobody reads what the last segment would leave
            losses += _losses(model, memory, stream)
    hidden = parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=1)
    return hidden, sum(losses[1:], losses[0]) * (1.0 / len(losses)) if losses else 0.0


def gradient_only(loss: Any) -> Any:
    """Zero in value, with the gradient of the loss: a second objective that does not show in the first."""
    return loss - stop_gradient(loss)


def _losses(model: LanguageModel, memory: Compressive, stream: Stream) -> list[Any]:
    losses = []
    layers: tuple[Any, ...] = model.stack.layers
    for past, layer in zip(stream.pasts, layers, strict=True):
        old = memory.leaving(past.state)
        if old and old[0].shape[-2]:
            losses.append(reconstruction_loss(memory.compressor, _attend, layer.attention, past.state.own[0], old))
    return losses


def _attend(attention: MultiHeadAttention, h: Any, rows: Rows) -> Any:
    return attention(h, rows[0])
