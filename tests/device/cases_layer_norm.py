"""Layer normalisation on the device against the primitive in float64, for rows near zero and far from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from row_arrays import BUILDS, exactly, narrow_blocks, near, normals, to_device
from step_arrays import FLOAT64, UNIT, close, wide

from minilong.autodiff import layer_norm as plain_layer_norm
from minilong.autodiff import vjp
from minilong.backend.kernels.layer_norm import layer_norm, layer_norm_vjp

EPS = 1e-5

MUTANTS = [
    ("for (u32 k = 0; k < LANES; k++) sum += w[k];", ""),
    ("acc_t centre = team_sum(sum) / n,", "acc_t centre = sum / n,"),
    ("if (!inside(k / LANES, k % LANES, n)) continue;\n    shift", "shift"),
    ("read<1>(x, n, p, centre, w);", "read<1>(x, n, p, 0, w);"),
    ("shift = sums.a / n;", "shift = 0;"),
    ("- shift * shift", ""),
    ("(double)centre + (double)shift", "centre + shift"),
    ("(variance < 0 ? 0 : variance) + eps", "variance"),
    ("inverse[row] = factor", "inverse[row] = variance"),
    ("v[p * LANES + k] = (v[p * LANES + k] - shift)", "v[p * LANES + k] = (v[p * LANES + k])"),
    ("scale[k] + offset[k];\n  }\n  write<PACKS>", "scale[k];\n  }\n  write<PACKS>"),
    ("(w[k] - centre - shift) * factor", "(w[k] - centre) * factor"),
    ("write<1>(y, n, p, w);", ""),
    ("(pack * blockDim.x + threadIdx.x) * LANES + lane", "(pack * blockDim.x + threadIdx.x) * LANES"),
    ("partial + (teams + team) * n", "partial + team * n"),
    ("row += teams", "row += teams + 1"),
    ("low = (acc_t)(middle - (double)high)", "low = 0"),
    ("gain_sum[k] += u[k] * z[k]", "gain_sum[k] = u[k] * z[k]"),
    ("bias_sum[k] += u[k]", "bias_sum[k] = u[k]"),
    ("u[k] *= scale[i];", ""),
    ("u_sum += u[k]", "u_sum = u[k]"),
    ("uz_sum += u[k] * z[k]", "uz_sum += u[k]"),
    ("if (!inside(p, i, n)) continue;", ""),
    ("(row == team ? 0 : for_gain[at]) + ", ""),
    ("(row == team ? 0 : for_bias[at]) + ", ""),
    ("u_sum += a[i] * scale[i];", ""),
    ("uz_sum += a[i] * scale[i] * normal;", ""),
    ("u[k] - u_sum - z[k] * uz_sum", "u[k] - z[k] * uz_sum"),
    ("a[i] * scale[i] - u_sum - (b[i] - high - low) * factor * uz_sum", "a[i] * scale[i] - u_sum"),
    ("team = threadIdx.y; team < teams; team += 32", "team = threadIdx.y; team < teams && team < 32; team += 32"),
    ("(blockIdx.y * teams + team) * n", "team * n"),
    ("if (column < n)", "if (column < n - 1)"),
]


def check(xp: Any) -> None:
    """Values, statistics and cotangents; many short rows, so that several teams each add several of them up."""
    with narrow_blocks():
        for dtype, shape in (*BUILDS, (BUILDS[0][0], (600, 8)), (BUILDS[3][0], (70, 33))):
            compare(xp, *normals(shape[-1], dtype, shape, shape, shape[-1:], shape[-1:]))
        x, *others = normals(9, BUILDS[0][0], (2, 2308), (2, 2308), (2308,), (2308,))
        compare(xp, x + np.float32(1e6), *others)  # the mean's rounding alone would be a tenth of the spread


def compare(xp: Any, x: np.ndarray, g: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> None:
    """One forward pass and its rule. The errors allowed do not grow with the distance of a row from zero, except for
    float64: neither the mean that is kept nor the reference is wider than that."""
    want, pull = vjp(lambda *xs: plain_layer_norm(*xs, eps=EPS), *map(exactly, (x, gain, bias)))
    for_x, for_gain, for_bias = pull(exactly(g))
    n, dtype = x.shape[-1], x.dtype
    one, size = UNIT[wide(dtype)], np.abs(exactly(g))
    centred = exactly(x) - exactly(x).mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + EPS)
    distance = np.abs(exactly(x)).max(-1, keepdims=True) * inverse
    doubt = 1 + distance * (dtype == FLOAT64)  # of normalised elements, in roundings
    z = (np.abs(centred * inverse) + 1) * doubt
    kept_bound = 16 * one * (doubt * inverse).reshape(-1)

    y, mean, kept = layer_norm(xp, *to_device(xp, x, gain, bias), EPS)
    near(xp, y, want, dtype, z * np.abs(exactly(gain)) + np.abs(exactly(bias)))
    close(xp, mean, exactly(x).mean(-1).reshape(-1), FLOAT64, kept_bound / inverse.reshape(-1) ** 2)
    close(xp, kept, inverse.reshape(-1), wide(dtype), kept_bound)

    gx, g_gain, g_bias = layer_norm_vjp(xp, *to_device(xp, g, x, gain), mean, kept)
    u = size * np.abs(exactly(gain))
    means = u.mean(-1, keepdims=True) + z * (u * z).mean(-1, keepdims=True)
    near(xp, gx, for_x, dtype, inverse * doubt * (u + means))
    near(xp, g_gain, for_gain, wide(dtype), (size * z).reshape(-1, n).sum(0))
    near(xp, g_bias, for_bias, wide(dtype), size.reshape(-1, n).sum(0))
