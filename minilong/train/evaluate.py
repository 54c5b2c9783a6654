"""How well a language model predicts a text: likelihood per token, per character and per byte, and by position."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from minilong.autodiff import log_softmax
from minilong.backend import to_host
from minilong.data.batches import IGNORE, LanguageBatch, PackedWindows
from minilong.errors import UserError
from minilong.memory import Memory
from minilong.objectives import causal_loss
from minilong.train.adapt import adapt
from minilong.train.loaded import LoadedRun, finite
from minilong.train.streamed import streamed_losses
from minilong.train.worker import workers

ROWS, TOKENS = 16, 8192  # of a batch: a long context goes one row at a time
CHUNK = 2048  # positions whose logits exist at once


@dataclass(frozen=True)
class Evaluation:
    """Nats per token, perplexity exp(nats), bits per character and byte of the text (`eq:bits`), and their counts.

    `tokens` is the number predicted: every token of the text but the first. `positions` are the mean bits of a token
    at each position of the window (`eq:per-position`), from how many tokens `position_tokens`.
    """

    nats_per_token: float
    perplexity: float
    bits_per_character: float
    bits_per_byte: float
    tokens: int
    characters: int
    bytes: int
    context: int
    stride: int
    positions: tuple[float, ...] | None = None
    position_tokens: tuple[int, ...] | None = None


def evaluate(
    loaded: LoadedRun,
    text: str,
    *,
    stride: int | None = None,
    context: int | None = None,
    per_position: bool = False,
    memory: Memory | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """Measure the model on a text. stride: how far the window advances; by default its length, so that windows do not
    overlap. A smaller stride gives each token at least context - stride tokens before it, and takes longer. context:
    another window than that of training, such as a longer one (extrapolation). memory: what the model remembers within
    a window, which is then read as a stream. report: (tokens done, tokens of all).
    UserError for a text without two tokens, a stride beyond the context, a context that the model cannot read, and a
    model that diverged."""
    loaded = reading(loaded, context)
    context = loaded.config.model.context
    if stride is not None and not 1 <= stride <= context:
        raise UserError(f"the stride is {stride} and the context {context}; give 1 to {context}")
    ids = loaded.tokenizer.encode(text)
    windows = PackedWindows([ids], context, separator=None, partial=True)
    width = min(context, len(ids) - 1)
    sums, counts = np.zeros(width), np.zeros(width, np.int64)
    nats, tokens = 0.0, 0

    def measure(batch: LanguageBatch) -> tuple[Any, int]:
        """The sum of a batch's losses, or the sums at each position."""
        if memory is not None:
            losses = streamed_losses(loaded.model, batch, memory).sum(axis=0)
            return losses if per_position else float(losses.sum()), batch.tokens
        if per_position:
            return token_losses(loaded.model, batch).sum(axis=0), batch.tokens
        return float(causal_loss(loaded.model, batch)) * batch.tokens, batch.tokens

    with workers(loaded.model) as replicas:
        batches = windows.sequential(max(1, min(ROWS, TOKENS // context)), stride)
        while group := list(islice(batches, replicas.threads)):
            for batch, (losses, count) in zip(group, replicas.map(measure, group), strict=True):
                nats, tokens = nats + float(np.sum(losses)), tokens + count
                if per_position:
                    sums += losses
                    counts += (batch.targets != IGNORE).sum(axis=0)
            report(tokens, len(ids) - 1)
    finite(np.array(nats))
    # The first token has nothing before it and is not predicted: its characters are left out of the rates.
    share = tokens / len(ids)
    characters, size = len(text), len(text.encode())
    return Evaluation(
        nats_per_token=nats / tokens,
        perplexity=math.exp(min(nats / tokens, 700.0)),
        bits_per_character=nats / math.log(2) / (characters * share),
        bits_per_byte=nats / math.log(2) / (size * share),
        tokens=tokens,
        characters=characters,
        bytes=size,
        context=context,
        stride=stride or context,
        positions=tuple((position_means(sums, counts) / math.log(2)).tolist()) if per_position else None,
        position_tokens=tuple(counts.tolist()) if per_position else None,
    )


def token_losses(model: Any, batch: LanguageBatch) -> np.ndarray:
    """Nats of each target (b, t) in float64, 0 where a target does not count. Logits exist a chunk at a time only."""
    hidden = model.hidden(batch.inputs, segments=batch.segments)
    losses: np.ndarray = np.zeros(batch.targets.shape)
    for first in range(0, losses.shape[1], CHUNK):
        part = slice(first, first + CHUNK)
        targets = batch.targets[:, part]
        likelihoods = to_host(log_softmax(model.logits(hidden[:, part])))
        taken = np.take_along_axis(likelihoods, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        losses[:, part] = np.where(targets == IGNORE, 0.0, -taken)
    return losses


def position_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean loss at each position of the window (`eq:per-position`) from sums and counts (w,).

    No count is 0: all of the first window counts. Weighted by the counts, the means average to the loss of the whole
    text; windows that reach beyond its end, and those that overlap, count at some of their positions only.
    """
    return np.asarray(sums / counts)


def reading(loaded: LoadedRun, context: int | None) -> LoadedRun:
    """The run with windows of this context. UserError where it predicts no text, or cannot read such windows."""
    if loaded.config.model.kind != "decoder":
        raise UserError(f"the run learnt the task {loaded.config.task!r}, which continues no text; choose another run")
    return loaded if context is None else adapt(loaded, context=context)
