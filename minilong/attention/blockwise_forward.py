"""The forward sweep of blockwise attention: an online softmax over blocks of keys (`eq:blockwise-attention`).

For each block of queries the sweep keeps a shift m, the sum l of exp(s - m) and the same sum a of values, over the keys
seen so far; the output is a / l and the log-sum-exp m + log l. Any m gives the same numbers, so m moves only where
the exponentials would otherwise grow large. Where the norms of queries and keys bound all scores, m stays 0, and the
passes that find maxima and subtract them are not made at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minilong.attention.blocks import Blocks, Scratch
from minilong.attention.layout import Layout
from minilong.attention.reach import Reach
from minilong.attention.workers import share_out
from minilong.backend import Array, workspace

BOUNDED = 40.0
"""Scores within +-40 need no shift: e^40 times a million keys is 1e23, and e^-40 is far from underflow in float32."""

SLACK = 8.0
"""By how much a block's scores may exceed the shift before it moves: e^8 costs no accuracy in floating point."""


def sweep_forward(xp: Any, layout: Layout, reach: Reach, scale: float, blocks: Blocks) -> tuple[Array, Array]:
    """The output (*batch, t, e) and the log-sum-exp (*batch, t); zeros and -inf for a query that sees no key.

    Source: Rabe and Staats 2021; Dao et al. 2022.
    """
    q, k, v = layout.q, layout.k, layout.v
    r, t, d = q.shape[-3:]
    s, e = v.shape[-2:]
    y = workspace(xp, (*layout.batch, t, e), q.dtype)
    lse = workspace(xp, (*layout.batch, t), q.dtype)
    out, out_lse = layout.stacked(xp, y), layout.stacked(xp, lse)
    rows, columns = blocks.shape(r, t, reach.mask.window)
    columns = max(1, min(columns, s))
    longest = longest_keys(xp, layout, reach, scale) if r * t >= 8 else None  # for a few it costs more
    starts = range(0, t, rows)[::-1]  # of a causal mask the last block of queries reaches most: begin with it
    items = [(at, i) for at in np.ndindex(layout.outer) for i in starts]

    def work(items: Iterator[tuple[tuple[int, ...], int]]) -> None:
        scores, queries = Scratch(xp, r * rows * columns, q.dtype), Scratch(xp, r * rows * d, q.dtype)
        product = Scratch(xp, r * rows * e, q.dtype)
        ones = xp.ones(columns, q.dtype)
        for at, i in items:
            i_end = min(i + rows, t)
            n = r * (i_end - i)
            block = queries.take(r, i_end - i, d)
            xp.multiply(q[at][:, i:i_end], scale, out=block)
            own = block.reshape(n, d)
            bounded = longest is not None and _longest(xp, own) * longest[0][at] + longest[1] <= BOUNDED
            m = l = a = None
            for j, j_end, cut in reach.blocks(at[0] if at else 0, i, i_end, columns):
                p = xp.matmul(own, k[at][j:j_end].T, out=scores.take(n, j_end - j))
                reach.add_to(p, at, i, i_end, j, j_end, cut)
                if not bounded:
                    top = p.max(axis=-1, initial=-xp.finfo(p.dtype).max)  # finite even where nothing is visible
                    if m is None:
                        m = top
                    elif (top > m + SLACK).any():
                        higher = xp.maximum(m, top)
                        shrink = xp.exp(m - higher)
                        l *= shrink
                        a *= shrink[:, None]
                        m = higher
                    p -= m[:, None]
                xp.exp(p, out=p)
                if a is None:
                    l, a = p @ ones[: j_end - j], p @ v[at][j:j_end]
                else:
                    l += p @ ones[: j_end - j]
                    a += xp.matmul(p, v[at][j:j_end], out=product.take(n, e))
            if a is None or l is None:
                out[at][:, i:i_end] = 0
                out_lse[at][:, i:i_end] = -xp.inf
                continue
            a *= (1.0 / xp.maximum(l, xp.finfo(l.dtype).tiny))[:, None]
            out[at][:, i:i_end] = a.reshape(r, i_end - i, e)
            xp.log(l, out=l)
            out_lse[at][:, i:i_end] = (l if m is None else l + m).reshape(r, i_end - i)

    share_out(work, items, blocks.workers(math.prod(layout.batch) * t * s))
    return y, lse


def longest_keys(xp: Any, layout: Layout, reach: Reach, scale: float) -> tuple[Array, float]:
    """The largest norm of a key for each key head, and the largest bias: |q| |k| + |bias| bounds every score."""
    k = layout.k
    squares = xp.einsum("...sd,...sd->...s", k, k).max(axis=-1, initial=0.0)
    return xp.sqrt(squares), 0.0 if layout.values is None else float(xp.abs(layout.values).max())


def _longest(xp: Any, q: Array) -> float:
    return math.sqrt(float(xp.einsum("nd,nd->n", q, q).max()))
