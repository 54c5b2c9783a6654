"""Laws of drawing the next token."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.data.vocabulary import FIRST
from minilong.train.generate import choose

kind("sampling", "sampling(logits, temperature, top_k, top_p)", "The probability of each token to be drawn (n,).")


class Place:
    """Stands for a generator: gives one number."""

    def __init__(self, u: float) -> None:
        self.u = u

    def random(self) -> float:
        """The number."""
        return self.u


def our_distribution(logits: Any, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The measure of the numbers in [0, 1) for which our `choose` gives each token, found by bisection.

    Special tokens stand before the given ones, and are likelier than all: a draw of one raises.
    """
    scores = np.concatenate([np.full(FIRST, np.max(logits) + 5.0), logits])

    def token(u: float) -> int:
        numbers: Any = Place(u)
        return choose(scores, numbers, temperature=temperature, top_k=top_k, top_p=top_p) - FIRST

    last = float(np.nextafter(1.0, 0.0))
    probabilities = np.zeros(len(logits))
    spans = [(0.0, token(0.0), last, token(last))]
    while spans:
        low, first, high, second = spans.pop()
        middle = (low + high) / 2
        if first == second or high - low < 1e-13:
            probabilities[first] += middle - low
            probabilities[second] += high - middle
        else:
            between = token(middle)
            spans += [(low, first, middle, between), (middle, between, high, second)]
    return probabilities


subject("sampling", "choose", code=choose, equation="eq:sampling")(our_distribution)


def logits(n: Numbers, *, size: int, temperature: float, top_k: int, top_p: float) -> dict[str, Any]:
    """Different logits, so that ranks are certain."""
    return {
        "logits": 0.5 * n.order(size) + n.uniform(0.0, 0.2, size),
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p if n.chance(0.5) else float(n.rng.uniform(0.05, 0.95)),
    }


HEAT, KEPT, MASS = (1.0, 0.0, 0.5, 2.0, 1e-6), (0, 1, 2, 3, 10), (1.0, 0.9, 0.5, 0.1)
LOGITS = cases(logits, size=(1, 2, 3, 5), temperature=HEAT, top_k=KEPT, top_p=MASS)
PLAIN = cases(logits, size=(1, 2, 3, 5), temperature=HEAT, top_k=KEPT, top_p=(1.0,))
RANKED = cases(logits, size=(2, 3, 5, 7), temperature=(1.0, 0.5, 2.0), top_k=(1, 2, 3, 10), top_p=(1.0,))
NEAR = 1e-9
"""Distance from a boundary of top-p at which a case says nothing, and what bisection can miss of a probability."""


def drawn(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's distribution."""
    given = {**c, **changes}
    return np.asarray(f(*[given[name] for name in ("logits", "temperature", "top_k", "top_p")]), np.float64)


@law("sampling", "softmax-of-temperature", serves="eq:sampling", cases=PLAIN)
def softmax_of_temperature(f: F, c: Case, measure: Measure) -> None:
    """Without limits, probabilities are the softmax of logits / temperature; at temperature 0 the likeliest has 1."""
    if c["temperature"] == 0:
        expected = (np.arange(len(c["logits"])) == np.argmax(c["logits"])).astype(float)
    else:
        e = np.exp((c["logits"] - c["logits"].max()) / c["temperature"])
        expected = e / e.sum()
    measure.close(drawn(f, c, top_k=0, top_p=1.0), expected, bound(1e3, len(expected)), "a probability")


@law("sampling", "likeliest-only", serves="eq:sampling", cases=RANKED)
def likeliest_only(f: F, c: Case, measure: Measure) -> None:
    """With top-k the k likeliest keep their proportions, and no other token is ever drawn."""
    p, whole = drawn(f, c, top_p=1.0), drawn(f, c, top_k=0, top_p=1.0)
    kept = np.argsort(-c["logits"])[: c["top_k"] or None]
    expected = np.zeros_like(whole)
    expected[kept] = whole[kept] / whole[kept].sum()
    measure.close(p, expected, bound(1e3, len(p)), "a probability")


@law("sampling", "smallest-nucleus", serves="eq:sampling", cases=LOGITS)
def smallest_nucleus(f: F, c: Case, measure: Measure) -> None:
    """With top-p the fewest likeliest tokens whose mass, after temperature and top-k, reaches p; at least one."""
    p, whole = drawn(f, c), drawn(f, c, top_p=1.0)
    order = np.argsort(-c["logits"])
    sums = np.cumsum(whole[order])
    if np.min(np.abs(sums - c["top_p"])) < NEAR:
        return
    count = len(order) if c["top_p"] >= 1 else int(np.argmax(sums >= c["top_p"])) + 1
    expected = np.zeros_like(whole)
    expected[order[:count]] = whole[order[:count]] / sums[count - 1]
    measure.close(p, expected, bound(1e3, len(p)), "a probability")


def stated(logits: Any, temperature: float, top_k: int, top_p: float, *, mistake: str) -> np.ndarray:
    """Sampling with one mistake."""
    if temperature == 0 and mistake != "no limit":
        return np.asarray(np.arange(len(logits)) == np.argmax(logits), np.float64)
    with np.errstate(all="ignore"):
        x = logits * temperature if mistake == "multiplied" else logits / temperature
        e = np.exp(x - np.max(x))
    p = e / e.sum()
    order = np.argsort(-p, kind="stable")
    if top_k and mistake != "k in index order":
        p[order[top_k:]] = 0
    elif top_k:
        p[top_k:] = 0
    p = p / p.sum() if mistake != "not renormalised" else p
    if top_p < 1:
        sums = np.cumsum(p[order])
        count = int(np.searchsorted(sums, top_p)) + (0 if mistake == "short" else 1)
        p[order[max(count, 1) :]] = 0
    return np.asarray(p / p.sum() if mistake != "not renormalised" else p)


def with_mistake(mistake: str) -> F:
    """The function of one mistake."""
    return lambda logits, temperature, top_k, top_p: stated(logits, temperature, top_k, top_p, mistake=mistake)


mutant(
    "sampling",
    "logits times temperature",
    kills="softmax-of-temperature",
    met="plausible: an inverse temperature under the name of a temperature",
)(with_mistake("multiplied"))
mutant(
    "sampling",
    "temperature 0 divides by zero",
    kills="softmax-of-temperature",
    met="plausible: the limit not taken; transformers refuses 0 with an error for this reason",
)(with_mistake("no limit"))
mutant(
    "sampling",
    "top-k keeps the first k of the vocabulary",
    kills="likeliest-only",
    met="plausible: the cut made in index order, without ranking",
)(with_mistake("k in index order"))
mutant("sampling", "the token that crosses p is cut off", kills="smallest-nucleus",
       met="transformers' first top-p: indices shifted by one to keep the first token above the threshold")(
    with_mistake("short"))  # fmt: skip
mutant(
    "sampling",
    "not normalised after the cut",
    kills=("likeliest-only", "smallest-nucleus"),
    met="plausible: the last token then gets all the mass that was cut off",
)(with_mistake("not renormalised"))
