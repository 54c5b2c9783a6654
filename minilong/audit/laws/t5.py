"""T5's relative positions: ranges of distances, and the learned bias of each head and range."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, call
from minilong.positions import t5_bucket, t5_values

kind(
    "t5-bucket",
    "t5_bucket(distance, causal, buckets, longest)",
    "distance (t,): integers i - j of a query i and a key j -> the number of each one's range, below `buckets`.",
)
kind(
    "t5-bias",
    "t5_bias(table, t, s, offset, causal, longest)",
    "table (buckets, heads) -> biases (heads, t, s) of t queries, the first at position `offset` among s keys.",
)


@subject("t5-bucket", "t5 buckets", code=t5_bucket, equation="eq:t5-bucket")
def ours_bucket(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return t5_bucket(distance, causal=causal, buckets=buckets, longest=longest)


@subject("t5-bias", "t5 values", code=t5_values, equation="eq:t5-bias")
def ours_bias(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return t5_values(table, causal=causal, longest=longest).dense(t, s, offset)


def make(r: Numbers, causal: bool, shape: tuple[int, int], reach: int) -> Case:
    """All distances up to a reach in either direction, and some far ones."""
    far = r.integers(-5 * reach, 5 * reach, 5)
    return {
        "distance": np.concatenate([np.arange(-reach, reach + 1), far]), "causal": causal, "buckets": shape[0],
        "longest": shape[1],
    }  # fmt: skip


SHAPES = ((32, 128), (8, 20), (4, 5), (16, 64), (6, 100), (64, 256), (10, 9))
DRAWN = cases(make, causal=(True, False), shape=SHAPES, reach=(40, 5, 150, 300))


def tables(
    r: Numbers, causal: bool, shape: tuple[int, int], heads: int, t: int, s: int, offset: int, scattered: bool
) -> Case:
    """A table, and sizes; `scattered` lengths reach beyond the longest distance."""
    far = shape[1] if scattered else 0
    return {
        "table": r.normal(shape[0], heads), "t": t, "s": s, "offset": offset + far, "causal": causal,
        "longest": shape[1],
    }  # fmt: skip


TABLES = cases(
    tables, causal=(True, False), shape=((8, 20), (4, 5), (32, 128), (6, 10)), heads=(1, 2, 3), t=(3, 1, 7, 13),
    s=(3, 1, 5, 30), offset=(0, 2, 9), scattered=(False, True),
)  # fmt: skip


def buckets_of(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's ranges."""
    return call(f, *{**c, **changes}.values())


def one_way(c: Case) -> tuple[int, int]:
    """Ranges in one direction, and those of them that hold one distance."""
    n = c["buckets"] if c["causal"] else c["buckets"] // 2
    return n, n // 2


def expected(c: Case, d: int) -> int:
    """The range of one distance, by comparing powers of whole numbers."""
    n, exact = one_way(c)
    far = max(d, 0) if c["causal"] else abs(d)
    later = n if d < 0 and not c["causal"] else 0
    if far < exact:
        return later + far
    steps = n - exact
    reached = [k for k in range(steps) if far**steps >= c["longest"] ** k * exact ** (steps - k)]
    return later + exact + reached[-1]


@law("t5-bucket", "definition", serves="eq:t5-bucket", cases=DRAWN)
def bucket_definition(f: F, c: Case, measure: Measure) -> None:
    """Near distances have a range each; range e + k begins at the distance e (D/e)^(k/(B - e))."""
    found = buckets_of(f, c)
    for at, d in enumerate(c["distance"]):
        measure.holds(found[at] == expected(c, int(d)), f"distance {d} is in range {found[at]}")


@law("t5-bucket", "near", serves="eq:t5-bucket", cases=DRAWN)
def near(f: F, c: Case, measure: Measure) -> None:
    """Distances below half the ranges of a direction have a range of their own, numbered by the distance."""
    exact = np.arange(one_way(c)[1])
    found = buckets_of(f, c, distance=exact)
    measure.holds(np.array_equal(found, exact), f"distances 0, 1, ... are in the ranges {found!r}")


