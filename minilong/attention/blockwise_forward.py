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

from minilong.attention.blocks import Blocks, Scratch
from minilong.attention.layout import BOUNDED, Layout, extent, largest, longest, row_sums, token_major
from minilong.attention.reach import Reach
from minilong.backend import Array, workspace
from minilong.backend.products import matmul
from minilong.backend.workers import share_out

SLACK = 8.0
"""By how much a block's scores may exceed the shift before it moves: e^8 costs no accuracy in floating point."""


def sweep_forward(xp: Any, layout: Layout, reach: Reach, scale: float, blocks: Blocks) -> tuple[Array, Array]:
    """The output (*batch, t, e) and the log-sum-exp (*batch, t); zeros and -inf for a query that sees no key.

    Source: Rabe and Staats 2021; Dao et al. 2022.
    """
    q, k, v = layout.q, layout.k, layout.v
    r, t, d = q.shape[-3:]
    s, e = v.shape[-2:]
    y = token_major(xp, layout.batch, t, e, q.dtype)
    lse = workspace(xp, (*layout.batch, t), q.dtype)
    out, out_lse = layout.stacked(y), layout.stacked(lse)
    rows, columns = blocks.shape(r, t, s, reach.mask)
    longest_key = longest(xp, k) if r * t >= 8 else None  # for a few it costs more than it saves
    largest_bias = 0.0 if layout.values is None else largest(xp.abs(layout.values))
    starts = range(0, t, rows)[::-1]  # of a causal mask the last block of queries reaches most: begin with it
    groups = layout.groups(r * rows * columns, blocks.area, by_row=reach.by_row)
    items = [(at, i) for at in groups for i in starts]

    def work(items: Iterator[tuple[tuple[Any, ...], int]]) -> None:
        heads = max((math.prod(extent(at)) for at in groups), default=0)
        scores, queries = (Scratch(xp, heads * r * rows * width, q.dtype) for width in (columns, d))
        sums, product = (Scratch(xp, heads * r * rows * e, q.dtype) for _ in range(2))
        ones, least = xp.ones(columns, q.dtype), float(xp.finfo(q.dtype).min)
        for at, i in items:
            i_end = min(i + rows, t)
            lead, n = extent(at), r * (i_end - i)
            block = queries.take(*lead, r, i_end - i, d)
            xp.multiply(q[at][..., i:i_end, :], scale, out=block)
            own = block.reshape(*lead, n, d)
            keys, values = k[at], v[at]
            bounded = longest_key is not None and (
                largest(longest(xp, own) * longest_key[at]) + largest_bias <= BOUNDED
            )
            m = l = a = None
            for j, j_end, cut in reach.blocks(at, i, i_end, columns):
                p = matmul(xp, own, keys[..., j:j_end, :].swapaxes(-1, -2), out=scores.take(*lead, n, j_end - j))
                reach.add_to(p, at, i, i_end, j, j_end, cut)
                if not bounded:
                    top = xp.maximum(p.max(axis=-1), least)  # finite even where nothing is visible
                    if m is None:
                        m = top
                    elif (top > m + SLACK).any():
                        higher = xp.maximum(m, top)
                        shrink = xp.exp(m - higher)
                        l *= shrink
                        a *= shrink[..., None]
                        m = higher
                    p -= m[..., None]
                xp.exp(p, out=p)
                if a is None:
                    l, a = (
                        row_sums(xp, p, ones[: j_end - j]),
                        matmul(xp, p, values[..., j:j_end, :], out=sums.take(*lead, n, e)),
                    )
                else:
                    l += row_sums(xp, p, ones[: j_end - j])
                    a += matmul(xp, p, values[..., j:j_end, :], out=product.take(*lead, n, e))
            if a is None or l is None:
                out[at][..., i:i_end, :] = 0
                out_lse[at][..., i:i_end] = -xp.inf
                continue
            a *= (1.0 / xp.maximum(l, xp.finfo(l.dtype).tiny))[..., None]
            out[at][..., i:i_end, :] = a.reshape(*lead, r, i_end - i, e)
            xp.log(l, out=l)
            out_lse[at][..., i:i_end] = (l if m is None else l + m).reshape(*lead, r, i_end - i)

    share_out(work, items, blocks.workers(math.prod(layout.batch) * t * s))
    return y, lse
