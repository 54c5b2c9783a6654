"""Cross-entropy fused with the output projection: never more logits than those of some rows at a time.

At a vocabulary of 32,768, the logits of 2,048 tokens and their probabilities are 512 MiB, far more than all else that a
small model keeps. Here rows are taken in chunks: a chunk's logits are computed, its losses read off, and its
share of all gradients added up while the exponentials are at hand; then the same memory serves the next chunk.

The gradients are computed by the forward pass, not by the rule. A loss is the last operation of a forward pass, so
its rule runs next, and holding gradients for that moment costs nothing that the rule would not have to hold anyway.
Computing the logits a second time there would make four products of three, and takes a third longer. A loss that
nobody differentiates should not pay for gradients: `token_loss` leaves them out where nothing is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.autodiff import draws, ops
from minilong.autodiff.core import Tensor
from minilong.autodiff.fused import IGNORE, cross_entropy_definition
from minilong.autodiff.primitive import primitive, real
from minilong.backend import Array, array_module, workspace

CHUNK_LOGITS = 2**21
LEAST_ROWS, MOST_ROWS = 128, 512
BLOCK = 1024


def chunk_rows(classes: int) -> int:
    """Rows that are taken at a time unless `chunk` is given.

    Few rows make the sums of the weight's gradient expensive, many fall out of the cache: of 64 to 2,048 rows, these
    were within 3% of the fastest at 260 to 32,768 classes.
    """
    return min(MOST_ROWS, max(LEAST_ROWS, CHUNK_LOGITS // classes))


def linear_cross_entropy_definition(
    hidden: Any,
    weight: Any,
    *,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> Any:
    """Cross-entropy of the logits hidden W; `chunk` changes nothing."""
    logits = ops.matmul(hidden, weight)
    return cross_entropy_definition(logits, targets=targets, ignore_index=ignore_index, denominator=denominator)


@primitive(
    eq="eq:linear-cross-entropy",
    shapes="(t,d),(d,v)->()",
    domain=real(-1.5, 1.5),
    aux=("hidden_gradient", "weight_gradient"),
    ref=linear_cross_entropy_definition,
    shared=("weight",),
    draw=draws.targets_in_chunks,
)
def linear_cross_entropy(
    xp: Any,
    hidden: Array,
    weight: Array,
    *,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> tuple[Any, ...]:
    """`cross_entropy` of the logits hidden W, computed `chunk` rows at a time

    A weight that is the transpose of a table (tied weights) gets a gradient in the table's layout.
    """
    loss, gradients = _sweep(xp, hidden, weight, None, targets, ignore_index, denominator, chunk, differentiate=True)
    return loss, *gradients[:2]


@linear_cross_entropy.vjp
def linear_cross_entropy_vjp(g: Any, hidden_gradient: Array, weight_gradient: Array) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient, weight_gradient)


def affine_cross_entropy_definition(
    hidden: Any,
    weight: Any,
    bias: Any,
    *,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> Any:
    """Cross-entropy of the logits hidden W + b; `chunk` changes nothing."""
    logits = ops.matmul(hidden, weight) + bias
    return cross_entropy_definition(logits, targets=targets, ignore_index=ignore_index, denominator=denominator)


@primitive(
    eq="eq:affine-cross-entropy",
    shapes="(t,d),(d,v),(v)->()",
    domain=real(-1.5, 1.5),
    aux=("hidden_gradient", "weight_gradient", "bias_gradient"),
    ref=affine_cross_entropy_definition,
    shared=("weight", "bias"),
    draw=draws.targets_in_chunks,
)
def affine_cross_entropy(
    xp: Any,
    hidden: Array,
    weight: Array,
    bias: Array,
    *,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> tuple[Any, ...]:
    """`cross_entropy` of the logits hidden W + b, computed `chunk` rows at a time"""
    loss, gradients = _sweep(xp, hidden, weight, bias, targets, ignore_index, denominator, chunk, differentiate=True)
    return loss, *gradients


@affine_cross_entropy.vjp
def affine_cross_entropy_vjp(
    g: Any, hidden_gradient: Array, weight_gradient: Array, bias_gradient: Array
) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient, weight_gradient, bias_gradient)


def constant_cross_entropy_definition(
    hidden: Any,
    *,
    weight: Array,
    bias: Array | None = None,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> Any:
    """Cross-entropy of the logits hidden W (+ b); `chunk` changes nothing."""
    logits = ops.matmul(hidden, weight)
    logits = logits if bias is None else logits + bias
    return cross_entropy_definition(logits, targets=targets, ignore_index=ignore_index, denominator=denominator)


@primitive(
    eq="eq:constant-cross-entropy",
    shapes="(t,d)->()",
    domain=real(-1.5, 1.5),
    aux=("hidden_gradient",),
    ref=constant_cross_entropy_definition,
    draw=draws.projection_and_targets,
)
def constant_cross_entropy(
    xp: Any,
    hidden: Array,
    *,
    weight: Array,
    bias: Array | None = None,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: float | None = None,
    chunk: int | None = None,
) -> tuple[Any, ...]:
    """`linear_cross_entropy` or `affine_cross_entropy` with an output layer that does not learn

    The gradient of the weight, a product as large as the logits' own, is never computed.
    """
    loss, gradients = _sweep(
        xp, hidden, weight, bias, targets, ignore_index, denominator, chunk, differentiate=True, constant=True
    )
    return loss, gradients[0]


@constant_cross_entropy.vjp
def constant_cross_entropy_vjp(g: Any, hidden_gradient: Array) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient)


def token_loss(
    hidden: Any,
    weight: Any,
    bias: Any = None,
    *,
    targets: Array,
    ignore_index: int = IGNORE,
    denominator: Any = None,
    chunk: int | None = None,
) -> Any:
    """Mean negative log-likelihood (nats) of targets (...) for hidden (..., d), weight (d, classes), bias (classes).

    `eq:linear-cross-entropy` or `eq:affine-cross-entropy`; without their gradients where nothing is traced, and without
    those of an output layer that is constant (`eq:constant-cross-entropy`).
    """
    inputs = (hidden, weight) if bias is None else (hidden, weight, bias)
    if isinstance(hidden, Tensor) and not any(isinstance(x, Tensor) for x in (weight, bias)):
        options = {"ignore_index": ignore_index, "denominator": denominator, "chunk": chunk}
        return constant_cross_entropy(hidden, weight=weight, bias=bias, targets=targets, **options)
    if any(isinstance(x, Tensor) for x in inputs):
        loss: Callable[..., Any] = linear_cross_entropy if bias is None else affine_cross_entropy
        return loss(*inputs, targets=targets, ignore_index=ignore_index, denominator=denominator, chunk=chunk)
    xp = array_module(*inputs)
    if xp is not np:
        from minilong.autodiff.loss_on_device import projected_loss

        options = {"targets": targets, "ignore_index": ignore_index, "denominator": denominator, "chunk": chunk}
        return projected_loss(xp, hidden, weight, bias, differentiate=False, **options)[0]
    return _sweep(xp, hidden, weight, bias, targets, ignore_index, denominator, chunk, differentiate=False)[0]


def _scaled(g: Any, *gradients: Array) -> tuple[Array, ...]:
    """The gradients (`eq:linear-cross-entropy-gradient`) times the loss's cotangent; as they are where it is 1."""
    return gradients if g == 1 else tuple(x * g for x in gradients)


