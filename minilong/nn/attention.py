"""Multi-head attention as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.attention import Mask, dense
from minilong.autodiff import ops, rotate
from minilong.backend import Array
from minilong.keys import Key
from minilong.nn.layers import Linear


@dataclass(frozen=True)
class MultiHeadAttention:
    """Attention in `heads` subspaces of the width, concatenated and mixed by `output` (`eq:multi-head`).

    kv_heads: key and value heads, each shared by heads / kv_heads query heads (1: multi-query attention).
    kernel: how attention is computed; any kernel equals `attention.naive`.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int
    kernel: Callable[..., Any] = dense

    @staticmethod
    def create(
        key: Key,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: bool = True,
        init: str = "xavier",
        gain: float = 1.0,
    ) -> MultiHeadAttention:
        """`gain` scales the weights of `output`, which write to the residual stream."""
        kv_heads = kv_heads or heads
        if width % heads:
            raise ValueError(f"attention: {heads} heads do not divide the width {width}")
        if heads % kv_heads:
            raise ValueError(f"attention: {kv_heads} key heads do not divide {heads} query heads")
        inner = width // heads * kv_heads
        return MultiHeadAttention(
            query=Linear.create(key.fold("query"), width, width, bias=bias, init=init),
            key=Linear.create(key.fold("key"), width, inner, bias=bias, init=init),
            value=Linear.create(key.fold("value"), width, inner, bias=bias, init=init),
            output=Linear.create(key.fold("output"), width, width, bias=bias, init=init, gain=gain),
            heads=heads,
            kv_heads=kv_heads,
        )

    def __call__(self, x: Any, memory: Any = None, *, mask: Mask | None = None, turns: Array | None = None) -> Any:
        """x (b, t, width) attends to memory (b, s, width), or to itself.

        turns: complex (t, d/2) of `positions.rotary_turns` for self-attention with rotary positions.
        """
        source = x if memory is None else memory
        q, k, v = self.query(x), self.key(source), self.value(source)
        if turns is not None:  # before the heads are split: whole rows are turned at once, in contiguous memory
            q = rotate(q, turn=np.tile(turns, self.heads))
            k = rotate(k, turn=np.tile(turns, self.kv_heads))
        y = self.kernel(_split(q, self.heads), _split(k, self.kv_heads), _split(v, self.kv_heads), mask=mask or Mask())
        return self.output(_merge(y))


def _split(x: Any, heads: int) -> Any:
    """(b, t, heads d) -> (b, heads, t, d)"""
    b, t, width = x.shape
    return ops.transpose(ops.reshape(x, shape=(b, t, heads, width // heads)), order=(0, 2, 1, 3))


def _merge(x: Any) -> Any:
    """(b, heads, t, d) -> (b, t, heads d)"""
    b, heads, t, d = x.shape
    return ops.reshape(ops.transpose(x, order=(0, 2, 1, 3)), shape=(b, t, heads * d))
