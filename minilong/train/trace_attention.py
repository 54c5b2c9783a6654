"""A kernel that records what it is given and gives, and the attention map that it never makes.

Scores and weights are no intermediates of a fast kernel: they are computed beside it by the definition, a few rows at
a time, from the very queries and keys that it was given. So they cost what naive attention costs, but not its memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.attention import DistanceBias, Mask, naive
from minilong.attention.bias import as_scores
from minilong.attention.naive import array_of, masked_softmax
from minilong.autodiff import ops
from minilong.backend import Array, to_host
from minilong.train.trace_records import Origin, Recorder
from minilong.train.trace_statistics import Tally

AREA = 1 << 20
"""Scores that exist at once."""


@dataclass(frozen=True)
class RecordedKernel:
    """The kernel of an attention layer. queries, keys, values: where these come from, turned where
    positions are rotary."""

    kernel: Callable[..., Any]
    name: str
    queries: Origin
    keys: Origin
    values: Origin
    recorder: Recorder

    def __call__(
        self, q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None
    ) -> Any:
        """As any kernel: q (..., h, t, d), k (..., g, s, d), v (..., g, s, e) -> (..., h, t, e)."""
        for part, origin, x in (("queries", self.queries, q), ("keys", self.keys, k), ("values", self.values, v)):
            self.recorder.add(f"{self.name}.{part}", origin, x)
        self._map(q, k, mask or Mask(), 1 / math.sqrt(q.shape[-1]) if scale is None else scale, bias)
        heads = self.kernel(q, k, v, mask=mask, scale=scale, bias=bias)
        self.recorder.add(f"{self.name}.heads", Origin.of(naive, equation(bias)), heads)
        return heads

    def _map(self, q: Array, k: Array, mask: Mask, scale: float, bias: Any) -> None:
        """Record scores (-inf where the mask hides a key) and weights, those of them that are wanted."""
        found = {
            f"{self.name}.scores": Origin.of(naive, equation(bias)),
            f"{self.name}.weights": Origin.of(masked_softmax),
        }
        wanted = [name if self.recorder.wanted(name) else None for name in found]
        if not any(wanted):
            return
        self.recorder.report(f"{self.name}.weights")
        shape = (*q.shape[:-1], k.shape[-2])
        tallies = [Tally() for _ in found]
        whole = [np.zeros(shape, str(q.dtype)) if name and self.recorder.kept(name) else None for name in wanted]
        for place, scores, weights, allowed in map_rows(q, k, mask, scale, bias):
            for x, tally, all_rows, seen in zip((scores, weights), tallies, whole, (allowed, None), strict=True):
                tally.add(x, seen)
                if all_rows is not None:
                    all_rows[place] = x
        for (name, origin), own, tally, all_rows in zip(found.items(), wanted, tallies, whole, strict=True):
            if own is not None:
                self.recorder.enter(name, origin, shape, str(q.dtype), tally, all_rows)


def map_rows(
    q: Array, k: Array, mask: Mask, scale: float, bias: Any, area: int = AREA
) -> Iterator[tuple[Any, np.ndarray, np.ndarray, np.ndarray]]:
    """Scores and weights of some queries of a head at a time, in C order of (b, h, t, s): the index at which they
    stand, both (rows, s), and which keys are seen (rows, s)."""
    xp, (t, s) = array_of(q), (q.shape[-2], k.shape[-2])
    heads, rows = q.shape[-3], max(1, area // max(1, s))
    for b in range(q.shape[0]):
        row_mask = replace(
            mask,
            key_lengths=None if mask.key_lengths is None else mask.key_lengths[b : b + 1],
            segments=None if mask.segments is None else mask.segments[b : b + 1],
        )
        for h in range(heads):
            keys = k[b, h * k.shape[1] // heads]
            for i in range(0, t, rows):
                end = min(i + rows, t)
                here = replace(row_mask, offset=mask.offset + i)
                allowed = here.dense(xp, end - i, s)
                allowed = xp.ones((end - i, s), bool) if allowed is None else allowed.reshape(end - i, s)
                scores = ops.scale(ops.matmul(q[b, h, i:end], ops.swap_last(keys)), by=scale)
                if bias is not None:
                    scores = scores + _part_of(bias, (b, h, slice(i, end)), here.offset, (end - i, s))
                weights = masked_softmax(scores, allowed)
                seen = to_host(allowed)
                shown = np.where(seen, to_host(scores), -np.inf), np.where(seen, to_host(weights), 0.0)
                yield (b, h, slice(i, end)), *shown, seen


def _part_of(bias: Any, place: tuple[int, int, slice], offset: int, shape: tuple[int, int]) -> Any:
    """A kernel's bias for some queries of one head of one row: (rows, s), or what broadcasts to it."""
    b, h, rows = place
    if isinstance(bias, DistanceBias):
        return as_scores(replace(bias, values=bias.values[h : h + 1]), *shape, offset)[0]
    outer = [0 if size == 1 else i for size, i in zip(bias.shape[:-2], (b, h)[4 - bias.ndim :], strict=True)]
    return bias[(*outer, slice(None) if bias.shape[-2] == 1 else rows)]


def equation(bias: Any) -> str:
    """Which equation attention with this bias follows."""
    return "eq:attention" if bias is None else "eq:biased-attention"
