"""Encoder and decoder: residual layers of attention and feed-forward networks.

Where the normalisation stands is the field's oldest dispute, so it is a switch. `post`, as published in 2017:
x <- norm(x + f(x)). `pre`, as nearly all train it today: x <- x + f(norm(x)), with one more norm at the end.
Encoder-decoder attention belongs to the decoder (the article's 3.1.3 also lists it in the encoder; see `specs/`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilong.attention import Mask
from minilong.backend import Array
from minilong.keys import Key
from minilong.nn.attention import MultiHeadAttention
from minilong.nn.layers import Dropout, FeedForward


@dataclass(frozen=True)
class EncoderLayer:
    """Self-attention and a feed-forward network, each with residual and norm."""

    attention: MultiHeadAttention
    attention_norm: Any
    feed_forward: FeedForward
    feed_forward_norm: Any
    dropout: Dropout
    norm: str

    def __call__(self, x: Any, *, mask: Mask, turns: Array | None = None, key: Key | None = None) -> Any:
        """x (b, t, width) -> the same shape."""
        keys = key.split(3) if key else (None,) * 3
        x = residual(self, self.attention_norm, x, lambda h: self.attention(h, mask=mask, turns=turns), keys[0])
        return residual(self, self.feed_forward_norm, x, lambda h: self.feed_forward(h, keys[2]), keys[1])


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
        mask: Mask,
        memory_mask: Mask | None = None,
        turns: Array | None = None,
        key: Key | None = None,
    ) -> Any:
        """x (b, t, width), memory (b, s, width) -> (b, t, width)."""
        keys = key.split(4) if key else (None,) * 4
        x = residual(self, self.attention_norm, x, lambda h: self.attention(h, mask=mask, turns=turns), keys[0])
        cross = self.cross
        if cross is not None:
            x = residual(self, self.cross_norm, x, lambda h: cross(h, memory, mask=memory_mask), keys[1])
        return residual(self, self.feed_forward_norm, x, lambda h: self.feed_forward(h, keys[3]), keys[2])


def residual(layer: EncoderLayer | DecoderLayer, norm: Any, x: Any, f: Callable[[Any], Any], key: Key | None) -> Any:
    """`pre`: x + drop(f(norm(x))). `post`: norm(x + drop(f(x))). (`eq:residual`)"""
    if layer.norm == "pre":
        return x + layer.dropout(f(norm(x)), key)
    return norm(x + layer.dropout(f(x), key))


@dataclass(frozen=True)
class Encoder:
    """A stack of encoder layers; every token sees every other that the mask allows (`eq:encoder`)."""

    layers: tuple[EncoderLayer, ...]
    norm: Any

    def __call__(self, x: Any, *, mask: Mask, turns: Array | None = None, key: Key | None = None) -> Any:
        """x (b, t, width) -> the same shape."""
        for i, layer in enumerate(self.layers):
            x = layer(x, mask=mask, turns=turns, key=key.fold(i) if key else None)
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True)
class Decoder:
    """A stack of decoder layers (`eq:decoder`)."""

    layers: tuple[DecoderLayer, ...]
    norm: Any

    def __call__(
        self,
        x: Any,
        memory: Any = None,
        *,
        mask: Mask,
        memory_mask: Mask | None = None,
        turns: Array | None = None,
        key: Key | None = None,
    ) -> Any:
        """x (b, t, width), memory (b, s, width) -> (b, t, width)."""
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, mask=mask, memory_mask=memory_mask, turns=turns, key=key.fold(i) if key else None)
        return x if self.norm is None else self.norm(x)
