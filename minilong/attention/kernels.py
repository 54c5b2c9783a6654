"""Blockwise attention as a kernel like `naive` and `dense`, and the choice between the latter two by size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.attention.bias import DistanceBias
from minilong.attention.blocks import Blocks
from minilong.attention.blockwise import attend_blocks, attend_blocks_biased
from minilong.attention.dense import dense
from minilong.attention.mask import Mask
from minilong.attention.naive import array_of, grouped
from minilong.autodiff import Tensor, ops
from minilong.backend import Array
from minilong.backend.kernels.flash_plan import WIDEST


@dataclass(frozen=True)
class Blockwise(Blocks):
    """Attention as `naive` defines it, in memory linear in the length: `blockwise(q, k, v, mask=mask)`.

    Accepts every field of Mask and a DistanceBias, differentiable if its values are a tensor; refuses a bias that is a
    table of all scores (ValueError) and masks of other types (TypeError). Blocks that the mask empties are skipped.
    The bits of the result depend on rows and columns, but not on threads.
    """

    def __call__(
        self, q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None
    ) -> Any:
        """q (..., h, t, d), k (..., g, s, d), v (..., g, s, e) -> (..., h, t, e) (`eq:blockwise-attention`)."""
        inputs, values, least = prepared(q, k, v, mask, bias)
        keywords: dict[str, Any] = {
            "scale": 1 / math.sqrt(q.shape[-1]) if scale is None else scale,
            "mask": mask or Mask(),
            "blocks": self,
            "least": least,
        }
        if isinstance(values, Tensor):
            y = attend_blocks_biased(*inputs, values, **keywords)
        else:
            y = attend_blocks(*inputs, values=values, **keywords)
        return y if y.shape[:-1] == q.shape[:-1] else ops.reshape(y, shape=(*q.shape[:-1], v.shape[-1]))

    def with_lse(
        self, q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None
    ) -> tuple[Array, Array]:
        """Output (..., h, t, e) and log-sum-exp (..., h, t) of the visible scores (`eq:log-sum-exp`).

        Plain arrays only; -inf for a query that sees no key. With the log-sum-exp any part of the attention map can be
        computed alone (`maps.py`), and outputs over disjoint sets of keys can be merged (`merge`).
        """
        inputs, values, least = prepared(q, k, v, mask, bias)
        scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        y, lse = attend_blocks.with_aux(
            *inputs, scale=scale, mask=mask or Mask(), blocks=self, values=values, least=least
        )
        return y.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])


def prepared(q: Any, k: Any, v: Any, mask: Mask | None, bias: Any) -> tuple[tuple[Any, ...], Any, int]:
    """Inputs with key heads that are shared on an axis of their own, and the values and `least` of a distance bias."""
    if bias is not None and not isinstance(bias, DistanceBias):
        raise ValueError(
            "blockwise: a bias that is a table of all scores takes the memory that this kernel saves; "
            "give a DistanceBias, or use dense"
        )
    if mask is not None and (mask.key_lengths is not None or mask.segments is not None) and len(q.shape) != 4:
        raise ValueError(f"mask: lengths and segments need queries (batch, heads, t, d), not {tuple(q.shape)}")
    inputs = grouped(q, k, v)
    if bias is None:
        return inputs, None, 0
    values = bias.values
    if len(inputs[0].shape) > len(q.shape) and values.shape[0] > 1:
        values = ops.reshape(values, shape=(*inputs[0].shape[-4:-2], values.shape[-1]))
    return inputs, values, bias.least


blockwise = Blockwise()


@dataclass(frozen=True)
class Auto:
    """`dense` while the scores of one batch row are few, `blockwise` beyond: a function of the shapes alone.

    limit: how many scores are few, over all heads; those of a single query always are. A bias that is a table, and
    masks of other types, go to `dense`.
    """

    blockwise: Blockwise = blockwise
    limit: int = 1 << 18

    def __call__(
        self, q: Any, k: Any, v: Any, *, mask: Mask | None = None, scale: float | None = None, bias: Any = None
    ) -> Any:
        """As `naive`."""
        kernel = self.choice(q, k, mask, bias)
        return kernel(q, k, v, mask=mask, scale=scale, bias=bias)

    def choice(self, q: Any, k: Any, mask: Mask | None = None, bias: Any = None) -> Any:
        """The kernel that takes these arguments."""
        table = bias is not None and not isinstance(bias, DistanceBias)
        if array_of(q) is not np:  # a GPU's kernels are for any size; they give a bias no cotangent
            learned = isinstance(bias, DistanceBias) and isinstance(bias.values, Tensor)
            wide = max(q.shape[-1], k.shape[-1]) > WIDEST
            return dense if wide or learned or table or type(mask or Mask()) is not Mask else self.blockwise
        few = q.shape[-2] == 1 or math.prod(q.shape[-3:-1]) * k.shape[-2] <= self.limit
        if few or table or type(mask or Mask()) is not Mask:
            return dense
        return self.blockwise


auto = Auto()


def merge(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Attention over two disjoint sets of keys from that over each, as pairs of `with_lse` (`eq:merge-attention`).

    Associative and commutative up to rounding; neutral: (zeros, -inf), attention over no key. Splitting a cache among
    workers, or reading it in parts, is exact by this.
    """
    (y, a), (z, b) = first, second
    xp = array_of(y)
    top = xp.maximum(a, b)
    shift = xp.where(top == -xp.inf, 0.0, top).astype(a.dtype)
    u, w = xp.exp(a - shift), xp.exp(b - shift)
    total = xp.maximum(u + w, xp.finfo(a.dtype).tiny)  # below 1 only where neither saw a key
    lse = xp.where(top == -xp.inf, top, shift + xp.log(total))
    return y * (u / total)[..., None] + z * (w / total)[..., None], lse
