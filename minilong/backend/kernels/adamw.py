"""Adam and AdamW on the device: one launch, which reads and writes each vector once and obeys `norm.py`'s control."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend.arrays import Array
from minilong.backend.kernels.grid import THREADS, striding
from minilong.backend.kernels.launch import CODES, launch


def adamw(
    xp: Any,
    parameters: Array,
    gradient: Array,
    first: Array,
    second: Array,
    control: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decayed: int,
    decoupled: bool,
    half: Array | None = None,
) -> None:
    """One step of `Adam` in optim.py (`eq:adam`, `eq:adamw`), with its roundings: all vectors are (n,), C-contiguous.

    parameters, first and second moments are updated in place, from the gradient times the control's factor, where the
    control does not call the step bad. The control counts the updates for the bias correction. Only the first `decayed`
    parameters decay. half: a float16 or bfloat16 vector that gets the new parameters rounded.
    Raises ValueError where a vector is not contiguous or the sizes or types differ.
    """
    vectors = (parameters, gradient, first, second)
    if any(v.shape != (parameters.size,) or v.dtype != parameters.dtype for v in vectors):
        raise ValueError("adamw: parameters, gradient and moments must be vectors of one size and type")
    if half is not None and half.shape != parameters.shape:
        raise ValueError(f"adamw: {half.size} rounded parameters for {parameters.size}")
    if not all(v.flags.c_contiguous for v in (*vectors, *(() if half is None else (half,)))):
        raise ValueError("adamw: the vectors must be contiguous")
    arguments = (
        *vectors,
        np.uint64(0) if half is None else half,
        np.int64(parameters.size),
        np.int64(decayed),
        control,
        *(np.float64(x) for x in (lr, beta1, beta2, eps, weight_decay)),
        np.int32(decoupled),
    )
    code = 0 if half is None else CODES[str(half.dtype)]
    grid = striding(-(-parameters.size * parameters.itemsize // 16))
    launch(xp, "adamw.cu", "adamw", parameters.dtype, grid, (THREADS,), arguments, defines=(f"HALF={code}",))
