"""Cross-entropy of logits with integer targets and its gradient (`eq:cross-entropy`): one launch each."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.launch import launch
from minilong.backend.kernels.rows import accumulated, aligned, alike, teams
from minilong.backend.kernels.total import total

__all__ = ["cross_entropy", "cross_entropy_gradient", "total"]

EACH = {np.float32: 16, np.float64: 4}
"""Elements that a thread reads before it uses any."""

TARGETS = {"int32": "TARGET=int", "int64": "TARGET=i64"}


def cross_entropy(xp: Any, logits: Array, targets: Array, ignore_index: int) -> tuple[Array, Array]:
    """logits (rows, classes), targets (rows,) -> losses and lse = log sum exp, both (rows,) and 0 where ignored.

    losses: float32, or float64 for float64. lse: float64, since rounded to float32 it would be a relative error of
    the gradients of the whole row. Both are NaN where the target is no class. Raises TypeError, ValueError.
    """
    logits = xp.ascontiguousarray(logits)
    targets, define = _targets(xp, logits, targets)
    (rows, classes), kind = logits.shape, accumulated(logits.dtype)
    losses, lse = xp.empty((rows,), kind), xp.empty((rows,), np.float64)
    blocks, block = teams(rows, classes, EACH[kind])
    arguments = (logits, targets, np.int64(ignore_index), losses, lse, np.int64(rows), np.uint32(classes))
    defines = (aligned(classes, logits), define)
    launch(xp, "cross_entropy.cu", "cross_entropy", logits.dtype, (blocks,), block, arguments, defines=defines)
    return losses, lse


def cross_entropy_gradient(
    xp: Any,
    logits: Array,
    targets: Array,
    lse: Array,
    factor: Array,
    ignore_index: int,
    out: Array,
    scale: float = 1.0,
) -> None:
    """out = factor scale (softmax(logits) - onehot(targets)), 0 for ignored rows, NaN where a target is no class.

    factor: one element on the device. `out` (rows, classes) is contiguous, and may be `logits` itself; lse as
    `cross_entropy` gives it. Raises TypeError, ValueError.
    """
    if not out.flags.c_contiguous:
        raise ValueError("the gradient's memory must be contiguous")
    logits, out = alike(xp, logits, out)
    targets, define = _targets(xp, logits, targets)
    (rows, classes), kind = logits.shape, accumulated(logits.dtype)
    if factor.size != 1 or lse.shape != (rows,) or lse.dtype != np.float64:
        raise ValueError(f"{factor.size} factors and {lse.dtype} lse of shape {lse.shape}: one, and float64 ({rows},)")
    blocks, block = teams(rows if classes else 0, classes, EACH[kind])
    factor = factor.astype(kind, copy=False)
    sizes = (np.int64(rows), np.uint32(classes))
    arguments = (logits, targets, lse, factor, kind(scale), np.int64(ignore_index), out, *sizes)
    defines = (aligned(classes, logits, out), define)
    launch(xp, "cross_entropy.cu", "cross_entropy_gradient", logits.dtype, (blocks,), block, arguments, defines=defines)


def _targets(xp: Any, logits: Array, targets: Array) -> tuple[Array, str]:
    """The targets, contiguous, and the macro that names their type."""
    if str(targets.dtype) not in TARGETS:
        raise TypeError(f"targets of {targets.dtype}; int32 or int64 is needed")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets have shape {targets.shape} and need {logits.shape[:-1]}")
    return xp.ascontiguousarray(targets), TARGETS[str(targets.dtype)]
