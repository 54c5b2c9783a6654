"""Rows of tokens read as streams, with a memory: what evaluation by a cache and the experiments on it share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.autodiff import log_softmax
from minilong.backend import Array, to_host
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.memory import Memory
from minilong.nn.models import Stream
from minilong.train.reader import CHUNK


def read_streamed(
    model: Any,
    tokens: Array,
    memory: Memory | None,
    take: Callable[[int, Any], None],
    *,
    prompt: int | None = None,
    chunk: int = CHUNK,
) -> Stream:
    """Read rows (b, t) from their beginning, piece by piece; take(first, hidden) gets each (b, n, width).

    memory: what is remembered, by default as the model was built. prompt: tokens of the prompt, all unless given. The
    stream as it stands at the end. Activations take the memory of a piece, whatever the length.
    """
    length = tokens.shape[1]
    stream: Stream = model.start(memory)
    stream = model.start(stream.memory.prompted(length if prompt is None else prompt))
    for first in range(0, length, chunk):
        take(first, model.extend(tokens[:, first : first + chunk], stream))
    return stream


def streamed_losses(model: Any, batch: LanguageBatch, memory: Memory, *, chunk: int = CHUNK) -> np.ndarray:
    """Nats of each target (b, t) in float64, 0 where a target does not count, of rows read as streams."""
    losses: np.ndarray = np.zeros(batch.targets.shape)

    def take(first: int, hidden: Any) -> None:
        targets = batch.targets[:, first : first + chunk]
        likelihoods = to_host(log_softmax(model.logits(hidden)))
        taken = np.take_along_axis(likelihoods, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        losses[:, first : first + chunk] = np.where(targets == IGNORE, 0.0, -taken)

    read_streamed(model, batch.inputs, memory, take, chunk=chunk)
    return losses


def streamed_hidden(model: Any, batch: LanguageBatch, memory: Memory, *, chunk: int = CHUNK) -> Any:
    """What `model.hidden` gives for the rows, read as streams whose prompt ends where the first target counts."""
    parts: list[Any] = []
    counted = np.flatnonzero((batch.targets != IGNORE).any(axis=0))
    prompt = int(counted[0]) + 1 if len(counted) else None
    read_streamed(
        model, batch.inputs, memory, lambda first, hidden: parts.append(to_host(hidden)), prompt=prompt, chunk=chunk
    )
    return np.concatenate(parts, axis=1)
