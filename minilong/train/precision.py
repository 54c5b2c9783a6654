"""In which numbers a training run computes. Parameters, moments and gradients are float32 in all of them.

    float32    as on a CPU
    tf32       products round their operands to ten bits; the rest is float32
    bfloat16   activations and products in 16 bits: eight bits of precision, the range of float32
    float16    eleven bits, and a small range: the loss is scaled so that gradients stay in it (`eq:loss-scaling`)

Products, norms, softmax and the loss are summed in float32 throughout (Micikevicius et al. 2018).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from minilong.backend import Device
from minilong.backend.products import allow_tf32
from minilong.errors import UserError
from minilong.train.config import TrainConfig


def half_type(config: TrainConfig) -> Any:
    """The 16-bit type that activations have, or None where they are float32."""
    if config.precision == "float16":
        return np.dtype(np.float16)
    if config.precision == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError as error:
            raise UserError(
                "bfloat16 needs the package ml_dtypes, which the extras cuda12 and cuda13 bring; pip install ml_dtypes"
            ) from error
        return np.dtype(bfloat16)
    return None


def check_precision(config: TrainConfig, device: Device, depth: str = "stored") -> None:
    """UserError where the device does not compute in the precision of a run: looked at, not taken from a version."""
    precision = config.precision
    if precision == "float32" and device.is_cpu:
        return
    if precision in ("bfloat16", "float16") and depth in ("reversible", "momentum"):
        raise UserError(f"depth {depth} keeps its streams in fixed point, finer than {precision}; give float32 or tf32")
    if device.is_cpu:
        raise UserError(
            f"precision {precision} is a GPU's; give --device cuda, or --precision float32, which a run can go on in"
        )
    from minilong.backend.probes import probe

    probe(device.xp).require(precision)


def products_of(config: TrainConfig) -> AbstractContextManager[Any]:
    """How products of float32 are computed inside."""
    return allow_tf32() if config.precision == "tf32" else nullcontext()
