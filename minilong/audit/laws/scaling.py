"""Context scaling by a new base or by stretched positions: position interpolation, NTK, dynamic NTK.

The laws look at frequencies, (d/2,) radians a position. Frequencies span four orders of magnitude, so they are compared
by their ratio to those of plain rotary positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.positions import Scaling

PI, NTK, DYNAMIC = "position-interpolation", "ntk-scaling", "dynamic-ntk"
FREQUENCIES = "Frequencies (dim/2,) of rotary positions"

kind(PI, "position_interpolation(dim, base, factor)", f"{FREQUENCIES} under position interpolation.")
kind(NTK, "ntk_scaling(dim, base, factor)", f"{FREQUENCIES} under NTK-aware scaling.")
kind(
    DYNAMIC,
    "dynamic_ntk(dim, base, factor, context, length)",
    f"{FREQUENCIES} for `length` tokens so far, of a model trained at `context`, under dynamic NTK scaling.",
)


@subject(PI, PI, code=Scaling.frequencies, equation="eq:position-interpolation")
def ours_interpolated(dim: int, base: float, factor: float) -> Any:
    return Scaling("pi", factor).frequencies(dim, base)


@subject(NTK, NTK, code=Scaling.frequencies, equation="eq:ntk-scaling")
def ours_ntk(dim: int, base: float, factor: float) -> Any:
    return Scaling("ntk", factor).frequencies(dim, base)


@subject(DYNAMIC, DYNAMIC, code=Scaling.frequencies, equation="eq:dynamic-ntk")
def ours_dynamic(dim: int, base: float, factor: float, context: int, length: int) -> Any:
    return Scaling("dynamic", factor, context).frequencies(dim, base, length)


def plain(dim: int, base: Any) -> Any:
    """The frequencies of `eq:rotary`."""
    return base ** (-np.arange(0, dim, 2) / dim)


def make(r: Numbers, dim: int, base: float, factor: float) -> Case:
    """Head dimension, base, factor."""
    return {"dim": dim, "base": base, "factor": factor}


def lengths(r: Numbers, dim: int, base: float, factor: float, context: int, part: float) -> Case:
    """The same with a context, and a length as a part of it."""
    return {**make(r, dim, base, factor), "context": context, "length": max(1, round(part * context))}


DIMS, BASES, FACTORS = (6, 4, 2, 8, 10, 64, 128), (10000.0, 100.0, 500000.0), (2.0, 4.0, 1.5, 8.0, 32.0)
DRAWN = cases(make, dim=DIMS, base=BASES, factor=FACTORS)
CONTEXTS = (64, 7, 100, 2048)
WITHIN = cases(lengths, dim=DIMS, base=BASES, factor=(*FACTORS, 1.0), context=CONTEXTS, part=(1.0, 0.1, 0.25, 0.5))
BEYOND = cases(lengths, dim=DIMS, base=BASES, factor=(*FACTORS, 1.0), context=CONTEXTS, part=(2.0, 1.2, 3.0, 17.0))


def arguments(c: Case) -> list[Any]:
    """The arguments of the kind, in order."""
    return [c[name] for name in ("dim", "base", "factor", "context", "length") if name in c]


def shares(f: F, *args: Any) -> np.ndarray:
    """The function's frequencies by those of plain rotary positions."""
    return np.asarray(np.asarray(f(*args)) / plain(args[0], args[1]))


def rounding(base: float, by: float) -> float:
    """Powers round by eps times the logarithm of the result; shares are at most 1."""
    return bound(1.0 + float(np.log(base)) + float(np.log(by)), 4)


