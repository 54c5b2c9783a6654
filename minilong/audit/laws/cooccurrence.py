"""Laws of counting which words occur near each other: in memory, and with files where memory is short."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.embeddings.cooccurrence import count_pairs
from minilong.text.corpus import END, WordCorpus, WordCounts

kind(
    "cooccurrence",
    "cooccurrence(ids, size, reach)",
    "Word numbers with -1 behind each unit, the number of words, the largest distance -> weights (size, size).",
)


def dense(ids: Any, size: int, reach: int, memory: int) -> Any:
    """Our pairs as a matrix."""
    words = WordCounts(tuple(map(str, range(size))), np.maximum(np.bincount(ids[ids >= 0], minlength=size), 1))
    counts = count_pairs(WordCorpus(words, ids, int(np.sum(ids == END))), reach, memory=memory)
    rows, columns, values = counts.part(slice(None))
    matrix = np.zeros((size, size))
    matrix[rows, columns] = values
    matrix[columns, rows] = values
    return matrix


@subject("cooccurrence", "count_pairs", code=count_pairs, equation="eq:cooccurrence")
def ours(ids: Any, size: int, reach: int) -> Any:
    return dense(ids, size, reach, 1 << 30)


@subject("cooccurrence", "count_pairs (short of memory)", code=count_pairs, equation="eq:cooccurrence")
def ours_in_files(ids: Any, size: int, reach: int) -> Any:
    return dense(ids, size, reach, 256)


def text(r: Numbers, *, words: int, size: int, units: int, reach: int) -> Case:
    """Units of words; also an empty one."""
    ids = r.integers(0, size, words)
    ids[r.integers(0, words, units)] = END
    return {"ids": ids, "size": size, "reach": reach}


TEXTS = cases(text, words=(3, 1, 8, 40), size=(2, 1, 4), units=(1, 4), reach=(1, 2, 5, 60))


def counted(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The matrix of a case."""
    given = {**c, **changes}
    return np.asarray(f(given["ids"].copy(), given["size"], given["reach"]), np.float64)


@law("cooccurrence", "definition", serves="eq:cooccurrence", cases=TEXTS)
def definition(f: F, c: Case, measure: Measure) -> None:
    """Each ordered pair of places in one unit, at most so far apart, adds 1/distance."""
    right = np.zeros((c["size"], c["size"]))
    units = np.cumsum(c["ids"] == END)
    for s, v in enumerate(c["ids"].tolist()):
        for t, w in enumerate(c["ids"].tolist()):
            if s != t and v >= 0 and w >= 0 and units[s] == units[t] and abs(s - t) <= c["reach"]:
                right[v, w] += 1 / abs(s - t)
    measure.close(counted(f, c), right, bound(1.0 + float(np.max(right, initial=0)), c["ids"].size), "a weight")


@law("cooccurrence", "symmetric", serves="eq:cooccurrence", cases=TEXTS)
def symmetric(f: F, c: Case, measure: Measure) -> None:
    """What v counts for w, w counts for v."""
    x = counted(f, c)
    measure.close(x, x.T, bound(1.0 + float(np.max(x, initial=0)), c["ids"].size), "a weight")


@law("cooccurrence", "backwards", serves="eq:cooccurrence", cases=TEXTS)
def backwards(f: F, c: Case, measure: Measure) -> None:
    """A text read backwards counts the same."""
    x = counted(f, c)
    turned = np.concatenate([c["ids"][::-1], [END]])
    measure.close(counted(f, c, ids=turned), x, bound(1.0 + float(np.max(x, initial=0)), c["ids"].size), "a weight")


@law("cooccurrence", "units add", serves="eq:cooccurrence", cases=TEXTS)
def units_add(f: F, c: Case, measure: Measure) -> None:
    """A text after itself, parted by an end, counts twice."""
    x, ids = counted(f, c), np.concatenate([c["ids"], [END], c["ids"]])
    measure.close(counted(f, c, ids=ids), 2 * x, bound(1.0 + 2 * float(np.max(x, initial=0)), ids.size), "a weight")


def wrongly(ids: Any, size: int, reach: int, mistake: str) -> Any:
    """Counting with one mistake."""
    x, units = np.zeros((size, size)), np.cumsum(ids == END)
    places = [(place, n) for place, n in enumerate(ids.tolist()) if n >= 0]
    for k, (s, v) in enumerate(places):
        for t, w in places[k + 1 :]:
            if (units[s] != units[t] and mistake != "across") or t - s > reach - (mistake == "short"):
                continue
            weight = 1.0 if mistake == "flat" else 1 / (t - s)
            x[v, w] += weight
            if mistake != "one side" and not (mistake == "own word once" and v == w):
                x[w, v] += weight
    return x


for name, kills, met in (
    ("across", ("definition", "units add"), "plausible: sentences joined before counting"),
    ("short", ("definition",), "plausible: range(1, reach)"),
    ("flat", ("definition",), "GloVe with distance weighting switched off"),
    ("one side", ("symmetric", "backwards"), "GloVe with -symmetric 0: left contexts only"),
    ("own word once", ("definition",), "plausible: the diagonal of the upper triangle, not doubled"),
):
    mutant("cooccurrence", name, kills=kills, met=met)(
        lambda ids, size, reach, name=name: wrongly(ids, size, reach, name)
    )
