"""Cross-entropy and its gradient on the device against the primitives in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from row_arrays import BUILDS, exactly, narrow_blocks, near, normals, to_device
from step_arrays import FLOAT64, UNIT, close, wide

from minilong.autodiff import cross_entropy as plain_cross_entropy
from minilong.autodiff import fused, vjp
from minilong.backend.kernels.cross_entropy import cross_entropy, cross_entropy_gradient

IGNORE = -7

MUTANTS = [
    ("p += PACKS) {\n    read", "p += 1) {\n    read"),
    ("read<PACKS>(logits, classes, p, -INFINITE, v);", "read<PACKS>(logits, classes, p, 0, v);"),
    ("include<GROUP>(v, top, total);", "include<LANES>(v, top, total);"),
    ("combine(top, total);", ""),
    ("if (threadIdx.x == 0) losses[row] = lse[row] = 0;", ""),
    ("bool known = 0 <= target && target < classes;", "bool known = target < classes;"),
    ("bool known = 0 <= target && target < classes;", "bool known = 0 <= target;"),
    ("(double)top + log((double)total)", "top + logarithm(total)"),
    ("logits += row * classes;\n  acc_t v[GROUP], top", "acc_t v[GROUP], top"),
    ("(acc_t)(lse[row] - (double)high)", "0"),
    ("factor[0] * scale", "factor[0]"),
    ("factor[0] * scale", "scale"),
    ("bool kept = targets[row] != ignored;", "bool kept = true;"),
    ("- chosen)", ")"),
    ("out += row * classes;", ""),
    ("write<PACKS>(out, classes, p, v);", "write<1>(out, classes, p, v);"),
    ("(pack * blockDim.x + threadIdx.x) * LANES + lane", "(pack * blockDim.x + threadIdx.x) * LANES"),
]  # fmt: skip


def check(xp: Any) -> None:
    """Losses and gradients of rows of all lengths, with targets of both types."""
    with narrow_blocks():
        for dtype, shape in BUILDS:
            (x,) = normals(shape[-1], dtype, (5, shape[-1]))
            compare(xp, x * dtype.type(3), np.int64 if shape[-1] < 2000 else np.int32)
            bad_targets(xp, x)
        (x,) = normals(1, BUILDS[0][0], (5, 64))
        compare(xp, x + np.float32(1e4), np.int64)  # the rounding of lse would be 5e-4 of each probability


def compare(xp: Any, x: np.ndarray, kind: Any) -> None:
    """The losses, lse and the gradient, in memory of its own and in place, with a row ignored."""
    rows, classes = x.shape
    targets = np.array([0, classes - 1, IGNORE, classes // 2, 0], kind)[:rows]
    kept = targets != IGNORE
    z, one = exactly(x), UNIT[wide(x.dtype)]
    chosen = np.take_along_axis(fused.log_softmax(z), np.where(kept, targets, 0)[:, None], -1)[:, 0]
    total, pull = vjp(lambda z: plain_cross_entropy(z, targets=targets, ignore_index=IGNORE, denominator=1.0), z)
    (want,) = pull(np.float64(0.375 * 0.5))

    logits, device_targets = to_device(xp, x, targets)
    losses, lse = cross_entropy(xp, logits, device_targets, IGNORE)
    exact = np.where(kept, -chosen, 0)
    near(xp, losses, exact, wide(x.dtype), 1 + np.abs(exact))
    assert abs(exact.sum() - float(total)) <= 1e-12 * abs(total)
    top = z.max(-1)
    close(xp, lse, np.where(kept, top + np.log(np.exp(z - top[:, None]).sum(-1)), 0), FLOAT64, 16 * one)

    factor, out = xp.asarray(np.array(0.375, wide(x.dtype))), xp.empty(x.shape, x.dtype)
    for memory in (out, logits):
        cross_entropy_gradient(xp, logits, device_targets, lse, factor, IGNORE, memory, scale=0.5)
        onehot = np.zeros(x.shape)
        onehot[np.arange(rows)[kept], targets[kept]] = 1
        near(xp, memory, want, x.dtype, 0.375 * 0.5 * np.where(kept[:, None], fused.softmax(z) + onehot, 0), 32)


def bad_targets(xp: Any, x: np.ndarray) -> None:
    """A target that is no class makes loss and gradient of its row NaN, and no other's."""
    rows, classes = x.shape
    for bad in (classes, -1, 2**32, -(2**40)):
        targets = np.zeros(rows, np.int64)
        targets[1] = bad
        logits, device_targets = to_device(xp, x, targets)
        losses, lse = cross_entropy(xp, logits, device_targets, IGNORE)
        cross_entropy_gradient(xp, logits, device_targets, lse, losses[:1], IGNORE, logits)
        for result in (losses, logits):
            wrong = np.isnan(xp.asnumpy(result).astype(np.float32)).reshape(rows, -1)
            assert wrong[1].all()
            assert not np.delete(wrong, 1, 0).any()
