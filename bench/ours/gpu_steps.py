"""minilong's training step on a GPU, as `minilong train --device cuda` takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from minilong.backend import Device, to_host
from minilong.nn.flat import view
from minilong.objectives import causal_loss
from minilong.optim import Adam
from minilong.train.checkpoint import State
from minilong.train.config import TrainConfig
from minilong.train.precision import check_precision, half_type, products_of
from minilong.train.update import DeviceUpdate
from minilong.train.worker import DeviceWorker

from ..case import Arrays, Settings, Side
from ..gpu_points import timed
from .steps import BETAS, DECAY, EPS, GATE_STEPS, INPUTS, MAX_NORM, RATE, WEIGHTS, as_batch, fresh, tokens


class Step(Side):
    """Gradient, clipping and AdamW of one batch. The session's own update is given what it needs of a session."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        device = Device.of(settings["device"])
        train = TrainConfig(batch=settings["batch"], clip=MAX_NORM, precision=settings["precision"], threads=1)
        check_precision(train, device)
        vector, model, self.layout = fresh(settings["model"], settings["vocabulary"])
        self.tokens = tokens(settings)
        self.start = vector.copy()
        optimizer = Adam(*BETAS, EPS, DECAY, decoupled=True)
        self.vector = device.put(vector)
        half = None if (dtype := half_type(train)) is None else self.vector.astype(dtype)
        computing = view(model, self.vector if half is None else half, self.layout)
        batch = as_batch(self.tokens)

        def gradient(worker: DeviceWorker, step: int, scale: Any = None) -> tuple[Any, Any]:
            with products_of(train):
                return worker.gradient(causal_loss, computing, [batch], None, scale)

        session: Any = SimpleNamespace(
            device=device,
            config=SimpleNamespace(train=train),
            state=State(),
            vector=self.vector,
            half=half,
            layout=self.layout,
            optimizer=optimizer,
            adam=optimizer.init(self.vector),
            gradient=gradient,
        )
        self.device, self.update, self.steps = device, DeviceUpdate(session, DeviceWorker(device, self.layout)), 0

    def share(self) -> dict[str, np.ndarray]:
        weights = {WEIGHTS + name: a.copy() for name, a in self.layout.slices(self.start).items()}
        del self.start
        return weights | {INPUTS + name: a for name, a in self.tokens.items()}

    def gate(self) -> dict[str, np.ndarray]:
        losses = []
        for _ in range(GATE_STEPS):
            self.run()
            losses.append(self.update.read().loss)
        after = self.layout.slices(to_host(self.vector))
        return {"loss": np.array(losses), **{f"parameters.{name}": a for name, a in after.items()}}

    def run(self) -> None:
        self.update.step(self.steps, RATE)
        self.steps += 1

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        pool = self.device.xp.get_default_memory_pool()
        pool.free_all_blocks()
        best = timed(self.run, self.device.synchronize, rounds, seconds)
        return [{"name": "step", "seconds": best, "memory": int(pool.total_bytes())}]
