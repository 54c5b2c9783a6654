"""PyTorch's training step on a GPU: fused AdamW, clipping by norm, autocast where the precision has 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..case import Arrays, Settings, Side
from ..gpu_points import timed
from .arrays import GATE_STEPS, INPUTS, MAX_NORM, WEIGHTS, group
from .torch_gpu_points import TYPES
from .torch_models import Model, load, read
from .torch_steps import optimiser


class Step(Side):
    """Eager. (`fake`, which only tests name, is minilong's stand-in: here a CPU.)"""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.device = torch.device("cpu" if settings["device"] == "fake" else settings["device"])
        self.half = None if settings["precision"] == "float32" else TYPES[settings["precision"]]
        self.model = Model(settings["model"], settings["vocabulary"])
        load(self.model.places(), group(shared, WEIGHTS))
        self.model.to(self.device)
        tokens = group(shared, INPUTS)
        self.tokens = {name: torch.from_numpy(a.astype(np.int64)).to(self.device) for name, a in tokens.items()}
        self.shared = {}
        self.optimiser = optimiser(self.model)
        self.loss = self.model.loss

    def step(self) -> torch.Tensor:
        """One step; its loss."""
        with torch.autocast(self.device.type, dtype=self.half or torch.bfloat16, enabled=self.half is not None):
            loss = self.loss(**self.tokens)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimiser.step()
        return loss.detach()

    def gate(self) -> dict[str, np.ndarray]:
        losses = np.array([float(self.step()) for _ in range(GATE_STEPS)])
        after = read(self.model.places(), {p: p.detach().cpu() for p in self.model.parameters()})
        return {"loss": losses, **{f"parameters.{name}": a for name, a in after.items()}}

    def run(self) -> None:
        self.step()

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        memory = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        best = timed(self.run, self.wait, rounds, seconds)
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_reserved()
        return [{"name": "step", "seconds": best, "memory": memory}]


class CompiledStep(Step):
    """The loss and its backward pass through `torch.compile`; optimiser and clipping as they are."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.loss = torch.compile(self.model.loss)
