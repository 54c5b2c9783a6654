"""Laws of the article's positions, sine plus cosine in one component: what they satisfy, and what they fail.

The failures are laws as well. Each says what the published sinusoids have and this table lacks, so that the published
table is a mutant of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound_of, largest
from minilong.positions import cas, sinusoidal

kind("cas", "cas(length, width)", "The article's table of positions (length, width).")


def in_double(length: int, width: int) -> Any:
    """Ours in float64."""
    return cas(length, width, dtype="float64")


subject("cas", "cas", code=cas, equation="eq:cas")(in_double)


def sizes(n: Numbers, *, width: int, by: int) -> dict[str, Any]:
    """A width, how far to shift, and a table long enough to tell a linear map from a fit."""
    return {"length": 4 * width + 8, "width": width, "by": by}


SIZES = cases(sizes, width=(2, 4, 6, 10, 16), by=(1, 2, 5, 7))


def table_of(f: F, c: Case) -> np.ndarray:
    """The function's table."""
    return np.asarray(f(c["length"], c["width"]), np.float64)


@law("cas", "one-phase", serves=("eq:cas", "claim:positions-phase"), cases=SIZES)
def one_phase(f: F, c: Case, measure: Measure) -> None:
    """Component i at position p is sqrt(2) sin(p / 10000^(2i/d) + pi/4): one phase of one frequency."""
    found = np.asarray(f(c["length"], c["width"]))
    for i in range(c["width"]):
        angle = np.arange(c["length"]) / 10000 ** (2 * i / c["width"])
        measure.close(found[:, i], np.sqrt(2) * np.sin(angle + np.pi / 4), bound_of(found, 2 * c["length"]))


@law("cas", "bounded-and-distinct", serves="eq:cas", cases=SIZES)
def distinct(f: F, c: Case, measure: Measure) -> None:
    """No component exceeds sqrt(2), and no two positions have the same row."""
    found = table_of(f, c)
    measure.holds(largest(found) <= np.sqrt(2) + 1e-12, f"a component is {largest(found)}")
    apart = np.abs(found[:, None] - found[None]).max(axis=-1) + np.eye(len(found))
    measure.holds(apart.min() > 0, "two positions have one encoding")


@law("cas", "fails-shift", serves=("eq:cas", "claim:positions-formula"), cases=SIZES)
def fails_shift(f: F, c: Case, measure: Measure) -> None:
    """No linear map takes the row of every position p to that of p + k: the best one leaves a residual above 0.05."""
    found = table_of(f, c)
    before, after = found[: -c["by"]], found[c["by"] :]
    residual = largest(before @ np.linalg.lstsq(before, after)[0] - after)
    measure.holds(residual > 0.05, f"a linear map shifts by {c['by']} with the residual {residual:.3g}")


@law("cas", "fails-norm", serves=("eq:cas", "claim:positions-formula"), cases=SIZES)
def fails_norm(f: F, c: Case, measure: Measure) -> None:
    """The norm of a row depends on the position: its square varies by more than 1/2."""
    square = np.sum(table_of(f, c) ** 2, axis=1)
    measure.holds(np.ptp(square) > 0.5, f"the squared norms lie within {np.ptp(square):.3g}")


@law("cas", "fails-kernel", serves=("eq:cas", "claim:positions-formula"), cases=SIZES)
def fails_kernel(f: F, c: Case, measure: Measure) -> None:
    """The product of two rows is no function of their distance: at one distance it varies by more than 1/2."""
    found = table_of(f, c)
    products = np.sum(found[: -c["by"]] * found[c["by"] :], axis=1)
    measure.holds(np.ptp(products) > 0.5, f"at the distance {c['by']} products lie within {np.ptp(products):.3g}")


mutant("cas", "the published sinusoids", kills=("one-phase", "fails-shift", "fails-norm", "fails-kernel"),
       met="Vaswani et al. 2017: sine and cosine side by side, which has all three properties")(
    lambda length, width: sinusoidal(length, width, dtype="float64"))  # fmt: skip
mutant("cas", "sine alone", kills="one-phase", met="plausible: the other half of the formula left out")(
    lambda length, width: np.sin(np.arange(length)[:, None] / 10000 ** (2 * np.arange(width) / width)))  # fmt: skip
mutant("cas", "positions in degrees of a circle", kills="bounded-and-distinct",
       met="the article's example, in which positions 2 and 3 have one value (0) each")(
    lambda length, width: np.tile(np.round(in_double(4, width)), (length // 4 + 1, 1))[:length])  # fmt: skip
