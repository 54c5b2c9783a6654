"""The gradient's norm, and what follows for the step: decided on the device, so that no step waits for the host.

A vector of eight doubles, the control, lives on the device for the whole run. `gradient_control` writes into it what
the update (`adamw`) is to do; the host reads it when it wants to print or save, by `Control.of`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minilong.backend.arrays import Array, to_host
from minilong.backend.kernels.grid import THREADS
from minilong.backend.kernels.launch import launch

BLOCKS = 1024
"""Partial sums at most. It depends on the size only, so that every GPU adds in the same order."""

LEAST_SCALE, MOST_SCALE = 1.0, 2.0**24
"""A step that is bad at the least loss scale is not the scale's fault. Beyond the most there is nothing to gain."""


class Control(NamedTuple):
    """What the control holds, in its order."""

    norm: float
    """Euclidean norm of the gradient, the loss scale taken out."""
    factor: float
    """What the update multiplies each element of the gradient by: clipping and 1 / loss scale."""
    bad: float
    """1 where norm or loss of the last step is no finite number: its update is left out."""
    stopped: float
    """Number of the first step that was bad with no loss scale to blame, else 0. Nothing changes any more after it."""
    taken: float
    """Updates made: what Adam's bias correction counts."""
    loss: float
    """The last step's."""
    loss_sum: float
    """Sum of the losses of the updates made."""
    smoothed: float
    """Exponential average of these losses; NaN before the first."""

    @staticmethod
    def of(control: Array) -> Control:
        """The values on the host. Waits for the device."""
        return Control(*to_host(control).tolist())


def new_control(xp: Any, taken: int = 0, smoothed: float | None = None) -> Array:
    """The control of a run that begins, or goes on after `taken` updates: (8,) float64 on the device."""
    smoothed = math.nan if smoothed is None else smoothed
    return xp.asarray(np.array(Control(0.0, 1.0, 0.0, 0.0, taken, math.nan, 0.0, smoothed)))


def new_scaler(xp: Any, scale: float = 2.0**16, good: float = 0) -> Array:
    """The state of dynamic loss scaling: the scale, and good steps since it changed; (2,) float32 on the device."""
    return xp.asarray(np.array([scale, good], np.float32))


def gradient_control(
    xp: Any,
    gradient: Array,
    control: Array,
    step: int,
    *,
    clip: float = 0.0,
    scale: float = 1.0,
    loss: Array | None = None,
    smoothing: float = 0.0,
    scaler: Array | None = None,
    growth: int = 2000,
) -> None:
    """Decide on a step from its gradient (n,) and its loss, one float32 (float64 of float64), in two launches.

    control (8,) is updated in place: norm of scale gradient, and the factor scale min(1, clip / norm) (`eq:clip`; clip
    0: no limit). step counts from 1. smoothing: the weight of the past in the average of the losses.
    scaler (2,): the gradient is that of scaler[0] times the loss, and it is taken out here; `loss` is without it.
    It is halved after a bad step, which is left out, and doubled after `growth` good ones (Micikevicius et al. 2018).
    Without a scaler a bad step stops the run: control keeps what was found.
    """
    blocks = max(1, min(-(-gradient.size // (4 * THREADS)), BLOCKS))
    partial = xp.empty(blocks, np.float64)
    nothing = np.uint64(0)
    state = nothing if scaler is None else scaler
    found = (xp.ascontiguousarray(gradient), np.int64(gradient.size), np.float64(scale), state, partial)
    launch(xp, "norm.cu", "squares", gradient.dtype, (blocks,), (THREADS,), found)
    settings = (
        *(partial, np.int32(blocks), np.float64(scale), np.float64(clip)),
        *(state, np.float32(LEAST_SCALE), np.float32(MOST_SCALE), np.int32(growth)),
        *(nothing if loss is None else loss, np.float64(smoothing), np.float64(step), control),
    )
    launch(xp, "norm.cu", "decide", gradient.dtype, (1,), (THREADS,), settings)
