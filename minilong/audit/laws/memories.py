"""Laws of streaming memories: attention over what a memory gives, piece by piece, is one pass under its definition.

Each memory is a kind, since each has a definition of its own; the wrong memories are in `memories_mutants.py`. A bias
of -slope times the distance stands in for any position scheme: it shows where a memory thinks that its rows are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.backend import array_module, beside
from minilong.memory import Compressive, Compressor, Full, Memory, Segments, Window

STREAM = "q, k, v (b, h, n, d); bias: -slope x distance; splits: lengths of the pieces, with the sum n -> (b, h, n, d)"
kind("cache", "cache(q, k, v, window, sinks, slope, splits)", f"{STREAM}. window: None admits all keys.")
kind("segment-memory", "segment_memory(q, k, v, segment, memory, slope, splits)", STREAM)
kind(
    "compressive",
    "compressive(q, k, v, segment, memory, compressed, rate, sort, slope, splits)",
    f"{STREAM}. The rate divides segment and memory; sort: mean or max.",
)

Places = Callable[[Memory, int, int], tuple[np.ndarray, np.ndarray]]


def pieces(policy: Memory, splits: list[int]) -> Iterator[tuple[int, int]]:
    """(rows seen, rows now), where a memory cuts the pieces further."""
    seen = 0
    for length in splits:
        end = seen + length
        while seen < end:
            room = policy.room(seen)
            t = end - seen if room is None else min(end - seen, room)
            yield seen, t
            seen += t


def in_stream(policy: Memory, seen: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of queries and of keys."""
    at = policy.visible(seen, t)
    return at[-t:], at


def streamed(
    policy: Memory, q: Any, k: Any, v: Any, slope: float, splits: list[int], places: Places = in_stream
) -> Any:
    """Attention of each piece over what the memory gives it."""
    state, y = policy.init(), []
    for seen, t in pieces(policy, splits):
        part = slice(seen, seen + t)
        state = policy.write(state, (k[..., part, :], v[..., part, :]))
        keys, values = policy.read(state)
        i, j = places(policy, seen, t)
        bias = beside(q, -slope * np.abs(i[:, None] - j))
        y.append(naive(q[..., part, :], keys, values, mask=policy.mask(seen, t), bias=bias))
    return array_module(q).concatenate(y, axis=-2)


def window_of(window: int | None, sinks: int) -> Memory:
    """The cache that a case asks for."""
    return Full() if window is None else Window(window, sinks)


@subject("cache", "Full and Window", code=Window.write, equation="eq:cache")
def ours_cache(q: Any, k: Any, v: Any, window: int | None, sinks: int, slope: float, splits: list[int]) -> Any:
    return streamed(window_of(window, sinks), q, k, v, slope, splits)


@subject("segment-memory", "Segments", code=Segments.write, equation="eq:segment-memory")
def ours_segments(q: Any, k: Any, v: Any, segment: int, memory: int, slope: float, splits: list[int]) -> Any:
    return streamed(Segments(segment, memory), q, k, v, slope, splits)


@subject("compressive", "Compressive", code=Compressive.turn, equation="eq:compressive")
def ours_compressive(
    q: Any, k: Any, v: Any, segment: int, memory: int, compressed: int, rate: int, sort: str, slope: float, splits: Any
) -> Any:
    return streamed(Compressive(segment, memory, compressed, Compressor(sort, rate)), q, k, v, slope, splits)


# Cases

NAMES = {
    "cache": ("q", "k", "v", "window", "sinks", "slope", "splits"),
    "segment-memory": ("q", "k", "v", "segment", "memory", "slope", "splits"),
    "compressive": ("q", "k", "v", "segment", "memory", "compressed", "rate", "sort", "slope", "splits"),
}


def cut(r: Numbers, n: int, longest: int) -> list[int]:
    """Lengths of at most `longest` with the sum n."""
    splits: list[int] = []
    while n:
        splits.append(min(n, int(r.integers(1, longest + 1, 1)[0])))
        n -= splits[-1]
    return splits


def make(r: Numbers, n: int, b: int, d: int, slope: float, longest: int, **sizes: Any) -> Case:
    """Queries, keys, values, pieces, and the sizes of the memory."""
    if "rate" in sizes:
        sizes |= {name: sizes["rate"] * sizes[name] for name in ("segment", "memory")}
    x = {name: r.normal(b, 2, n, d) for name in ("q", "k", "v")}
    return {**x, **sizes, "slope": slope, "splits": cut(r, n, longest)}


