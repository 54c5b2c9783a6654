"""Continue a text with a language model, token by token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minilong.data.vocabulary import FIRST
from minilong.errors import UserError
from minilong.keys import Key
from minilong.train.loaded import LoadedRun, as_row, finite, one_blas_thread


def generate(
    loaded: LoadedRun,
    prompt: str,
    *,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Pieces of text that continue the prompt, `length` tokens in all; the same seed gives the same text.

    The model sees the last `context` tokens. Without a prompt it continues a line break. Special tokens are not drawn.
    """
    if loaded.config.task != "lm":
        raise UserError(f"the run learnt the task {loaded.config.task!r}; use `minilong translate`")
    tokenizer = loaded.tokenizer
    ids = list(tokenizer.encode(prompt or "\n"))
    numbers = Key.of(seed).fold("generate").generator()
    decoder = tokenizer.stream_decoder()
    with one_blas_thread():
        for _ in range(length):
            with np.errstate(all="ignore"):  # `finite` says it in words
                logits = loaded.model(as_row(np.array(ids[-loaded.model.context :])))[0, -1]
            token = choose(finite(logits), numbers, temperature=temperature, top_k=top_k, top_p=top_p)
            ids.append(token)
            if piece := decoder.push(token):
                yield piece
    if rest := decoder.flush():
        yield rest


def choose(
    logits: np.ndarray, numbers: np.random.Generator, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> int:
    """Draw a token from softmax(logits / temperature) (`eq:sampling`), among the `top_k` likeliest, and among the
    fewest likeliest that together reach the probability `top_p`. Temperature 0 takes the likeliest."""
    scores = np.array(logits, np.float64)
    scores[:FIRST] = -np.inf
    if temperature == 0:
        return int(scores.argmax())
    order = np.argsort(-scores, kind="stable")[: len(scores) - FIRST]  # rounding may send the draw below to the last
    if top_k:
        order = order[:top_k]
    with np.errstate(over="ignore"):  # a tiny temperature: all but the likeliest get probability zero
        p = np.exp((scores[order] - scores[order[0]]) / temperature)
    p /= p.sum()
    if top_p < 1:
        count = int(np.searchsorted(np.cumsum(p), top_p)) + 1
        order, p = order[:count], p[:count] / p[:count].sum()
    place = int(np.searchsorted(np.cumsum(p), numbers.random(), side="right"))
    return int(order[min(place, len(order) - 1)])
