"""The article's models in PyTorch, written from the papers: the peer that minilong is compared with.

Nothing of minilong is used but the configuration's values. Modules stand under the names of minilong's fields, so that
weights are loaded, and gradients read, by field path: `stack.layers.0.attention.query.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilong.models.config import ModelConfig


class Attention(nn.Module):
    """Vaswani et al. 2017, 3.2; several query heads may share a key head (Ainslie et al. 2023)."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = c.heads, c.kv_heads, c.width // c.heads
        self.query = nn.Linear(c.width, c.heads * self.head, bias=c.bias)
        self.key = nn.Linear(c.width, c.kv_heads * self.head, bias=c.bias)
        self.value = nn.Linear(c.width, c.kv_heads * self.head, bias=c.bias)
        self.output = nn.Linear(c.heads * self.head, c.width, bias=c.bias)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor | None, angles: Tensor | None = None) -> Tensor:
        """visible: booleans that broadcast to (b, heads, t, s)."""
        q = self.query(x).unflatten(-1, (self.heads, self.head)).transpose(1, 2)
        k = self.key(memory).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        v = self.value(memory).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        if angles is not None:
            q, k = turned(q, angles), turned(k, angles)
        k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
        v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.output(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Vaswani et al. 2017, 3.3; with a gate, Shazeer 2020 (SwiGLU)."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(c.width, c.feed_forward, bias=c.bias)
        self.gate = nn.Linear(c.width, c.feed_forward, bias=c.bias) if c.activation == "swiglu" else None
        self.down = nn.Linear(c.feed_forward, c.width, bias=c.bias)
        self.activation = {
            "relu": nn.ReLU(),
            "gelu": nn.GELU(),
            "gelu_tanh": nn.GELU(approximate="tanh"),
            "silu": nn.SiLU(),
            "swiglu": nn.SiLU(),
        }[c.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """An encoder layer, or a decoder layer with `cross` attention to an encoder's output."""

    def __init__(self, c: ModelConfig, *, cross: bool) -> None:
        super().__init__()
        self.pre = c.norm == "pre"
        self.attention, self.attention_norm = Attention(c), norm(c)
        self.cross = Attention(c) if cross else None
        self.cross_norm = norm(c) if cross else None
        self.feed_forward, self.feed_forward_norm = FeedForward(c), norm(c)

    def forward(
        self, x: Tensor, memory: Tensor | None, visible: Tensor | None, source: Tensor | None, angles: Tensor | None
    ) -> Tensor:
        if self.pre:
            h = self.attention_norm(x)
            x = x + self.attention(h, h, visible, angles)
            if self.cross is not None:
                x = x + self.cross(self.cross_norm(x), memory, source)
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.attention_norm(x + self.attention(x, x, visible, angles))
        if self.cross is not None:
            x = self.cross_norm(x + self.cross(x, memory, source))
        return self.feed_forward_norm(x + self.feed_forward(x))


class Stack(nn.Module):
    """Layers, and in pre-norm models one more norm at the end."""

    def __init__(self, c: ModelConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(c, cross=cross) for _ in range(c.layers)])
        self.norm = norm(c) if c.norm == "pre" else None

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None,
        angles: Tensor | None,
        memory: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, memory, visible, source, angles)
        return x if self.norm is None else self.norm(x)


class Input(nn.Module):
    """Embeddings times sqrt(width), plus positions (Vaswani et al. 2017, 3.4 and 3.5)."""

    def __init__(self, c: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.c = c
        self.tokens = nn.Embedding(vocabulary, c.width)
        self.positions = nn.Embedding(c.context, c.width) if c.position == "learned" else None

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) * math.sqrt(self.c.width)
        if self.positions is not None:
            return x + self.positions.weight[: tokens.shape[1]]
        if self.c.position in ("sinusoidal", "cas"):
            return x + fixed_positions(self.c.position, tokens.shape[1], self.c.width).to(x.dtype)
        return x


