"""What one layer needs for its derivative: bytes by part, counted from what the rules of its primitives name.

A branch is what is added to the residual stream: attention, attention to the encoder's output, the feed-forward
network. Counts follow `nn/transformer.py` and `nn/layers.py`; a primitive that keeps more or less moves them here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from minilong.attention.blocks import Blocks
from minilong.attention.blockwise_backward import FEW, PANEL
from minilong.attention.dense import AREA
from minilong.attention.kernels import Auto
from minilong.attention.layout import Layout, extent
from minilong.attention.mask import Mask
from minilong.attention.naive import grouped
from minilong.autodiff.activations import BLOCK
from minilong.models.config import GATED, ModelConfig

FLOAT = 4
Parts: TypeAlias = "Counter[str]"
"""Bytes by part: attention, products, activations, norms, dropout, positions, depth."""

INSIDE = {"relu": (0, 1), "silu": (1, 1), "gelu": (1, 1), "gelu_tanh": (1, 1), **dict.fromkeys(GATED, (3, 3))}
"""Arrays of the hidden width that an activation keeps beside the input of the last product: alone, and where dropout
makes that input another array."""

BACKWARD = {"relu": (2.25, 1.25), "silu": (1, 1), "gelu": (1, 1), "gelu_tanh": (1, 1), **dict.fromkeys(GATED, (2, 2))}
"""Arrays of the hidden width that its rule has at work beside what is kept, likewise; the rule of the product after it
has one, and the gradient of its weights."""


@dataclass(frozen=True)
class Branch:
    """Bytes that a branch keeps, by part, and bytes at work beside them at their most: of its rules on the way back
    (`work`), and on the way there (`forward`), 0 where that is less in any case."""

    kept: Parts
    work: int
    forward: int = 0


def feed_forward(c: ModelConfig, tokens: int) -> Branch:
    """Of the feed-forward network with its norm."""
    stream, hidden = FLOAT * tokens * c.width, FLOAT * tokens * c.feed_forward
    kept = _norm(c, tokens) + Counter(
        products=stream + hidden,
        activations=INSIDE[c.activation][c.dropout > 0] * hidden,
        dropout=(stream + hidden) if c.dropout else 0,
    )
    # On the way there an activation also holds its argument, and works in blocks where it finds its derivative as well.
    forward = 0 if c.activation in ("relu", *GATED) else hidden + FLOAT * min(BLOCK, tokens * c.feed_forward)
    work = max(round(BACKWARD[c.activation][c.dropout > 0] * hidden), hidden + FLOAT * c.width * c.feed_forward)
    return Branch(kept, work, forward)


def attention(c: ModelConfig, rows: int, queries: int, keys: int, threads: int = 1, *, own: bool = True) -> Branch:
    """Of attention with its norm; `own`: to the sequence itself, with positions, and to what was before it."""
    n, m, own_wide, wide = rows * queries, rows * keys, c.head_width * c.heads, c.head_width * c.kv_heads
    stream, inner, name = FLOAT * n * c.width, FLOAT * n * own_wide, kernel(c, queries, keys)
    heads = inner + FLOAT * 2 * m * wide
    scores = FLOAT * c.heads * queries * keys  # of one row
    mask = rows * queries * keys if own and c.kind == "decoder" else 0  # its booleans: packed documents
    if name == "blockwise":
        kept = heads + FLOAT * n * c.heads
        seen = Mask(causal=own, window=c.window or None if own else None)
        work = _blocks(c, rows, queries, keys, threads, seen) + 2 * inner + 2 * FLOAT * m * wide
    elif name == "dense":
        kept = heads + rows * scores
        together = min(rows, max(1, AREA // (c.heads * queries * keys)))
        biased = own and c.position in ("alibi", "t5")  # a bias has a cotangent, and a sum over the rows for it
        work = (together + 2 * biased) * scores + 2 * inner + 2 * FLOAT * m * own_wide
    else:
        if c.kv_heads > 1:  # keys and values are then repeated for all query heads
            heads = FLOAT * (n + 2 * m) * own_wide
        kept = heads + 2 * rows * scores + mask
        work = 3 * rows * scores
    if own and c.position == "xl":  # distances projected for each layer, and a table of scores that has a cotangent
        kept += inner + FLOAT * keys * own_wide
        work += 3 * rows * scores
    parts = Counter(
        attention=kept,
        products=stream + inner,  # merging the heads' outputs copies nothing
        dropout=stream if c.dropout else 0,
        positions=FLOAT * _angles(c, queries, keys) if own else 0,
    )
    if own and keys != queries:  # keys are made of other rows than queries
        parts["products"] += FLOAT * m * c.width
    return Branch(_norm(c, n) + parts, work)


def pieces(c: ModelConfig, rows: int, length: int, threads: int = 1) -> Branch:
    """Of attention to the sequence itself: at once, or segment by segment with what a memory holds before each."""
    if c.memory == "none":
        return attention(c, rows, length, length, threads)
    segment, memory, slots = c.recurrence
    kept, work = Counter[str](), 0
    for begin in range(0, length, segment):
        before = min(begin, memory)
        before += min(slots, (begin - before) // c.compression) if slots else 0
        size = min(segment, length - begin)
        piece = attention(c, rows, size, size + before, threads)
        kept, work = kept + piece.kept, max(work, piece.work)
    return Branch(kept, work)


def _angles(c: ModelConfig, queries: int, keys: int) -> int:
    """Numbers that rotary positions keep for each layer: angles as often as there are heads."""
    if c.position != "rotary" or c.rope_layout != "interleaved":
        return 0
    return queries * c.head_width * c.heads + (0 if c.rope_scaling == "dynamic" else keys * c.head_width * c.kv_heads)


def kernel(c: ModelConfig, queries: int, keys: int) -> str:
    """The kernel that `auto` stands for at this size: as `attention.kernels.Auto` chooses."""
    if c.attention != "auto":
        return c.attention
    few = c.heads * queries * keys <= Auto.limit
    return "dense" if few or c.position == "xl" else "blockwise"


def _blocks(c: ModelConfig, rows: int, queries: int, keys: int, threads: int, mask: Mask) -> int:
    """Bytes of blockwise attention's scratch memory on each thread, and of sums that are split in two where groups are
    few. Counted as if all rows of the batch saw the same keys, which makes the groups as large as they become."""
    d, each, blocks = c.head_width, c.heads // c.kv_heads, Blocks(threads)
    zero = np.float32(0)  # stands for arrays of any shape, in no memory
    q, k, v = grouped(*(np.broadcast_to(zero, (rows, h, n, d)) for h, n in zip(*_heads(c, queries, keys), strict=True)))
    layout = Layout.of(np, q, k, v, None)
    n, columns = blocks.shape(each, queries, keys, mask)
    count, columns = -(-queries // n), min(columns, PANEL)
    n *= each
    groups = layout.groups(n * columns, blocks.area, by_row=False)
    heads = max(math.prod(extent(at)) for at in groups)
    room = 2 * n * columns + 2 * min(keys, PANEL) * (d + 1) + 2 * n * (d + 1) + (max(n, columns) + n) * d
    split = 2 * rows * keys * d * c.kv_heads if len(groups) < FEW and count > 1 else 0
    return FLOAT * (blocks.workers(rows * c.heads * queries * keys) * heads * room + split)


def _heads(c: ModelConfig, queries: int, keys: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Heads and lengths of queries, keys and values."""
    return (c.heads, c.kv_heads, c.kv_heads), (queries, keys, keys)


def _norm(c: ModelConfig, tokens: int) -> Parts:
    return Counter(norms=FLOAT * tokens * (c.width + 1))


def whole(*branches: Branch) -> Parts:
    """What some branches keep together."""
    return sum((b.kept for b in branches), Counter())


def total(parts: Parts) -> int:
    """Bytes of all parts."""
    return sum(parts.values())


def times(parts: Parts, n: int) -> Parts:
    """Every part n times."""
    return Counter({name: n * amount for name, amount in parts.items()})


def groups_of(layers: int, size: int) -> int:
    """How many groups of a size hold all layers."""
    return math.ceil(layers / size)
