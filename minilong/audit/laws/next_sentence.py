"""Laws of sentence pairs: sentences lose nothing, labels are right and balanced, and their loss is a weighted mean."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.backend import array_module, to_host
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.data.masking import Row
from minilong.data.sentences import full_rows, sentence_pairs, sentences
from minilong.data.vocabulary import BOS, FIRST, SEPARATOR
from minilong.keys import Key
from minilong.objectives.next_sentence import next_sentence_loss

kind("sentences", "sentences(text)", "A text -> its sentences, which joined are the text with single spaces.")
kind("full-rows", "rows(documents, context)", "Documents of sentences of tokens -> rows of whole sentences.")
kind("sentence-pairs", "pairs(documents, context, seed)", "Documents of sentences of tokens -> rows of two parts.")
kind("next-sentence-loss", "loss(logits, follows, weights)", "logits (b, 2), labels and weights (b,) -> a number.")

subject("sentences", "sentences", code=sentences, equation="claim:sentences")(sentences)
subject("full-rows", "full_rows", code=full_rows, equation="claim:static-dynamic")(full_rows)


def our_pairs(documents: Any, context: int, seed: int) -> list[Row]:
    """Ours, by the key of a seed."""
    return sentence_pairs(documents, context, Key.of(seed))


subject("sentence-pairs", "sentence_pairs", code=sentence_pairs, equation="eq:sentence-pair")(our_pairs)


class Standing:
    """Logits in the place of a model: its pooler gives them."""

    def __init__(self, logits: Any) -> None:
        self.pooler = lambda hidden: logits


def our_loss(logits: Any, follows: Any, weights: Any) -> float:
    """Ours, on rows that have as many masks as the weights say."""
    count = to_host(weights)
    targets = np.where(np.arange(count.max()) < count[:, None], 7, IGNORE)
    batch = MaskedBatch(targets, targets, count, None, to_host(follows))
    whole: Any = Standing(logits)
    return float(next_sentence_loss(whole, array_module(logits).zeros(1), batch))


subject("next-sentence-loss", "next_sentence_loss", code=next_sentence_loss, equation="eq:next-sentence")(our_loss)

PIECES = ("a", " ", "\n", "\n\n", ". ", "! ", "?", '." ', "Mr. ", "。", "“善！”", "3.5", ".", "b c", "\t")


def text(n: Numbers, *, parts: int) -> dict[str, Any]:
    """Letters, ends of sentences and white space."""
    return {"text": "".join(PIECES[i] for i in n.integers(0, len(PIECES), parts))}


TEXTS = cases(text, parts=(3, 0, 1, 2, 8, 40))


@law("sentences", "loses-nothing", serves="claim:sentences", cases=TEXTS)
def loses_nothing(f: F, c: Case, measure: Measure) -> None:
    """Joined, the sentences are the text with one space for each run of white space; and none is empty."""
    found = f(c["text"])
    measure.holds("".join(found) == " ".join(c["text"].split()), f"{found!r} of {c['text']!r}")
    measure.holds(all(sentence.strip() for sentence in found), f"{found!r} has an empty sentence")


@law("sentences", "ends", serves="claim:sentences", cases=TEXTS)
def ends(f: F, c: Case, measure: Measure) -> None:
    """Every sentence but those before an empty line ends in a mark, and none ends in a title or inside a number."""
    found = f(c["text"])
    for sentence in found[:-1]:
        marked = sentence.rstrip("\"'”’)]」』）》")[-1:] in tuple(".!?。！？")
        measure.holds(marked or "\n" in c["text"], f"{sentence!r} ends without a mark")
        measure.holds(re.search(r"\bMrs?\.$", sentence) is None or "\n" in c["text"], f"{sentence!r} ends in a title")
    for before, after in pairwise(found):
        inside = before.endswith("3.") and after.startswith("5")
        measure.holds(not inside, f"{before!r} and {after!r} cut a number")
    spaced = "a. b"
    measure.holds(f(spaced) == ["a.", " b"], f"{spaced!r} is {f(spaced)!r}")


def documents(n: Numbers, *, count: int, sentences: int, context: int) -> dict[str, Any]:
    """Documents of sentences whose tokens all differ; no sentence has more than half of a pair's room."""
    most, at, found = (context - 3) // 2, FIRST, []
    for _ in range(count):
        document = []
        for length in n.integers(1, most + 1, sentences).tolist():
            document.append(np.arange(at, at + length, dtype=np.int32))
            at += length
        found.append(document)
    return {"documents": found, "context": context, "seed": int(n.integers(0, 2**31))}