@law("t5-bucket", "monotone", serves="eq:t5-bucket", cases=DRAWN)
def monotone(f: F, c: Case, measure: Measure) -> None:
    """A farther earlier key is never in a lower range, and each range is met in turn up to the longest distance."""
    found = buckets_of(f, c, distance=np.arange(3 * c["longest"]))
    measure.holds(np.all(np.diff(found) >= 0), f"the ranges of 0, 1, ... are {found!r}")
    measure.holds(found[0] == 0, f"distance 0 is in range {found[0]}")


@law("t5-bucket", "far", serves="eq:t5-bucket", cases=DRAWN)
def far(f: F, c: Case, measure: Measure) -> None:
    """From the longest distance on all earlier keys share the last range of their direction."""
    found = buckets_of(f, c, distance=c["longest"] + np.array([0, 1, 7, 1000, 100_000]))
    measure.holds(np.all(found == one_way(c)[0] - 1), f"the ranges of far distances are {found!r}")


@law("t5-bucket", "directions", serves="eq:t5-bucket", cases=DRAWN)
def directions(f: F, c: Case, measure: Measure) -> None:
    """Causal: later keys count as distance 0. Else no range serves earlier and later keys, which mirror one another."""
    ahead = np.arange(1, 2 * c["longest"])
    later, earlier = buckets_of(f, c, distance=-ahead), buckets_of(f, c, distance=ahead)
    right = 0 * ahead if c["causal"] else earlier + c["buckets"] // 2
    measure.holds(np.array_equal(later, right), f"later keys are in the ranges {later!r}")
    if not c["causal"]:
        zero = buckets_of(f, c, distance=np.array([0]))
        shared = set(later.tolist()) & {*earlier.tolist(), *zero.tolist()}
        measure.holds(not shared, f"the ranges {sorted(shared)} serve both directions")


@law("t5-bucket", "in-range", serves="eq:t5-bucket", cases=DRAWN)
def in_range(f: F, c: Case, measure: Measure) -> None:
    """Every range has a row in the table."""
    found = buckets_of(f, c)
    measure.holds(np.all((found >= 0) & (found < c["buckets"])), f"the ranges are {found!r}")


@law("t5-bias", "definition", serves=("eq:t5-bias", "eq:t5-bucket"), cases=TABLES)
def bias_definition(f: F, c: Case, measure: Measure) -> None:
    """A score gets the entry of its head and of its distance's range, not rounded."""
    found = call(f, *c.values())
    sizes = {"causal": c["causal"], "buckets": len(c["table"]), "longest": c["longest"]}
    right = np.zeros((c["table"].shape[1], c["t"], c["s"]))
    for i in range(c["t"]):
        for j in range(c["s"]):
            right[:, i, j] = c["table"][expected(sizes, i + c["offset"] - j)]
    measure.close(found, right, 0.0, "the bias")


@law("t5-bias", "translation", serves="eq:t5-bias", cases=TABLES)
def translation(f: F, c: Case, measure: Measure) -> None:
    """Only distances count: with three more keys in front, the biases of the others stay as they were."""
    moved = call(f, *{**c, "s": c["s"] + 3, "offset": c["offset"] + 3}.values())
    measure.close(moved[..., 3:], call(f, *c.values()), 0.0, "the bias of a key, three places on,")


@law("t5-bias", "far-is-one", serves="eq:t5-bias", cases=TABLES)
def far_is_one(f: F, c: Case, measure: Measure) -> None:
    """Keys at the longest distance and beyond have one bias, however long the text."""
    found = call(f, *{**c, "t": 1, "s": 40, "offset": c["longest"] + 39}.values())
    measure.close(found, np.broadcast_to(found[..., :1], found.shape), 0.0, "the bias of a far key")
    last = len(c["table"]) - 1 if c["causal"] else len(c["table"]) // 2 - 1
    measure.close(found[:, 0, 0], c["table"][last], 0.0, "the bias of a far key")


# Mutants


