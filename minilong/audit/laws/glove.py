"""Laws of GloVe: loss and gradients of a pair, and what the training reaches where an exact fit exists."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.autodiff import ops, value_and_grad
from minilong.embeddings.cooccurrence import PAIR, Cooccurrence
from minilong.embeddings.glove import GloveSettings, glove_gradients, train_glove

kind(
    "glove",
    "glove(words, contexts, values, most, power)",
    "Rows of pairs (n, d + 1), biases last, their counts (n,), X_max and a -> losses (n,), gradients of both rows.",
)


@subject("glove", "glove_gradients", code=glove_gradients, equation="eq:glove")
def ours(words: Any, contexts: Any, values: Any, most: float, power: float) -> Any:
    return glove_gradients(words, contexts, values, most=most, power=power)


def pairs(r: Numbers, *, n: int, d: int, most: float, power: float) -> Case:
    """Pairs whose counts lie on both sides of X_max."""
    return {
        "words": r.normal(n, d + 1),
        "contexts": r.normal(n, d + 1),
        "values": np.exp(r.uniform(-2, 4, n)),
        "most": most,
        "power": power,
    }


PAIRS = cases(pairs, n=(1, 2, 5), d=(1, 2, 5), most=(10.0, 1.0, 100.0), power=(0.75, 1.0, 0.5))


def parts(f: F, c: Case, **changes: Any) -> Any:
    """Losses and gradients of a case."""
    given = {**c, **changes}
    return f(*[x.copy() if isinstance(x, np.ndarray) else x for x in given.values()])


def near(c: Case) -> float:
    """Rounding of a squared miss."""
    size = largest(c["words"], c["contexts"]) + 5
    return bound((size * size * c["words"].shape[1]) ** 2 * size, c["words"].size)


@law("glove", "autodiff", serves="eq:glove", cases=PAIRS)
def autodiff(f: F, c: Case, measure: Measure) -> None:
    """The loss is half the weighted squared miss, and the gradients are those that autodiff makes of it."""
    weight = np.minimum(1.0, (c["values"] / c["most"]) ** c["power"])

    def loss(inputs: Any) -> Any:
        x, y = inputs
        scores = ops.sum(x[:, :-1] * y[:, :-1], axis=-1) + x[:, -1] + y[:, -1]
        miss = scores - np.log(c["values"])
        return ops.sum(miss * miss * weight) * 0.5

    total, right = value_and_grad(loss)((c["words"], c["contexts"]))
    losses, *found = parts(f, c)
    measure.close(np.sum(losses), total, near(c), "the sum of the losses")
    for name, a, b in zip(("words", "contexts"), found, right, strict=True):
        measure.close(a, b, near(c), f"the gradient of {name}")


@law("glove", "exact fit", serves="eq:glove", cases=PAIRS)
def exact_fit(f: F, c: Case, measure: Measure) -> None:
    """Counts that are the exponentials of the scores lose nothing and pull at nothing."""
    scores = np.sum(c["words"][:, :-1] * c["contexts"][:, :-1], axis=1) + c["words"][:, -1] + c["contexts"][:, -1]
    exact = np.exp(np.clip(scores, -20, 20))
    kept = np.abs(scores) < 20
    for x in parts(f, c, values=exact):
        measure.close(np.asarray(x)[kept], 0 * np.asarray(x)[kept], near(c), "loss and gradients")


@law("glove", "capped weight", serves="eq:glove", cases=PAIRS)
def capped_weight(f: F, c: Case, measure: Measure) -> None:
    """A pair at X_max or above has the full weight: X_max does not matter to it, as long as it is below."""
    least = float(c["values"].min())
    measure.close(parts(f, c, most=least)[0], parts(f, c, most=least / 10)[0], near(c), "the losses")


@law("glove", "roles", serves="eq:glove", cases=PAIRS)
def roles(f: F, c: Case, measure: Measure) -> None:
    """Words and contexts in exchanged roles lose the same."""
    turned = parts(f, c, words=c["contexts"], contexts=c["words"])
    measure.close(turned[0], parts(f, c)[0], near(c), "the losses")


def with_mistake(mistake: str) -> F:
    """The formula with one mistake."""

    def f(words: Any, contexts: Any, values: Any, most: float, power: float) -> Any:
        weight = (values / most) ** power
        weight = weight if mistake == "uncapped" else np.minimum(1.0, weight)
        miss = np.sum(words[:, :-1] * contexts[:, :-1], axis=1) + words[:, -1]
        miss += 0 if mistake == "one bias" else contexts[:, -1]
        miss -= values if mistake == "counts" else np.log1p(values) if mistake == "log1p" else np.log(values)
        pull = (weight * miss)[:, None] * (2.0 if mistake == "twice" else 1.0)
        one = np.ones((len(miss), 1))
        x = pull * np.concatenate([contexts[:, :-1], one], axis=1)
        y = pull * np.concatenate([words[:, :-1], 0 * one if mistake == "one bias" else one], axis=1)
        return weight * miss**2 / 2, x, y

    return f


for name, kills, met in (
    ("uncapped", ("capped weight", "autodiff"), "plausible: the minimum with 1 forgotten"),
    ("counts", ("exact fit", "autodiff"), "the article's: vectors from the matrix, without its logarithm"),
    ("log1p", ("exact fit",), "log(1 + X), as for zeros that GloVe leaves out"),
    ("twice", ("autodiff",), "the paper's sum has no 1/2, and its program has"),
    ("one bias", ("roles", "exact fit"), "plausible: one bias for both"),
):
    mutant("glove", name, kills=kills, met=met)(with_mistake(name))


# What training reaches

kind(
    "glove-fit",
    "glove_fit(logarithms, width, seed)",
    "Logarithms of counts (V, V), symmetric, of rank `width` and biases -> the fitted ones after training.",
)


def fitted(logarithms: Any, width: int, seed: int, lr: float = 0.3, epochs: int = 600) -> Any:
    """The scores of all pairs after training."""
    size = len(logarithms)
    rows, columns = np.triu_indices(size)
    counts = np.empty(rows.size, PAIR)
    counts["key"], counts["value"] = rows * size + columns, np.exp(logarithms[rows, columns])
    settings = GloveSettings(width=width, epochs=epochs, lr=lr, batch=rows.size, seed=seed, most=1.0)
    found = train_glove(Cooccurrence(counts, size), settings)
    scores = found.words[:, :-1] @ found.contexts[:, :-1].T
    return scores + found.words[:, -1:] + found.contexts[:, -1]


subject("glove-fit", "train_glove", code=train_glove, equation="eq:glove")(
    lambda logarithms, width, seed: fitted(logarithms, width, seed)
)


def exact(r: Numbers, *, size: int, width: int) -> Case:
    """A symmetric matrix of the rank and biases, all of whose counts are above X_max = 1."""
    x, b = r.normal(size, width), r.uniform(0, 1, size)
    logarithms = x @ x.T + b[:, None] + b
    return {"logarithms": logarithms - min(float(logarithms.min()), 0.0), "width": width + 1, "seed": 1}


EXACT = cases(exact, size=(5, 8), width=(1, 2))


@law("glove-fit", "optimum", serves="eq:glove", cases=EXACT, share=0.1)
def optimum(f: F, c: Case, measure: Measure) -> None:
    """Where vectors of the width fit all counts exactly, training finds a fit: the mean squared miss falls below a
    thousandth of the variance of the logarithms."""
    miss = f(c["logarithms"], c["width"], c["seed"]) - c["logarithms"]
    spread = float(np.var(c["logarithms"])) + 1e-3
    measure.holds(np.mean(miss**2) < 1e-3 * spread, f"the mean squared miss is {np.mean(miss**2)}, of {spread}")


@mutant("glove-fit", "rank too low", kills="optimum", met="plausible: the bias takes a component of the width")
def rank_too_low(logarithms: Any, width: int, seed: int) -> Any:
    return fitted(logarithms, width - 2, seed) if width > 2 else fitted(logarithms, width, seed)


@mutant("glove-fit", "hardly trained", kills="optimum", met="plausible: a decaying rate that decays too soon")
def hardly_trained(logarithms: Any, width: int, seed: int) -> Any:
    return fitted(logarithms, width, seed, epochs=5)