DOCUMENTS = cases(documents, count=(1, 2, 3), sentences=(12, 5, 30), context=(12, 7, 20, 40))
LONG = cases(documents, count=(2,), sentences=(150,), context=(12, 20))


def read(row: Row) -> tuple[list[int], list[int]]:
    """The two parts of a row."""
    ids = row.ids.tolist()
    return ids[1 : row.second - 1], ids[row.second : -1]


def follows(first: list[int], second: list[int], whole: list[list[int]]) -> bool:
    """Whether the second part stands behind the first in a document."""
    n = len(first)
    return any(
        document[i : i + n] == first and document[i + n : i + n + len(second)] == second
        for document in whole
        for i in range(len(document))
    )


@law("sentence-pairs", "rows", serves="eq:sentence-pair", cases=DOCUMENTS)
def pair_rows(f: F, c: Case, measure: Measure) -> None:
    """A row is a begin token, A, a separator, B, a separator, in the context; A and B are stretches of one document
    each, A of whole sentences, and B begins with one."""
    whole = [[int(t) for s in document for t in s] for document in c["documents"]]
    begins = {int(s[0]) for document in c["documents"] for s in document}
    for row in f(c["documents"], c["context"], c["seed"]):
        ids = row.ids.tolist()
        first, second = read(row)
        measure.holds(len(ids) <= c["context"], f"a row has {len(ids)} tokens, and the context {c['context']}")
        right = (ids[0], ids[row.second - 1], ids[-1]) == (BOS, SEPARATOR, SEPARATOR)
        measure.holds(right and min(first + second) >= FIRST, f"the row is {ids}")
        for part in (first, second):
            inside = part[0] in begins and any(
                part == document[i : i + len(part)] for document in whole for i in range(len(document))
            )
            measure.holds(inside, f"{part} is no stretch of a document that begins with a sentence")


@law("sentence-pairs", "labels", serves="eq:sentence-pair", cases=DOCUMENTS)
def labels(f: F, c: Case, measure: Measure) -> None:
    """The label is 1 exactly where B stands behind A in the text."""
    whole = [[int(t) for s in document for t in s] for document in c["documents"]]
    for row in f(c["documents"], c["context"], c["seed"]):
        measure.holds(row.follows == follows(*read(row), whole), f"{read(row)} has the label {row.follows}")


@law("sentence-pairs", "balanced", serves="eq:sentence-pair", cases=DOCUMENTS)
def balanced(f: F, c: Case, measure: Measure) -> None:
    """There are as many neighbours as strangers, to one row."""
    found = [row.follows for row in f(c["documents"], c["context"], c["seed"])]
    measure.holds(abs(2 * sum(found) - len(found)) <= 1, f"the labels are {found}")


@law("sentence-pairs", "everything", serves="eq:sentence-pair", cases=DOCUMENTS)
def everything(f: F, c: Case, measure: Measure) -> None:
    """Every sentence but a document's last is in some row."""
    read_tokens = {t for row in f(c["documents"], c["context"], c["seed"]) for t in row.ids.tolist()}
    left = [i for document in c["documents"] for i, s in enumerate(document[:-1]) if not {*s.tolist()} & read_tokens]
    measure.holds(not left, f"the sentences {left} are in no row")


