"""PyTorch's operations and attention: forward, and `torch.autograd.grad` with the same cotangent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Arrays, Settings, Side
from .arrays import BETAS, DECAY, EPS, INPUTS, RATE, group


class Differentiated(Side):
    """`call` forward, and backward with a cotangent."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        given = group(shared, INPUTS)
        self.inputs = [torch.from_numpy(given[str(i)]).requires_grad_() for i in range(len(given))]
        self.cotangent = torch.from_numpy(shared["cotangent"])
        self.call: Callable[..., Tensor] = self.chosen(settings, shared)

    def chosen(self, s: Settings, shared: Arrays) -> Callable[..., Tensor]:
        """The function that is timed."""
        raise NotImplementedError

    def gate(self) -> dict[str, np.ndarray]:
        y, gradients = self.differentiate()
        return {"output": y.detach().numpy(), **{f"gradient.{i}": g.numpy() for i, g in enumerate(gradients)}}

    def run(self) -> None:
        self.differentiate()

    def differentiate(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output, and cotangents of the inputs."""
        y = self.call(*self.inputs)
        return y, torch.autograd.grad(y, self.inputs, self.cotangent)


class Chosen(Differentiated):
    """The operation that the settings name."""

    def chosen(self, s: Settings, shared: Arrays) -> Callable[..., Tensor]:
        indices = torch.from_numpy(shared["indices"].astype(np.int64)) if "indices" in shared else None
        functions: dict[str, Callable[..., Any]] = {
            "layer-norm": lambda x, gain, bias: F.layer_norm(x, x.shape[-1:], gain, bias),
            "gelu": F.gelu,
            "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
            "softmax": lambda x: F.softmax(x, dim=-1),
            "embedding": lambda table: F.embedding(indices, table),
            "cross-entropy": lambda hidden, table: F.cross_entropy(F.linear(hidden, table), indices),
        }
        return functions[s["operation"]]


class AdamW(Side):
    """A step of the fused optimiser on one tensor."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        self.parameters = torch.nn.Parameter(torch.from_numpy(shared["parameters"]))
        self.parameters.grad = torch.from_numpy(shared["gradient"])
        self.optimiser = torch.optim.AdamW(
            [self.parameters], lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
        )

    def gate(self) -> dict[str, np.ndarray]:
        self.run()
        return {"parameters": self.parameters.detach().numpy().copy()}

    def run(self) -> None:
        self.optimiser.step()


def Operation(settings: Settings, threads: int, shared: Arrays) -> Side:
    """The side of an operation: the optimiser has no derivative."""
    return (AdamW if settings["operation"] == "adamw" else Chosen)(settings, threads, shared)


class Kernel(Differentiated):
    """scaled_dot_product_attention: causal by its flag, a window by a boolean mask that is made once."""

    def chosen(self, s: Settings, shared: Arrays) -> Callable[..., Tensor]:
        if not s["window"]:
            return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        n = s["length"]
        seen = torch.ones(n, n, dtype=torch.bool).tril().triu(1 - s["window"])
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
