"""Transformer-XL's relative positions: queries meet a projected sinusoid of the distance (Dai et al. 2019).

A_ij = (q_i + u) . k_j + (q_i + v) . W_R R_(i-j). The first product is that of any attention; the second is added to it
as a bias. Nothing depends on where a text begins, so keys of an earlier segment stay valid.
"""

from __future__ import annotations

import math
from typing import Any

from minilong.attention.naive import array_of
from minilong.autodiff import ops


def relative_term(
    q: Any, projected: Any, *, keys: int, offset: int = 0, least: int = 0, scale: float | None = None
) -> Any:
    """q_i . projected at distance i + offset - j, times the scale (`eq:relative-term`), to add to scaled scores.

    q (..., h, t, d), the model's v added; projected (h, m, d) = W_R R of each head for the distances least,
    least + 1, ...; offset: position of query 0 among the `keys` keys (the length of the memory) -> (..., h, t, keys).
    scale: 1/sqrt(d) unless given, as in the kernels. Distances up to offset + t - 1 must be there (ValueError); keys
    at distances below `least` get 0: with least = 0, those after the query, which a causal mask hides. An encoder
    needs least = offset - keys + 1.

    One product for all distances, then rows shifted against one another by reading the memory with rows shorter by
    one: d t m operations, where a table of R_(i-j) would take d t s memory.
    """
    t, m = q.shape[-2], projected.shape[-2]
    if not least <= 0 <= offset or least + m < offset + t:
        given, needed = f"{least} to {least + m - 1}", f"{min(least, 0)} to {offset + t - 1}"
        raise ValueError(f"relative term: distances {given} are given, and {needed} needed")
    # Columns by falling distance, from that of the last query to key 0 on: row i begins t - 1 - i columns in.
    top, wide = offset + t - 1 - least, t + keys
    stop = top - wide if top >= wide else None
    columns = ops.getitem(projected, key=(..., slice(top, stop, -1), slice(None)))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    product = ops.matmul(ops.scale(q, by=scale), ops.swap_last(columns))
    missing = wide - product.shape[-1]
    if missing > 0:
        xp = array_of(q)
        product = ops.concatenate(product, xp.zeros((*product.shape[:-1], missing), product.dtype), axis=-1)
    flat = ops.reshape(product, shape=(*product.shape[:-2], t * wide))
    shifted = ops.getitem(flat, key=(..., slice(t - 1, t - 1 + t * (wide - 1))))
    rows = ops.reshape(shifted, shape=(*product.shape[:-2], t, wide - 1))
    return ops.getitem(rows, key=(..., slice(0, keys)))
