"""Rotary positions: what `eq:rotary` says of any implementation in either layout, and wrong ones.

Pair j is the components (2j, 2j+1) if the layout is interleaved, (j, j + d/2) if it is half-split. An implementation
may choose, but once: the layout is read off one probe, and every law holds it to that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minilong.positions as positions
from minilong.audit.draw import BATCHES, Numbers, cases
from minilong.audit.law import Case, LawBroken, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.backend import to_host

kind(
    "rotary",
    "rotary(x, positions, base)",
    "x (..., t, d) with d even, integer positions (t,) -> x with pair j of row i turned by positions[i] base^(-2j/d)",
    public=True,
)


@subject("rotary", "rotary (interleaved)", code=positions.rotary, equation="eq:rotary")
def ours_interleaved(x: Any, at: Any, base: float) -> Any:
    return positions.rotary(x, to_host(at), base=base)


@subject(
    "rotary",
    "rotary (half-split)",
    code=positions.rotary,
    equation="eq:rotary",
    variant=lambda block, x, at, base: block(x, at, base, interleaved=False),
)
def ours_halves(x: Any, at: Any, base: float) -> Any:
    return positions.rotary(x, to_host(at), base=base, interleaved=False)


def make(r: Numbers, batch: tuple[int, ...], t: int, d: int, far: int, base: float) -> Case:
    """Rows x and y for a query and a key, positions in any order, a shift, and the base."""
    return {
        "x": r.nonzero(*batch, t, d),
        "y": r.normal(*batch, t, d),
        "positions": r.integers(0, far + 1, t),
        "shift": int(r.integers(0, far + 1)),
        "base": base,
    }


anything = cases(
    make, batch=BATCHES, t=(1, 2, 3, 5), d=(2, 4, 6, 8), far=(1, 10, 1000, 100_000), base=(10000.0, 100.0, 500000.0)
)


def arguments(case: Case) -> tuple[np.ndarray, np.ndarray, float]:
    return case["x"], case["positions"], case["base"]


def layout(f: F) -> bool:
    """Whether the layout is interleaved: where the first component of (1, 0, 0, 0) goes at position 1."""
    x = np.array([[1.0, 0.0, 0.0, 0.0]])
    y = call(f, x, np.array([1]), 10000.0)
    if y.shape != x.shape:
        raise LawBroken(f"rotary(x) has shape {y.shape} for x of shape {x.shape}")
    neighbour, half = abs(float(y[0, 1])), abs(float(y[0, 2]))
    if max(neighbour, half) < 0.1 or min(neighbour, half) > 1e-6:
        raise LawBroken(f"(1, 0, 0, 0) at position 1 becomes {y[0]!r}: neither layout turns the first component there")
    return neighbour > half


def paired(x: np.ndarray, interleaved: bool) -> np.ndarray:
    """x (..., d) as complex numbers (..., d/2), one for each pair."""
    half = x.shape[-1] // 2
    return np.asarray(x[..., 0::2] + 1j * x[..., 1::2] if interleaved else x[..., :half] + 1j * x[..., half:])


def definition(x: np.ndarray, at: np.ndarray, base: float, interleaved: bool) -> np.ndarray:
    """Each pair, as a complex number, times exp(i p base^(-2j/d)), one row and pair at a time."""
    z, d = paired(x, interleaved), x.shape[-1]
    for row, p in enumerate(at):
        for j in range(d // 2):
            angle = int(p) * base ** (-2 * j / d)
            z[..., row, j] *= complex(np.cos(angle), np.sin(angle))
    parts = (z.real, z.imag)
    return np.stack(parts, axis=-1).reshape(x.shape) if interleaved else np.concatenate(parts, axis=-1)


def rounding(x: np.ndarray, furthest: Any) -> float:
    """The angle of the furthest position is the largest number that is rounded."""
    return bound(largest(x) * (1.0 + largest(furthest)), 2)


@law("rotary", "definition", serves="eq:rotary", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """Pair j of the row at position p is turned by p base^(-2j/d), counter-clockwise, in one of the two layouts."""
    x, at, base = arguments(case)
    measure.close(call(f, x, at, base), definition(x, at, base, layout(f)), rounding(x, at), "rotary")


@law("rotary", "layout", serves="eq:rotary", cases=anything)
def one_layout(f: F, case: Case, measure: Measure) -> None:
    """Each pair keeps its length: components are mixed with their partner in one layout, and with no other."""
    x, at, base = arguments(case)
    interleaved, y = layout(f), call(f, x, at, base)
    measure.holds(y.shape == x.shape, f"rotary(x) has shape {y.shape}")
    lengths = np.abs(paired(x, interleaved))
    measure.close(np.abs(paired(y, interleaved)), lengths, bound(2 * largest(x), 2), "the length of a pair")


@law("rotary", "norm", serves="eq:rotary", cases=anything)
def keeps_the_norm(f: F, case: Case, measure: Measure) -> None:
    """A row keeps its norm at every position."""
    x, at, base = arguments(case)
    found = np.sqrt((call(f, x, at, base) ** 2).sum(axis=-1))
    measure.close(found, np.sqrt((x**2).sum(axis=-1)), bound(largest(x), 4 * x.shape[-1]), "the norm")


@law("rotary", "identity", serves="eq:rotary", cases=anything)
def identity(f: F, case: Case, measure: Measure) -> None:
    """Position 0 leaves a row as it is: positions count from 0."""
    x, at, base = arguments(case)
    measure.close(call(f, x, 0 * at, base), x, bound(largest(x)), "the row at position 0")


@law("rotary", "distance", serves="eq:rotary", cases=anything)
def distance_only(f: F, case: Case, measure: Measure) -> None:
    """The score of a query and a key depends on the distance of their positions only."""
    x, at, base = arguments(case)
    y, k = case["y"], case["shift"]
    here = np.einsum("...id,...jd->...ij", call(f, x, at, base), call(f, y, at[::-1], base))
    there = np.einsum("...id,...jd->...ij", call(f, x, at + k, base), call(f, y, at[::-1] + k, base))
    slack = bound(largest(x) * largest(y) * (1.0 + largest(at) + k), 4 * x.shape[-1] ** 2)
    measure.close(there, here, slack, f"the scores {k} positions on")


@law("rotary", "position-dependent", serves="eq:rotary", cases=anything)
def position_dependent(f: F, case: Case, measure: Measure) -> None:
    """Unlike positions give unlike rows: the first pair turns by one radian a position."""
    x, at, base = arguments(case)
    first = paired(call(f, x, at, base), layout(f))[..., 0] / paired(x, layout(f))[..., 0]
    right = np.broadcast_to(np.exp(1j * at), first.shape)
    measure.close(first.real, right.real, bound(4.0 * (1.0 + largest(at)), 2), "the cosine of the first pair's turn")
    measure.close(first.imag, right.imag, bound(4.0 * (1.0 + largest(at)), 2), "the sine of the first pair's turn")


@law("rotary", "linear", serves="eq:rotary", cases=anything)
def linear(f: F, case: Case, measure: Measure) -> None:
    """The rotation is linear in x: of a sum, it is the sum of the rotations, times the factors."""
    x, at, base = arguments(case)
    y = case["y"]
    right = 3 * call(f, x, at, base) - 5 * call(f, y, at, base)
    measure.close(call(f, 3 * x - 5 * y, at, base), right, bound(8 * largest(x, y), 4), "rotary of 3x - 5y")


@law("rotary", "composition", serves="eq:rotary", cases=anything)
def composition(f: F, case: Case, measure: Measure) -> None:
    """Turning by one position and then by another is turning by their sum."""
    x, at, base = arguments(case)
    k = np.full_like(at, case["shift"])
    twice = call(f, call(f, x, at, base), k, base)
    measure.close(twice, call(f, x, at + k, base), 4 * rounding(x, at + k), "the row turned twice")


@law("rotary", "frequencies", serves="eq:rotary", cases=anything)
def frequencies(f: F, case: Case, measure: Measure) -> None:
    """Pair j turns by base^(-2j/d) a position: each unit vector keeps the cosine of that, in the layout's order."""
    _, at, base = arguments(case)
    d = case["x"].shape[-1]
    units = np.broadcast_to(np.eye(d)[:, None], (d, len(at), d))
    kept = np.einsum("ipi->pi", call(f, units, at, base))
    turns = np.cos(at[:, None] * base ** (-np.arange(0, d, 2) / d))
    right = np.repeat(turns, 2, axis=-1) if layout(f) else np.concatenate([turns, turns], axis=-1)
    measure.close(kept, right, bound(1.0 + largest(at)), "what a component keeps of itself")


