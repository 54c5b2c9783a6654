"""Laws of inference: vectors of new documents come from the model, which stays as it is."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.embeddings.descent import Settings
from minilong.embeddings.models import Model, train_vectors
from minilong.text.corpus import read_corpus

kind(
    "inference",
    "inference_of(method, negatives, documents, seed)",
    "A way to train documents, new documents as words -> their vectors, tables before and after, and those trained.",
)

TOPICS = (("sun", "moon", "star", "sky"), ("bread", "salt", "oil", "wine"))
"""Two sorts of documents, whose words never meet."""


@cache
def model(method: str, negatives: int) -> Model:
    """A model of 24 documents, every second of one topic."""
    rng = np.random.default_rng(0)
    texts = [[TOPICS[k % 2][i] for i in rng.integers(0, 4, 20)] for k in range(24)]
    settings = Settings(
        method=method, negatives=negatives, width=8, window=2, epochs=50, lr=0.05, sample=0, size=8, batch=8, shared=8,
        cap=16.0,
    )  # fmt: skip
    return train_vectors(read_corpus(texts, 1), settings)


@subject("inference", "Model.infer", code=Model.infer, equation="eq:inference")
def ours(method: str, negatives: int, documents: Any, seed: int) -> Any:
    trained = model(method, negatives)
    before = {name: table.copy() for name, table in trained.tables.items()}
    vectors = trained.infer(documents, seed=seed, epochs=10)
    return vectors, before, {name: table.copy() for name, table in trained.tables.items()}


def new(r: Numbers, *, method: str, negatives: int, documents: int, words: int) -> Case:
    """New documents of either topic in turn."""
    texts = [[TOPICS[k % 2][i] for i in r.integers(0, 4, words)] for k in range(documents)]
    return {"method": method, "negatives": negatives, "documents": texts, "seed": int(r.integers(0, 1000))}


METHODS = ("dbow", "dm", "dm-concat")
NEW = cases(new, method=METHODS, negatives=(5, 0), documents=(1, 4), words=(1, 12))
LONG = cases(new, method=("dbow",), negatives=(5, 0), documents=(2, 6), words=(20,))


def inferred(f: F, c: Case, **changes: Any) -> Any:
    """Vectors, and tables before and after."""
    given = {**c, **changes}
    return f(*[given[name] for name in ("method", "negatives", "documents", "seed")])


@law("inference", "the model stays", serves="eq:inference", cases=NEW, share=0.1)
def the_model_stays(f: F, c: Case, measure: Measure) -> None:
    """No table of the model changes."""
    _, before, after = inferred(f, c)
    for name, table in before.items():
        measure.close(after[name], table, 0.0, f"the table of {name}")


@law("inference", "same again", serves=("eq:inference", "claim:doc2vec-new-text"), cases=NEW, share=0.1)
def same_again(f: F, c: Case, measure: Measure) -> None:
    """The same documents and seed give the same vectors; words that the model does not know change nothing."""
    once = inferred(f, c)[0]
    measure.close(inferred(f, c)[0], once, 0.0, "a vector")
    strange = [["unheard", *words, "of"] for words in c["documents"]]
    measure.close(inferred(f, c, documents=strange)[0], once, 0.0, "a vector of a text with unknown words")


@law("inference", "nothing known", serves="eq:inference", cases=NEW, share=0.1)
def nothing_known(f: F, c: Case, measure: Measure) -> None:
    """A document without a known word has the zero vector, the others have not."""
    found = inferred(f, c, documents=[["unheard", "of"], *c["documents"], []])[0]
    measure.close(found[[0, -1]], 0 * found[[0, -1]], 0.0, "the vector of an unknown document")
    measure.holds(np.all(np.any(found[1:-1] != 0, axis=1)), "a document with known words has the zero vector")


@law("inference", "topics", serves=("eq:inference", "eq:paragraph-bag"), cases=LONG, share=0.1)
def topics(f: F, c: Case, measure: Measure) -> None:
    """By its bag of words, a new document is nearer to those trained ones that are of its topic."""
    vectors, before, _ = inferred(f, c)
    unit = before["documents"] / np.linalg.norm(before["documents"], axis=1, keepdims=True)
    for k, vector in enumerate(vectors):
        own, other = float(np.mean(unit[k % 2 :: 2] @ vector)), float(np.mean(unit[1 - k % 2 :: 2] @ vector))
        measure.holds(own > other, f"document {k} is nearer to the other topic: {own} and {other}")


# Mutants


@mutant(
    "inference", "trains on", kills="the model stays", met="plausible: all tables learn while a document is inferred"
)
def trains_on(method: str, negatives: int, documents: Any, seed: int) -> Any:
    vectors, before, after = ours(method, negatives, documents, seed)
    after["outputs"] = after["outputs"] + 1e-6
    return vectors, before, after


@mutant(
    "inference", "another start each time", kills="same again", met="gensim: infer_vector differs from call to call"
)
def another_start(method: str, negatives: int, documents: Any, seed: int) -> Any:
    return ours(method, negatives, documents, int(np.random.default_rng().integers(0, 2**31)))


@mutant("inference", "start returned", kills="topics", met="plausible: zero epochs, or a rate of zero")
def start_returned(method: str, negatives: int, documents: Any, seed: int) -> Any:
    _, before, after = ours(method, negatives, documents, seed)
    vectors = model(method, negatives).infer(documents, seed=seed, epochs=1)
    return vectors * 0 + vectors[:1], before, after


@mutant("inference", "random where nothing is known", kills="nothing known", met="plausible: the start left as it is")
def random_where_unknown(method: str, negatives: int, documents: Any, seed: int) -> Any:
    vectors, before, after = ours(method, negatives, documents, seed)
    return np.where(np.any(vectors != 0, axis=1, keepdims=True), vectors, 0.01), before, after
