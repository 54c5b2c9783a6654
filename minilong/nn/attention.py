"""Multi-head attention as a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from minilong.attention import auto
from minilong.attention.parts import attention_by_parts
from minilong.autodiff import Tensor, ops, rotate
from minilong.backend import Array, array_module
from minilong.backend.products import matmul
from minilong.keys import Key
from minilong.nn.init import child
from minilong.nn.layers import Linear
from minilong.nn.past import Past
from minilong.nn.view import View
from minilong.positions import dynamic_attention, relative_term


@dataclass(frozen=True)
class Relative:
    """What Transformer-XL's positions learn (`eq:relative-term`): content and position (heads, d) join the queries,
    project (width, heads d) maps the sinusoid of each distance."""

    content: Array
    position: Array
    project: Linear


@dataclass(frozen=True)
class MultiHeadAttention:
    """Attention in `heads` subspaces of the width, concatenated and mixed by `output` (`eq:multi-head`).

    kv_heads: key and value heads, each shared by heads / kv_heads query heads (1: multi-query attention).
    kernel: how attention is computed; any kernel equals `attention.naive`. relative: for the position scheme `xl`.
    scale: times the scores, 1/sqrt(d) of heads d wide unless given (`eq:given-scale`).
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int
    kernel: Callable[..., Any] = auto
    relative: Relative | None = None
    scale: float | None = None

    @staticmethod
    def create(
        key: Key | None,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        bias: bool = True,
        output_bias: bool | None = None,
        init: str = "xavier",
        gain: float = 1.0,
        kernel: Callable[..., Any] = auto,
        relative: bool = False,
        scale: float | None = None,
    ) -> MultiHeadAttention:
        """`gain` scales the weights of `output`, which write to the residual stream. head_width: width / heads unless
        given. output_bias: whether `output` has a bias, as the others unless given."""
        kv_heads = kv_heads or heads
        if head_width is None and width % heads:
            raise ValueError(f"attention: {heads} heads do not divide the width {width}")
        if heads % kv_heads:
            raise ValueError(f"attention: {kv_heads} key heads do not divide {heads} query heads")
        d = head_width or width // heads
        wide, inner, last = heads * d, kv_heads * d, bias if output_bias is None else output_bias
        zeros, term = np.zeros((heads, d), np.float32), None
        if relative:
            term = Relative(zeros, zeros.copy(), Linear.create(child(key, "relative"), width, wide, bias=False))
        return MultiHeadAttention(
            query=Linear.create(child(key, "query"), width, wide, bias=bias, init=init),
            key=Linear.create(child(key, "key"), width, inner, bias=bias, init=init),
            value=Linear.create(child(key, "value"), width, inner, bias=bias, init=init),
            output=Linear.create(child(key, "output"), wide, width, bias=last, init=init, gain=gain),
            heads=heads,
            kv_heads=kv_heads,
            kernel=kernel,
            relative=term,
            scale=scale,
        )

    def __call__(self, x: Any, memory: Any = None, *, view: View | None = None, past: Past | None = None) -> Any:
        """x (b, t, width) attends to memory (b, s, width), or to itself, and to the past that a stream carries."""
        view = view or View()
        source = x if memory is None else memory
        if past is not None and past.of_inputs:
            (source,) = past.extend(source)
        q, k, v = self.query(x), self.key(source), self.value(source)
        if view.turns is not None and view.interleaved:  # whole rows are turned at once, in contiguous memory
            q, k = self._turn(q, view.turns, self.heads), self._turn(k, self._key_turns(view, past), self.kv_heads)
        q, k, v = _split(q, self.heads), _split(k, self.kv_heads), _split(v, self.kv_heads)
        if view.turns is not None and not view.interleaved:
            q = rotate(q, turn=view.turns, interleaved=False)
            k = rotate(k, turn=self._key_turns(view, past), interleaved=False)
        if past is not None and not past.of_inputs:
            if past.by_parts(view):
                past.write(k, v)
                return self.output(_merge(self._by_parts(q, view, past)))
            k, v = past.extend(k, v)
        y = self._attend(q, k, v, view)
        if past is not None and past.memory.scored:
            past.heed(q, self._scale(q))
        return self.output(_merge(y))

    def _scale(self, q: Any) -> float:
        """What the scores are multiplied by."""
        return 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale

    def _by_parts(self, q: Array, view: View, past: Past) -> Array:
        """As `_attend`, of the keys and values that the past gives part by part; the sinks are its first part."""
        parts, bias, scale = past.parts(), view.bias, self._scale(q)
        if view.back is not None:
            first = next(parts)
            bias, parts = self._sinks(q, first[0], view, view.back) * scale, chain((first,), parts)
        return attention_by_parts(q, parts, mask=view.mask, scale=scale, bias=bias)

    def _attend(self, q: Any, k: Any, v: Any, view: View) -> Any:
        """The heads' outputs (b, h, t, e) of turned queries and keys, with what the position scheme adds."""
        bias, scale = view.bias, self._scale(q)
        kernel = self.kernel if self.scale is None else partial(self.kernel, scale=scale)
        if view.late is not None:
            late = view.late
            return dynamic_attention(
                kernel,
                q,
                k,
                v,
                positions=late.queries,
                key_positions=late.keys,
                scaling=late.scaling,
                base=late.base,
                interleaved=view.interleaved,
                mask=view.mask,
                share=late.share,
            )
        if self.relative is not None and view.relative is not None:
            term, mask = self.relative, view.mask
            projected = _split(term.project(view.relative[None]), self.heads)[0]
            bias = relative_term(
                q + _per_head(term.position),
                projected,
                keys=k.shape[-2],
                offset=mask.offset,
                least=view.least,
                scale=self.scale,
            )
            q = q + _per_head(term.content)
        if view.back is not None:  # the sinks see each query nearer than it is: the difference of the scores
            bias = ops.scale(self._sinks(q, k, view, view.back), by=scale)
        return kernel(q, k, v, mask=view.mask, bias=bias)

    def _sinks(self, q: Array, k: Array, view: View, back: Array) -> Array:
        """(b, h, t, s): what to add to q k^T so that the first keys are met from the position to which `back` leads."""
        xp, sinks = array_module(q), view.mask.sinks
        nearer = rotate(q, turn=back, interleaved=view.interleaved) - q
        keys = xp.repeat(k[..., :sinks, :], self.heads // self.kv_heads, axis=-3)
        bias = xp.zeros((*q.shape[:-1], k.shape[-2]), q.dtype)
        bias[..., :sinks] = matmul(xp, nearer, keys.swapaxes(-1, -2))
        return bias

    @staticmethod
    def _turn(x: Any, turns: Array, heads: int) -> Any:
        if array_module(turns) is np:
            return rotate(x, turn=np.tile(turns, heads))
        apart = ops.reshape(x, shape=(*x.shape[:-1], heads, x.shape[-1] // heads))
        return ops.reshape(rotate(apart, turn=turns[..., None, :]), shape=x.shape)

    @staticmethod
    def _key_turns(view: View, past: Past | None) -> Array:
        """The keys' turns: of all that is read where inputs are kept, of the new ones where keys are."""
        assert view.turns is not None
        return view.key_turns if past is not None and past.of_inputs and view.key_turns is not None else view.turns


def _per_head(x: Any) -> Any:
    """(heads, d) -> (heads, 1, d)"""
    heads, d = x.shape
    return ops.reshape(x, shape=(heads, 1, d))


def _split(x: Any, heads: int) -> Any:
    """(b, t, heads d) -> (b, heads, t, d)"""
    b, t, width = x.shape
    shape, order = (b, t, heads, width // heads), (0, 2, 1, 3)
    if type(x) is not Tensor:  # the same; a token that is generated waits for little else
        return x.reshape(shape).transpose(order)
    return ops.transpose(ops.reshape(x, shape=shape), order=order)


def _merge(x: Any) -> Any:
    """(b, heads, t, d) -> (b, t, heads d)"""
    b, heads, t, d = x.shape
    shape, order = (b, t, heads * d), (0, 2, 1, 3)
    if type(x) is not Tensor:
        return x.transpose(order).reshape(shape)
    return ops.reshape(ops.transpose(x, order=order), shape=shape)
