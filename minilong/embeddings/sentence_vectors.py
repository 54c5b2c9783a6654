"""Vectors of sentences and paragraphs by a trained run: the states of their tokens, pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.data.bpe import BpeTokenizer
from minilong.data.marked import MarkedTokenizer
from minilong.data.vocabulary import Ids, Tokenizer
from minilong.embeddings.pooling import pool
from minilong.errors import UserError
from minilong.nn import EncoderDecoder
from minilong.train.config import FILLING_TASKS
from minilong.train.loaded import LoadedRun, finite, ready_to_read
from minilong.train.pretraining import spaced
from minilong.train.translate import pad_rows

TOKENS_AT_ONCE = 8192
"""Of a batch, padding included."""

Report = Callable[[int, int], None]


def silent(done: int, of: int) -> None:
    """Reports nothing."""


def run_vectors(
    loaded: LoadedRun,
    texts: Sequence[str],
    *,
    pooling: str = "mean",
    layer: int | None = None,
    tokens: int = TOKENS_AT_ONCE,
    report: Report = silent,
) -> np.ndarray:
    """Vectors (n, width) of texts, of length 1: the states of each text's tokens, pooled (`eq:sentence-vector`).

    An encoder's states are those of the rows that it learnt from, special tokens included; an encoder-decoder's are its
    encoder's; a decoder's have seen what stands before them only. A text longer than the context is read in parts whose
    states are pooled together; one of white space is zero. layer: how many layers the states come through [all]; the
    last norm follows in any case. tokens: of a batch. report: texts done, of how many. UserError for a decoder's first
    state, a layer that is not there, an unknown character, and a model whose output is not finite.
    """
    if pooling == "first" and loaded.config.model.kind == "decoder":
        raise UserError("a decoder's first state has seen no other token; take --pooling mean, or max")
    states = _states(loaded.model, layer)
    rows = [_rows(loaded, text, number) for number, text in enumerate(texts, start=1)]
    found = np.zeros((len(texts), loaded.config.model.width), np.float32)
    left, done, pending = [len(own) for own in rows], rows.count([]), []
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    with ready_to_read(), np.errstate(all="ignore"):  # `finite` says it in words
        for batch in _batches([(i, row) for i in order for row in rows[i]], tokens):
            padded, lengths = pad_rows([row for _, row in batch])
            for (i, row), state in zip(batch, finite(states(padded, lengths)), strict=True):
                pending.append(state[: len(row)])  # the parts of a text come one after another
                left[i] -= 1
                if not left[i]:
                    whole = np.concatenate(pending)[None]
                    found[i], done, pending = pool(whole, np.ones(whole.shape[:2], bool), pooling)[0], done + 1, []
            report(done, len(texts))
    return found


def _states(model: Any, layer: int | None) -> Callable[[Ids, Ids], Any]:
    """A function of padded rows (b, t) and their lengths (b,) that gives the states (b, t, width) behind a layer."""
    paired = isinstance(model, EncoderDecoder)
    stack = model.encoder if paired else model.stack
    if layer is not None:
        if not 0 <= layer <= len(stack.layers):
            raise UserError(f"the model has layers 1 to {len(stack.layers)} and no layer {layer}; choose one of these")
        stack = replace(stack, layers=stack.layers[:layer])
    if paired:
        coder = replace(model, encoder=stack)
        return lambda ids, lengths: coder.encode(ids, lengths)
    cut = replace(model, stack=stack)
    if cut.causal:
        return lambda ids, lengths: cut.hidden(ids)  # padding stands behind, where no token of the text looks
    return lambda ids, lengths: cut.hidden(ids, lengths=lengths)


def _rows(loaded: LoadedRun, text: str, number: int) -> list[Ids]:
    """The rows that a text is read in, as training read them; none for white space."""
    tokenizer, kind = loaded.tokenizer, loaded.config.model.kind
    content = spaced(text) if loaded.config.task in FILLING_TASKS else text.strip()
    if not content:
        return []
    try:
        ids = tokenizer.encode(f" {content}" if _spaces_words(tokenizer) else content)
    except UserError as error:
        raise UserError(f"sentence {number}: {error}") from None
    before, behind = tokenizer.prefix, tokenizer.suffix
    if kind == "encoder" and not before + behind:
        before, behind = (tokenizer.bos,), (tokenizer.separator,)
    room = loaded.config.model.context - len(before) - len(behind)
    return [np.array([*before, *ids[at : at + room], *behind], np.int32) for at in range(0, len(ids), room)]


def _spaces_words(tokenizer: Tokenizer) -> bool:
    """Whether the space before a word is a part of its token; most sentences of a text have one before them."""
    return isinstance(tokenizer, MarkedTokenizer) and isinstance(tokenizer.base, BpeTokenizer)


def _batches(parts: Sequence[tuple[int, Ids]], tokens: int) -> Iterator[Sequence[tuple[int, Ids]]]:
    """Consecutive parts, as many as hold `tokens` tokens once they are padded to the longest; at least one."""
    start, longest = 0, 0
    for at, (_, row) in enumerate(parts):
        longest = max(longest, len(row))
        if at > start and (at + 1 - start) * longest > tokens:
            yield parts[start:at]
            start, longest = at, len(row)
    if parts:
        yield parts[start:]
