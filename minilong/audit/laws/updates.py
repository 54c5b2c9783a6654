"""The last part of a training step, as laws call it: on a CPU by `optim`, on a GPU by the kernels that train there."""

from __future__ import annotations

import numpy as np

from minilong.backend import Array, array_module
from minilong.backend.kernels.adamw import adamw
from minilong.backend.kernels.norm import gradient_control, new_control
from minilong.optim import Adam, AdamState, clip


def updated(adam: Adam, state: AdamState, parameters: Array, gradient: Array, lr: float, decayed: int) -> None:
    """One step of Adam on vectors (n,): parameters and state change in place."""
    xp = array_module(parameters)
    if xp is np:
        adam.step(state, parameters, gradient, lr, decayed=decayed)
        return
    control = new_control(xp, state.steps)
    gradient_control(xp, gradient, control, state.steps + 1)
    adamw(
        xp,
        parameters,
        gradient,
        state.first,
        state.second,
        control,
        lr=lr,
        beta1=adam.beta1,
        beta2=adam.beta2,
        eps=adam.eps,
        weight_decay=adam.weight_decay,
        decayed=decayed,
        decoupled=adam.decoupled,
    )


def clipped(gradient: Array, max_norm: float) -> Array:
    """A gradient (n,) of at most this norm. On a GPU the update multiplies by what its control says."""
    xp = array_module(gradient)
    if xp is np:
        clip(gradient, max_norm)
        return gradient
    control = new_control(xp)
    gradient_control(xp, gradient, control, 1, clip=max_norm)
    return gradient * control[1].astype(gradient.dtype)