@law("rotary", "other-base", serves="eq:rotary", cases=anything)
def other_base(f: F, case: Case, measure: Measure) -> None:
    """The base counts at every call: with another one right after, the frequencies are those of that one."""
    x, at, base = arguments(case)
    before, after = call(f, x, at, base), call(f, x, at, 4 * base)
    interleaved, slack = layout(f), rounding(x, at)
    measure.close(before, definition(x, at, base, interleaved), slack, f"with base {base}, it")
    measure.close(after, definition(x, at, 4 * base, interleaved), slack, f"with base {4 * base} right after, it")


@law("rotary", "row-order", serves="eq:rotary", cases=anything)
def row_order(f: F, case: Case, measure: Measure) -> None:
    """A row's turn depends on its position alone, not on its index or on other rows: decoding gives the same."""
    x, at, base = arguments(case)
    y = call(f, x, at, base)
    measure.holds(y.shape == x.shape, f"rotary(x) has shape {y.shape}")
    for i in range(len(at)):
        alone = call(f, x[..., i : i + 1, :], at[i : i + 1], base)
        measure.close(y[..., i : i + 1, :], alone, rounding(x, at), f"row {i} among the others, beside it alone,")


@law("rotary", "batch", serves="eq:rotary", cases=anything)
def batch(f: F, case: Case, measure: Measure) -> None:
    """Axes in front share the positions: each sequence and head is turned as it would be alone."""
    x, at, base = arguments(case)
    y = call(f, x, at, base)
    measure.holds(y.shape == x.shape, f"rotary(x) has shape {y.shape}")
    for b in np.ndindex(x.shape[:-2]):
        measure.close(y[b], call(f, x[b], at, base), rounding(x, at), f"sequence {list(b)}, beside it alone,")


@law("rotary", "pure", serves="eq:rotary", cases=anything)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Rows and positions are left as they are."""
    leaves_alone(f, {name: case[name] for name in ("x", "positions", "base")}, measure)
