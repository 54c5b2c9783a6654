"""Encoder and decoder: residual layers of attention and feed-forward networks.

Where the normalisation stands is the field's oldest dispute, so it is a switch. `post`, as published in 2017:
x <- norm(x + f(x)). `pre`, as nearly all train it today: x <- x + f(norm(x)), with one more norm at the end.
Encoder-decoder attention belongs to the decoder (the article's 3.1.3 also lists it in the encoder; see `specs/`).
How a stack is run (what is stored for the derivative) is a switch too: see `depth.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minilong.keys import Key
from minilong.nn.attention import MultiHeadAttention
from minilong.nn.depth import PLAIN, chain, run
from minilong.nn.layers import Dropout, FeedForward
from minilong.nn.past import Past
from minilong.nn.reversible import Branch
from minilong.nn.view import View


@dataclass(frozen=True)
class EncoderLayer:
    """Self-attention and a feed-forward network, each with residual and norm."""

    attention: MultiHeadAttention
    attention_norm: Any
    feed_forward: FeedForward
    feed_forward_norm: Any
    dropout: Dropout
    norm: str

    def __call__(self, x: Any, *, view: View, past: Past | None = None, key: Key | None = None) -> Any:
        """x (b, t, width) -> the same shape."""
        keys = key.split(3) if key else (None,) * 3
        x = residual(self, self.attention_norm, x, lambda h: self.attention(h, view=view, past=past), keys[0])
        return residual(self, self.feed_forward_norm, x, lambda h: self.feed_forward(h, keys[2]), keys[1])

    def branches(self, view: View, past: Past | None, key: Key | None) -> list[Branch]:
        """What the layer adds to its input, part by part: functions of (layer, x, bias...) for `depth.run`."""
        keys = key.split(3) if key else (None,) * 3

        def attend(layer: EncoderLayer, x: Any, *bias: Any) -> Any:
            h = layer.attention(layer.attention_norm(x), view=view.with_differentiable(*bias), past=past)
            return layer.dropout(h, keys[0])

        def feed(layer: EncoderLayer, x: Any, *_: Any) -> Any:
            return layer.dropout(layer.feed_forward(layer.feed_forward_norm(x), keys[2]), keys[1])

        return [(attend, self), (feed, self)]


@dataclass(frozen=True)
class DecoderLayer:
    """Masked self-attention, attention to the encoder's output where there is one, and a feed-forward network."""

    attention: MultiHeadAttention
    attention_norm: Any
    cross: MultiHeadAttention | None
    cross_norm: Any
    feed_forward: FeedForward
    feed_forward_norm: Any
    dropout: Dropout
    norm: str

    def __call__(
        self,
        x: Any,
        memory: Any = None,
        *,
        view: View,
        memory_view: View | None = None,
        past: Past | None = None,
        key: Key | None = None,
    ) -> Any:
        """x (b, t, width), memory (b, s, width) -> (b, t, width)."""
        keys = key.split(4) if key else (None,) * 4
        x = residual(self, self.attention_norm, x, lambda h: self.attention(h, view=view, past=past), keys[0])
        cross = self.cross
        if cross is not None:
            x = residual(self, self.cross_norm, x, lambda h: cross(h, memory, view=memory_view), keys[1])
        return residual(self, self.feed_forward_norm, x, lambda h: self.feed_forward(h, keys[3]), keys[2])

    def branches(self, view: View, memory_view: View | None, past: Past | None, key: Key | None) -> list[Branch]:
        """What the layer adds to its input, part by part: functions of (layer, x, memory, bias...) for `depth.run`."""
        keys = key.split(4) if key else (None,) * 4

        def attend(layer: DecoderLayer, x: Any, _: Any, *bias: Any) -> Any:
            h = layer.attention(layer.attention_norm(x), view=view.with_differentiable(*bias), past=past)
            return layer.dropout(h, keys[0])

        def cross(layer: DecoderLayer, x: Any, memory: Any, *_: Any) -> Any:
            assert layer.cross is not None
            return layer.dropout(layer.cross(layer.cross_norm(x), memory, view=memory_view), keys[1])

        def feed(layer: DecoderLayer, x: Any, *_: Any) -> Any:
            return layer.dropout(layer.feed_forward(layer.feed_forward_norm(x), keys[3]), keys[2])

        return [(f, self) for f in ((attend, feed) if self.cross is None else (attend, cross, feed))]


def residual(layer: EncoderLayer | DecoderLayer, norm: Any, x: Any, f: Callable[[Any], Any], key: Key | None) -> Any:
    """`pre`: x + drop(f(norm(x))). `post`: norm(x + drop(f(x))). (`eq:residual`)"""
    if layer.norm == "pre":
        return x + layer.dropout(f(norm(x)), key)
    return norm(x + layer.dropout(f(x), key))


@dataclass(frozen=True)
class Encoder:
    """A stack of encoder layers; every token sees every other that the mask allows (`eq:encoder`).

    depth, momentum: how it is run, and what its derivative keeps (`depth.py`).
    """

    layers: tuple[EncoderLayer, ...]
    norm: Any
    depth: str = "stored"
    momentum: float = 0.9

    def __call__(self, x: Any, *, view: View, past: Sequence[Past] | None = None, key: Key | None = None) -> Any:
        """x (b, t, width) -> the same shape. past: one for each layer, where x continues a stream."""

        def step(past: Past | None, key: Key | None) -> Callable[..., Any]:
            return lambda layer, x, *bias: layer(x, view=view.with_differentiable(*bias), past=past, key=key)

        each = [(layer, *own) for layer, own in zip(self.layers, owned(self, past, key), strict=True)]
        if self.depth in PLAIN:
            x = chain(self.depth, [(step(p, k), layer) for layer, p, k in each], x, *view.differentiable())
        else:
            branches = [branch for layer, p, k in each for branch in layer.branches(view, p, k)]
            x = run(self.depth, branches, x, *view.differentiable(), momentum=self.momentum)
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True)
class Decoder:
    """A stack of decoder layers (`eq:decoder`). depth, momentum: as of an encoder."""

    layers: tuple[DecoderLayer, ...]
    norm: Any
    depth: str = "stored"
    momentum: float = 0.9

    def __call__(
        self,
        x: Any,
        memory: Any = None,
        *,
        view: View,
        memory_view: View | None = None,
        past: Sequence[Past] | None = None,
        key: Key | None = None,
    ) -> Any:
        """x (b, t, width), memory (b, s, width) -> (b, t, width). past: one a layer, where x continues a stream."""

        def step(past: Past | None, key: Key | None) -> Callable[..., Any]:
            return lambda layer, x, memory, *bias: layer(
                x, memory, view=view.with_differentiable(*bias), memory_view=memory_view, past=past, key=key
            )

        each = [(layer, *own) for layer, own in zip(self.layers, owned(self, past, key), strict=True)]
        extras = (memory, *view.differentiable())
        if self.depth in PLAIN:
            x = chain(self.depth, [(step(p, k), layer) for layer, p, k in each], x, *extras)
        else:
            branches = [branch for layer, p, k in each for branch in layer.branches(view, memory_view, p, k)]
            x = run(self.depth, branches, x, *extras, momentum=self.momentum)
        return x if self.norm is None else self.norm(x)


def owned(
    stack: Encoder | Decoder, past: Sequence[Past] | None, key: Key | None
) -> list[tuple[Past | None, Key | None]]:
    """Each layer's own past and key."""
    return [(past[i] if past else None, key.fold(i) if key else None) for i in range(len(stack.layers))]
