"""PyTorch's training step: fused AdamW, clipping by norm, gradients set to None; eager, and with the loss compiled."""

from __future__ import annotations

import numpy as np
import torch

from ..case import Arrays, Settings, Side
from .arrays import BETAS, DECAY, EPS, GATE_STEPS, INPUTS, MAX_NORM, RATE, WEIGHTS, group
from .torch_models import Model, load, read


def optimiser(model: Model) -> torch.optim.AdamW:
    """AdamW in one kernel per tensor list, decay on matrices."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS, fused=True)


class Step(Side):
    """Eager."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        self.model = Model(settings["model"], settings["vocabulary"])
        load(self.model.places(), group(shared, WEIGHTS))
        self.tokens = {name: torch.from_numpy(a.astype(np.int64)) for name, a in group(shared, INPUTS).items()}
        self.shared = {}
        self.optimiser = optimiser(self.model)
        self.loss = self.model.loss

    def step(self) -> torch.Tensor:
        """One step; its loss."""
        loss = self.loss(**self.tokens)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimiser.step()
        return loss.detach()

    def gate(self) -> dict[str, np.ndarray]:
        losses = [float(self.step()) for _ in range(GATE_STEPS)]
        after = read(self.model.places())
        return {"loss": np.array(losses), **{f"parameters.{name}": a for name, a in after.items()}}

    def run(self) -> None:
        self.step()


class CompiledStep(Step):
    """The loss and its backward pass through `torch.compile`; optimiser and clipping as they are."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.loss = torch.compile(self.model.loss)
