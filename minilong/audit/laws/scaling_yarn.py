"""YaRN: which pairs it slows down, by how much, along which ramp; and its temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.scaling import BASES, FREQUENCIES, plain
from minilong.backend import to_host
from minilong.positions import Scaling, rotary

kind(
    "yarn",
    "yarn(dim, base, factor, context, ramp, alpha, beta)",
    f"{FREQUENCIES} under YaRN, for a model trained at `context`; ramp: `paper` or `code`.",
)
kind(
    "yarn-temperature",
    "yarn_temperature(q, k, positions, base, factor, context)",
    "Scores (t, t), before the division by sqrt(d), of q and k (t, d) at positions (t,) under YaRN with the code's "
    "ramp, alpha 1 and beta 32.",
)


@subject("yarn", "yarn", code=Scaling.frequencies, equation="eq:yarn")
def ours(dim: int, base: float, factor: float, context: int, ramp: str, alpha: float, beta: float) -> Any:
    return Scaling("yarn", factor, context, ramp, alpha, beta).frequencies(dim, base)


@subject("yarn-temperature", "yarn, as turns", code=Scaling, equation="eq:yarn-temperature")
def ours_turned(q: Any, k: Any, positions: Any, base: float, factor: float, context: int) -> Any:
    scaling, places = Scaling("yarn", factor, context), to_host(positions)
    return rotary(q, places, base=base, scaling=scaling) @ rotary(k, places, base=base, scaling=scaling).T


def make(r: Numbers, dim: int, base: float, factor: float, context: int, ramp: str, turns: tuple[float, float]) -> Case:
    """The arguments of the kind."""
    alpha, beta = turns
    return {
        "dim": dim, "base": base, "factor": factor, "context": context, "ramp": ramp, "alpha": alpha, "beta": beta
    }  # fmt: skip


DRAWN = cases(
    make, dim=(64, 128, 8, 4, 6, 2, 34), base=BASES, factor=(4.0, 2.0, 16.0, 32.0, 1.5), context=(4096, 64, 2048, 500),
    ramp=("paper", "code"), turns=((1.0, 32.0), (1.0, 4.0), (2.0, 3.0), (4.0, 40.0)),
)  # fmt: skip


def arguments(c: Case) -> list[Any]:
    """The arguments of the kind, in order."""
    return list(c.values())


def shares(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's frequencies by those of plain rotary positions."""
    return np.asarray(np.asarray(f(*arguments({**c, **changes}))) / plain(c["dim"], c["base"]))


def kept(f: F, c: Case, **changes: Any) -> np.ndarray:
    """gamma of each pair, from share = gamma + (1 - gamma) / s."""
    inverse = 1 / c["factor"]
    return np.asarray((shares(f, c, **changes) - inverse) / (1 - inverse))


def rotations(c: Case) -> np.ndarray:
    """How often each pair turns within the context."""
    return np.asarray(c["context"] * plain(c["dim"], c["base"]) / (2 * math.pi))


SLACK = bound(1.0, 16)
"""Shares lie between 0 and 1, and are sums of a few products of such numbers."""


@law("yarn", "identity", serves="eq:yarn", cases=DRAWN)
def identity(f: F, c: Case, measure: Measure) -> None:
    """Factor 1 leaves rotary positions as they are, bit for bit, on either ramp."""
    found = np.asarray(f(*arguments({**c, "factor": 1.0})))
    measure.holds(np.array_equal(found, plain(c["dim"], c["base"])), f"with factor 1 they are {found!r}")


@law("yarn", "between", serves="eq:yarn", cases=DRAWN)
def between(f: F, c: Case, measure: Measure) -> None:
    """No pair turns faster than in plain rotary positions, or more slowly than under position interpolation."""
    found = shares(f, c)
    inside = (found <= 1 + SLACK) & (found >= 1 / c["factor"] - SLACK)
    measure.holds(np.all(inside), f"the shares of the frequencies are {found!r}")


@law("yarn", "extremes", serves="eq:yarn", cases=DRAWN)
def extremes(f: F, c: Case, measure: Measure) -> None:
    """Pairs that turn beta times or more stay, those that turn alpha times or less are interpolated."""
    found, turns = shares(f, c), rotations(c)
    fast, slow = turns >= c["beta"], turns <= c["alpha"]
    measure.close(found[fast], np.ones(fast.sum()), SLACK, "the share of a fast pair")
    measure.close(found[slow], np.full(slow.sum(), 1 / c["factor"]), SLACK, "the share of a slow pair")


@law("yarn", "monotone", serves="eq:yarn", cases=DRAWN)
def monotone(f: F, c: Case, measure: Measure) -> None:
    """A larger factor never makes a pair faster, and makes those slower that turn alpha times or less."""
    less, more = shares(f, c), shares(f, c, factor=2 * c["factor"])
    measure.holds(np.all(more <= less + SLACK), f"the shares {less!r} became {more!r}")
    slow = rotations(c) <= c["alpha"]
    measure.holds(np.all(more[slow] < less[slow]), f"the slow pairs' shares {less[slow]!r} became {more[slow]!r}")


