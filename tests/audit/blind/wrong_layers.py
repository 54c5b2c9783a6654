"""Norms and positions as people have written them, each with one fault. `test_blind.py` says which law finds it."""

import math

import numpy as np


def fast_variance(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Mean of squares minus square of the mean: one pass, and no digits left where the mean is large."""
    mean = x.mean(axis=-1, keepdims=True)
    var = np.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
    return (x - mean) / np.sqrt(var + eps) * gain + bias


def all_but_the_batch(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Moments over all axes after the first: right for (batch, n), and mixes the tokens of (batch, time, n)."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else (0,)
    mean = x.mean(axis=axes, keepdims=True)
    var = x.var(axis=axes, keepdims=True)
    return gain * (x - mean) / np.sqrt(var + eps) + bias


def bias_before_gain(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """The gain multiplies the bias too."""
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return gain * (normed + bias)


def at_least_eps(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """eps as the least variance, not as a term of it."""
    mean = x.mean(axis=-1, keepdims=True)
    std = np.sqrt(np.maximum(x.var(axis=-1, keepdims=True), eps))
    return (x - mean) / std * gain + bias


def one_plus_gain(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """Gains stored as their distance from 1, read from a model that stores them as they are."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * (1.0 + gain)


def centred_rms(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """The deviation from the mean in the denominator, x itself above."""
    return x * gain / np.sqrt(x.var(axis=-1, keepdims=True) + eps)


def eps_on_the_root(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """eps added to the root mean square, not under the root."""
    rms = np.linalg.norm(x, axis=-1, keepdims=True) / math.sqrt(x.shape[-1])
    return gain * (x / (rms + eps))


def single_precision_inside(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """Computes in float32, as models kept in half precision do, and hands back the type that it was given."""
    y = x.astype(np.float32)
    y = y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + np.float32(eps))
    return gain * y.astype(x.dtype)


def cosine_has_its_own_exponent(length: int, width: int) -> np.ndarray:
    """Column i has the exponent i / width, so a sine and its cosine turn at different speeds."""
    table = np.zeros((length, width))
    for pos in range(length):
        for i in range(0, width, 2):
            table[pos, i] = math.sin(pos / (10000 ** (i / width)))
            table[pos, i + 1] = math.cos(pos / (10000 ** ((i + 1) / width)))
    return table


def exponent_doubled(length: int, width: int) -> np.ndarray:
    """i is even already, and is doubled once more: half of the wavelengths are longer than any text."""
    i = np.arange(0, width, 2)
    angles = np.arange(length)[:, None] / np.power(10000.0, 2 * i / width)
    table = np.empty((length, width))
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)
    return table


def longest_wave_included(length: int, width: int) -> np.ndarray:
    """Frequencies from 1 down to 1/10000 inclusive: half - 1 steps where the paper has half."""
    half = width // 2
    step = math.log(10000.0) / max(half - 1, 1)
    angles = np.arange(length)[:, None] * np.exp(-step * np.arange(half))[None]
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


def counts_from_one(length: int, width: int) -> np.ndarray:
    """The first position is 1, as where 0 is kept for padding."""
    position = np.arange(1, length + 1)[:, None]
    angles = position * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = np.zeros((length, width))
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


def overwritten_view(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """The second line reads what the first has just overwritten: a and b are views."""
    d = x.shape[-1]
    angle = positions[:, None] * base ** (-np.arange(0, d, 2) / d)
    out = x.copy()
    a, b = out[..., 0::2], out[..., 1::2]
    a[...] = a * np.cos(angle) - b * np.sin(angle)
    b[...] = a * np.sin(angle) + b * np.cos(angle)
    return out


def exponent_not_doubled(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """Frequencies base^(-j/d): the upper half of the wavelengths is never used."""
    half = x.shape[-1] // 2
    theta = base ** (-np.arange(half) / x.shape[-1])
    angle = np.outer(positions, theta)
    cos, sin = np.cos(angle), np.sin(angle)
    x1, x2 = x[..., :half], x[..., half:]
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


_frequencies: dict[int, np.ndarray] = {}


def stale_frequencies(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """Keeps the frequencies of each width: those of the base that came first, whatever base is asked for later."""
    d = x.shape[-1]
    if d not in _frequencies:
        _frequencies[d] = 1.0 / base ** (np.arange(0, d, 2) / d)
    angle = positions[:, None] * _frequencies[d]
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def counted_from_the_first(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """Positions from the first one on, so that a cached key and a later query have each their own origin."""
    d = x.shape[-1]
    theta = 1.0 / base ** (np.arange(0, d, 2) / d)
    angle = (positions[0] + np.arange(x.shape[-2]))[:, None] * theta
    a, b = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = a * np.cos(angle) - b * np.sin(angle)
    out[..., 1::2] = b * np.cos(angle) + a * np.sin(angle)
    return out


def half_unturned(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """Turns the first quarter of the components, as some published models do, with the frequencies of that quarter."""
    d = x.shape[-1]
    part = max(2, d // 4 // 2 * 2)
    theta = 1.0 / base ** (np.arange(0, part, 2) / part)
    angle = np.outer(positions, np.concatenate([theta, theta]))
    head, tail = x[..., :part], x[..., part:]
    turned = np.concatenate([-head[..., part // 2 :], head[..., : part // 2]], axis=-1)
    return np.concatenate([head * np.cos(angle) + turned * np.sin(angle), tail], axis=-1)


def slopes_by_whole_division(heads: int, t: int, s: int) -> np.ndarray:
    """8 // heads: right for 1, 2, 4 and 8 heads, and for 16 all slopes are 1."""
    ratio = 2.0 ** -(8 // heads)
    slopes = ratio ** np.arange(1, heads + 1)
    distance = np.arange(s)[None, :] - np.arange(t)[:, None]
    return slopes[:, None, None] * np.minimum(distance, 0)[None]


def slopes_between_in_a_row(heads: int, t: int, s: int) -> np.ndarray:
    """Where the heads are no power of two, the ones between: taken in a row, not every other one."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    slopes += [2 ** (-8 * h / (2 * power)) for h in range(1, heads - power + 1)]
    return -np.array(slopes)[:, None, None] * np.abs(np.arange(t)[:, None] - np.arange(s)[None, :])


def slopes_from_one(heads: int, t: int, s: int) -> np.ndarray:
    """Heads counted from 0: the first slope is 1."""

    def of(n: int) -> list[float]:
        return [2 ** (-8 * h / n) for h in range(n)]

    power = 1 << (heads.bit_length() - 1)
    slopes = np.array(of(power) + of(2 * power)[0::2][: heads - power])
    return slopes[:, None, None] * -np.abs(np.arange(t)[:, None] - np.arange(s)).astype(float)
