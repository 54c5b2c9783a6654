"""Attention under dynamic scaling: frequencies follow the length, so keys are kept unturned until they are used.

Keys that were turned with the frequencies of an earlier, shorter text do not fit queries turned with later ones. Here
each query has a length of its own, that of the text up to and including it, and meets all keys turned for that length.
Its result then depends on what came before it alone, and a text may be split at any place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minilong.attention.mask import Mask
from minilong.autodiff import ops
from minilong.backend import Array
from minilong.positions.rotary import rotary
from minilong.positions.scaling import Scaling


def dynamic_attention(
    kernel: Callable[..., Any],
    q: Any,
    k: Any,
    v: Any,
    *,
    positions: Array,
    key_positions: Array,
    scaling: Scaling,
    base: float = 10000.0,
    interleaved: bool = True,
    mask: Mask | None = None,
    share: float = 1.0,
) -> Any:
    """`kernel` with queries and keys turned for each query's own length, position + 1 (`eq:dynamic-attention`).

    q (..., h, t, d) at positions (t,) or (b, t), k and v (..., g, s, d) at key_positions (s,) or (b, s), none of them
    turned yet -> (..., h, t, e). Queries whose frequencies are the same, all those within the context, are computed
    together, each later one alone: s d operations a query for turning, no more than its scores take. share: of the
    dimensions that are turned.
    """
    lengths = np.maximum(np.asarray(positions) + 1, scaling.context)
    lengths = lengths if scaling.by_length else np.zeros_like(lengths)
    positions, mask, parts = np.asarray(positions), mask or Mask(), []
    turned = partial(rotary, base=base, interleaved=interleaved, scaling=scaling, share=share)
    for begin, end in _runs(lengths):
        length = lengths[..., begin : begin + 1]
        here = ops.getitem(q, key=(..., slice(begin, end), slice(None)))
        queries, keys = turned(here, positions[..., begin:end], length=length), turned(k, key_positions, length=length)
        parts.append(kernel(queries, keys, v, mask=replace(mask, offset=mask.offset + begin)))
    return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=-2)


def _runs(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of equal columns of lengths (..., t)."""
    columns = lengths.reshape(-1, lengths.shape[-1])
    changes = np.flatnonzero(np.any(columns[:, 1:] != columns[:, :-1], axis=0)) + 1
    ends = [*changes.tolist(), columns.shape[1]]
    yield from zip([0, *ends[:-1]], ends, strict=True)