@law("yarn", "ramp", serves="eq:yarn", cases=DRAWN)
def ramp(f: F, c: Case, measure: Measure) -> None:
    """What is kept of a frequency is linear in the pair's turns (paper), or in its index, between the rounded indices
    that turn beta and alpha times (code)."""
    dim, turns = c["dim"], rotations(c)
    if c["ramp"] == "paper":
        right = (turns - c["alpha"]) / (c["beta"] - c["alpha"])
    else:
        where = [
            dim * math.log(c["context"] / (2 * math.pi * c[name])) / (2 * math.log(c["base"]))
            for name in ("beta", "alpha")
        ]
        first, last = max(math.floor(where[0]), 0), min(math.ceil(where[1]), dim - 1)
        right = (last - np.arange(dim // 2)) / (last - first)
    measure.close(kept(f, c), np.clip(right, 0, 1), 8 * SLACK * (1 + largest(turns)), "what is kept of a frequency")


@law("yarn", "ramps-differ", serves="eq:yarn", cases=cases(lambda r, factor: {"factor": factor}, factor=(16.0, 32.0)))
def ramps_differ(f: F, c: Case, measure: Measure) -> None:
    """At b = 10000, d = 128, L = 4096 the code's frequencies exceed the paper's by up to 3.04 times for s = 16 (pair
    38), and 3.96 times for s = 32 (pair 40); 25 of the 64 pairs differ by more than 1%."""
    code, paper = (np.asarray(f(128, 10000.0, c["factor"], 4096, way, 1.0, 32.0)) for way in ("code", "paper"))
    ratio, pair, most = code / paper, *((38, 3.04) if c["factor"] == 16 else (40, 3.96))
    measure.holds(int(np.argmax(ratio)) == pair, f"the ramps differ most at pair {int(np.argmax(ratio))}")
    measure.close(ratio[pair], most, 0.005, f"the code's frequency by the paper's at pair {pair}")
    if c["factor"] == 16:
        measure.holds(int(np.sum(abs(ratio - 1) > 0.01)) == 25, f"the ratios are {ratio!r}")


def queries(r: Numbers, t: int, d: int, base: float, factor: float, context: int) -> Case:
    """Queries and keys at positions in any order."""
    return {
        "q": r.normal(t, d), "k": r.normal(t, d), "positions": r.integers(0, 1000, t), "base": base, "factor": factor,
        "context": context,
    }  # fmt: skip


TURNED = cases(
    queries, t=(1, 2, 3, 5), d=(2, 4, 8, 10), base=BASES, factor=(4.0, 1.0, 2.0, 32.0), context=(64, 500, 4096)
)


def scores(c: Case) -> np.ndarray:
    """Scores under YaRN's frequencies, without a temperature."""
    theta = ours(c["q"].shape[1], c["base"], c["factor"], c["context"], "code", 1.0, 32.0)
    q, k = ((x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * np.outer(c["positions"], theta)) for x in (c["q"], c["k"]))
    return np.asarray((q @ k.conj().T).real)


def score_bound(c: Case) -> float:
    """Angles are rounded to eps times the position; the square of the factor is below 2."""
    size = largest(c["q"]) * largest(c["k"]) * c["q"].shape[1]
    return bound(2 * size * (1.0 + largest(c["positions"])), 4)


@law("yarn-temperature", "definition", serves="eq:yarn-temperature", cases=TURNED)
def temperature(f: F, c: Case, measure: Measure) -> None:
    """Scores are (0.1 ln s + 1)^2 times those of the turned queries and keys, at every length."""
    right = scores(c) * (0.1 * math.log(c["factor"]) + 1) ** 2
    measure.close(call(f, *arguments(c)), right, score_bound(c), "the score")


@law("yarn-temperature", "identity", serves="eq:yarn-temperature", cases=TURNED)
def no_temperature(f: F, c: Case, measure: Measure) -> None:
    """With factor 1 scores are those of plain rotary positions."""
    same = {**c, "factor": 1.0}
    measure.close(call(f, *arguments(same)), scores(same), score_bound(c), "the score")


# Mutants


def with_kept(rule: Callable[..., Any]) -> Callable[..., Any]:
    """YaRN with another rule for gamma: rule(dim, base, factor, context, ramp, alpha, beta) -> (d/2,)."""

    def wrong(dim: int, base: float, factor: float, context: int, ramp: str, alpha: float, beta: float) -> Any:
        theta = plain(dim, base)
        gamma = rule(dim, base, factor, context, ramp, alpha, beta)
        return theta - (1 - gamma) * (theta - theta / factor)

    return wrong


def gamma_of(dim: int, base: float, context: float, ramp: str, alpha: float, beta: float) -> Any:
    """What ours keeps, read off its frequencies at factor 2."""
    return 2 * ours(dim, base, 2.0, round(context), ramp, alpha, beta) / plain(dim, base) - 1


def unrounded(dim: int, base: float, context: int, alpha: float, beta: float) -> Any:
    first, last = (dim * math.log(context / (2 * math.pi * r)) / (2 * math.log(base)) for r in (beta, alpha))
    return np.clip((last - np.arange(dim // 2)) / (last - first), 0, 1)


mutant(
    "yarn", "one-ramp", kills=("ramp", "ramps-differ"),
    met="yarn 60 and 65: the code's ramp taken for the paper's",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: gamma_of(d, b, L, "code", lo, hi)))  # fmt: skip
mutant(
    "yarn", "paper-for-both", kills=("ramp", "ramps-differ"),
    met="yarn 65: the paper's ramp, with checkpoints trained on the code's",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: gamma_of(d, b, L, "paper", lo, hi)))  # fmt: skip
mutant(
    "yarn", "not-rounded", kills="ramp", met="transformers' `truncate: false` applied to a model trained without it",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: unrounded(d, b, L, lo, hi)))  # fmt: skip
mutant(
    "yarn", "extended-context", kills=("extremes", "ramp"),
    met="Megatron-LM 1418: turns counted within the length to reach, not the one trained at",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: gamma_of(d, b, s * L, ramp, lo, hi)))  # fmt: skip
mutant(
    "yarn", "radians-for-turns", kills=("extremes", "ramp"), met="plausible: r = L theta, without 2 pi",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: gamma_of(d, b, 6.283 * L, ramp, lo, hi)))  # fmt: skip
