"""Wrong sentences, pairs and losses of next sentences, for the laws of `next_sentence.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.common import F
from minilong.audit.laws.next_sentence import our_loss, our_pairs
from minilong.data.masking import Row
from minilong.data.sentences import sentences
from minilong.data.vocabulary import BOS, SEPARATOR
from minilong.keys import Key


@mutant(
    "sentences", "line breaks end a sentence", kills="ends", met="plausible: splitlines, in a text with wrapped lines"
)
def lines(text: str) -> list[str]:
    found = [" ".join(part.split()) for part in text.replace("a", "a\f").split("\f") if part.strip()]
    return [f" {s}" if i and not s.startswith(" ") else s for i, s in enumerate(found)] or sentences(text)


@mutant("sentences", "the space between is lost", kills="loses-nothing", met="plausible: stripped sentences")
def stripped(text: str) -> list[str]:
    return [s.strip() for s in sentences(text)]


def changed(change: Any) -> F:
    """Our rows, each changed."""
    return lambda documents, context, seed: [change(row, documents) for row in our_pairs(documents, context, seed)]


mutant(
    "sentence-pairs", "labels turned", kills="labels", met="Hugging Face: 0 is 'is next', the other way round than here"
)(changed(lambda row, documents: replace(row, follows=1 - row.follows)))
mutant("sentence-pairs", "always neighbours", kills=("labels", "balanced"), met="plausible: a coin that never falls")(
    changed(lambda row, documents: replace(row, follows=1))
)


@mutant(
    "sentence-pairs", "strangers may be neighbours", kills="labels", met="BERT on one document: no draw is excluded"
)
def careless(documents: Any, context: int, seed: int) -> list[Row]:
    rows = our_pairs(documents, context, seed)
    flat = [s for document in documents for s in document]
    numbers = Key.of(seed).generator()
    found = []
    for row in rows:
        if not row.follows:
            other = flat[int(numbers.integers(len(flat)))]
            row = Row(np.array([*row.ids[: row.second], *other, SEPARATOR], np.int32), row.second, 0)
        found.append(row)
    return found


@mutant("sentence-pairs", "no separator behind B", kills="rows", met="plausible: [CLS] A [SEP] B")
def open_end(documents: Any, context: int, seed: int) -> list[Row]:
    return [Row(row.ids[:-1], row.second, row.follows) for row in our_pairs(documents, context, seed)]


@mutant("sentence-pairs", "coins", kills="balanced", met="BERT: a coin for each pair, balanced in the long run only")
def coins(documents: Any, context: int, seed: int) -> list[Row]:
    numbers = Key.of(seed).generator()
    rows = our_pairs(documents, context, seed)
    return [row for row in rows if row.follows or numbers.random() < 0.5]


@mutant("sentence-pairs", "what stood behind a stranger's A is left out", kills="everything",
        met="plausible: the unused half of a chunk is not put back")  # fmt: skip
def not_put_back(documents: Any, context: int, seed: int) -> list[Row]:
    return [row for row in our_pairs(documents, context, seed) if not row.follows]


@mutant(
    "sentence-pairs", "strangers from near by", kills="spread", met="plausible: the stranger is the sentence after next"
)
def near_by(documents: Any, context: int, seed: int) -> list[Row]:
    first = documents[0][0]
    return [
        row if row.follows else Row(np.array([*row.ids[: row.second], first[0], SEPARATOR], np.int32), row.second, 0)
        for row in our_pairs(documents, context, seed)
    ]


@mutant("full-rows", "rows cut sentences", kills="everything", met="plausible: the stream cut every context tokens")
def cut_anywhere(documents: Any, context: int) -> list[Row]:
    stream = [t for document in documents for s in document for t in s.tolist()]
    return [Row(np.array([BOS, *stream[i : i + context - 2], SEPARATOR])) for i in range(0, len(stream), context - 2)]


@mutant(
    "next-sentence-loss", "each row the same", kills="weighted", met="BERT's own weighting, whose parts do not add up"
)
def unweighted(logits: Any, follows: Any, weights: Any) -> float:
    return our_loss(logits, follows, np.ones_like(weights))


@mutant("next-sentence-loss", "labels turned", kills="odds", met="plausible: 0 is 'is next', as in Hugging Face")
def turned(logits: Any, follows: Any, weights: Any) -> float:
    return our_loss(logits, 1 - np.asarray(follows), weights)
