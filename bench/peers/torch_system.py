"""PyTorch's batches and checkpoints, as its tutorials make them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..case import Arrays, Settings, Side
from .arrays import WEIGHTS, group
from .torch_models import Model, load, read
from .torch_steps import optimiser


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a stream side by side, and the same one token later."""

    def __init__(self, stream: np.ndarray, context: int) -> None:
        self.stream, self.context = torch.from_numpy(stream.astype(np.int64)), context

    def __len__(self) -> int:
        return (len(self.stream) - 1) // self.context

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        window = self.stream[i * self.context : (i + 1) * self.context + 1]
        return window[:-1], window[1:]


class Batches(Side):
    """A DataLoader that shuffles, in this process."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        data = Windows(shared["stream"], settings["context"])
        self.loader = DataLoader(data, batch_size=settings["batch"], shuffle=True, num_workers=0)
        self.batches: Iterator[list[Tensor]] = iter(self.loader)

    def gate(self) -> dict[str, np.ndarray]:
        """All windows of an epoch, in the order of their bytes."""
        parts = [[x.numpy() for x in batch] for batch in self.loader]
        inputs, targets = (np.concatenate(side) for side in zip(*parts, strict=True))
        order = np.lexsort(np.concatenate([inputs, targets], axis=1).T[::-1])
        return {"inputs": inputs[order], "targets": targets[order]}

    def run(self) -> None:
        for _ in range(self.settings["batches"]):
            if next(self.batches, None) is None:
                self.batches = iter(self.loader)


class Checkpoint(Side):
    """torch.save of the state of model and optimiser, then fsync."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        self.model = Model(settings["model"], settings["vocabulary"])
        load(self.model.places(), group(shared, WEIGHTS))
        self.optimiser = optimiser(self.model)
        for parameter in self.model.parameters():
            parameter.grad = parameter.detach().clone()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.folder = tempfile.TemporaryDirectory(prefix="minilong-bench-")
        self.path = Path(self.folder.name) / "checkpoint.pt"

    def run(self) -> None:
        with self.path.open("wb") as file:
            torch.save({"model": self.model.state_dict(), "optimizer": self.optimiser.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    def gate(self) -> dict[str, np.ndarray]:
        """What is read back, moments by the parameter that they belong to."""
        self.run()
        saved = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimizer"])
        found = {f"parameters.{name}": a for name, a in read(self.model.places()).items()}
        for ours, theirs in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            moments = {p: self.optimiser.state[p][theirs] for p in self.model.parameters()}
            found |= {f"{ours}.{name}": a for name, a in read(self.model.places(), moments).items()}
        return found

    def close(self) -> None:
        self.folder.cleanup()