def _sweep(
    xp: Any,
    hidden: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    ignore_index: int,
    denominator: float | None,
    chunk: int | None,
    *,
    differentiate: bool,
    constant: bool = False,
) -> tuple[Any, tuple[Any, ...]]:
    """The loss, and its gradients for hidden, weight and bias: one pass over the rows, in chunks.

    constant: of hidden only, None for the others. Rows that are ignored are not computed at all. With
    e = exp(z - max z) and s = sum e, a row's gradient for its logits z is (e - s onehot) / (s N): the factor is left to
    the narrow side of both products.
    """
    (width, classes), dtype = weight.shape, xp.result_type(hidden, weight)
    index, count = _counted(xp, hidden, targets, classes, ignore_index, denominator)
    rows, flat = hidden.reshape(-1, width), targets.reshape(-1)
    dense = len(index) == len(rows)  # then chunks are slices, and nothing is gathered
    size = max(1, min(chunk or chunk_rows(classes), len(index)))
    losses = workspace(xp, (len(index),), dtype)
    memory = workspace(xp, (size, classes), dtype)
    gradients: Any = _room(xp, rows, weight, bias, dtype, constant) if differentiate else (None, None, None)
    for begin in range(0, len(index), size):
        end = min(begin + size, len(index))
        here = slice(begin, end) if dense else index[begin:end]
        x, z, row = rows[here], memory[: end - begin], xp.arange(end - begin)
        xp.matmul(x, weight, out=z)
        if bias is not None:
            z += bias
        z -= z.max(axis=-1, keepdims=True)
        target = flat[here]
        chosen = z[row, target]
        xp.exp(z, out=z)
        total = z.sum(axis=-1)
        xp.subtract(xp.log(total), chosen, out=losses[begin:end])
        if differentiate:
            z[row, target] -= total
            _add_up(xp, gradients, here, x, z, (1 / (total * count))[:, None], weight, first=begin == 0)
    loss = (losses.sum() / count).astype(dtype)
    return loss, (gradients[0].reshape(hidden.shape), *gradients[1:]) if differentiate else gradients


