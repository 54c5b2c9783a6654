"""The data of runs that restore what a text has lost: masked tokens (`mlm`, `roberta`) and spans (`t5`)."""

from __future__ import annotations

from collections.abc import Sequence

from minilong.data.batches import PackedWindows
from minilong.data.marked import MarkedTokenizer
from minilong.data.masking import MaskedRows
from minilong.data.numbering import Numbering, Rows, numbering_of
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.sentences import EDGE, encoded_sentences, full_rows, sentence_pairs
from minilong.data.spans import SpanWindows
from minilong.data.vocabulary import Tokenizer
from minilong.keys import Key
from minilong.train.config import RunConfig

MARKS = {"mlm": 1, "roberta": 1, "t5": 100}
"""Ids behind those of the text: the mask, or the sentinels of spans."""


def with_marks(config: RunConfig, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the marks that the task needs; one that has them stays, and so does a pretrained one."""
    has = isinstance(tokenizer, (MarkedTokenizer, PretrainedTokenizer))
    return tokenizer if has else MarkedTokenizer(tokenizer, MARKS[config.task])


def spaced(text: str) -> str:
    """The text with each run of white space as one space: a line break inside a sentence is no other word."""
    return " ".join(text.split())


def filling_rows(config: RunConfig, tokenizer: Tokenizer, texts: Sequence[str], key: Key) -> Rows:
    """What is read of some texts, each a document: pairs with fixed masks (mlm), full sentences with new masks in every
    epoch (roberta), windows with new spans in every step (t5). The key draws the pairs."""
    context, numbering = config.model.context, numbering_of(tokenizer, spans=config.task == "t5")
    if config.task == "t5":
        return numbering.rows(span_rows(config, numbering, texts))
    pairs = config.task == "mlm"
    longest = (context - EDGE["pair"]) // 2 if pairs else context - EDGE["row"]
    documents = [encoded_sentences(text, numbering.encode, longest) for text in texts]
    rows = sentence_pairs(documents, context, key) if pairs else full_rows(documents, context)
    masks = config.data.masks if pairs else None
    return numbering.rows(MaskedRows(rows, mask=numbering.first, last=numbering.first, masks=masks))


def span_rows(config: RunConfig, numbering: Numbering, texts: Sequence[str]) -> SpanWindows:
    """Windows over the texts, a separator between them, in numbers."""
    numbers = [numbering.encode(spaced(text)) for text in texts]
    windows = PackedWindows(numbers, config.model.context, separator=numbering.separator, partial=True)
    return SpanWindows(windows, first=numbering.first, sentinels=numbering.marks)
