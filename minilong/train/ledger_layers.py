"""What one layer needs for its derivative: bytes by part, counted from what the rules of its primitives name.

A branch is what is added to the residual stream: attention, attention to the encoder's output, the feed-forward
network. Counts follow `nn/transformer.py` and `nn/layers.py`; a primitive that keeps more or less moves them here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from minilong.attention.blocks import Blocks
from minilong.attention.blockwise_backward import FEW, PANEL
from minilong.attention.kernels import Auto
from minilong.models.config import ModelConfig

FLOAT = 4
Parts: TypeAlias = "Counter[str]"
"""Bytes by part: attention, products, activations, norms, dropout, positions, depth."""

INSIDE = {"relu": (0, 1), "silu": (1, 2), "gelu": (2, 2), "gelu_tanh": (2, 2), "swiglu": (3, 3)}
"""Arrays of the hidden width that an activation keeps beside the input of the last product: alone, and where dropout
makes that input another array."""

BACKWARD = {"relu": (2.25, 1.25), "silu": (2, 1.25), "gelu": (1.25, 1.25), "gelu_tanh": (3, 2), "swiglu": (2, 2)}
"""Arrays of the hidden width that its rule has at work beside what is kept, likewise."""


@dataclass(frozen=True)
class Branch:
    """Bytes that a branch keeps, by part, and bytes that its rules have at work at their widest."""

    kept: Parts
    work: int


def feed_forward(c: ModelConfig, tokens: int) -> Branch:
    """Of the feed-forward network with its norm."""
    stream, hidden = FLOAT * tokens * c.width, FLOAT * tokens * c.feed_forward
    kept = _norm(c, tokens) + Counter(
        products=stream + hidden,
        activations=INSIDE[c.activation][c.dropout > 0] * hidden,
        dropout=(stream + hidden) if c.dropout else 0,
    )
    return Branch(kept, round(BACKWARD[c.activation][c.dropout > 0] * hidden))


def attention(c: ModelConfig, rows: int, queries: int, keys: int, threads: int = 1, *, own: bool = True) -> Branch:
    """Of attention with its norm; `own`: to the sequence itself, with positions, and to what was before it."""
    n, m, wide = rows * queries, rows * keys, c.head_width * c.kv_heads
    stream, name = FLOAT * n * c.width, kernel(c, queries, keys)
    heads = FLOAT * (n * c.width + 2 * m * wide)
    scores = FLOAT * c.heads * queries * keys  # of one row
    mask = rows * queries * keys if own and c.kind == "decoder" else 0  # its booleans: packed documents
    if name == "blockwise":
        kept = heads + stream + FLOAT * n * c.heads
        work = _blocks(c, rows, keys, threads) + 2 * stream + 2 * FLOAT * m * wide
    elif name == "dense":
        kept = heads + stream + rows * scores
        work = scores + 4 * stream
        if own and c.position in ("alibi", "t5"):
            work = max(work, (2 + rows) * scores)
    else:
        if c.kv_heads > 1:  # keys and values are then repeated for all query heads
            heads = FLOAT * (n + 2 * m) * c.width
        kept = heads + 2 * rows * scores + mask
        work = 3 * rows * scores
    if own and c.position == "xl":  # distances projected for each layer, and a table of scores that has a cotangent
        kept += stream + FLOAT * keys * c.width
        work += 3 * rows * scores
    parts = Counter(
        attention=kept,
        products=stream + (0 if c.heads == 1 and name != "naive" else stream),  # one head's output is not merged
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
    return queries * c.width + (0 if c.rope_scaling == "dynamic" else keys * c.head_width * c.kv_heads)


def kernel(c: ModelConfig, queries: int, keys: int) -> str:
    """The kernel that `auto` stands for at this size: as `attention.kernels.Auto` chooses."""
    if c.attention != "auto":
        return c.attention
    few = c.heads * queries * keys <= Auto.limit
    return "dense" if few or c.position == "xl" else "blockwise"


def _blocks(c: ModelConfig, rows: int, keys: int, threads: int) -> int:
    """Scratch memory of blockwise attention on each thread, and sums that are split in two where heads are few."""
    blocks, d, each = Blocks(), c.head_width, c.heads // c.kv_heads
    n = each * max(1, blocks.rows // each)
    columns = min(blocks.columns, keys)
    room = 2 * n * columns + 2 * min(keys, PANEL) * (d + 1) + 2 * n * (d + 1) + max(n, columns) * d
    split = 2 * rows * keys * d * c.kv_heads if rows * c.kv_heads < FEW else 0
    return FLOAT * (threads * room + split)


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
