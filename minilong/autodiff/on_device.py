"""The primitives that have a kernel for a GPU: see `device.py`. Each equals the plain form beside whose name it stands.

Cotangents of weights are float32 where activations have 16 bits, since they are accumulated.
"""

from __future__ import annotations

from typing import Any

from minilong.autodiff import activations, fused, projected
from minilong.autodiff.activations import Kept
from minilong.autodiff.device import on_device
from minilong.autodiff.linear import affine as plain_affine
from minilong.autodiff.linear import constant_linear as plain_constant
from minilong.autodiff.linear import embedding as plain_embedding
from minilong.autodiff.linear import fold
from minilong.autodiff.linear import linear as plain_linear
from minilong.autodiff.linear import rotate as plain_rotate
from minilong.autodiff.loss_on_device import accumulated, loss_factor, projected_loss
from minilong.backend import Array, array_module, workspace
from minilong.backend.kernels import activation as activation_kernels
from minilong.backend.kernels import cross_entropy as loss_kernels
from minilong.backend.kernels import dropout as dropout_kernels
from minilong.backend.kernels import embedding as embedding_kernels
from minilong.backend.kernels import layer_norm as layer_norm_kernels
from minilong.backend.kernels import rms_norm as rms_norm_kernels
from minilong.backend.kernels import rotary as rotary_kernels
from minilong.backend.kernels import softmax as softmax_kernels
from minilong.backend.products import matmul

# Softmax and normalisation


@on_device(fused.softmax)
def softmax(xp: Any, x: Array) -> Array:
    """softmax over the last axis"""
    return softmax_kernels.softmax(xp, x)


@softmax.vjp
def softmax_vjp(g: Array, y: Array) -> tuple[Array, ...]:
    return (softmax_kernels.softmax_vjp(array_module(g), g, y),)


@on_device(fused.log_softmax)
def log_softmax(xp: Any, x: Array) -> Array:
    """logarithm of the softmax over the last axis"""
    return softmax_kernels.log_softmax(xp, x)


@log_softmax.vjp
def log_softmax_vjp(g: Array, y: Array) -> tuple[Array, ...]:
    return (softmax_kernels.log_softmax_vjp(array_module(g), g, y),)


@on_device(fused.layer_norm, aux=("mean", "inverse"))
def layer_norm(xp: Any, x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, ...]:
    """layer normalisation over the last axis; its statistics are kept, not the normalised rows"""
    return layer_norm_kernels.layer_norm(xp, x, gain, bias, eps)


@layer_norm.vjp
def layer_norm_vjp(g: Array, x: Array, gain: Array, mean: Array, inverse: Array) -> tuple[Array, ...]:
    return layer_norm_kernels.layer_norm_vjp(array_module(g), g, x, gain, mean, inverse)


@on_device(fused.rms_norm, aux=("inverse",))
def rms_norm(xp: Any, x: Array, gain: Array, *, eps: float = 1e-6) -> tuple[Array, ...]:
    """root mean square normalisation over the last axis"""
    return rms_norm_kernels.rms_norm(xp, x, gain, eps)


@rms_norm.vjp
def rms_norm_vjp(g: Array, x: Array, gain: Array, inverse: Array) -> tuple[Array, ...]:
    return rms_norm_kernels.rms_norm_vjp(array_module(g), g, x, gain, inverse)


# Activations: the input is kept, and the derivative computed from it


@on_device(activations.gelu)
def gelu(xp: Any, x: Array) -> Array:
    """Gaussian error linear unit"""
    return activation_kernels.activate(xp, "gelu", x)


@gelu.vjp
def gelu_vjp(g: Array, x: Array) -> tuple[Array, ...]:
    return (activation_kernels.activate_vjp(array_module(g), "gelu", g, x),)


@on_device(activations.gelu_tanh)
def gelu_tanh(xp: Any, x: Array) -> Array:
    """Gaussian error linear unit by the hyperbolic tangent"""
    return activation_kernels.activate(xp, "gelu_tanh", x)