def powers(dim: int, by: float) -> np.ndarray:
    """by^(-2j/(d-2)): what NTK scaling leaves of each pair's frequency."""
    return np.array([by ** (-2 * j / (dim - 2)) if j else 1.0 for j in range(dim // 2)])


def growth(c: Case) -> float:
    """What the last pair is divided by at a length beyond the context."""
    return float(c["factor"] * c["length"] / c["context"] - (c["factor"] - 1))


for method in (PI, NTK):

    @law(method, "identity", serves=f"eq:{method}", cases=DRAWN)
    def identity(f: F, c: Case, measure: Measure) -> None:
        """Factor 1 leaves rotary positions as they are, bit for bit."""
        found = np.asarray(f(c["dim"], c["base"], 1.0))
        measure.holds(np.array_equal(found, plain(c["dim"], c["base"])), f"with factor 1 they are {found!r}")

    @law(method, "monotone", serves=f"eq:{method}", cases=DRAWN)
    def monotone(f: F, c: Case, measure: Measure) -> None:
        """A larger factor never makes a pair faster, and makes the last one slower."""
        less, more = (shares(f, c["dim"], c["base"], s) for s in (c["factor"], 2 * c["factor"]))
        measure.holds(np.all(more <= less * (1 + rounding(c["base"], 2 * c["factor"]))), f"{less} became {more}")
        measure.holds(c["dim"] == 2 or more[-1] < less[-1], f"the last pair's share stayed {more[-1]}")


@law(PI, "stretched", serves="eq:position-interpolation", cases=DRAWN)
def stretched(f: F, c: Case, measure: Measure) -> None:
    """Positions s p are turned as plain rotary positions turn p: the text is stretched, and every distance in it."""
    p, s = np.arange(50.0)[:, None], c["factor"]
    angle, right = s * p * np.asarray(f(*arguments(c))), p * plain(c["dim"], c["base"])
    measure.close(np.cos(angle), np.cos(right), bound(1.0 + 50, 4), "the cosine of the turn")
    measure.close(np.sin(angle), np.sin(right), bound(1.0 + 50, 4), "the sine of the turn")


@law(NTK, "definition", serves="eq:ntk-scaling", cases=DRAWN)
def ntk_definition(f: F, c: Case, measure: Measure) -> None:
    """Pair j turns at theta_j s^(-2j/(d-2))."""
    right = powers(c["dim"], c["factor"])
    measure.close(shares(f, *arguments(c)), right, rounding(c["base"], c["factor"]), "the share of a frequency")


@law(NTK, "ends", serves="eq:ntk-scaling", cases=DRAWN)
def ends(f: F, c: Case, measure: Measure) -> None:
    """The fastest pair is left alone, exactly; the slowest is divided by s: near order and far reach."""
    found, slack = shares(f, *arguments(c)), rounding(c["base"], c["factor"])
    measure.holds(found[0] == 1.0, f"the first pair's share is {found[0]!r}")
    if c["dim"] > 2:
        measure.close(found[-1], 1 / c["factor"], slack, "the last pair's share")


@law(NTK, "geometric", serves="eq:ntk-scaling", cases=DRAWN)
def geometric(f: F, c: Case, measure: Measure) -> None:
    """Frequencies fall by one ratio from pair to pair: these are rotary positions of another base."""
    found = np.log(shares(f, *arguments(c)))
    if len(found) > 1:
        right = found[1] * np.arange(len(found))
        measure.close(found, right, len(found) * rounding(c["base"], c["factor"]), "the logarithm of a share")


@law(DYNAMIC, "within-the-context", serves="eq:dynamic-ntk", cases=WITHIN)
def within(f: F, c: Case, measure: Measure) -> None:
    """Up to the context trained at, rotary positions stay as they are, bit for bit, whatever the factor."""
    found = np.asarray(f(*arguments(c)))
    measure.holds(np.array_equal(found, plain(c["dim"], c["base"])), f"at length {c['length']} they are {found!r}")


@law(DYNAMIC, "definition", serves="eq:dynamic-ntk", cases=BEYOND)
def dynamic_definition(f: F, c: Case, measure: Measure) -> None:
    """Beyond it, they are NTK's for the factor s l/L - (s - 1)."""
    found, right = shares(f, *arguments(c)), powers(c["dim"], growth(c))
    measure.close(found, right, rounding(c["base"], growth(c)), "the share of a frequency")


@law(DYNAMIC, "slower-with-length", serves="eq:dynamic-ntk", cases=BEYOND)
def slower(f: F, c: Case, measure: Measure) -> None:
    """A longer text never makes a pair faster, makes the last one slower, and leaves the first alone."""
    less, more = (shares(f, *arguments({**c, "length": n})) for n in (c["length"], 2 * c["length"]))
    measure.holds(np.all(more <= less * (1 + rounding(c["base"], 2 * growth(c)))), f"{less} became {more}")
    measure.holds(c["dim"] == 2 or more[-1] < less[-1], f"the last pair's share stayed {more[-1]}")
    measure.holds(more[0] == 1.0, f"the first pair's share is {more[0]!r}")


@law(DYNAMIC, "no-memory", serves="eq:dynamic-ntk", cases=BEYOND)
def no_memory(f: F, c: Case, measure: Measure) -> None:
    """A shorter text after a longer one has the frequencies that it would have alone."""
    f(*arguments(c))
    after = np.asarray(f(*arguments({**c, "length": c["context"]})))
    measure.holds(np.array_equal(after, plain(c["dim"], c["base"])), f"after length {c['length']} they are {after!r}")


# Mutants


def exponent(dim: int) -> float:
    return dim / max(dim - 2, 1e-9)


@mutant(PI, "compressed", kills=("stretched", "monotone"), met="plausible: positions times s for positions by s")
def compressed(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base) * factor


@mutant(
    PI, "hard-coded", kills=("identity", "stretched"), met="mlx-lm 1545: a scale of 2.0 wherever none was configured"
)
def hard_coded(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base) / max(factor, 2.0)


@mutant(PI, "factor-ignored", kills=("monotone", "stretched"), met="mlx-lm 1545: the configured factor never used")
def factor_ignored(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base)


@mutant(NTK, "base-by-factor", kills=("ends", "definition"), met="plausible: b s; the exponent d/(d-2) forgotten")
def base_by_factor(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base * factor)


@mutant(NTK, "exponent-inverted", kills=("ends", "definition"), met="plausible: s^((d-2)/d)")
def exponent_inverted(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base * factor ** ((dim - 2) / dim))


@mutant(NTK, "pairs-for-dimension", kills=("ends", "definition"), met="plausible: d counts pairs in the exponent")
def pairs_for_dimension(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base * factor ** (dim / 2 / max(dim / 2 - 2, 1)))


@mutant(NTK, "interpolated", kills=("ends", "geometric"), met="plausible: position interpolation under NTK's name")
def interpolated(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base) / factor


@mutant(NTK, "one-more", kills=("identity", "ends"), met="plausible: s + 1, to be on the safe side")
def one_more(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base * (factor + 1) ** exponent(dim)) if dim > 2 else 2 * plain(dim, base)


@mutant(NTK, "smaller-base", kills=("monotone", "ends"), met="plausible: the base divided; pairs turn faster")
def smaller_base(dim: int, base: float, factor: float) -> Any:
    return plain(dim, base / factor ** min(exponent(dim), 3.0))


def changed_base(by: Callable[..., Any]) -> Callable[..., Any]:
    """Dynamic scaling whose base grows by `by(factor, context, length)` to the power d/(d-2)."""

    def wrong(dim: int, base: float, factor: float, context: int, length: int) -> Any:
        grown = by(factor, context, length)
        return plain(dim, np.asarray(base * np.asarray(grown) ** exponent(dim)) if dim > 2 else base)

    return wrong


mutant(
    DYNAMIC, "static", kills=("within-the-context", "slower-with-length", "definition"),
    met="vLLM 5093 and 41236: one base, s s - (s - 1), for all lengths",
)(changed_base(lambda s, context, length: s * s - (s - 1)))  # fmt: skip
mutant(
    DYNAMIC, "negative-base", kills="within-the-context",
    met="vLLM 52665: the formula below the context; a negative base, NaN in what is embedded",
)(changed_base(lambda s, context, length: s * length / context - (s - 1)))  # fmt: skip
mutant(
    DYNAMIC, "factor-ignored", kills="definition", met="mlx-lm 1545: l/L whatever the factor",
)(changed_base(lambda s, context, length: max(1.0, length / context)))  # fmt: skip
mutant(
    DYNAMIC, "not-continuous", kills="definition", met="plausible: s l/L; jumps by s at the end of the context",
)(changed_base(lambda s, context, length: s * length / context if length > context else 1.0))  # fmt: skip


@mutant(
    DYNAMIC,
    "positions-doubled",
    kills=("within-the-context", "definition", "slower-with-length"),
    met="mlx-lm 1545: the base right, and every position times 2.0",
)
def positions_doubled(dim: int, base: float, factor: float, context: int, length: int) -> Any:
    return 2 * ours_dynamic(dim, base, factor, context, length)


def remembering() -> Callable[..., Any]:
    """Dynamic scaling that keeps the longest length seen."""
    longest: dict[int, int] = {}

    def kept(dim: int, base: float, factor: float, context: int, length: int) -> Any:
        longest[context] = max(length, longest.get(context, 0))
        return ours_dynamic(dim, base, factor, context, longest[context])

    return kept


mutant(DYNAMIC, "longest-seen", kills="no-memory", met="HF 27226: the base is not scaled back for a shorter text")(
    remembering()
)
