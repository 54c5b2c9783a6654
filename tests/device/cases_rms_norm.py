"""Root mean square normalisation on the device against the primitive in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from row_arrays import BUILDS, exactly, narrow_blocks, near, normals, to_device
from step_arrays import UNIT, close, wide

from minilong.autodiff import rms_norm as plain_rms_norm
from minilong.autodiff import vjp
from minilong.backend.kernels.rms_norm import rms_norm, rms_norm_vjp

EPS = 1e-2

MUTANTS = [
    ("for (u32 k = 0; k < HELD; k++) square += v[k] * v[k];", ""),
    ("for (u32 k = 0; k < LANES; k++) square += w[k] * w[k];", ""),
    ("team_sum(square) / n + eps", "team_sum(square) / n"),
    ("team_sum(square) / n + eps", "square / n + eps"),
    ("inverse[row] = factor", "inverse[row] = 1"),
    ("v[p * LANES + k] *= factor * scale[k]", "v[p * LANES + k] *= factor"),
    ("w[k] *= factor * scale[k]", "w[k] *= factor"),
    ("write<1>(y, n, p, w);", ""),
    ("write<PACKS>(y, n, 0, v);", ""),
    ("uz_sum = team_sum(uz_sum) / n;", "uz_sum /= n;"),
    ("u_sum = 0;\n", "\n"),
]


def check(xp: Any) -> None:
    """Values, statistics and cotangents; many short rows, so that several teams each add several of them up."""
    with narrow_blocks():
        for dtype, shape in (*BUILDS, (BUILDS[0][0], (600, 8)), (BUILDS[3][0], (70, 33))):
            compare(xp, *normals(shape[-1], dtype, shape, shape, shape[-1:]))


def compare(xp: Any, x: np.ndarray, g: np.ndarray, gain: np.ndarray) -> None:
    """One forward pass and its rule."""
    want, pull = vjp(lambda *xs: plain_rms_norm(*xs, eps=EPS), *map(exactly, (x, gain)))
    for_x, for_gain = pull(exactly(g))
    n, dtype = x.shape[-1], x.dtype
    inverse = 1 / np.sqrt((exactly(x) ** 2).mean(-1, keepdims=True) + EPS)
    z, u = exactly(x) * inverse, exactly(g) * exactly(gain)

    y, kept = rms_norm(xp, *to_device(xp, x, gain), EPS)
    near(xp, y, want, dtype, np.abs(want))
    close(xp, kept, inverse.reshape(-1), wide(dtype), 16 * UNIT[wide(dtype)] * inverse.reshape(-1))

    gx, g_gain = rms_norm_vjp(xp, *to_device(xp, g, x, gain), kept)
    near(xp, gx, for_x, dtype, inverse * (np.abs(u) + np.abs(z) * np.abs(u * z).mean(-1, keepdims=True)))
    near(xp, g_gain, for_gain, wide(dtype), np.abs(exactly(g) * z).reshape(-1, n).sum(0))