@gelu_tanh.vjp
def gelu_tanh_vjp(g: Array, x: Array) -> tuple[Array, ...]:
    return (activation_kernels.activate_vjp(array_module(g), "gelu_tanh", g, x),)


@on_device(activations.silu)
def silu(xp: Any, x: Array) -> Array:
    """sigmoid linear unit (swish)"""
    return activation_kernels.activate(xp, "silu", x)


@silu.vjp
def silu_vjp(g: Array, x: Array) -> tuple[Array, ...]:
    return (activation_kernels.activate_vjp(array_module(g), "silu", g, x),)


@on_device(activations.dropout, takes=lambda x, *, keep: isinstance(keep, Kept))
def dropout(xp: Any, x: Array, *, keep: Kept) -> Array:
    """dropout by the same bits as on a CPU, which are drawn where they are needed and never stored"""
    return dropout_kernels.dropout(xp, x, keep.key.words, keep.rate)


@dropout.vjp
def dropout_vjp(g: Array, *, keep: Kept) -> tuple[Array, ...]:
    return (dropout_kernels.dropout(array_module(g), g, keep.key.words, keep.rate),)


# Linear maps


@on_device(plain_linear)
def linear_map(xp: Any, x: Array, w: Array) -> Array:
    """x W as one product of two matrices"""
    return matmul(xp, fold(x), w).reshape(*x.shape[:-1], w.shape[-1])


@linear_map.vjp
def linear_map_vjp(g: Array, x: Array, w: Array) -> tuple[Array, ...]:
    xp, rows = array_module(g), fold(g)
    return matmul(xp, rows, w.T).reshape(x.shape), _weights(xp, fold(x), rows)


@on_device(plain_affine)
def affine(xp: Any, x: Array, w: Array, b: Array) -> Array:
    """x W + b as one product of two matrices, and a sum"""
    y = matmul(xp, fold(x), w)
    y += b
    return y.reshape(*x.shape[:-1], w.shape[-1])


@affine.vjp
def affine_vjp(g: Array, x: Array, w: Array) -> tuple[Array, ...]:
    xp, rows = array_module(g), fold(g)
    return matmul(xp, rows, w.T).reshape(x.shape), _weights(xp, fold(x), rows), _column_sums(xp, rows)


@on_device(plain_constant)
def constant_linear(xp: Any, x: Array, *, weight: Array, bias: Array | None = None) -> Array:
    """x W or x W + b with weights that do not learn"""
    y = matmul(xp, fold(x), weight)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[-1])


@constant_linear.vjp
def constant_linear_vjp(g: Array, *, weight: Array) -> tuple[Array, ...]:
    return (matmul(array_module(g), fold(g), weight.T).reshape(*g.shape[:-1], weight.shape[0]),)


def _weights(xp: Any, x: Array, g: Array) -> Array:
    """x^T g in the type in which weights are accumulated."""
    return matmul(xp, x.T, g, out=workspace(xp, (x.shape[1], g.shape[1]), accumulated(xp, g)))


def _column_sums(xp: Any, g: Array) -> Array:
    out = workspace(xp, (1, g.shape[1]), accumulated(xp, g))
    return matmul(xp, xp.ones((1, g.shape[0]), g.dtype), g, out=out)[0]


@on_device(plain_embedding)
def embedding(xp: Any, table: Array, *, indices: Array) -> Array:
    """rows of a table"""
    return embedding_kernels.gather(xp, table, indices)


@embedding.vjp
def embedding_vjp(g: Array, table_shape: Any, *, indices: Array) -> tuple[Array, ...]:
    rows = g.reshape(-1, table_shape[1])
    return (embedding_kernels.scatter_rows(array_module(g), indices.reshape(-1), rows, table_shape[0]),)