SHAPES: dict[str, Any] = {
    "n": (1, 2, 3, 5, 8, 13), "b": (1, 2), "d": (1, 2, 3), "slope": (0.0, 0.5), "longest": (1, 2, 3, 20),
}  # fmt: skip
LONG: dict[str, Any] = {**SHAPES, "n": (5, 8, 13, 17)}
CACHE: dict[str, Any] = {"window": (None, 1, 2, 3, 4, 20), "sinks": (0, 1, 2)}
SEGMENTS: dict[str, Any] = {"segment": (1, 2, 3, 4), "memory": (0, 1, 2, 3, 5, 20)}
COMPRESSIVE: dict[str, Any] = {
    "segment": (1, 2, 3), "memory": (0, 1, 2), "compressed": (0, 1, 2, 9), "rate": (1, 2, 3), "sort": ("mean", "max"),
}  # fmt: skip
caches = cases(make, **SHAPES, **CACHE)
segmented = cases(make, **SHAPES, **SEGMENTS)
compressed = cases(make, **LONG, **COMPRESSIVE)
ALL = {"cache": caches, "segment-memory": segmented, "compressive": compressed}


def asked(f: F, of: str, c: Case, **changes: Any) -> np.ndarray:
    """What the function of this kind gives for the case."""
    return call(f, *[{**c, **changes}[name] for name in NAMES[of]])


def rounding(c: Case) -> float:
    """A score's rounding, that of its largest sum of magnitudes, is a weight's relative error."""
    q, k, v = c["q"], c["k"], c["v"]
    n, d = q.shape[-2:]
    scores = largest(np.abs(q) @ np.abs(k).swapaxes(-1, -2)) / math.sqrt(d) + c["slope"] * n
    return bound((1.0 + scores) * largest(v), n + d)


def pooled(c: Case, rows: Any, blocks: list[list[int]]) -> np.ndarray:
    """One row for each block of positions."""
    f = np.max if c.get("sort") == "max" else np.mean
    return np.stack([f(rows[:, :, block], axis=-2) for block in blocks], axis=-2)


def one_pass(c: Case, blocks_of: Callable[[int], list[list[int]]]) -> np.ndarray:
    """Row i attends to the blocks of positions that it sees."""
    y: np.ndarray = np.zeros(c["v"].shape)
    for i in range(y.shape[-2]):
        blocks = blocks_of(i)
        far = i - np.array([np.mean(block) for block in blocks])
        keys, values = pooled(c, c["k"], blocks), pooled(c, c["v"], blocks)
        scores = (c["q"][:, :, i, None] * keys).sum(-1) / math.sqrt(y.shape[-1]) - c["slope"] * far
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y[:, :, i] = (weights[..., None] * values).sum(-2) / weights.sum(-1, keepdims=True)
    return y


# What holds for all


def declare_common(of: str, equation: str) -> None:
    """Three laws that every memory's kind has."""

    @law(of, "any-split", serves=equation, cases=ALL[of])
    def any_split(f: F, c: Case, measure: Measure) -> None:
        """The result is the same for one piece, for pieces of one row, and for any pieces."""
        y, n = asked(f, of, c), c["q"].shape[-2]
        measure.close(asked(f, of, c, splits=[1] * n), y, 2 * rounding(c), "row by row, the result")
        measure.close(asked(f, of, c, splits=[n]), y, 2 * rounding(c), "in one piece, the result")

    @law(of, "causal", serves=equation, cases=ALL[of])
    def causal(f: F, c: Case, measure: Measure) -> None:
        """What comes in the second half of the stream does not change the results of the first."""
        half = c["q"].shape[-2] // 2
        later = np.arange(c["q"].shape[-2])[:, None] >= half
        other = {name: np.where(later, 5.0 - 3 * c[name], c[name]) for name in ("q", "k", "v")}
        y, z = asked(f, of, c), asked(f, of, c, **other)
        measure.close(z[:, :, :half], y[:, :, :half], rounding(c), "an earlier result")

    @law(of, "batch-rows-alone", serves=equation, cases=ALL[of])
    def batch_rows_alone(f: F, c: Case, measure: Measure) -> None:
        """The last row of the batch has the result that it has alone."""
        alone = asked(f, of, c, **{name: c[name][-1:] for name in ("q", "k", "v")})
        measure.close(asked(f, of, c)[-1:], alone, 2 * rounding(c), "the last row of the batch")


declare_common("cache", "eq:cache")
declare_common("segment-memory", "eq:segment-memory")
declare_common("compressive", "eq:compressive")


# Caches