mutant(
    "yarn", "inverted", kills=("extremes", "ramp"), met="plausible: the mask 1 - ramp applied to the other term",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: 1 - gamma_of(d, b, L, ramp, lo, hi)))  # fmt: skip
mutant(
    "yarn", "not-clipped", kills=("between", "extremes"), met="plausible: the clip of the ramp forgotten",
)(with_kept(lambda d, b, s, L, ramp, lo, hi: (L * plain(d, b) / (2 * math.pi) - lo) / (hi - lo)))  # fmt: skip


@mutant("yarn", "wavelengths", kills="ramp", met="yarn 24: wavelengths interpolated, as equation 23 reads")
def wavelengths(dim: int, base: float, factor: float, context: int, ramp: str, alpha: float, beta: float) -> Any:
    gamma = gamma_of(dim, base, context, ramp, alpha, beta)
    return plain(dim, base) / ((1 - gamma) * factor + gamma)


@mutant("yarn", "hard-coded", kills=("identity", "extremes"), met="mlx-lm 1545: a scale of 2.0 wherever none is asked")
def hard_coded(dim: int, base: float, factor: float, context: int, ramp: str, alpha: float, beta: float) -> Any:
    return ours(dim, base, max(factor, 2.0), context, ramp, alpha, beta) / 2.0


@mutant("yarn", "faster", kills=("monotone", "between"), met="plausible: theta times s for theta by s")
def faster(dim: int, base: float, factor: float, context: int, ramp: str, alpha: float, beta: float) -> Any:
    gamma = gamma_of(dim, base, context, ramp, alpha, beta)
    return plain(dim, base) * (gamma + (1 - gamma) * factor)


def heated(by: Callable[[float], float]) -> Callable[..., Any]:
    """Scores with another temperature."""

    def wrong(q: Any, k: Any, positions: Any, base: float, factor: float, context: int) -> Any:
        case = {"q": q, "k": k, "positions": positions, "base": base, "factor": factor, "context": context}
        return scores(case) * by(factor)

    return wrong


WRONG_TEMPERATURES: dict[str, tuple[Callable[[float], float], str | tuple[str, ...], str]] = {
    "queries-only": (lambda s: 0.1 * math.log(s) + 1, "definition", "plausible: the factor once, on the queries"),
    "on-turned-twice": (
        lambda s: (0.1 * math.log(s) + 1) ** 4, "definition", "plausible: folded into the turns and into the scale",
    ),
    "divided": (lambda s: (0.1 * math.log(s) + 1) ** -2, "definition", "plausible: logits by 1/t for logits by t"),
    "decimal": (lambda s: (0.1 * math.log10(s) + 1) ** 2, "definition", "plausible: log10 for ln"),
    "one-more": (
        lambda s: (0.1 * math.log(s + 1) + 1) ** 2, ("identity", "definition"), "plausible: log(1 + s), so never 1",
    ),
    "none": (lambda s: 1.0, "definition", "plausible: frequencies scaled, the temperature left out"),
}  # fmt: skip
for name, (by, kills, met) in WRONG_TEMPERATURES.items():
    mutant("yarn-temperature", name, kills=kills, met=met)(heated(by))