def published(
    distance: Any,
    buckets: int,
    longest: int,
    two_way: bool,
    sign: int = 1,
    clamp: bool = True,
    round_to: Any = np.floor,
) -> Any:
    """The published form, by logarithms; `sign` -1 exchanges the directions."""
    d = sign * np.asarray(distance)
    b = buckets // 2 if two_way else buckets
    n = np.abs(d) if two_way else np.maximum(d, 0)
    e = b // 2
    large = e + round_to(np.log(np.maximum(n, 1) / e) / np.log(longest / e) * (b - e) + 1e-9).astype(int)
    large = np.minimum(large, b - 1) if clamp else large
    return np.where(n < e, n, large) + (np.where(d < 0, b, 0) if two_way else 0)


@mutant(
    "t5-bucket", "modes-exchanged", kills=("directions", "definition", "far"),
    met="x-transformers PR 10 mended its ranges; plausible there: causal and bidirectional exchanged",
)  # fmt: skip
def modes_exchanged(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return published(distance, buckets, longest, two_way=causal)


@mutant("t5-bucket", "sign", kills=("directions", "near"), met="gluon-nlp 1470: query - key for key - query")
def sign(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return published(distance, buckets, longest, not causal, sign=-1)


@mutant("t5-bucket", "not-clamped", kills=("in-range", "far"), met="plausible: no minimum with the last range")
def not_clamped(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return published(distance, buckets, longest, not causal, clamp=False)


@mutant("t5-bucket", "rounded", kills="definition", met="plausible: rounded to the nearest range, not down")
def rounded(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return published(distance, buckets, longest, not causal, round_to=np.round)


@mutant("t5-bucket", "one-direction", kills="directions", met="plausible: the sign's half forgotten in an encoder")
def one_direction(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    return published(np.maximum(distance, 0) if causal else np.abs(distance), buckets, longest, not causal)


@mutant("t5-bucket", "all-logarithmic", kills=("near", "definition"), met="plausible: no exact half")
def all_logarithmic(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    b = buckets if causal else buckets // 2
    n = np.maximum(distance, 0) if causal else np.abs(distance)
    large = np.minimum((np.log1p(n) / np.log1p(longest) * b).astype(int), b - 1)
    return large + (np.where(np.asarray(distance) < 0, b, 0) if not causal else 0)


@mutant("t5-bucket", "wraps", kills=("monotone", "far"), met="plausible: distance modulo the ranges")
def wraps(distance: Any, causal: bool, buckets: int, longest: int) -> Any:
    b = buckets if causal else buckets // 2
    n = np.maximum(distance, 0) if causal else np.abs(distance)
    return n % b + (np.where(np.asarray(distance) < 0, b, 0) if not causal else 0)


def biased(table: Any, distance: Any, causal: bool, longest: int) -> Any:
    """Biases of a matrix of distances."""
    flat = ours_bucket(distance.ravel(), causal, len(table), longest).reshape(distance.shape)
    return np.moveaxis(table[flat], -1, 0)


def grid(t: int, s: int, offset: int) -> Any:
    return np.arange(t)[:, None] + offset - np.arange(s)


@mutant("t5-bias", "offset-ignored", kills=("definition", "far-is-one"), met="plausible: a chunk counted from 0")
def offset_ignored(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return biased(table, grid(t, s, 0), causal, longest)


@mutant("t5-bias", "last-queries", kills=("definition", "translation"), met="x-transformers: queries are the last keys")
def last_queries(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return biased(table, grid(t, s, max(s - t, 0)) + offset % 3, causal, longest)


@mutant("t5-bias", "heads-first", kills="definition", met="plausible: the table read as (heads, buckets)")
def heads_first(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return biased(table.T.reshape(table.shape), grid(t, s, offset), causal, longest)


@mutant("t5-bias", "cut-short", kills=("definition", "far-is-one"), met="plausible: the table of values half as long")
def cut_short(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return biased(table, np.clip(grid(t, s, offset), -longest // 2, longest // 2), causal, longest)


@mutant("t5-bias", "grows-on", kills="far-is-one", met="plausible: the longest distance taken from the text's length")
def grows_on(table: Any, t: int, s: int, offset: int, causal: bool, longest: int) -> Any:
    return biased(table, grid(t, s, offset), causal, max(longest, offset + t + 40))
