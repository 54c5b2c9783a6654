"""PyTorch's products of one token with all matrices of a model, in float32."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Arrays, Settings, Side
from .arrays import group


class Products(Side):
    """Weights (out, in) as its linear layers have them; every layer in memory of its own."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        given, inputs = group(shared, "weights."), group(shared, "inputs.")
        one = [torch.from_numpy(given[str(i)]) for i in range(len(given))]
        self.inputs = [torch.from_numpy(inputs[str(i)]) for i in range(len(inputs))]
        self.layers = [[w.clone() for w in one[:-1]] for _ in range(settings["layers"])]
        self.head = one[-1].clone()

    @torch.inference_mode()
    def multiplied(self, layers: list[list[Tensor]]) -> list[Tensor]:
        """All products."""
        found = [F.linear(x, w) for layer in layers for x, w in zip(self.inputs[:-1], layer, strict=True)]
        return [*found, F.linear(self.inputs[-1], self.head)]

    def gate(self) -> dict[str, np.ndarray]:
        return {f"output.{i}": y.numpy() for i, y in enumerate(self.multiplied(self.layers[:1]))}

    def run(self) -> None:
        self.multiplied(self.layers)
