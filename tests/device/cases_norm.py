"""The gradient's norm on the device, and the decision that follows: clipping, loss scaling, stopping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from step_arrays import FLOAT64, TYPES, UNIT, normal, wide

from minilong.backend.kernels.norm import Control, gradient_control, new_control, new_scaler

MUTANTS = [
    ("load(v.x[k]) * factor", "load(v.x[k])"),
    ("load(g[i]) * factor", "load(g[i])"),
    ("i = vectors * WIDTH + thread; i < n", "i = vectors * WIDTH + thread; i < n - 1"),
    ("i < vectors; i += stride", "i < vectors - 1; i += stride"),
    ("aligned(g) ? n / WIDTH : 0", "n / WIDTH"),
    ("partial[blockIdx.x] = total", "partial[blockIdx.x] = (float)total"),
    ("i < blocks; i += blockDim.x", "i < (int)blockDim.x && i < blocks; i += blockDim.x"),
    ("scale / (double)scaler[0]", "scale * (double)scaler[0]"),
    ("clip > 0 && clip < norm", "clip < norm"),
    ("clip / norm : 1", "norm / clip : 1"),
    ("!is_finite(norm) || (loss", "(loss"),
    ("|| (loss && !is_finite(*loss))", ""),
    ("scaler[0] > least", "scaler[0] > 0"),
    ("scaler[0] *= 0.5f;\n    scaler[1] = 0;", "scaler[0] *= 0.5f;"),
    ("scaler[1] >= growth", "scaler[1] > growth"),
    ("fminf(2 * scaler[0], most)", "2 * scaler[0]"),
    ("if (control[STOPPED] != 0) return;", ""),
    ("control[STOPPED] = step", "control[STOPPED] = 1"),
    ("control[TAKEN] += 1", "control[TAKEN] += 2"),
    ("control[LOSS_SUM] += *loss", "control[LOSS_SUM] = *loss"),
    ("old == old ? smoothing * old", "old == old ? (1 - smoothing) * old"),
    ("old == old ?", "old != old ?"),
    ("control[BAD] = bad", "control[BAD] = 0"),
    ("i < 8; i++) total += parts[i]", "i < 7; i++) total += parts[i]"),
]


class Run:
    """A control, its scaler, and the number of the step."""

    def __init__(self, xp: Any, loss_scale: float | None = None, **settings: Any) -> None:
        self.xp, self.settings, self.steps = xp, settings, 0
        self.control = new_control(xp)
        self.scaler = None if loss_scale is None else new_scaler(xp, loss_scale)

    def step(self, gradient: Any, loss: float = 1.0) -> Control:
        """One decision, read back."""
        self.steps += 1
        gradient_control(
            self.xp,
            self.xp.asarray(gradient),
            self.control,
            self.steps,
            loss=self.xp.asarray(np.array(loss, wide(gradient.dtype))),
            scaler=self.scaler,
            **self.settings,
        )
        return Control.of(self.control)

    def loss_scale(self) -> list[float]:
        """The scale, and good steps since it changed."""
        values: list[float] = self.xp.asnumpy(self.scaler).tolist()
        return values


GOOD = np.array([3.0, 4.0], np.float32)
"""A gradient of norm 5."""

BAD = (np.array([math.nan, 1], np.float32), np.array([1, math.inf], np.float32), np.array([0, -math.inf], np.float32))


def check(xp: Any) -> None:
    """Norms of all types and sizes, then runs of several steps."""
    for dtype in TYPES:
        for n in (0, 1, 7, 1000, 4099):
            gradient = normal(n, n, dtype)
            exact = math.sqrt(float(np.sum(np.square(gradient.astype(np.float64)))))
            near(Run(xp).step(gradient).norm, exact, 4 * UNIT[wide(dtype)])
        gradient = normal(5, 1001, dtype)  # from an address where no vector begins
        control = new_control(xp)
        gradient_control(xp, xp.asarray(gradient)[1:], control, 1)
        exact = math.sqrt(float(np.sum(np.square(gradient[1:].astype(np.float64)))))
        near(Control.of(control).norm, exact, 4 * UNIT[wide(dtype)])
    large = normal(0, 300_000, FLOAT64)  # more than one partial sum for each thread of the last block
    near(Run(xp).step(large).norm, float(np.linalg.norm(large)), 1e-14)
    for case in (clipping, stopping, averages, scaling):
        case(xp)


def near(got: float, exact: float, bound: float) -> None:
    """Relative error at most `bound`."""
    assert abs(got - exact) <= bound * exact, (got, exact)


def clipping(xp: Any) -> None:
    """The factor is that of the CPU's `clip`, a smaller norm is left alone, and the scale counts in both."""
    for clip, scale, norm, factor in (
        (2.0, 1.0, 5.0, 0.4),
        (6.0, 1.0, 5.0, 1.0),
        (0.0, 1.0, 5.0, 1.0),
        (2.0, 0.5, 2.5, 0.5 * 2.0 / 2.5),
        (3.0, 0.5, 2.5, 0.5),
    ):
        for gradient in (GOOD, np.repeat(GOOD / np.float32(2), 4)):  # without and with vectors
            got = Run(xp, clip=clip, scale=scale).step(gradient)
            near(got.norm, norm, 1e-15)
            near(got.factor, factor, 1e-15)
            assert (got.bad, got.stopped, got.taken) == (0, 0, 1)


