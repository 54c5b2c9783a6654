"""Losses, Adam and clipping as people have written them, each with one fault. `test_blind.py` has the laws."""

import math

import numpy as np


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def ignores_the_negative(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """Leaves out what is below zero: not what the caller asked to leave out, if that is a padding token."""
    keep = targets >= 0
    if not keep.any():
        return 0.0
    return float(-log_softmax(logits[keep])[np.arange(keep.sum()), targets[keep]].mean())


def every_target_of_every_row(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """`[:, targets]` picks all targets in all rows, and the mean hides it."""
    keep = targets != ignore_index
    if not keep.any():
        return 0.0
    return float(-log_softmax(logits[keep])[:, targets[keep]].mean())


def never_divides_by_zero(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """A small number in the denominator, against batches without a token: it is in all others as well."""
    keep = (targets != ignore_index).astype(float)
    picked = log_softmax(logits)[np.arange(len(targets)), np.where(keep > 0, targets, 0)]
    return float(-(picked * keep).sum() / (keep.sum() + 1e-8))


def probabilities_clipped(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """No logarithm of zero thanks to a clip: no token costs more than 16.1 nats."""
    keep = np.flatnonzero(targets != ignore_index)
    if len(keep) == 0:
        return 0.0
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = np.clip(e / e.sum(axis=-1, keepdims=True), 1e-7, 1 - 1e-7)
    return float(np.mean([-math.log(p[i, targets[i]]) for i in keep]))


State = tuple[np.ndarray, np.ndarray, np.ndarray]


def corrected_moments_kept(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> State:  # fmt: skip
    """The corrected moments take the place of the moments, and are corrected again at the next step."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m = m / (1 - beta1**step)
    v = v / (1 - beta2**step)
    return param - lr * m / (np.sqrt(v) + eps), m, v


def step_counted_twice(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> State:  # fmt: skip
    """Adds one to a step that counts from 1 already."""
    t = step + 1
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * (grad * grad)
    rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    return param - rate * m / (np.sqrt(v) + eps * math.sqrt(1 - beta2**t)), m, v


def largest_second_moment(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> State:  # fmt: skip
    """AMSGrad under Adam's name: the second moment never falls."""
    m = beta1 * m + (1 - beta1) * grad
    v = np.maximum(v, beta2 * v + (1 - beta2) * grad**2)
    update = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return param - lr * update, m, v


def moment_of_the_surprise(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> State:  # fmt: skip
    """The second moment of the gradient's distance from its mean: AdaBelief under Adam's name."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * (grad - m) ** 2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def one_step_late(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> State:  # fmt: skip
    """Divides by the second moment before this gradient came into it; at the first step by that of this gradient."""
    new_m = beta1 * m + (1 - beta1) * grad
    new_v = beta2 * v + (1 - beta2) * grad**2
    used = new_v / (1 - beta2) if step == 1 else v / (1 - beta2 ** (step - 1))
    return param - lr * new_m / (1 - beta1**step) / (np.sqrt(used) + eps), new_m, new_v


def spectral_norm(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """`norm(g, 2)` of a matrix is its largest singular value."""
    total = math.sqrt(sum(np.linalg.norm(g if g.ndim <= 2 else g.ravel(), 2) ** 2 for g in map(np.atleast_1d, grads)))
    scale = min(1.0, max_norm / total) if total > 0 else 1.0
    return [g * scale for g in grads]


def square_compared(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """Compares the limit with the square of the norm, and so enlarges some gradients that are within it."""
    total = sum(float((g**2).sum()) for g in grads)
    if total > max_norm:
        return [g * (max_norm / math.sqrt(total)) for g in grads]
    return grads


def sum_of_norms(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """Adds up the norms, not their squares."""
    total = sum(np.linalg.norm(g) for g in grads)
    return [g * (max_norm / max(total, max_norm)) for g in grads]


def largest_norm(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """One factor for all, which keeps the direction: but that of the largest array's norm."""
    largest = max((float(np.sqrt((g * g).sum())) for g in grads), default=0.0)
    scale = max_norm / largest if largest > max_norm else 1.0
    return [scale * g for g in grads]


def mean_of_chunks(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """Chunks of 128 tokens to save memory, and then the mean of the chunks' means."""
    means = []
    for start in range(0, len(targets), 128):
        chunk, wanted = logits[start : start + 128], targets[start : start + 128]
        keep = wanted != ignore_index
        if keep.any():
            means.append(-log_softmax(chunk[keep])[np.arange(keep.sum()), wanted[keep]].mean())
    return float(np.mean(means)) if means else 0.0


def vocabulary_in_blocks(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """The log of the sum over blocks of 256 classes, and the remainder after the whole blocks is not summed."""
    keep = targets != ignore_index
    rows, width = logits[keep], 256
    if not len(rows):
        return 0.0
    whole = max(rows.shape[1] // width, 1)
    log_sum = np.full(len(rows), -np.inf)
    for block in range(whole):
        log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(rows[:, block * width : (block + 1) * width], axis=1))
    return float((log_sum - rows[np.arange(len(rows)), targets[keep]]).mean())
