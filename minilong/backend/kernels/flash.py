"""Flash attention: exact attention whose scores never leave the chip, forward and backward (`flash_*.cu`).

y = softmax(scale q k^T + bias) v, by tiles (Rabe and Staats 2021; Dao 2023). A block of threads owns a tile of queries
and streams the keys and values past it. For each query it keeps, in registers,

    m   a shift no less than the largest score so far, less a slack       (Milakov and Gimelshein 2018)
    l   the sum of exp(score - m);   o   the sum of exp(score - m) v

Where a tile's scores exceed m by more than the slack, m becomes their maximum, and l and o shrink by exp(old m - m). At
the end y = o / l and lse = m + log l. Backward, with D = sum of g y over a row, the weights p = exp(score - lse) are
computed again, tile by tile:

    gv = p^T g      ds = p (g v^T - D)      gq = scale ds k      gk = scale ds^T q

once with the queries owned (gq), once with the keys owned (gk, gv): every sum has a fixed order, and nothing is added
atomically, so results are reproducible bit for bit. Tiles that the mask empties are skipped by arithmetic; only those
that it cuts look at it score by score.

Memory beyond inputs and outputs: 4 bytes a query forward (lse, an output) and 12 backward, whatever the number of keys:
one layer of 131,072 tokens needs 1.5 MB a head, where the scores alone would fill 64 GB.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.flash_plan import Plan, plan_of
from minilong.backend.kernels.launch import launch

FARTHEST = 1 << 29
"""Positions and offsets are below it, so that their sums fit into 32 bits."""


def flash_attention(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    sinks: int = 0,
    offset: int = 0,
    key_lengths: Array | None = None,
    segments: Array | None = None,
    values: Array | None = None,
    least: int = 0,
) -> tuple[Array, Array]:
    """Attention and the log-sum-exp of the scores: y (b, h, t, e), lse (b, h, t) (`eq:blockwise-attention`).

    q (b, h, t, d), k (b, g, s, d), v (b, g, s, e): views with any strides; query head n reads key head n // (h / g).
    y is a view of memory (b, t, h, e). lse is float32, or float64 for such inputs. The fields of the mask are those of
    `attention.Mask`; lengths and segments have 1 or b rows, segments fit into 32 bits. values (1 or h, m), least: as in
    `attention.DistanceBias`. A query that sees no key gives zeros, and minus infinity.
    Raises ValueError for shapes that do not fit, and where d or e exceeds 128.
    """
    call = _Call(xp, q, k, v, causal, window, sinks, offset, key_lengths, segments, values, scale, least)
    y = xp.empty((call.b, call.t, call.h, call.e), q.dtype)
    lse = xp.empty((call.b, call.h, call.t), call.sums)
    call.run("flash_forward", call.t, call.h, (q, k, v), (), (y, lse))
    return y.transpose(0, 2, 1, 3), lse


def flash_attention_vjp(
    xp: Any,
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    sinks: int = 0,
    offset: int = 0,
    key_lengths: Array | None = None,
    segments: Array | None = None,
    values: Array | None = None,
    least: int = 0,
) -> tuple[Array, Array, Array]:
    """Cotangents of q, k and v for g (b, h, t, e), with y and lse from `flash_attention`; keywords as there.

    They are views of memory (b, t, h, d), (b, s, g, d) and (b, s, g, e). The biases are constants here.
    """
    call = _Call(xp, q, k, v, causal, window, sinks, offset, key_lengths, segments, values, scale, least)
    if g.shape != y.shape or y.shape != (call.b, call.h, call.t, call.e) or lse.shape != y.shape[:-1]:
        raise ValueError(f"attention: g {g.shape}, y {y.shape} and lse {lse.shape} are not those of q {q.shape}")
    if not g.dtype == y.dtype == q.dtype or lse.dtype != call.sums:
        raise ValueError(f"attention: g, y and lse are {g.dtype}, {y.dtype} and {lse.dtype} for q of {q.dtype}")
    b, h, t, groups = call.b, call.h, call.t, call.groups
    g, y, rows = _rows(xp, g), _rows(xp, y), b * h * t
    pairs = xp.empty((b, h, t, 2), call.sums)
    sizes = (np.int64(rows), *map(np.int32, (h, t, call.e)))
    arguments = (g, y, xp.ascontiguousarray(lse), pairs, *_strides(g), *_strides(y), *sizes)
    launch(xp, "flash_prepare.cu", "query_sums", q.dtype, (-(-rows // 8),), (256,), arguments)
    gq = xp.empty((b, t, h, call.d), q.dtype)
    gk, gv = xp.empty((b, call.s, groups, call.d), q.dtype), xp.empty((b, call.s, groups, call.e), q.dtype)
    call.run("flash_queries", t, h, (q, k, v, g), (pairs,), (gq,))
    call.run("flash_keys", call.s, groups, (q, k, v, g), (pairs,), (gk, gv))
    return gq.transpose(0, 2, 1, 3), gk.transpose(0, 2, 1, 3), gv.transpose(0, 2, 1, 3)


class _Call:
    """The arguments that the three kernels have in common."""

    def __init__(
        self,
        xp: Any,
        q: Array,
        k: Array,
        v: Array,
        causal: bool,
        window: int | None,
        sinks: int,
        offset: int,
        key_lengths: Array | None,
        segments: Array | None,
        values: Array | None,
        scale: float,
        least: int,
    ) -> None:
        self.xp, self.dtype = xp, q.dtype
        self.sums = np.dtype("float64" if str(q.dtype) == "float64" else "float32")
        (self.b, self.h, self.t, self.d), (self.groups, self.s), self.e = q.shape, k.shape[1:3], v.shape[3]
        self._check(q, k, v, offset, key_lengths, segments, values)
        self.segments = None if segments is None else xp.ascontiguousarray(segments.astype(np.int32, copy=False))
        if values is None and scale <= 0:  # the largest product is then not the largest score: let the scores be scaled
            values = xp.zeros((1, 1), self.sums)
        self.biased = values is not None
        null = np.uint64(0)
        lengths = null if key_lengths is None else xp.ascontiguousarray(key_lengths.astype(np.int64, copy=False))
        biases = null if values is None else xp.ascontiguousarray(values.astype(self.sums, copy=False))
        width = 0 if values is None else values.shape[1]
        self.offset = offset
        self.mask = (
            *map(np.int32, (causal, min(window or 0, 2 * FARTHEST), min(sinks, self.s), offset)),
            lengths,
            np.int32(key_lengths is not None and len(key_lengths) > 1),
            null if self.segments is None else self.segments,
            np.int32(segments is not None and len(segments) > 1),
        )
        self.bias = (
            biases,
            np.int32(width if values is not None and len(values) > 1 else 0),
            np.int32(width),
            np.int32(max(-2 * FARTHEST, min(least, 2 * FARTHEST))),
        )
        self.scale = np.float64(scale)

    def _check(self, q: Array, k: Array, v: Array, offset: int, lengths: Any, segments: Any, values: Any) -> None:
        if k.shape != (self.b, self.groups, self.s, self.d) or v.shape != (self.b, self.groups, self.s, self.e):
            raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit one another")
        if not q.dtype == k.dtype == v.dtype:
            raise ValueError(f"attention: q, k and v are {q.dtype}, {k.dtype} and {v.dtype}, and need one type")
        if self.groups == 0 or self.h % self.groups:
            raise ValueError(f"attention: {self.h} query heads are no multiple of {self.groups} key heads")
        if max(self.t, self.s, abs(offset)) >= FARTHEST:
            raise ValueError(f"attention: {self.t} queries, {self.s} keys, offset {offset}: at most {FARTHEST - 1}")
        for name, rows in (("key_lengths", lengths), ("segments", segments)):
            if rows is not None and len(rows) not in (1, self.b):
                raise ValueError(f"mask: {name} are for {len(rows)} sequences, but queries have shape {q.shape}")
        if segments is not None and (offset < 0 or offset + self.t > self.s or segments.shape[1] != self.s):
            raise ValueError(f"mask: segments {segments.shape} do not cover queries {offset} to {offset + self.t}")
        if values is not None and (len(values) not in (1, self.h) or values.shape[1] == 0):
            raise ValueError(f"bias: values have shape {values.shape} and need (1 or {self.h} heads, distances)")

    def run(
        self,
        kernel: str,
        rows: int,
        heads: int,
        inputs: tuple[Array, ...],
        sums: tuple[Array, ...],
        outputs: tuple[Array, ...],
    ) -> None:
        """Launch a kernel whose blocks own tiles of `rows` queries or keys of `heads` heads in each sequence."""
        xp = self.xp
        segmented, all_heads = self.segments is not None, self.b * heads
        plan = plan_of(xp, kernel, self.dtype, self.d, self.e, rows, all_heads, biased=self.biased, segmented=segmented)
        inputs = tuple(_aligned(xp, x) if plan.aligned else _rows(xp, x) for x in inputs)
        arguments = (
            *inputs,
            *sums,
            *outputs,
            *(stride for x in inputs for stride in _strides(x)),
            *map(np.int32, (self.h, self.groups, self.t, self.s, self.d, self.e)),
            self.scale,
            *self.mask,
            self._ranges(plan, own_keys=kernel == "flash_keys"),
            *self.bias,
        )
        grid, block = (all_heads * -(-rows // plan.rows),), (32 * plan.warps,)
        launch(xp, plan.source, kernel, self.dtype, grid, block, arguments, shared=plan.shared, defines=plan.defines)

    def _ranges(self, plan: Plan, own_keys: bool) -> Any:
        """The least and the largest segment of each tile of queries, then of keys; a null pointer without segments."""
        if self.segments is None:
            return np.uint64(0)
        queries, keys = (plan.columns, plan.rows) if own_keys else (plan.rows, plan.columns)
        tiles = -(-self.t // queries) + -(-self.s // keys)
        ranges = self.xp.empty((len(self.segments), tiles, 2), np.int32)
        sizes = map(np.int32, (self.t, self.s, self.offset, queries, keys))
        grid = (len(self.segments) * tiles,)
        launch(self.xp, "flash_prepare.cu", "segment_ranges", "float32", grid, (32,), (self.segments, ranges, *sizes))
        return ranges


def _strides(x: Array) -> tuple[np.int64, ...]:
    """Of the three outer axes, in elements."""
    return tuple(np.int64(stride // x.itemsize) for stride in x.strides[:3])


def _rows(xp: Any, x: Array) -> Array:
    """`x` with rows whose elements lie side by side."""
    return x if x.shape[-1] < 2 or x.strides[-1] == x.itemsize else xp.ascontiguousarray(x)


def _aligned(xp: Any, x: Array) -> Array:
    """`x` with rows that begin at multiples of 16 bytes; it, or a copy."""
    steps = [stride for n, stride in zip(x.shape[:3], x.strides[:3], strict=True) if n > 1]
    if x.strides[-1] == x.itemsize and x.data.ptr % 16 == 0 and not any(step % 16 for step in steps):
        return x
    return xp.ascontiguousarray(x)
