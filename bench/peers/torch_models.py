"""The models in PyTorch as one would write them for speed: fused projections, scaled_dot_product_attention, no masks.

The mathematics is minilong's: embeddings times sqrt(width), pre-norm, tied output. Weights go over by minilong's field
paths; those of a fused projection are minilong's side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Place = tuple[nn.Parameter, list[str], bool]
"""A parameter, the field paths whose arrays lie in it one after another, and whether each is stored transposed."""


def heads(x: Tensor, h: int) -> Tensor:
    """(b, t, d) -> (b, h, t, d / h), a view."""
    b, t, d = x.shape
    return x.view(b, t, h, d // h).transpose(1, 2)


class SelfAttention(nn.Module):
    """One projection to queries, keys and values."""

    def __init__(self, d: int, h: int, causal: bool) -> None:
        super().__init__()
        self.h, self.causal = h, causal
        self.qkv, self.output = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(heads(q, self.h), heads(k, self.h), heads(v, self.h), is_causal=self.causal)
        return self.output(y.transpose(1, 2).flatten(2))

    def places(self, at: str) -> Iterator[Place]:
        yield from linear(self.qkv, *(f"{at}.{name}" for name in ("query", "key", "value")))
        yield from linear(self.output, f"{at}.output")


class CrossAttention(nn.Module):
    """Queries of the target, one projection of the source to keys and values."""

    def __init__(self, d: int, h: int) -> None:
        super().__init__()
        self.h = h
        self.query, self.kv, self.output = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        k, v = self.kv(memory).chunk(2, dim=-1)
        y = F.scaled_dot_product_attention(heads(self.query(x), self.h), heads(k, self.h), heads(v, self.h))
        return self.output(y.transpose(1, 2).flatten(2))

    def places(self, at: str) -> Iterator[Place]:
        yield from linear(self.query, f"{at}.query")
        yield from linear(self.kv, f"{at}.key", f"{at}.value")
        yield from linear(self.output, f"{at}.output")


class Layer(nn.Module):
    """A pre-norm layer."""

    def __init__(self, d: int, h: int, approximate: str, *, causal: bool, cross: bool) -> None:
        super().__init__()
        self.approximate = approximate
        self.attention, self.attention_norm = SelfAttention(d, h, causal), nn.LayerNorm(d)
        self.cross = CrossAttention(d, h) if cross else None
        self.cross_norm = nn.LayerNorm(d) if cross else None
        self.up, self.down, self.feed_forward_norm = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.LayerNorm(d)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            x = x + self.cross(self.cross_norm(x), memory)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.approximate))

    def places(self, at: str) -> Iterator[Place]:
        yield from self.attention.places(f"{at}.attention")
        yield from norm(self.attention_norm, f"{at}.attention_norm")
        if self.cross is not None and self.cross_norm is not None:
            yield from self.cross.places(f"{at}.cross")
            yield from norm(self.cross_norm, f"{at}.cross_norm")
        yield from linear(self.up, f"{at}.feed_forward.up")
        yield from linear(self.down, f"{at}.feed_forward.down")
        yield from norm(self.feed_forward_norm, f"{at}.feed_forward_norm")


class Stack(nn.Module):
    """Layers and a norm."""

    def __init__(self, m: Mapping[str, Any], *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        approximate = "tanh" if m["activation"] == "gelu_tanh" else "none"
        d, h = m["width"], m["heads"]
        self.layers = nn.ModuleList([Layer(d, h, approximate, causal=causal, cross=cross) for _ in range(m["layers"])])
        self.norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, memory)
        return self.norm(x)

    def places(self, at: str) -> Iterator[Place]:
        for i, layer in enumerate(self.layers):
            yield from layer.places(f"{at}.layers.{i}")
        yield from norm(self.norm, f"{at}.norm")


class Model(nn.Module):
    """Decoder-only, or encoder-decoder; `loss` takes the tokens of a batch."""

    def __init__(self, m: Mapping[str, Any], vocabulary: int) -> None:
        super().__init__()
        d = m["width"]
        self.scale = math.sqrt(d)
        self.tokens = nn.Embedding(vocabulary, d)
        self.learned = m["position"] == "learned"
        if self.learned:
            self.positions = nn.Embedding(m["context"], d)
        else:
            self.register_buffer("table", sinusoidal(m["context"], d))
        self.stack = Stack(m, causal=True) if m["kind"] == "decoder" else None
        self.encoder = Stack(m, causal=False) if self.stack is None else None
        self.decoder = Stack(m, causal=True, cross=True) if self.stack is None else None

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Tokens that stand at positions from `first` on."""
        table = self.positions.weight if self.learned else self.table
        return self.tokens(tokens) * self.scale + table[first : first + tokens.shape[1]]

    def loss(self, inputs: Tensor, targets: Tensor, source: Tensor | None = None) -> Tensor:
        """Mean cross-entropy."""
        x = self.embed(inputs)
        if self.stack is not None:
            x = self.stack(x)
        elif self.encoder is not None and self.decoder is not None and source is not None:
            x = self.decoder(x, self.encoder(self.embed(source)))
        logits = F.linear(x, self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def places(self) -> Iterator[Place]:
        """All parameters."""
        yield self.tokens.weight, ["input.tokens.table"], False
        if self.learned:
            yield self.positions.weight, ["input.positions.table"], False
        for name in ("stack", "encoder", "decoder"):
            if (stack := getattr(self, name)) is not None:
                yield from stack.places(name)


def linear(module: nn.Linear, *names: str) -> Iterator[Place]:
    """Weight and bias of a layer that holds those of `names` side by side."""
    yield module.weight, [f"{name}.weight" for name in names], True
    yield module.bias, [f"{name}.bias" for name in names], False


def norm(module: nn.LayerNorm, name: str) -> Iterator[Place]:
    """Gain and bias."""
    yield module.weight, [f"{name}.gain"], False
    yield module.bias, [f"{name}.bias"], False


def sinusoidal(context: int, d: int) -> Tensor:
    """Sines and cosines in turn (Vaswani et al. 2017, 3.5)."""
    angle = torch.arange(context, dtype=torch.float64)[:, None] / 10000 ** (
        torch.arange(0, d, 2, dtype=torch.float64) / d
    )
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def load(places: Iterator[Place], weights: Mapping[str, np.ndarray]) -> None:
    """Copy weights by field path. Raises ValueError where the names differ."""
    left = set(weights)
    with torch.no_grad():
        for parameter, names, transposed in places:
            for part, name in zip(parameter.chunk(len(names)), names, strict=True):
                array = torch.from_numpy(weights[name])
                part.copy_(array.T if transposed else array)
                left.discard(name)
    if left:
        raise ValueError(f"the peer has no {', '.join(sorted(left))}")


def read(places: Iterator[Place], values: Mapping[nn.Parameter, Tensor] | None = None) -> dict[str, np.ndarray]:
    """Field path -> array in minilong's layout: of the parameters, or of tensors that belong to them."""
    found = {}
    for parameter, names, transposed in places:
        tensor = (parameter if values is None else values[parameter]).detach()
        for part, name in zip(tensor.chunk(len(names)), names, strict=True):
            found[name] = (part.T if transposed else part).numpy().copy()
    return found
