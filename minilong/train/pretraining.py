"""The data of runs that restore what a text has lost: masked tokens (`mlm`, `roberta`) and spans (`t5`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from minilong.data.batches import PackedWindows
from minilong.data.marked import MarkedTokenizer
from minilong.data.masking import MaskedRows
from minilong.data.sentences import EDGE, encoded_sentences, full_rows, sentence_pairs
from minilong.data.spans import SpanWindows
from minilong.data.vocabulary import Tokenizer
from minilong.keys import Key
from minilong.train.config import RunConfig

MARKS = {"mlm": 1, "roberta": 1, "t5": 100}
"""Ids behind those of the text: the mask, or the sentinels of spans."""


class Rows(Protocol):
    """What is learnt, by step, and what is held out, in order."""

    def batch(self, step: int, size: int, key: Key) -> Any:
        """The batch of a step, a function of (step, size, key)."""
        ...

    def sequential(self, size: int) -> Iterator[Any]:
        """All rows once."""
        ...


def with_marks(config: RunConfig, tokenizer: Tokenizer) -> MarkedTokenizer:
    """The tokenizer with the marks that the task needs; one that has them stays."""
    return tokenizer if isinstance(tokenizer, MarkedTokenizer) else MarkedTokenizer(tokenizer, MARKS[config.task])


def spaced(text: str) -> str:
    """The text with each run of white space as one space: a line break inside a sentence is no other word."""
    return " ".join(text.split())


def filling_rows(config: RunConfig, tokenizer: MarkedTokenizer, texts: Sequence[str], key: Key) -> Rows:
    """What is read of some texts, each a document: pairs with fixed masks (mlm), full sentences with new masks in every
    epoch (roberta), windows with new spans in every step (t5). The key draws the pairs."""
    context = config.model.context
    if config.task == "t5":
        return span_rows(config, tokenizer, texts)
    pairs = config.task == "mlm"
    longest = (context - EDGE["pair"]) // 2 if pairs else context - EDGE["row"]
    documents = [encoded_sentences(text, tokenizer.encode, longest) for text in texts]
    rows = sentence_pairs(documents, context, key) if pairs else full_rows(documents, context)
    masks = config.data.masks if pairs else None
    return MaskedRows(rows, mask=tokenizer.first, last=tokenizer.first, masks=masks)


def span_rows(config: RunConfig, tokenizer: MarkedTokenizer, texts: Sequence[str]) -> SpanWindows:
    """Windows over the texts, a separator between them."""
    ids = [tokenizer.encode(spaced(text)) for text in texts]
    windows = PackedWindows(ids, config.model.context, separator=tokenizer.separator, partial=True)
    return SpanWindows(windows, first=tokenizer.first, sentinels=tokenizer.marks)
