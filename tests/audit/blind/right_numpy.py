"""Right implementations in styles other than the specs', which all laws must let pass."""

import math

import numpy as np
from scipy.special import logsumexp


def attention_einsum(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    scores = np.einsum("...td,...sd->...ts", q / math.sqrt(q.shape[-1]), k)
    weights = np.where(mask, np.exp(scores - scores.max(axis=-1, keepdims=True, where=mask, initial=-1e300)), 0.0)
    total = weights.sum(axis=-1)
    return np.einsum("...ts,...se->...te", weights, v) / np.where(total > 0, total, 1.0)[..., None]


def attention_loops(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for *batch, i in np.ndindex(q.shape[:-1]):
        at = tuple(batch)
        seen = [j for j in range(k.shape[-2]) if mask[i, j]]
        scores = [float(q[(*at, i)] @ k[(*at, j)]) / q.shape[-1] ** 0.5 for j in seen]
        weights = [math.exp(score - max(scores)) for score in scores]
        for weight, j in zip(weights, seen, strict=True):
            out[(*at, i)] += weight / sum(weights) * v[(*at, j)]
    return out


def attention_in_blocks(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A running softmax over blocks of 64 keys."""
    q = q * q.shape[-1] ** -0.5
    top = np.full((*q.shape[:-1], 1), -np.inf)
    total = np.zeros_like(top)
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2], 64):
        keys = slice(start, start + 64)
        scores = np.where(mask[:, keys], q @ np.swapaxes(k[..., keys, :], -1, -2), -np.inf)
        new = np.maximum(top, scores.max(axis=-1, keepdims=True))
        safe = np.where(np.isfinite(new), new, 0.0)
        e = np.exp(scores - safe)
        total = total * np.exp(top - safe) + e.sum(axis=-1, keepdims=True)
        out = out * np.exp(top - safe) + e @ v[..., keys, :]
        top = new
    return out / np.where(total > 0, total, 1.0)


def attention_from_logsumexp(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """exp(score - log of the sum), as a map is recomputed from what a blockwise kernel has saved."""
    scores = np.where(mask, q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    log_sum = np.logaddexp.reduce(scores, axis=-1)[..., None]
    return np.exp(scores - np.where(np.isfinite(log_sum), log_sum, 0.0)) @ v


def attention_base_two(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Powers of two, as GPU kernels have them, and the division after the product."""
    scores = np.einsum("...td,...sd->...ts", q * (math.log2(math.e) / math.sqrt(q.shape[-1])), k)
    weights = np.exp2(scores - scores.max(axis=-1, keepdims=True, where=mask, initial=-1e300)) * mask
    weights = np.where(mask, weights, 0.0)
    return (weights @ v) / np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(float).tiny)


def softmax_by_logsumexp(x: np.ndarray) -> np.ndarray:
    return np.exp(x - logsumexp(x, axis=-1, keepdims=True))


def softmax_by_differences(x: np.ndarray) -> np.ndarray:
    """1 / sum over j of e^(x_j - x_i): an overflow there is a zero here."""
    return 1.0 / np.exp(x[..., None, :] - x[..., :, None]).sum(axis=-1)


def layer_norm_by_projection(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """The mean taken away by a matrix, twice, so that no rounding is left of it."""
    n = x.shape[-1]
    centre = np.eye(n) - np.full((n, n), 1 / n)
    y = x @ centre @ centre
    return np.einsum("...i,i->...i", y, gain) / np.sqrt((y * y).sum(-1, keepdims=True) / n + eps) + bias


def layer_norm_welford(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Running mean and sum of squared deviations, one component at a time."""
    mean, squares = np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1])
    for count in range(1, x.shape[-1] + 1):
        away = x[..., count - 1] - mean
        mean = mean + away / count
        squares = squares + away * (x[..., count - 1] - mean)
    scale = 1 / np.sqrt(squares / x.shape[-1] + eps)
    return (x - mean[..., None]) * (scale[..., None] * gain) + bias


def rms_norm_by_length(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    root = math.sqrt(x.shape[-1])
    length = np.hypot(np.linalg.norm(x, axis=-1, keepdims=True), root * math.sqrt(eps))
    return x * (gain * root) / length


def cross_entropy_loops(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    losses = []
    for row, target in zip(logits, targets, strict=True):
        if target != ignore_index:
            losses.append(np.logaddexp.reduce(row) - row[target])
    return sum(losses) / len(losses) if losses else 0.0


def cross_entropy_one_hot(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> np.ndarray:
    keep = targets != ignore_index
    hot = np.eye(logits.shape[-1])[np.where(keep, targets, 0)] * keep[:, None]
    top = logits.max(axis=-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return -(hot * log_p).sum() / np.maximum(keep.sum(), 1)


def adam_as_one_rate(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Both corrections in the rate, and eps scaled along; the moments move by a part of their distance."""
    m = m + (1 - beta1) * (grad - m)
    v = v + (1 - beta2) * (np.square(grad) - v)
    root = math.sqrt(-math.expm1(step * math.log(beta2))) if beta2 > 0 else 1.0
    rate = lr * root / (1 - beta1**step)
    return param - rate * m / (np.sqrt(v) + eps * root), m, v


def clip_of_one_vector(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    norm = np.linalg.norm(np.concatenate([np.ravel(g) for g in grads])) if grads else 0.0
    return [g * (max_norm / norm) if norm > max_norm else g.copy() for g in grads]


def clip_by_hypot(grads: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    norm = math.hypot(*(float(np.linalg.norm(g)) for g in grads))
    return [g / max(1.0, norm / max_norm) for g in grads]


def sinusoidal_complex(length: int, width: int) -> np.ndarray:
    turns = np.exp(1j * np.outer(np.arange(length), 10000.0 ** (-np.arange(width // 2) / (width // 2))))
    return np.stack([turns.imag, turns.real], axis=-1).reshape(length, width)


def sinusoidal_by_logarithm(length: int, width: int) -> np.ndarray:
    """The usual lines of PyTorch tutorials, with an exponential of a logarithm."""
    table = np.zeros((length, width))
    position = np.arange(0, length)[:, None]
    rate = np.exp(np.arange(0, width, 2) * -(math.log(10000.0) / width))
    table[:, 0::2] = np.sin(position * rate)
    table[:, 1::2] = np.cos(position * rate)
    return table


def rotary_halves(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    half = x.shape[-1] // 2
    angle = np.outer(positions, base ** (-np.arange(half) / half))
    angle = np.concatenate([angle, angle], axis=-1)
    return x * np.cos(angle) + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * np.sin(angle)


def rotary_complex(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    theta = np.exp(-math.log(base) * np.arange(0, x.shape[-1], 2) / x.shape[-1])
    pairs = np.ascontiguousarray(x).view(np.complex128) * np.exp(1j * np.multiply.outer(positions, theta))
    return pairs.view(np.float64)


def rotary_matrices(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """A rotation matrix for each position and pair."""
    d = x.shape[-1]
    out = np.zeros(x.shape)
    for row, position in enumerate(positions):
        for j in range(d // 2):
            c, s = math.cos(position / base ** (2 * j / d)), math.sin(position / base ** (2 * j / d))
            out[..., row, 2 * j : 2 * j + 2] = x[..., row, 2 * j : 2 * j + 2] @ np.array([[c, s], [-s, c]])
    return out


def slopes(heads: int) -> np.ndarray:
    """As the authors' code: the power of two below, then every other one of the power above."""
    power = 2 ** int(math.log2(heads))
    start = 2.0 ** (-(2.0 ** -(math.log2(power) - 3)))
    listed = [start ** (i + 1) for i in range(power)]
    between = 2.0 ** (-(2.0 ** -(math.log2(2 * power) - 3)))
    return np.array(listed + [between ** (2 * i + 1) for i in range(heads - power)])


def alibi_by_key(heads: int, t: int, s: int) -> np.ndarray:
    """slope times j: a number for each row away from slope times (j - i)."""
    return np.broadcast_to(slopes(heads)[:, None, None] * np.arange(s), (heads, t, s))


def alibi_causal(heads: int, t: int, s: int) -> np.ndarray:
    """Later keys, which a causal model never sees, get minus infinity."""
    distance = np.arange(t)[:, None] - np.arange(s)[None, :]
    return np.where(distance >= 0, -slopes(heads)[:, None, None] * np.maximum(distance, 0), -np.inf)
