"""Reverse-mode automatic differentiation in array code. Read `core.py` first, then `primitive.py` and `ops.py`."""

from minilong.autodiff.activations import Kept, dropout, gelu, gelu_tanh, silu
from minilong.autodiff.core import Tensor, checkpoint, deliver_gradient, grad, stop_gradient, value_and_grad, vjp
from minilong.autodiff.fused import IGNORE, cross_entropy, layer_norm, log_softmax, rms_norm, softmax
from minilong.autodiff.linear import affine, constant_linear, embedding, linear, rotate
from minilong.autodiff.primitive import REGISTRY, Primitive, primitive, real
from minilong.autodiff.projected import (
    affine_cross_entropy,
    constant_cross_entropy,
    linear_cross_entropy,
    token_loss,
)
from minilong.autodiff.scan import decay_scan

__all__ = [
    "IGNORE",
    "REGISTRY",
    "Kept",
    "Primitive",
    "Tensor",
    "affine",
    "affine_cross_entropy",
    "checkpoint",
    "constant_cross_entropy",
    "constant_linear",
    "cross_entropy",
    "decay_scan",
    "deliver_gradient",
    "dropout",
    "embedding",
    "gelu",
    "gelu_tanh",
    "grad",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "primitive",
    "real",
    "rms_norm",
    "rotate",
    "silu",
    "softmax",
    "stop_gradient",
    "token_loss",
    "value_and_grad",
    "vjp",
]  # fmt: skip
