"""The one loss of Word2Vec and Doc2Vec: weighted logistic losses between two small sets of vectors, as matrix products.

Negative sampling and hierarchical softmax, skip-gram and all others differ in which vectors meet, which of the meetings
are wanted (target 1), and how often each counts (weight). Everything heavy is three products a block here.
"""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by the hyperbolic tangent, which cannot overflow."""
    y = 0.5 * x
    np.tanh(y, out=y)
    y *= 0.5
    y += 0.5
    return y


def logistic(x: np.ndarray, o: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of x (..., m, d) and o (..., k, d) under the sum of w (softplus(s) - t s), s = x oᵀ; `eq:logistic`.

    target, weight: broadcast to (..., m, k).
    """
    g = sigmoid(x @ o.swapaxes(-1, -2))
    g -= target
    g *= weight
    return g @ o, g.swapaxes(-1, -2) @ x


def logistic_loss(x: np.ndarray, o: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    """The loss itself, in nats, summed; `eq:logistic`."""
    s = x @ o.swapaxes(-1, -2)
    return float(np.sum(weight * (np.logaddexp(0.0, s) - target * s), dtype=np.float64))
