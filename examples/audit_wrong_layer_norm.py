"""A layer norm with two classic mistakes, for the laws to find:

    minilong audit --on examples/audit_wrong_layer_norm.py --as layer-norm

The deviation is the unbiased one (divided by n - 1), and eps is added to it instead of to the variance. On the row
[1, 0, 0, 0] the first component is 1.500 where the published formula gives 1.732. Both mistakes have been copied from
project to project, because a network trains with them all the same.
"""

from typing import Any

import numpy as np


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> Any:
    """x (..., n), gain and bias (n,) -> (..., n)."""
    mean = x.mean(axis=-1, keepdims=True)
    deviation = x.std(axis=-1, keepdims=True, ddof=1)
    return gain * (x - mean) / (deviation + eps) + bias
