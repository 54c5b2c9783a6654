"""The two layouts of rotary pairs: converted weights give the same scores in the other layout, others do not."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.positions import rotary, to_half, to_interleaved

kind(
    "rotary-layout",
    "rotary_layout(weight, heads)",
    "A query or key projection weight (n, heads d), made for interleaved pairs -> the one for half-split pairs.",
)


@subject("rotary-layout", "to half-split", code=to_half, equation="eq:rotary-layout")
def ours(weight: Any, heads: int) -> Any:
    return to_half(weight, heads)


def make(r: Numbers, n: int, heads: int, d: int, t: int) -> Case:
    """Inputs x (t, n) and projections of queries and keys, whose columns all differ."""
    wq, wk = (r.nonzero(n, heads * d) + 0.25 * np.arange(heads * d) for _ in range(2))
    return {
        "x": r.nonzero(t, n), "wq": wq, "wk": wk, "heads": heads, "at": r.integers(1, 1000, t)
    }  # fmt: skip


SIZES = {"n": (1, 2, 5), "heads": (1, 2, 3), "t": (2, 3, 5)}
DRAWN = cases(make, d=(6, 2, 4, 8, 10), **SIZES)
MIXED = cases(make, d=(6, 4, 8, 10), **SIZES)


def scores(c: Case, wq: np.ndarray, wk: np.ndarray, interleaved: bool) -> np.ndarray:
    """Scores (heads, t, t) of turned queries and keys."""
    turned = []
    for w in (wq, wk):
        rows = np.moveaxis((c["x"] @ w).reshape(len(c["x"]), c["heads"], -1), 1, 0)
        turned.append(rotary(rows, c["at"], interleaved=interleaved))
    return np.asarray(turned[0] @ turned[1].swapaxes(-1, -2))


def rounding(c: Case) -> float:
    """Angles are rounded to eps times the position."""
    n, width = c["wq"].shape
    size = largest(c["x"]) ** 2 * largest(c["wq"]) * largest(c["wk"]) * n * n * width
    return bound(size * (1 + largest(c["at"])), n * width)


def converted(f: F, c: Case) -> list[np.ndarray]:
    """Both projections for half-split pairs."""
    return [call(f, c[name], c["heads"]) for name in ("wq", "wk")]


@law("rotary-layout", "same-scores", serves=("eq:rotary-layout", "eq:rotary"), cases=DRAWN)
def same_scores(f: F, c: Case, measure: Measure) -> None:
    """Converted queries and keys have the same scores in the half-split layout as the given ones interleaved."""
    wq, wk = converted(f, c)
    right = scores(c, c["wq"], c["wk"], interleaved=True)
    measure.close(scores(c, wq, wk, interleaved=False), right, rounding(c), "the score")


@law("rotary-layout", "same-components", serves=("eq:rotary-layout", "eq:rotary"), cases=DRAWN)
def same_components(f: F, c: Case, measure: Measure) -> None:
    """Turning in the half-split layout after the permutation is the permutation after turning interleaved."""
    heads, d = c["heads"], c["wq"].shape[1] // c["heads"]
    for x in np.moveaxis((c["x"] @ c["wq"]).reshape(len(c["x"]), heads, d), 1, 0):
        found = rotary(call(f, x, 1), c["at"], interleaved=False)
        measure.close(found, call(f, rotary(x, c["at"]), 1), rounding(c), "a turned component")


@law("rotary-layout", "columns", serves="eq:rotary-layout", cases=DRAWN)
def columns(f: F, c: Case, measure: Measure) -> None:
    """The columns of each head are those of that head in another order, bit for bit; `to_interleaved` undoes it."""
    w, heads = c["wq"], c["heads"]
    found = call(f, w, heads)
    measure.holds(found.shape == w.shape, f"the weight has shape {found.shape}")
    for h, (new, old) in enumerate(zip(np.split(found, heads, axis=1), np.split(w, heads, axis=1), strict=True)):
        measure.holds(sorted(new.T.tolist()) == sorted(old.T.tolist()), f"head {h} has other columns than before")
    measure.holds(np.array_equal(to_interleaved(found, heads), w), "`to_interleaved` does not undo it")


@law("rotary-layout", "mixing-shows", serves=("eq:rotary-layout", "eq:rotary"), cases=MIXED)
def mixing_shows(f: F, c: Case, measure: Measure) -> None:
    """Converted weights turned interleaved, or one of the two converted, do not give the given scores."""
    right, slack = scores(c, c["wq"], c["wk"], interleaved=True), rounding(c)
    wq, wk = converted(f, c)
    for name, wrong in (("both", scores(c, wq, wk, True)), ("one", scores(c, wq, c["wk"], False))):
        measure.holds(np.abs(wrong - right).max() > slack, f"{name} of the weights converted, and no score changed")


@law("rotary-layout", "pure", serves="eq:rotary-layout", cases=DRAWN)
def pure(f: F, c: Case, measure: Measure) -> None:
    """The given weight is left as it is."""
    leaves_alone(f, {"weight": c["wq"], "heads": c["heads"]}, measure)


# Mutants


@mutant(
    "rotary-layout", "unconverted", kills=("same-scores", "mixing-shows", "same-components"),
    met="how-to-train-your-gpt 6, gpt-neox 834: weights of one layout, code of the other",
)  # fmt: skip
def unconverted(weight: Any, heads: int) -> Any:
    return weight


@mutant(
    "rotary-layout", "other-way", kills=("same-scores", "columns"),
    met="plausible: the permutation for its inverse, as in a conversion run backwards",
)  # fmt: skip
def other_way(weight: Any, heads: int) -> Any:
    return to_interleaved(weight, heads)


@mutant(
    "rotary-layout", "across-heads", kills=("same-scores", "columns"),
    met="plausible: the whole width permuted as one head",
)  # fmt: skip
def across_heads(weight: Any, heads: int) -> Any:
    return to_half(weight, 1)


@mutant("rotary-layout", "turned-weights", kills="columns", met="plausible: -x2 of rotate_half put into the weights")
def turned_weights(weight: Any, heads: int) -> Any:
    return -to_half(weight, heads)


@mutant("rotary-layout", "in-place", kills="pure", met="plausible: columns exchanged in the checkpoint's own memory")
def in_place(weight: Any, heads: int) -> Any:
    weight[...] = to_half(weight, heads)[..., ::-1]
    return weight