@on_device(plain_rotate)
def rotate(xp: Any, x: Array, *, turn: Array, interleaved: bool = True) -> Array:
    """rotation of pairs of the last axis"""
    return rotary_kernels.rotate(xp, x, turn, interleaved=interleaved)


@rotate.vjp
def rotate_vjp(g: Array, *, turn: Array, interleaved: bool = True) -> tuple[Array, ...]:
    return (rotary_kernels.rotate(array_module(g), g, turn, interleaved=interleaved, inverse=True),)


# Loss: see `projected.py`. Its gradients are computed by the forward pass.


@on_device(fused.cross_entropy, aux=("lse", "factor"))
def cross_entropy(
    xp: Any, logits: Array, *, targets: Array, ignore_index: int = fused.IGNORE, denominator: Any = None
) -> tuple[Any, ...]:
    """mean negative log-likelihood (nats); a target that is no class makes it NaN"""
    losses, lse = loss_kernels.cross_entropy(xp, fold(logits), targets.reshape(-1), ignore_index)
    factor = loss_factor(xp, targets, ignore_index, denominator, losses.dtype)
    return loss_kernels.total(xp, losses, 1.0) * factor, lse, factor


@cross_entropy.vjp
def cross_entropy_vjp(
    g: Any, logits: Array, lse: Array, factor: Array, *, targets: Array, ignore_index: int = fused.IGNORE
) -> tuple[Array, ...]:
    xp, rows = array_module(g), fold(logits)
    out = workspace(xp, rows.shape, rows.dtype)
    factor = g.astype(factor.dtype) * factor
    loss_kernels.cross_entropy_gradient(xp, rows, targets.reshape(-1), lse, factor, ignore_index, out)
    return (out.reshape(logits.shape),)


@on_device(projected.linear_cross_entropy, aux=("hidden_gradient", "weight_gradient"))
def linear_cross_entropy(xp: Any, hidden: Array, weight: Array, **keywords: Any) -> tuple[Any, ...]:
    """`cross_entropy` of the logits hidden W, some rows at a time"""
    loss, gradients = projected_loss(xp, hidden, weight, None, differentiate=True, **keywords)
    return loss, *gradients[:2]


@linear_cross_entropy.vjp
def linear_cross_entropy_vjp(g: Any, hidden_gradient: Array, weight_gradient: Array) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient, weight_gradient)


@on_device(projected.affine_cross_entropy, aux=("hidden_gradient", "weight_gradient", "bias_gradient"))
def affine_cross_entropy(xp: Any, hidden: Array, weight: Array, bias: Array, **keywords: Any) -> tuple[Any, ...]:
    """`cross_entropy` of the logits hidden W + b, some rows at a time"""
    loss, gradients = projected_loss(xp, hidden, weight, bias, differentiate=True, **keywords)
    return loss, *gradients


@affine_cross_entropy.vjp
def affine_cross_entropy_vjp(
    g: Any, hidden_gradient: Array, weight_gradient: Array, bias_gradient: Array
) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient, weight_gradient, bias_gradient)


@on_device(projected.constant_cross_entropy, aux=("hidden_gradient",))
def constant_cross_entropy(
    xp: Any, hidden: Array, *, weight: Array, bias: Array | None = None, **keywords: Any
) -> tuple[Any, ...]:
    """`cross_entropy` of the logits of an output layer that does not learn, some rows at a time"""
    loss, gradients = projected_loss(xp, hidden, weight, bias, differentiate=True, constant=True, **keywords)
    return loss, gradients[0]


@constant_cross_entropy.vjp
def constant_cross_entropy_vjp(g: Any, hidden_gradient: Array) -> tuple[Array, ...]:
    return _scaled(g, hidden_gradient)


def _scaled(g: Array, *gradients: Array) -> tuple[Array, ...]:
    """The gradients times the loss's cotangent, which is 1 as a rule: but to ask the device would be to wait for it."""
    for x in gradients:
        x *= g.astype(x.dtype)
    return gradients