@law("sentence-pairs", "spread", serves="eq:sentence-pair", cases=LONG, share=0.1)
def spread(f: F, c: Case, measure: Measure) -> None:
    """Strangers come from all over the text, and another seed draws others; the same seed draws the same."""
    runs = [f(c["documents"], c["context"], c["seed"] + more) for more in (0, 0, 1)]
    drawn = [[row.ids.tolist() for row in rows] for rows in runs]
    measure.holds(drawn[0] == drawn[1], "the same seed gives other rows")
    measure.holds(drawn[0] != drawn[2], "another seed gives the same rows")
    last = int(c["documents"][-1][-1][-1])
    begins = np.array([read(row)[1][0] for row in runs[0] if not row.follows]) / last
    quarters, _ = np.histogram(begins, bins=4, range=(0, 1))
    far = 6 * np.sqrt(len(begins) * 3 / 16)
    measure.holds(np.all(np.abs(quarters - len(begins) / 4) <= far), f"quarters of the text give {quarters.tolist()}")


@law("full-rows", "everything", serves="claim:static-dynamic", cases=DOCUMENTS)
def full_everything(f: F, c: Case, measure: Measure) -> None:
    """One after another the rows are the text, a row holds whole sentences, and the next one would not have fitted."""
    rows = [row.ids.tolist() for row in f(c["documents"], c["context"])]
    inner = [[t for t in row[1:-1] if t != SEPARATOR] for row in rows]
    whole = [int(t) for document in c["documents"] for s in document for t in s]
    measure.holds([t for row in inner for t in row] == whole, f"the rows are {rows}")
    lengths = {int(s[0]): len(s) for document in c["documents"] for s in document}
    opens = {int(document[0][0]) for document in c["documents"]}
    for row, after in zip(rows, [*inner[1:], []], strict=True):
        measure.holds(len(row) <= c["context"], f"a row has {len(row)} tokens, and the context {c['context']}")
        measure.holds(row[0] == BOS and row[-1] == SEPARATOR and row[1] in lengths, f"the row is {row}")
        if after:
            needed = lengths.get(after[0], 0) + (after[0] in opens)
            measure.holds(len(row) + needed > c["context"], f"{row} had room for the next sentence, {after}")
        glued = [row[i + 1] for i in range(1, len(row) - 1) if row[i] == SEPARATOR]
        measure.holds(set(glued) <= opens, f"a separator stands inside a document: {row}")


def judged(n: Numbers, *, rows: int, spread: float) -> dict[str, Any]:
    """Logits, labels and weights."""
    return {
        "logits": n.normal(rows, 2, spread=spread),
        "follows": n.integers(0, 2, rows),
        "weights": n.integers(1, 5, rows),
    }


JUDGED = cases(judged, rows=(1, 2, 5), spread=(1.0, 5.0))


@law("next-sentence-loss", "weighted", serves="eq:next-sentence", cases=JUDGED)
def weighted(f: F, c: Case, measure: Measure) -> None:
    """A row of weight w counts as w rows of weight 1 do."""
    z, y, w = c["logits"], c["follows"], c["weights"]
    once = f(np.repeat(z, w, axis=0), np.repeat(y, w), np.ones(int(w.sum()), np.int64))
    measure.close(f(z, y, w), once, bound(2 + 4 * largest(z), 4 * len(z)), "the loss")


@law("next-sentence-loss", "odds", serves="eq:next-sentence", cases=JUDGED)
def odds(f: F, c: Case, measure: Measure) -> None:
    """Of one row: log(1 + exp(wrong logit - right logit))."""
    for z, y in zip(c["logits"], c["follows"], strict=True):
        right = np.logaddexp(0, z[1 - y] - z[y])
        measure.close(
            f(z[None], np.array([y]), np.array([3])), right, bound(2 + 4 * largest(z), 4), "the loss of a row"
        )