def _counted(
    xp: Any, hidden: Array, targets: Array, classes: int, ignore_index: int, denominator: float | None
) -> tuple[Array, float]:
    """The rows whose targets count, and what the sum of losses is divided by. Raises ValueError for wrong targets."""
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets have shape {targets.shape} and need {hidden.shape[:-1]}")
    flat = targets.reshape(-1)
    index = xp.flatnonzero(flat != ignore_index)
    some = flat[index]
    if some.size and not 0 <= some.min() <= some.max() < classes:
        raise ValueError(f"targets lie in [{some.min()}, {some.max()}], beyond the {classes} classes")
    return index, max(float(index.size), 1.0) if denominator is None else float(denominator)


def _room(
    xp: Any, rows: Array, weight: Array, bias: Array | None, dtype: Any, constant: bool
) -> tuple[Array, Array | None, Array | None]:
    """Zeros for the gradients; the weight's in its own layout, since it is added to the table's other gradient."""
    if constant:
        return xp.zeros(rows.shape, dtype), None, None
    tied = weight.flags.f_contiguous and not weight.flags.c_contiguous
    like = xp.zeros(weight.shape[::-1], dtype).T if tied else xp.zeros(weight.shape, dtype)
    return xp.zeros(rows.shape, dtype), like, None if bias is None else xp.zeros(bias.shape, dtype)


def _add_up(
    xp: Any, gradients: Any, here: Any, x: Array, z: Array, factor: Array, weight: Array, *, first: bool
) -> None:
    """Add a chunk's share to the gradients: x are its rows, and factor z is the gradient of its logits.

    The weight's is added in blocks that stay in the cache, or a second array of its size would be written and read.
    """
    for_hidden, for_weight, for_bias = gradients
    for_hidden[here] = (z @ weight.T) * factor
    if for_weight is None:
        return
    weighed = x * factor
    if first:
        xp.matmul(weighed.T, z, out=for_weight)
    else:
        for at in range(0, z.shape[1], BLOCK):
            block = z[:, at : at + BLOCK]
            if for_weight.flags.c_contiguous:
                for_weight[:, at : at + BLOCK] += weighed.T @ block
            else:  # the layout of a table: sums over arrays of unlike layouts take several times longer
                for_weight.T[at : at + BLOCK] += block.T @ weighed
    if for_bias is not None:
        for_bias += factor[:, 0] @ z
