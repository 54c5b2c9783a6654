"""The loss through the output projection on a GPU, some rows at a time; how it and gradients of weights add up."""

from __future__ import annotations

from typing import Any

from minilong.autodiff import fused
from minilong.autodiff.device import is_half
from minilong.autodiff.linear import fold
from minilong.backend import Array, workspace
from minilong.backend.kernels import cross_entropy as loss_kernels
from minilong.backend.products import matmul

LOGITS = 1 << 28
"""Logits that exist at a time, about: large products keep a GPU busy, and a gigabyte is little beside its memory."""


def projected_loss(
    xp: Any,
    hidden: Array,
    weight: Array,
    bias: Array | None,
    *,
    targets: Array,
    ignore_index: int = fused.IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
    differentiate: bool,
    constant: bool = False,
) -> tuple[Any, tuple[Any, ...]]:
    """The loss (float32), and its gradients for hidden, weight and bias (constant: None of these two): rows that are
    ignored are computed as well, since how many there are is not known without waiting for the device."""
    width, classes = weight.shape
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets have shape {targets.shape} and need {hidden.shape[:-1]}")
    rows, flat = fold(hidden), targets.reshape(-1)
    size = max(1, min(chunk or max(1024, LOGITS // classes), len(rows)))
    wide = accumulated(xp, hidden)
    losses = workspace(xp, (len(rows),), wide)
    factor = loss_factor(xp, flat, ignore_index, denominator, wide)
    gradients: Any = (None, None, None)
    if differentiate:
        gradients = (workspace(xp, rows.shape, rows.dtype), None, None)
    if differentiate and not constant:
        tied = weight.flags.f_contiguous and not weight.flags.c_contiguous
        for_weight = xp.zeros((classes, width), wide).T if tied else xp.zeros((width, classes), wide)
        gradients = (gradients[0], for_weight, None if bias is None else xp.zeros((1, classes), wide))
    for begin in range(0, len(rows), size):
        x, target = rows[begin : begin + size], flat[begin : begin + size]
        z = matmul(xp, x, weight)
        if bias is not None:
            z += bias
        losses[begin : begin + size], lse = loss_kernels.cross_entropy(xp, z, target, ignore_index)
        if not differentiate:
            continue
        for_hidden, for_weight, for_bias = gradients
        loss_kernels.cross_entropy_gradient(xp, z, target, lse, factor, ignore_index, z)
        for_hidden[begin : begin + size] = matmul(xp, z, weight.T)
        if for_weight is None:
            continue
        if for_weight.flags.c_contiguous:
            matmul(xp, x.T, z, out=for_weight, add=True)
        else:  # the layout of a table
            matmul(xp, z.T, x, out=for_weight.T, add=True)
        if for_bias is not None:
            matmul(xp, xp.ones((1, len(z)), z.dtype), z, out=for_bias, add=True)
    loss = loss_kernels.total(xp, losses, 1.0) * factor
    if not differentiate:
        return loss, gradients
    for_hidden, for_weight, for_bias = gradients
    return loss, (for_hidden.reshape(hidden.shape), for_weight, None if for_bias is None else for_bias[0])


def loss_factor(xp: Any, targets: Array, ignore_index: int, denominator: Any, dtype: Any) -> Array:
    """1 / (number of tokens that count), on the device: nobody waits for it. A denominator may be there as well."""
    count = xp.maximum((targets != ignore_index).sum(), 1) if denominator is None else denominator
    return (xp.ones((), dtype) / count).astype(dtype)


def accumulated(xp: Any, g: Array) -> Any:
    """The type in which gradients of weights are added up: float32 where activations have 16 bits."""
    return xp.float32 if is_half(g) else g.dtype