class Model(nn.Module):
    """Decoder-only, encoder-only or encoder-decoder, with one vocabulary; tied weights where there is no `head`."""

    def __init__(self, c: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.c = c = c.resolved()
        self.input = Input(c, vocabulary)
        if c.kind == "encoder-decoder":
            self.encoder, self.decoder = Stack(c), Stack(c, cross=True)
        else:
            self.stack = Stack(c)
        self.head = None if c.tied else nn.Linear(c.width, vocabulary, bias=False)

    def language(self, tokens: Tensor, segments: Tensor | None) -> Tensor:
        """Logits (b, t, vocabulary) of a model of one sequence."""
        t = tokens.shape[1]
        visible = past(t) if self.c.kind == "decoder" else torch.ones(t, t, dtype=torch.bool)
        if segments is not None:
            visible = (visible & (segments[:, :, None] == segments[:, None, :]))[:, None]
        return self.logits(self.stack(self.input(tokens), visible, self.angles(t)))

    def translate(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Logits (b, t, vocabulary) of the target, given the padded source."""
        s, t = source.shape[1], target.shape[1]
        real = (torch.arange(s) < lengths[:, None])[:, None, None, :]
        memory = self.encoder(self.input(source), real, self.angles(s))
        return self.logits(self.decoder(self.input(target), past(t), self.angles(t), memory, real))

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.input.tokens.weight) if self.head is None else self.head(x)

    def angles(self, t: int) -> Tensor | None:
        """p / 10000^(2j/d): (t, d/2), for rotary positions."""
        if self.c.position != "rotary":
            return None
        d = self.c.width // self.c.heads
        return torch.arange(t, dtype=torch.float64)[:, None] / 10000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)


def norm(c: ModelConfig) -> nn.Module:
    """Ba et al. 2016, or Zhang and Sennrich 2019."""
    return nn.LayerNorm(c.width, eps=1e-5) if c.normalization == "layer" else nn.RMSNorm(c.width, eps=1e-6)


def past(t: int) -> Tensor:
    """A token sees itself and those before it."""
    return torch.ones(t, t, dtype=torch.bool).tril()


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Su et al. 2021, equation 34: x (b, heads, t, d), neighbours turned by angles (t, d/2)."""
    cos = angles.cos().repeat_interleave(2, dim=-1).to(x.dtype)
    sin = angles.sin().repeat_interleave(2, dim=-1).to(x.dtype)
    swapped = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * cos + swapped * sin


def fixed_positions(kind: str, t: int, width: int) -> Tensor:
    """Sines and cosines in turn, or the article's sum of both: (t, width) float64."""
    table = torch.empty(t, width, dtype=torch.float64)
    for p in range(t):
        for i in range(width):
            if kind == "sinusoidal":
                angle = p / 10000 ** (2 * (i // 2) / width)
                table[p, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            else:
                angle = p / 10000 ** (2 * i / width)
                table[p, i] = math.sin(angle) + math.cos(angle)
    return table


def by_field_path(model: Model) -> dict[str, tuple[nn.Parameter, bool]]:
    """Field path -> (parameter, whether minilong's is its transpose)."""
    found: dict[str, tuple[nn.Parameter, bool]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                name = "table"
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and name == "weight":
                name = "gain"
            found[f"{path}.{name}"] = parameter, isinstance(module, nn.Linear) and name == "weight"
    return found


def load(model: Model, weights: Mapping[str, np.ndarray]) -> None:
    """Copy weights by field path. Raises ValueError where the names differ."""
    parameters = by_field_path(model)
    if parameters.keys() != weights.keys():
        raise ValueError(f"names differ: {sorted(parameters.keys() ^ weights.keys())}")
    with torch.no_grad():
        for name, (parameter, transposed) in parameters.items():
            array = torch.from_numpy(weights[name].copy())
            parameter.copy_(array.T if transposed else array)


def gradients(model: Model) -> dict[str, np.ndarray]:
    """Field path -> gradient in minilong's layout."""
    found = {}
    for name, (parameter, transposed) in by_field_path(model).items():
        g = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found[name] = (g.T if transposed else g).numpy()
    return found
