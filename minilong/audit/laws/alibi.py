"""ALiBi: what `eq:alibi` says of any implementation, and wrong ones.

Softmax ignores what is the same for all keys of a query, so a number for each row is free: the distance may be counted
from the query or from the last key. The paper's models are causal, so keys after the query are free as well; queries
may be the first t or the last t of s positions. What is left is looked at: the steps from key to key behind the query.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minilong.positions as positions
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound_of

kind(
    "alibi",
    "alibi(heads, t, s)",
    "biases (heads, t, s) to add to the scores of t queries and s keys: slope_h (j - i) for keys j <= i, up to a "
    "number for each row",
    public=True,
)


@subject("alibi", "alibi", code=positions.alibi, equation="eq:alibi")
def ours(heads: int, t: int, s: int) -> Any:
    return positions.alibi(heads, t, s, dtype="float64")


@subject("alibi", "alibi by distance", code=positions.alibi_bias, equation="eq:alibi")
def ours_by_distance(heads: int, t: int, s: int) -> Any:
    return positions.alibi_bias(heads, max(t, s), causal=False, dtype="float64").dense(t, s)


def last_rows(block: F, heads: int, t: int, s: int) -> Any:
    """The biases of the last t queries to the last s keys, of as many of both."""
    n = max(t, s)
    return block(heads, n, n)[:, n - t :, n - s :]


@subject("alibi", "alibi (last queries)", code=positions.alibi, equation="eq:alibi", variant=last_rows)
def ours_last(heads: int, t: int, s: int) -> Any:
    return positions.alibi(heads, t, s, offset=s - t)


def make(r: Numbers, heads: int, t: int, s: int) -> Case:
    """Numbers of heads, queries and keys."""
    return {"heads": heads, "t": t, "s": s}


LENGTHS = (3, 2, 1, 5, 7, 33)
anything = cases(make, heads=(1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 31, 32), t=LENGTHS, s=LENGTHS)
powers = cases(make, heads=(1, 2, 4, 8, 16, 32), t=LENGTHS, s=LENGTHS)
others = cases(make, heads=(3, 5, 6, 7, 9, 12, 20, 24, 31), t=LENGTHS, s=LENGTHS)


def steps(f: F, heads: int, t: int, s: int, measure: Measure) -> tuple[np.ndarray, np.ndarray, float]:
    """Bias of each key less that of the key before, (heads, t, s - 1); where both are behind the query; the bound."""
    y = np.asarray(f(heads, t, s))
    measure.holds(y.shape == (heads, t, s), f"the biases have shape {y.shape}, and the law asks for {(heads, t, s)}")
    measure.holds(y.dtype.kind == "f", f"the biases are of type {y.dtype}")
    i, j = np.arange(t)[:, None], np.arange(1, s)
    behind = (j <= i) & (j <= i + s - t)
    rise = np.diff(y.astype(np.float64), axis=-1)[:, behind]
    measure.holds(np.all(np.isfinite(rise)), f"a bias of a key behind the query is not finite: {y!r}")
    return rise, behind, bound_of(y, float(max(t, s)))


def size(case: Case) -> tuple[int, int, int]:
    return case["heads"], case["t"], case["s"]


def slopes_of_power(n: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ..., 2^-8."""
    return [2.0 ** (-8 * h / n) for h in range(1, n + 1)]


def slopes(heads: int) -> np.ndarray:
    """The published rule: a power of two has its own; else the power below, then every second of the power above."""
    below = 1
    while 2 * below <= heads:
        below *= 2
    return np.array(slopes_of_power(below) + slopes_of_power(2 * below)[::2][: heads - below])


