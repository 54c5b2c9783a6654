"""Position schemes of a stack: what each of them contributes to the view of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.backend import Array
from minilong.nn.view import Late, View, bias_at
from minilong.positions import Scaling, alibi_bias, rotary_turns, sinusoidal_at, t5_values, turned_width

RELATIVE = ("rotary", "alibi", "t5", "xl", "none")
"""Schemes that know distances only, so that a stream may go on for ever."""


@dataclass(frozen=True)
class Scheme:
    """How a stack's attention knows positions.

    name: rotary, alibi, t5 (`table` (buckets, heads) holds its learned values), xl; anything else adds nothing here
    (sinusoidal, cas and learned positions are added to the embeddings). base, interleaved, scaling, share concern
    rotary positions. causal: whether distances are never negative. reach: sinks are never taken to be further away.
    """

    name: str = "none"
    heads: int = 1
    head_width: int = 1
    width: int = 1
    base: float = 10000.0
    interleaved: bool = True
    scaling: Scaling = field(default_factory=Scaling)
    share: float = 1.0
    table: Array | None = None
    causal: bool = True
    reach: int = 0

    def view(self, mask: Mask, queries: Array, keys: Array, dtype: Any, starts: Array | None = None) -> View:
        """The view of queries at positions (t,) on keys at positions (s,), of which the last t are the queries' own.

        Where the mask has sinks, these first keys are taken to be `reach` - 1 away at most. starts (b,): where each
        row begins, which matters to what counts positions from there.
        """
        sinks = mask.sinks
        far = sinks > 0 and len(queries) > 0 and int(queries[-1]) >= self.reach
        if self.name == "rotary":
            return self._rotary(mask, queries, keys, dtype, starts, far)
        if self.name == "xl":
            least = 0 if self.causal else 1 - len(queries)
            distances = np.arange(least, len(keys))
            return View(mask, relative=sinusoidal_at(distances, self.width, dtype=table_type(dtype)), least=least)
        if self.name not in ("alibi", "t5"):
            return View(mask)
        span = float(keys[-1] - keys[0]) if len(keys) else 0.0
        bias: Any = self._bias(int(np.ceil(span)), dtype)
        if far or span + 1 != len(keys):  # the slots are not the positions: look each distance up
            bias = bias_at(bias, self._distances(queries, keys, sinks))
        return View(mask, bias=bias)

    def _rotary(self, mask: Mask, queries: Array, keys: Array, dtype: Any, starts: Array | None, far: bool) -> View:
        kind = "complex128" if str(dtype) == "float64" else "complex64"

        if self.scaling.by_length:
            if starts is not None:
                queries, keys = (np.maximum(p[None, :] - starts[:, None], 0) for p in (queries, keys))
            late = Late(queries, keys, self.scaling, self.base, self.share)
            return View(mask, interleaved=self.interleaved, late=late)

        def turns(positions: Array) -> Array:
            return rotary_turns(
                positions, self.head_width, base=self.base, dtype=kind, scaling=self.scaling, share=self.share
            )

        back = None
        if far:
            shift = np.minimum(queries, self.reach - 1) - queries
            back = turns(shift)
            turned = turned_width(self.head_width, self.share) // 2
            back[:, :turned] /= self.scaling.attention_factor  # the queries carry that factor already
        own = turns(queries)
        return View(mask, own, own if len(keys) == len(queries) else turns(keys), self.interleaved, back=back)

    def _bias(self, longest: int, dtype: Any) -> Any:
        if self.name == "alibi":
            return alibi_bias(self.heads, longest, causal=self.causal, dtype=table_type(dtype))
        return t5_values(self.table, causal=self.causal)

    def _distances(self, queries: Array, keys: Array, sinks: int) -> Array:
        distances = np.asarray(queries)[:, None] - np.asarray(keys, np.float64)[None, :]
        distances[:, :sinks] = np.minimum(queries, self.reach - 1)[:, None] - np.asarray(keys)[None, :sinks]
        return distances


def table_type(dtype: Any) -> str:
    """The type in which the host makes a table for activations of a type: 16 bits are rounded to on the device."""
    return "float64" if str(dtype) == "float64" else "float32"
