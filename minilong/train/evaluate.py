"""How well a language model predicts a text: likelihood per token, per character and per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minilong.data.batches import PackedWindows
from minilong.errors import UserError
from minilong.nn.flat import Layout
from minilong.objectives import causal_loss
from minilong.train.config import available_threads
from minilong.train.loaded import LoadedRun, finite
from minilong.train.replicas import Replicas

ROWS = 16


@dataclass(frozen=True)
class Evaluation:
    """Nats per token, perplexity exp(nats), bits per character and byte of the text (`eq:bits`), and their counts.

    `tokens` is the number predicted: every token of the text but the first.
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


def evaluate(loaded: LoadedRun, text: str, *, stride: int | None = None) -> Evaluation:
    """Measure the model on a text. stride: how far the window advances; by default its length, so that windows do not
    overlap. A smaller stride gives each token at least context - stride tokens before it, and takes longer.
    UserError for a text without two tokens, a stride beyond the context, and a model that diverged."""
    context = loaded.config.model.context
    if stride is not None and not 1 <= stride <= context:
        raise UserError(f"the stride is {stride} and the context {context}; give 1 to {context}")
    ids = loaded.tokenizer.encode(text)
    windows = PackedWindows([ids], context, separator=None, partial=True)
    with Replicas(available_threads(), Layout((), (), (), 0, 0)) as replicas:
        parts = replicas.map(
            lambda batch: (float(causal_loss(loaded.model, batch)) * batch.tokens, batch.tokens),
            list(windows.sequential(ROWS, stride)),
        )
    nats, tokens = float(finite(np.sum([loss for loss, _ in parts]))), sum(count for _, count in parts)
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
    )
