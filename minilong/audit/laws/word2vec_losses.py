"""Laws of the losses of Word2Vec and Doc2Vec: one prediction, and what each method predicts from."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.embeddings.blocks import Blocks
from minilong.embeddings.descent import METHODS
from minilong.embeddings.noise import Noise
from minilong.embeddings.outputs import NegativeSampling

SIGNATURE = "(words, document, outputs, contexts, near, drawn, negatives)"
ABOUT = (
    "Tables of words (V, d) and outputs (V, e), a document's vector (d,), a block's contexts (c + 2w,), which are near "
    "(c + 2w, c), drawn words (K,), and for how many wrong words they stand -> the loss."
)
NAMES = {
    "skip-gram": "skip-gram",
    "cbow": "cbow",
    "dm": "paragraph-memory",
    "dm-concat": "paragraph-concatenation",
    "dbow": "paragraph-bag",
}
"""Kind and equation of each method."""


def block(contexts: np.ndarray, near: np.ndarray) -> Blocks:
    """One block of a document, all of whose centres exist."""
    w, size = (near.shape[0] - near.shape[1]) // 2, near.shape[1]
    centres = contexts[None, w : w + size]
    return Blocks(centres, contexts[None], near[None], np.ones((1, size)), np.zeros((1, size), np.int32))


def tables(words: np.ndarray, document: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """As the methods take them."""
    return {"words": words, "documents": document[None], "outputs": outputs}


def sampling(outputs: np.ndarray, drawn: np.ndarray, negatives: float) -> NegativeSampling:
    """Negative sampling with words that are given."""
    wanted: Any = negatives
    return NegativeSampling(Noise(np.ones(len(outputs))), wanted, len(drawn))


def loss_of(method: str) -> F:
    """Our loss of a method."""

    def f(words: Any, document: Any, outputs: Any, contexts: Any, near: Any, drawn: Any, negatives: float) -> Any:
        b, output = block(contexts, near), sampling(outputs, drawn, negatives)
        return np.float64(METHODS[method].loss(tables(words, document, outputs), b, drawn[None], output)[0])

    return f


# What each method says, written out: the vectors that predict, and which centre each predicts


def predictions(method: str, words: Any, document: Any, contexts: Any, near: Any) -> list[tuple[Any, int]]:
    """Pairs of a vector and the place of the centre that it predicts."""
    span, size = near.shape
    w = (span - size) // 2
    if method == "skip-gram":
        return [(words[contexts[j]], i) for i in range(size) for j in range(span) if near[j, i]]
    found = []
    for i in range(size):
        vectors = [words[contexts[j]] for j in range(span) if near[j, i]]
        if method == "dbow":
            h = document
        elif method == "dm-concat":
            places = range(i, i + 2 * w + 1)
            h = np.concatenate([document if j == i + w else words[contexts[j]] * near[j, i] for j in places])
        else:
            vectors += [document] if method == "dm" else []
            if not vectors:
                continue
            h = sum(vectors) / len(vectors)
        found.append((h, i))
    return found


def softplus(x: float) -> float:
    """log(1 + exp x)."""
    return float(np.logaddexp(0.0, x))


def stated(method: str, case: Any, *, mistake: str = "") -> float:
    """The loss by the formula, or with a mistake."""
    words, document, outputs, contexts, near, drawn, negatives = case
    w, loss = (near.shape[0] - near.shape[1]) // 2, 0.0
    for h, i in predictions(method, words, document, contexts, near):
        c = contexts[i + w]
        sign = -1.0 if mistake == "sides swapped" else 1.0
        loss += softplus(-sign * (h @ outputs[c]))
        for d in drawn:
            if d != c or mistake == "centre is wrong too":
                weight = 1.0 if mistake == "all drawn count" else negatives / len(drawn)
                loss += weight * softplus(sign * (h @ outputs[d]))
    return loss


def make(
    r: Numbers, *, words: int, d: int, size: int, window: int, drawn: int, negatives: int, share: float, wide: bool
) -> Case:
    """Tables, a block with any near pairs, and drawn words."""
    span = size + 2 * window
    near = (np.abs(np.arange(span)[:, None] - window - np.arange(size)) <= window) & r.chance(share, span, size)
    near[np.arange(size) + window, np.arange(size)] = False
    return {
        "words": r.normal(words, d),
        "document": r.normal(d),
        "outputs": r.normal(words, d * (2 * window + 1) if wide else d),
        "contexts": r.integers(0, words, span),
        "near": near.astype(np.float64),
        "drawn": r.integers(0, words, drawn),
        "negatives": float(negatives),
    }


ARGUMENTS = ("words", "document", "outputs", "contexts", "near", "drawn", "negatives")
CHOICES: dict[str, Any] = {
    "words": (2, 3, 9),
    "d": (1, 2, 5),
    "size": (1, 2, 4),
    "window": (1, 2),
    "drawn": (1, 2, 5),
    "negatives": (1, 2, 5),
    "share": (1.0, 0.5, 0.0),
}


def arguments(c: Case, **changes: Any) -> list[Any]:
    """The arguments of a case, some of them others."""
    given = {**c, **changes}
    return [np.copy(x) if isinstance(x, np.ndarray) else x for x in (given[name] for name in ARGUMENTS)]


def near_enough(c: Case) -> float:
    """Rounding of all that is summed."""
    scale = 1.0 + largest(c["words"], c["document"]) * largest(c["outputs"]) * c["outputs"].shape[1]
    count = (1.0 + c["negatives"]) * c["near"].size
    return bound(scale * count)


def declare(method: str, name: str) -> None:
    """Laws and mutants of one method."""
    equation = f"eq:{name}"
    ids = (equation, "eq:negative-sampling")
    blocks = cases(make, wide=(method == "dm-concat",), **CHOICES)
    kind(name, f"{name.replace('-', '_')}{SIGNATURE}", ABOUT)
    subject(name, f"METHODS[{method!r}]", code=type(METHODS[method]), equation=equation)(loss_of(method))

    @law(name, "definition", serves=ids, cases=blocks)
    def definition(f: F, c: Case, measure: Measure) -> None:
        """The loss sums, over what the method predicts from, one right word and the drawn ones with their weight."""
        measure.close(f(*arguments(c)), stated(method, arguments(c)), near_enough(c), "the loss")

    @law(name, "draws share", serves=ids, cases=blocks)
    def draws_share(f: F, c: Case, measure: Measure) -> None:
        """Twice as many drawn words count half each: the loss of two draws together is the mean of theirs."""
        other = (c["drawn"] + 1) % len(c["words"])
        both = f(*arguments(c, drawn=np.concatenate([c["drawn"], other])))
        mean = (f(*arguments(c)) + f(*arguments(c, drawn=other))) / 2
        measure.close(both, mean, near_enough(c), "the loss of both draws")

    @law(name, "never against itself", serves=ids, cases=blocks)
    def never_against_itself(f: F, c: Case, measure: Measure) -> None:
        """Where all words are the same one, drawing it costs nothing: the loss is that without wrong words."""
        alone = {"contexts": 0 * c["contexts"], "drawn": 0 * c["drawn"]}
        given, without = arguments(c, **alone), arguments(c, **alone, negatives=0.0)
        measure.close(f(*given), f(*without), near_enough(c), "the loss")

    for mistake, kills, met in (
        ("sides swapped", "definition", "plausible: the sign of the score lost"),
        ("all drawn count", ("definition", "draws share"), "plausible: shared words summed without their weight"),
        ("centre is wrong too", ("definition", "never against itself"), "plausible: the drawn centre not passed over"),
    ):
        mutant(name, mistake, kills=kills, met=met)(
            lambda *case, mistake=mistake: np.float64(stated(method, case, mistake=mistake))
        )


for own, equation in NAMES.items():
    declare(own, equation)


@mutant("cbow", "sum for mean", kills="definition", met="gensim's cbow_mean=0")
def sum_for_mean(words: Any, document: Any, outputs: Any, contexts: Any, near: Any, drawn: Any, negatives: Any) -> Any:
    span, loss = near.shape[0] - near.shape[1] + 1, 0.0
    for i in range(near.shape[1]):
        here, one = contexts[i : i + span], near[i : i + span, i : i + 1]
        loss += stated("cbow", (words * max(one.sum(), 1), document, outputs, here, one, drawn, negatives))
    return np.float64(loss)


@mutant("paragraph-memory", "document left out", kills="definition", met="plausible: CBOW under the name of PV-DM")
def document_left_out(*case: Any) -> Any:
    return np.float64(stated("cbow", case))


@mutant("skip-gram", "window's mean", kills="definition", met="plausible: CBOW under the name of skip-gram")
def windows_mean(*case: Any) -> Any:
    return np.float64(stated("cbow", case))


# One prediction

kind(
    "negative-sampling",
    "negative_sampling(h, outputs, centre, drawn, negatives)",
    "A vector (d,), a table (V, d), a word, drawn words (K,), and for how many wrong words they stand -> the loss.",
)


@subject("negative-sampling", "NegativeSampling", code=NegativeSampling, equation="eq:negative-sampling")
def one_prediction(h: Any, outputs: Any, centre: int, drawn: Any, negatives: float) -> Any:
    b = block(np.array([centre]), np.zeros((1, 1)))
    return np.float64(sampling(outputs, drawn, negatives).loss(h[None, None], outputs, b, drawn[None], contexts=False))


def single(r: Numbers, *, words: int, d: int, drawn: int, negatives: int) -> Case:
    """A vector, a table and words."""
    return {
        "h": r.normal(d),
        "outputs": r.normal(words, d),
        "centre": int(r.integers(0, words)),
        "drawn": r.integers(0, words, drawn),
        "negatives": float(negatives),
    }


SINGLE = cases(single, words=(2, 3, 9), d=(1, 2, 5), drawn=(1, 2, 5), negatives=(1, 2, 5))


@law("negative-sampling", "expectation", serves="eq:negative-sampling", cases=SINGLE)
def expectation(f: F, c: Case, measure: Measure) -> None:
    """With every word drawn once, the wrong words cost their mean over the vocabulary, times how many are wanted, the
    centre counting as nothing: the expectation of independent draws."""
    size, centre = len(c["outputs"]), c["centre"]
    scores = c["outputs"] @ c["h"]
    wrong = sum(softplus(s) for w, s in enumerate(scores) if w != centre) * c["negatives"] / size
    right = softplus(-scores[centre]) + wrong
    found = f(c["h"], c["outputs"], centre, np.arange(size), c["negatives"])
    measure.close(found, right, bound(1.0 + c["negatives"] * (1 + largest(scores)), size), "the loss")


@mutant("negative-sampling", "redrawn", kills="expectation", met="plausible: the centre replaced, not passed over")
def redrawn(h: Any, outputs: Any, centre: int, drawn: Any, negatives: float) -> Any:
    wrong = [softplus(h @ outputs[d]) for d in drawn if d != centre]
    return softplus(-(h @ outputs[centre])) + (negatives * np.mean(wrong) if wrong else 0.0)


@mutant("negative-sampling", "sum of the draws", kills="expectation", met="plausible: K for L / K")
def sum_of_the_draws(h: Any, outputs: Any, centre: int, drawn: Any, negatives: float) -> Any:
    return softplus(-(h @ outputs[centre])) + sum(softplus(h @ outputs[d]) for d in drawn if d != centre)
