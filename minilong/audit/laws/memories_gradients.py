"""Laws of what is differentiated in a segment memory: one's own segment, and nothing that is remembered."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.memories import cut, pieces
from minilong.autodiff import ops, vjp
from minilong.backend import array_module
from minilong.memory import Rows, Segments, SegmentState
from minilong.memory.segments import joined

kind(
    "segment-gradients",
    "segment_gradients(q, k, v, g, segment, memory, splits)",
    "q, k, v and the cotangent g of the outputs (b, h, n, d) -> the cotangents of q, k, v (3, b, h, n, d)",
)


def gradients(policy: Segments, q: Any, k: Any, v: Any, g: Any, splits: list[int]) -> np.ndarray:
    """Cotangents through a stream that is written as tensors."""

    def stream(q: Any, k: Any, v: Any) -> Any:
        state, y = policy.init(), []
        for seen, t in pieces(policy, splits):
            piece = (..., slice(seen, seen + t), slice(None))
            state = policy.write(state, (ops.getitem(k, key=piece), ops.getitem(v, key=piece)))
            y.append(naive(ops.getitem(q, key=piece), *policy.read(state), mask=policy.mask(seen, t)))
        return ops.concatenate(*y, axis=-2)

    found: np.ndarray = array_module(q).stack(vjp(stream, q, k, v)[1](g))
    return found


@subject("segment-gradients", "Segments, differentiated", code=Segments.turn, equation="eq:segment-gradients")
def ours_gradients(q: Any, k: Any, v: Any, g: Any, segment: int, memory: int, splits: list[int]) -> np.ndarray:
    return gradients(Segments(segment, memory), q, k, v, g, splits)


# Gradients of a segment memory


def drawn_stream(r: Numbers, n: int, b: int, d: int, segment: int, memory: int, longest: int) -> Case:
    """Queries, keys, values, cotangents and pieces."""
    x = {name: r.normal(b, 2, n, d) for name in ("q", "k", "v", "g")}
    return {**x, "segment": segment, "memory": memory, "splits": cut(r, n, longest)}


STREAMS = cases(
    drawn_stream, n=(1, 2, 3, 5, 8, 11), b=(1, 2), d=(1, 2, 3), segment=(1, 2, 3, 4), memory=(0, 1, 2, 3, 20),
    longest=(1, 2, 20),
)  # fmt: skip


def differentiated(f: F, c: Case, **changes: Any) -> np.ndarray:
    """Cotangents of q, k and v."""
    names = ("q", "k", "v", "g", "segment", "memory", "splits")
    return call(f, *[{**c, **changes}[name] for name in names])


def rounding(c: Case) -> float:
    """As of attention, once more times the sizes that a derivative brings in."""
    q, k, v, g = (c[name] for name in ("q", "k", "v", "g"))
    n, d = q.shape[-2:]
    scores = largest(np.abs(q) @ np.abs(k).swapaxes(-1, -2)) / math.sqrt(d)
    size = (1.0 + scores) * largest(g) * (1.0 + d * largest(v)) * (1.0 + largest(q) + largest(k))
    return bound(size, n * n + d)


@law("segment-gradients", "own-segment-only", serves="eq:segment-gradients", cases=STREAMS)
def own_segment_only(f: F, c: Case, measure: Measure) -> None:
    """Keys and values get the gradients of their own segment's queries, queries that of all keys they see."""
    q, k, v, g = (c[name] for name in ("q", "k", "v", "g"))
    expected, d = np.zeros((3, *q.shape)), q.shape[-1]
    for *row, i in np.ndindex(q.shape[:-1]):
        start = i - i % c["segment"]
        seen = range(max(start - c["memory"], 0), i + 1)
        weights = np.exp([q[*row, i] @ k[*row, j] / math.sqrt(d) for j in seen])
        weights /= weights.sum()
        along = np.array([g[*row, i] @ v[*row, j] for j in seen])
        for j, p, a in zip(seen, weights, along, strict=True):
            slope = p * (a - weights @ along) / math.sqrt(d)
            expected[0, *row, i] += slope * k[*row, j]
            if j >= start:
                expected[1, *row, j] += slope * q[*row, i]
                expected[2, *row, j] += p * g[*row, i]
    measure.close(differentiated(f, c), expected, rounding(c), "the gradient")


@law("segment-gradients", "memory-is-constant", serves="eq:segment-gradients", cases=STREAMS)
def memory_is_constant(f: F, c: Case, measure: Measure) -> None:
    """The outputs of the last segment send no gradient, not in any bit, to what was written before it."""
    n = c["q"].shape[-2]
    start = (n - 1) // c["segment"] * c["segment"]
    late = c["g"] * (np.arange(n) >= start)[:, None]
    found = differentiated(f, c, g=late)
    measure.close(found[..., :start, :], np.zeros_like(found[..., :start, :]), 0.0, "the gradient of a remembered row")


# Mutants


class Linked(Segments):
    """The memory keeps its graph."""

    def turn(self, state: SegmentState) -> SegmentState:
        rows = joined(state.past, state.own)
        recent = slice(max(rows[0].shape[-2] - self.memory, 0), None)
        past = tuple(ops.getitem(x, key=(..., recent, slice(None))) for x in rows)
        return SegmentState(state.seen, (), past, ())


mutant("segment-gradients", "memory not detached", kills=("own-segment-only", "memory-is-constant"),
       met="transformer-xl's stop-gradient left out: the graph then grows over all segments")(
    lambda q, k, v, g, segment, memory, splits: gradients(Linked(segment, memory), q, k, v, g, splits))  # fmt: skip


class Detached(Segments):
    """Everything that was written before is a constant, of the own segment too."""

    def write(self, state: SegmentState, rows: Rows) -> SegmentState:
        return super().write(state.constant(), rows)


mutant("segment-gradients", "own segment detached", kills="own-segment-only",
       met="plausible: the cache of inference used in training")(
    lambda q, k, v, g, segment, memory, splits: gradients(Detached(segment, memory), q, k, v, g, splits))  # fmt: skip