def stopping(xp: Any) -> None:
    """The first bad step is kept as it was found, and later good ones change nothing."""
    for gradient, loss in (*((bad, 2.0) for bad in BAD), (GOOD, math.nan), (GOOD, math.inf)):
        run = Run(xp, clip=1.0)
        run.step(GOOD)
        run.step(GOOD)
        found = run.step(gradient, loss)
        assert (found.bad, found.stopped, found.taken) == (1, 3, 2)
        assert math.isfinite(found.norm) == (gradient is GOOD)
        assert found.loss == loss or math.isnan(loss)
        later = run.step(GOOD, 7.0)
        assert np.array_equal(np.array(found), np.array(later), equal_nan=True)


def averages(xp: Any) -> None:
    """Sum and exponential average of the losses; the first is its own average."""
    run = Run(xp, smoothing=0.75)
    assert run.step(GOOD, 4.0)[-3:] == (4.0, 4.0, 4.0)
    assert run.step(GOOD, 8.0)[-3:] == (8.0, 12.0, 5.0)
    goes_on = Run(xp, smoothing=0.75)
    goes_on.control = new_control(xp, taken=2, smoothed=5.0)
    assert goes_on.step(GOOD, 1.0)[-4:] == (3.0, 1.0, 1.0, 4.0)


def scaling(xp: Any) -> None:
    """The scale is taken out, halved after a bad step, doubled after good ones, bounded; at the least, bad is bad."""
    run = Run(xp, loss_scale=8.0, growth=2, clip=1.0)
    got = run.step(GOOD * np.float32(8))
    near(got.norm, 5.0, 1e-15)
    near(got.factor, 1 / 40, 1e-15)
    assert run.loss_scale() == [8.0, 1.0]
    got = run.step(BAD[0])
    assert (got.bad, got.stopped, got.taken) == (1, 0, 1)
    assert run.loss_scale() == [4.0, 0.0]
    run.step(GOOD)
    assert run.loss_scale() == [4.0, 1.0]
    got = run.step(GOOD)
    assert (got.bad, got.taken) == (0, 3)
    assert run.loss_scale() == [8.0, 0.0]

    run = Run(xp, loss_scale=2.0)
    assert run.step(BAD[1]).stopped == 0
    assert (run.step(BAD[1]).stopped, run.loss_scale()) == (2, [1.0, 0.0])

    run = Run(xp, loss_scale=2.0**24, growth=1)
    run.step(np.zeros(8, np.float32))
    assert run.loss_scale() == [2.0**24, 0.0]
