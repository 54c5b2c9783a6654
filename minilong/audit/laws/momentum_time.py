"""Laws of the moving average over time, the third reading of the article's momentum network, and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import BATCHES, Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.autodiff import ops
from minilong.backend import array_module, to_host
from minilong.nn.average import MovingAverage

kind(
    "moving-average",
    "moving_average(x, gamma, state)",
    "x (..., t, width), gamma (width) in (0, 1), state (..., width) -> the averages at all positions.",
)


@subject("moving-average", "MovingAverage, learned", code=MovingAverage.step, equation="eq:moving-average")
def learned(x: Any, gamma: Any, state: Any) -> Any:
    return MovingAverage(ops.log(gamma / (1 - gamma))).step(state, x)[0]


@subject("moving-average", "MovingAverage, fixed", code=MovingAverage.step, equation="eq:moving-average")
def fixed(x: Any, gamma: Any, state: Any) -> Any:
    """A layer for each channel."""
    layers = [MovingAverage(None, float(g)) for g in to_host(gamma)]
    each = [layer.step(state[..., i : i + 1], x[..., i : i + 1])[0] for i, layer in enumerate(layers)]
    return array_module(x).concatenate(each, axis=-1)


def make(n: Numbers, *, batch: tuple[int, ...], t: int, width: int) -> Case:
    """A sequence, a decay for each channel, a state that is not zero, and a place to cut."""
    return {
        "x": n.nonzero(*batch, t, width),
        "gamma": np.clip(n.uniform(0.0, 1.0, width), 0.01, 0.99),
        "state": n.nonzero(*batch, width),
        "cut": int(n.integers(0, t)),
    }


# Lengths around the sizes of blocks: one block, several, a rest, a second level of blocks.
ANY = cases(make, batch=BATCHES, t=(1, 2, 3, 15, 16, 17, 31, 32, 33, 67, 256, 300), width=(1, 2, 3))
CUT = cases(make, batch=BATCHES, t=(2, 3, 16, 17, 33, 67, 300), width=(1, 2, 3))


def rounding(c: Case) -> float:
    """A sum of terms that shrink by gamma, of which 1 / (1 - gamma) count; the logit of gamma loses as much again."""
    return bound(1 + largest(c["x"], c["state"]), 1) / (1 - largest(c["gamma"]))


@law("moving-average", "formula", serves=("eq:moving-average", "eq:decay-scan"), cases=ANY)
def formula(f: F, c: Case, measure: Measure) -> None:
    """h <- gamma h + (1 - gamma) x, position by position."""
    h, rows = c["state"], []
    for i in range(c["x"].shape[-2]):
        h = c["gamma"] * h + (1 - c["gamma"]) * c["x"][..., i, :]
        rows.append(h)
    measure.close(call(f, c["x"], c["gamma"], c["state"]), np.stack(rows, axis=-2), rounding(c), "the averages")


@law("moving-average", "streaming", serves=("eq:moving-average", "eq:decay-scan"), cases=CUT)
def streaming(f: F, c: Case, measure: Measure) -> None:
    """A stream in two parts, the second begun with what the first left, gives what one pass does."""
    x, gamma, cut = c["x"], c["gamma"], c["cut"] + 1
    if cut == x.shape[-2]:
        cut = 1
    first = call(f, x[..., :cut, :], gamma, c["state"])
    second = call(f, x[..., cut:, :], gamma, first[..., -1, :])
    whole = call(f, x, gamma, c["state"])
    measure.close(np.concatenate([first, second], axis=-2), whole, rounding(c), f"the stream cut at {cut}")


@law("moving-average", "causality", serves="eq:moving-average", cases=ANY)
def causality(f: F, c: Case, measure: Measure) -> None:
    """A changed position leaves what is before it as it was, in every bit, and changes what is at it."""
    at, other = c["cut"], c["x"].copy()
    other[..., at, :] += 100.0
    before, after = call(f, c["x"], c["gamma"], c["state"]), call(f, other, c["gamma"], c["state"])
    measure.close(after[..., :at, :], before[..., :at, :], 0.0, "an earlier average")
    measure.holds(np.all(after[..., at, :] > before[..., at, :]), "the average at the changed position is as it was")


@law("moving-average", "constants", serves="eq:moving-average", cases=ANY)
def constants(f: F, c: Case, measure: Measure) -> None:
    """The average of a constant that is also the state is the constant; from zero it has 1 - gamma^(i+1) of it."""
    ones, state = np.ones_like(c["x"]), np.ones_like(c["state"])
    measure.close(call(f, ones, c["gamma"], state), ones, rounding(c), "the average of ones from one")
    powers = c["gamma"] ** np.arange(1, c["x"].shape[-2] + 1)[:, None]
    begun = np.broadcast_to(1 - powers, c["x"].shape)
    measure.close(call(f, ones, c["gamma"], 0 * state), begun, rounding(c), "the average of ones from zero")


# Mutants


def loop(x: Any, gamma: Any, state: Any, share: Any) -> Any:
    """The recurrence with another share of x."""
    rows = []
    for i in range(x.shape[-2]):
        state = gamma * state + share * x[..., i, :]
        rows.append(state)
    return np.stack(rows, axis=-2)


@mutant(
    "moving-average",
    "gamma swapped",
    kills=("formula", "constants"),
    met="decay against smoothing factor: pandas' alpha is 1 - gamma",
)
def swapped(x: Any, gamma: Any, state: Any) -> Any:
    return loop(x, 1 - gamma, state, gamma)


@mutant("moving-average", "a sum", kills=("formula", "constants"), met="plausible: the factor 1 - gamma left out")
def summed(x: Any, gamma: Any, state: Any) -> Any:
    return loop(x, gamma, state, 1.0)


@mutant(
    "moving-average",
    "begins with the first x",
    kills=("formula", "streaming", "constants"),
    met="pandas ewm(adjust=False): no state is taken",
)
def first_x(x: Any, gamma: Any, state: Any) -> Any:
    return loop(x, gamma, x[..., 0, :], 1 - gamma)


@mutant(
    "moving-average",
    "corrected for its beginning",
    kills=("formula", "streaming", "constants"),
    met="pandas ewm(adjust=True), Adam: divided by 1 - gamma^(i+1), in each chunk anew",
)
def corrected(x: Any, gamma: Any, state: Any) -> Any:
    return loop(x, gamma, state, 1 - gamma) / (1 - gamma ** np.arange(1, x.shape[-2] + 1)[:, None])


@mutant(
    "moving-average",
    "circular",
    kills=("formula", "causality"),
    met="plausible: a long convolution by FFT without padding, which wraps around",
)
def circular(x: Any, gamma: Any, state: Any) -> Any:
    n = x.shape[-2]
    kernel = (1 - gamma) * gamma ** np.arange(n)[:, None]
    product = np.fft.rfft(x, axis=-2) * np.fft.rfft(kernel, axis=-2)
    return np.fft.irfft(product, n, axis=-2) + gamma ** np.arange(1, n + 1)[:, None] * state[..., None, :]


@mutant("moving-average", "one behind", kills=("formula", "causality"), met="plausible: the state before the update")
def one_behind(x: Any, gamma: Any, state: Any) -> Any:
    y = loop(x, gamma, state, 1 - gamma)
    return np.concatenate([state[..., None, :], y[..., :-1, :]], axis=-2)


@mutant(
    "moving-average",
    "blocks begin anew",
    kills=("formula", "streaming"),
    met="plausible: a chunked scan that forgets what comes in from the left",
)
def anew(x: Any, gamma: Any, state: Any) -> Any:
    parts = [x[..., i : i + 16, :] for i in range(0, x.shape[-2], 16)]
    return np.concatenate([loop(p, gamma, state if i == 0 else 0 * state, 1 - gamma) for i, p in enumerate(parts)], -2)


@mutant(
    "moving-average",
    "carried by one power",
    kills="formula",
    met="plausible: what comes in from the left decays by gamma a block, not by gamma^16",
)
def one_power(x: Any, gamma: Any, state: Any) -> Any:
    parts = [x[..., i : i + 16, :] for i in range(0, x.shape[-2], 16)]
    rows, carry = [], state
    for p in parts:
        rows.append(loop(p, gamma, carry, 1 - gamma))
        own = loop(p, gamma, 0 * state, 1 - gamma)[..., -1, :]
        carry = gamma * carry + own
    return np.concatenate(rows, axis=-2)