@law("cache", "one-pass", serves="eq:cache", cases=caches)
def cache_one_pass(f: F, c: Case, measure: Measure) -> None:
    """Row i attends to the last w rows, its own among them, and to the sinks, at their distances in the stream."""
    w, sinks = c["window"] or 10**9, c["sinks"]
    expected = one_pass(c, lambda i: [[j] for j in range(i + 1) if j < sinks or i - j < w])
    measure.close(asked(f, "cache", c), expected, rounding(c))


@law("cache", "window-count", serves="eq:cache", cases=caches)
def window_count(f: F, c: Case, measure: Measure) -> None:
    """With equal scores and one-hot values, row i spreads its weight evenly over min(i + 1, w) rows, itself last."""
    n, w = c["q"].shape[-2], c["window"] or c["q"].shape[-2]
    eye = np.broadcast_to(np.eye(n), (1, 1, n, n))
    y = call(f, np.zeros_like(eye), np.zeros_like(eye), eye.copy(), c["window"], 0, 0.0, c["splits"])
    for i, row in enumerate(y[0, 0]):
        seen = min(i + 1, w)
        expected = np.where((np.arange(n) <= i) & (np.arange(n) > i - seen), 1.0 / seen, 0.0)
        measure.close(row, expected, bound(1.0, n), f"row {i}'s weight")


@law("cache", "wide-window", serves="eq:cache", cases=caches)
def wide_window(f: F, c: Case, measure: Measure) -> None:
    """A window of the whole stream is a full cache, with sinks and without."""
    full = asked(f, "cache", c, window=None, sinks=0)
    measure.close(asked(f, "cache", c, window=c["q"].shape[-2]), full, 2 * rounding(c))


# Segments


@law("segment-memory", "one-pass", serves="eq:segment-memory", cases=segmented)
def segments_one_pass(f: F, c: Case, measure: Measure) -> None:
    """Row i attends to its own segment up to itself and to the M rows before the segment."""

    def seen(i: int) -> list[list[int]]:
        start = i - i % c["segment"]
        return [[j] for j in range(max(start - c["memory"], 0), i + 1)]

    measure.close(asked(f, "segment-memory", c), one_pass(c, seen), rounding(c))


@law("segment-memory", "long-memory", serves="eq:segment-memory", cases=segmented)
def long_memory(f: F, c: Case, measure: Measure) -> None:
    """With a memory for the whole stream, every segmentation is attention over the full past."""
    n = c["q"].shape[-2]
    expected = one_pass(c, lambda i: [[j] for j in range(i + 1)])
    measure.close(asked(f, "segment-memory", c, memory=n), expected, rounding(c))


@law("segment-memory", "segments-of-one", serves="eq:segment-memory", cases=segmented)
def segments_of_one(f: F, c: Case, measure: Measure) -> None:
    """Segments of one row are a sliding window of M + 1."""
    expected = one_pass(c, lambda i: [[j] for j in range(max(i - c["memory"], 0), i + 1)])
    measure.close(asked(f, "segment-memory", c, segment=1), expected, rounding(c))


# Compressive memory


def blocks_seen(c: Case, i: int) -> list[list[int]]:
    """Blocks of positions, one for each slot, then the remembered rows one by one."""
    start, r = max(i - i % c["segment"] - c["memory"], 0), c["rate"]
    old = [list(range(b * r, (b + 1) * r)) for b in range(start // r)]
    return old[max(len(old) - c["compressed"], 0) :] + [[j] for j in range(start, i + 1)]


@law("compressive", "one-pass", serves="eq:compressive", cases=compressed)
def compressive_one_pass(f: F, c: Case, measure: Measure) -> None:
    """Row i attends to its segment, the M rows before it, and one pooled row for each of the M_c blocks before those,
    at the block's centre."""
    measure.close(asked(f, "compressive", c), one_pass(c, lambda i: blocks_seen(c, i)), 2 * rounding(c))


@law("compressive", "rate-one", serves=("eq:compressive", "eq:segment-memory"), cases=compressed)
def rate_one(f: F, c: Case, measure: Measure) -> None:
    """At rate 1 the slots are rows: segment recurrence with a memory of M + M_c."""
    longer = {**c, "rate": 1, "memory": c["memory"] + c["compressed"], "compressed": 0}
    expected = one_pass(c, lambda i: blocks_seen(longer, i))
    measure.close(asked(f, "compressive", c, rate=1), expected, rounding(c))


@law("compressive", "no-slots", serves=("eq:compressive", "eq:segment-memory"), cases=compressed)
def no_slots(f: F, c: Case, measure: Measure) -> None:
    """Without slots it is segment recurrence."""
    expected = one_pass(c, lambda i: blocks_seen({**c, "compressed": 0}, i))
    measure.close(asked(f, "compressive", c, compressed=0), expected, rounding(c))