@law("alibi", "definition", serves="eq:alibi", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """From one key to the next, nearer one, behind the query, the bias of head h rises by its slope."""
    rise, _, slack = steps(f, *size(case), measure)
    right = np.broadcast_to(slopes(case["heads"])[:, None], rise.shape)
    measure.close(rise, right, slack, "the step from key to key")


@law("alibi", "linear", serves="eq:alibi", cases=anything)
def linear(f: F, case: Case, measure: Measure) -> None:
    """The bias is linear in the distance: every step of a head is the same, for all queries and keys."""
    rise, _, slack = steps(f, *size(case), measure)
    measure.close(rise, np.broadcast_to(rise[:, :1], rise.shape), 2 * slack, "the step from key to key")


@law("alibi", "nearer-is-better", serves="eq:alibi", cases=anything)
def nearer_is_better(f: F, case: Case, measure: Measure) -> None:
    """A nearer key has the larger bias, and no slope reaches 1."""
    rise, _, _ = steps(f, *size(case), measure)
    measure.holds(np.all((rise > 0) & (rise < 1)), f"the steps from key to key are {rise!r}")


@law("alibi", "powers-of-two", serves="eq:alibi", cases=powers)
def powers_of_two(f: F, case: Case, measure: Measure) -> None:
    """For a power of two, the slopes are a geometric sequence from 2^(-8/n), with that ratio, down to 2^-8."""
    rise, _, slack = steps(f, *size(case), measure)
    if rise.size:
        first, n = 2.0 ** (-8 / case["heads"]), case["heads"]
        measure.close(rise[0], np.full(rise[0].shape, first), slack, "the first head's slope")
        measure.close(rise[-1], np.full(rise[-1].shape, 2.0**-8), slack, "the last head's slope")
        measure.close(rise[1:], first * rise[: n - 1], 2 * slack, "a head's slope, beside the one before")


@law("alibi", "other-numbers", serves="eq:alibi", cases=others)
def other_numbers(f: F, case: Case, measure: Measure) -> None:
    """For another number, the heads are those of the power of two below, then every second of the power above."""
    heads, t, s = size(case)
    below = 1 << (heads.bit_length() - 1)
    rise, _, slack = steps(f, heads, t, s, measure)
    fewer, more = steps(f, below, t, s, measure)[0], steps(f, 2 * below, t, s, measure)[0]
    measure.close(rise[:below], fewer, 2 * slack, f"the first {below} heads' slopes")
    measure.close(rise[below:], more[::2][: heads - below], 2 * slack, f"the slopes of heads {below} and later")


@law("alibi", "distinct-heads", serves="eq:alibi", cases=anything)
def distinct_heads(f: F, case: Case, measure: Measure) -> None:
    """No two heads have the same slope."""
    rise, _, slack = steps(f, *size(case), measure)
    if rise.size:
        gaps = np.diff(np.sort(rise[:, 0]))
        measure.holds(np.all(gaps > slack), f"two heads share a slope: {rise[:, 0]!r}")


@law("alibi", "lengths", serves="eq:alibi", cases=anything)
def lengths(f: F, case: Case, measure: Measure) -> None:
    """Slopes do not depend on the lengths: longer texts extend the biases and leave the nearer ones as they are."""
    heads, t, s = size(case)
    rise, behind, slack = steps(f, heads, t, s, measure)
    longer, _, more = steps(f, heads, 2 * max(t, s), 2 * max(t, s), measure)
    if behind.any():
        measure.close(rise[:, :1], longer[:, :1], slack + more, "the slopes of the longer text")
        measure.close(longer[:, -1:], longer[:, :1], 2 * more, "the slope far from the query, beside that near it,")


# Mutants


def biases(slope: Any, t: int, s: int) -> Any:
    return np.asarray(slope)[:, None, None] * (np.arange(s) - np.arange(t)[:, None])


@mutant(
    "alibi",
    "power-formula-for-all",
    kills=("other-numbers", "definition"),
    met="2^(-8h/n) for n not a power of two; often met",
)
def power_formula_for_all(heads: int, t: int, s: int) -> Any:
    return biases(slopes_of_power(heads), t, s)


@mutant(
    "alibi", "power-above", kills=("other-numbers", "definition"), met="plausible: the first n of the next power of two"
)
def power_above(heads: int, t: int, s: int) -> Any:
    return biases(slopes_of_power(1 << (heads - 1).bit_length())[:heads], t, s)


@mutant(
    "alibi",
    "even-of-the-rest",
    kills=("other-numbers", "distinct-heads"),
    met="plausible: [1::2] for [0::2]; slopes met twice",
)
def even_of_the_rest(heads: int, t: int, s: int) -> Any:
    below = 1 << (heads.bit_length() - 1)
    return biases(slopes_of_power(below) + slopes_of_power(2 * below)[1::2][: heads - below], t, s)


@mutant(
    "alibi", "sorted", kills=("other-numbers", "definition"), met="plausible: slopes sorted; weights of other heads"
)
def sorted_slopes(heads: int, t: int, s: int) -> Any:
    return biases(-np.sort(-slopes(heads)), t, s)


@mutant("alibi", "from-zero", kills=("powers-of-two", "nearer-is-better"), met="plausible: 2^(-8h/n) with h from 0")
def from_zero(heads: int, t: int, s: int) -> Any:
    return biases(slopes(heads) * 2.0 ** (8 / heads), t, s)


@mutant("alibi", "heads-reversed", kills=("powers-of-two", "definition"), met="plausible: the gentlest slope first")
def heads_reversed(heads: int, t: int, s: int) -> Any:
    return biases(slopes(heads)[::-1], t, s)


@mutant("alibi", "arithmetic", kills=("powers-of-two", "definition"), met="plausible: slopes h / n")
def arithmetic(heads: int, t: int, s: int) -> Any:
    return biases(np.arange(heads, 0, -1) / (heads + 1), t, s)


@mutant("alibi", "one-slope", kills=("distinct-heads", "powers-of-two"), met="plausible: the heads' axis broadcast")
def one_slope(heads: int, t: int, s: int) -> Any:
    return biases(np.full(heads, 2.0 ** (-8 / heads)), t, s)


@mutant("alibi", "sign", kills=("nearer-is-better", "definition"), met="plausible: i - j for j - i; far keys preferred")
def sign(heads: int, t: int, s: int) -> Any:
    return -biases(slopes(heads), t, s)


@mutant("alibi", "logarithmic", kills=("linear", "definition"), met="KERPLE's logarithm under ALiBi's name")
def logarithmic(heads: int, t: int, s: int) -> Any:
    distance = np.abs(np.arange(t)[:, None] - np.arange(s))
    return -slopes(heads)[:, None, None] * np.log1p(distance)


@mutant("alibi", "squared", kills=("linear", "definition"), met="plausible: a Gaussian of the distance")
def squared(heads: int, t: int, s: int) -> Any:
    distance = np.arange(t)[:, None] - np.arange(s)
    return -slopes(heads)[:, None, None] * distance**2


@mutant("alibi", "clipped", kills=("lengths", "linear"), met="T5's longest bucket kept from another scheme")
def clipped(heads: int, t: int, s: int) -> Any:
    return np.maximum(biases(slopes(heads), t, s), -slopes(heads)[:, None, None] * 8)


@mutant("alibi", "by-length", kills=("lengths", "definition"), met="plausible: distance as a share of the length")
def by_length(heads: int, t: int, s: int) -> Any:
    return biases(slopes(heads) / s, t, s)


@mutant(
    "alibi", "by-query", kills=("nearer-is-better", "definition"), met="plausible: positions of queries, axes swapped"
)
def by_query(heads: int, t: int, s: int) -> Any:
    return biases(slopes(heads), s, t).swapaxes(-1, -2)
