"""One update of the parameters: gradient, norm, clipping, Adam. On a CPU at once, on a GPU without waiting for it.

A CPU's numbers are looked at in every step. A GPU is given many steps ahead: the norm, the clipping, the loss scale of
float16 and the decision to leave the parameters alone because a number is not finite are made there, and the host reads
what came out where it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilong.backend import to_host
from minilong.backend.kernels.adamw import adamw
from minilong.backend.kernels.norm import Control, gradient_control, new_control, new_scaler
from minilong.optim import clip
from minilong.train.replicas import Replicas
from minilong.train.worker import DeviceWorker

if TYPE_CHECKING:
    from minilong.train.session import Session

SMOOTHING = 0.95
"""Of the running mean of the loss: what stays of it in a step."""


@dataclass
class Numbers:
    """Of the last step that was read."""

    loss: float
    norm: float
    smoothed: float


class HostUpdate:
    """Updates on a CPU. Diverged is raised by the step itself."""

    waits = True
    """Whether the numbers of a step are there when it returns."""

    def __init__(self, session: Session, replicas: Replicas) -> None:
        self.s, self.replicas = session, replicas
        self.smoothed, self.loss, self.norm = session.state.smoothed_loss, math.nan, math.nan

    def step(self, step: int, lr: float) -> None:
        """Update number `step` (from 0). The parameters are untouched until the gradient is known to be finite."""
        s = self.s
        loss, gradient = s.gradient(self.replicas, step)
        if not math.isfinite(loss):
            raise s.diverged(f"the loss is {loss}", step + 1)
        norm = clip(gradient, s.config.train.clip)
        if not math.isfinite(norm):
            raise s.diverged(f"the gradient's norm is {norm}", step + 1)
        s.optimizer.step(s.adam, s.vector, gradient, lr, decayed=s.layout.decayed, each=self.replicas.each)
        s.state.updates += 1
        self.loss, self.norm = loss, norm
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss

    def read(self) -> Numbers:
        """What the last step found."""
        return Numbers(self.loss, self.norm, math.nan if self.smoothed is None else self.smoothed)


FIRST_SCALE = 2.0**16
"""Of a float16 run's loss: it halves within the first steps where that is too much."""


class DeviceUpdate:
    """Updates on a GPU. Nothing is waited for but in `read`, which raises Diverged where a step before it diverged.

    From that step on the parameters stay as they were before it.
    """

    waits = False

    def __init__(self, session: Session, worker: DeviceWorker) -> None:
        self.s, self.worker, self.xp = session, worker, session.device.xp
        state = session.state
        self.control = new_control(self.xp, state.updates, state.smoothed_loss)
        self.scaler = None
        if session.config.train.precision == "float16":
            scale = FIRST_SCALE if state.step == 0 else state.loss_scale
            self.scaler = new_scaler(self.xp, scale, state.good_steps)

    def step(self, step: int, lr: float) -> None:
        """Hand over update number `step` (from 0)."""
        s, xp, train = self.s, self.xp, self.s.config.train
        scale = None if self.scaler is None else self.scaler[0]
        loss, gradient = s.gradient(self.worker, step, scale)
        if scale is not None:
            loss = loss / scale
        gradient_control(
            xp, gradient, self.control, step + 1, clip=train.clip, loss=loss, smoothing=SMOOTHING, scaler=self.scaler
        )
        o = s.optimizer
        adamw(
            xp,
            s.vector,
            gradient,
            s.adam.first,
            s.adam.second,
            self.control,
            lr=lr,
            beta1=o.beta1,
            beta2=o.beta2,
            eps=o.eps,
            weight_decay=o.weight_decay,
            decayed=s.layout.decayed,
            decoupled=o.decoupled,
            half=s.half,
        )

    def read(self) -> Numbers:
        """What the last step found. Waits for the GPU."""
        found, state = Control.of(self.control), self.s.state
        if found.stopped:
            what = f"the gradient's norm is {found.norm}" if math.isfinite(found.loss) else f"the loss is {found.loss}"
            raise self.s.diverged(what, int(found.stopped))
        state.updates = self.s.adam.steps = int(found.taken)
        if self.scaler is not None:
            scale, good = to_host(self.scaler).tolist()
            state.loss_scale, state.good_steps = scale, int(good)
        return Numbers(found.loss, found.norm, found.smoothed)
