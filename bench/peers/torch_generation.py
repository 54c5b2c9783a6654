"""PyTorch's generation with a cache of its own: allocated once, written in place, logits of the last position only."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Arrays, Settings, Side
from .arrays import INPUTS, WEIGHTS, group
from .torch_models import Layer, Model, heads, load


class Cache:
    """Keys and values of all layers, (b, h, context, e) each."""

    def __init__(self, layers: int, rows: int, h: int, context: int, e: int) -> None:
        self.keys = [torch.empty(rows, h, context, e) for _ in range(layers)]
        self.values = [torch.empty(rows, h, context, e) for _ in range(layers)]
        self.seen = 0


class Generation(Side):
    """Greedy continuation of a batch of prompts."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        self.model = Model(settings["model"], settings["vocabulary"]).eval()
        load(self.model.places(), group(shared, WEIGHTS))
        self.text = torch.from_numpy(group(shared, INPUTS)["text"].astype(np.int64))
        self.shared = {}

    def gate(self) -> dict[str, np.ndarray]:
        new = min(self.settings["new"], 64)
        return {"logits": self.read(new).numpy(), "tokens": self.write(new).numpy()}

    def run(self) -> None:
        self.write(self.settings["new"])

    def start(self) -> Cache:
        """An empty cache, which is part of a run as it is of minilong's; no longer than the text."""
        m = self.settings["model"]
        length = self.settings["prompt"] + self.settings["new"]
        return Cache(m["layers"], self.settings["batch"], m["heads"], length, m["width"] // m["heads"])

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read on: (b, t) -> logits (b, vocabulary) after the last token."""
        x = self.model.embed(tokens, cache.seen)
        assert self.model.stack is not None
        for i, layer in enumerate(self.model.stack.layers):
            x = x + self.attend(layer, layer.attention_norm(x), cache, i)
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        cache.seen += tokens.shape[1]
        return F.linear(self.model.stack.norm(x[:, -1]), self.model.tokens.weight)

    @staticmethod
    def attend(layer: Layer, x: Tensor, cache: Cache, i: int) -> Tensor:
        """The prompt is read at once into an empty cache, every later token alone, so no mask is needed."""
        h, end = layer.attention.h, cache.seen + x.shape[1]
        q, k, v = (heads(part, h) for part in layer.attention.qkv(x).chunk(3, dim=-1))
        cache.keys[i][:, :, cache.seen : end] = k
        cache.values[i][:, :, cache.seen : end] = v
        k, v = cache.keys[i][:, :, :end], cache.values[i][:, :, :end]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=x.shape[1] > 1)
        return layer.attention.output(y.transpose(1, 2).flatten(2))

    @torch.inference_mode()
    def read(self, new: int) -> Tensor:
        cache, first = self.start(), self.settings["prompt"]
        logits = [self.extend(self.text[:, :first], cache)]
        logits += [self.extend(self.text[:, i : i + 1], cache) for i in range(first, first + new - 1)]
        return torch.stack(logits, dim=1)

    @torch.inference_mode()
    def write(self, new: int) -> Tensor:
        cache, tokens = self.start(), self.text[:, : self.settings["prompt"]]
        written = []
        for _ in range(new):
            tokens = self.extend(tokens, cache).argmax(dim=-1, keepdim=True)
            written.append(tokens)
        return torch.cat(written, dim=1)
