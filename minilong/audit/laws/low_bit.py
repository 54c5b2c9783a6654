"""Laws of low-bit rounding: how far a weight is moved, that rounding twice is rounding once; and wrong roundings."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, call, largest
from minilong.nn.blocks import decode, encode

kind(
    "low-bit",
    "low_bit(x, kind)",
    "Weights (rows, 32 k) of float32 -> what is left of them in a format: Q8_0, Q4_0 or Q4_1.",
)


@subject("low-bit", "encode and decode", code=encode, equation="eq:low-bit")
def ours(x: Any, kind: str) -> Any:
    return decode(encode(x, kind), kind).astype(np.float64)


LEVELS = {"Q8_0": 127, "Q4_0": 8, "Q4_1": 15}


def make(n: Numbers, *, rows: int, blocks: int, kind: str, size: float, offset: float) -> Case:
    """Multiples of 1/64 below 8 in magnitude, times a power of two; `offset` moves all of them."""
    x = n.integers(-500, 501, rows, 32 * blocks) / 64.0
    return {"x": (x * np.where(n.chance(0.2, rows, 1), 0.0, 1.0) + offset) * size, "kind": kind}


SIZES: dict[str, Any] = {"rows": (1, 2, 3), "blocks": (1, 2, 3), "kind": ("Q8_0", "Q4_0", "Q4_1")}
ANY = cases(make, **SIZES, size=(1.0, 2.0**-6, 2.0**-18), offset=(0.0, 1.0, -700.0))
PLAIN = cases(make, **SIZES, size=(1.0, 2.0**-6), offset=(0.0, 1.0))


def in_blocks(x: np.ndarray) -> np.ndarray:
    """(rows, 32 k) -> (blocks, 32)."""
    return x.reshape(-1, 32)


@law("low-bit", "half-a-scale", serves="eq:low-bit", cases=ANY)
def half_a_scale(f: F, c: Case, measure: Measure) -> None:
    """No weight moves by more than half a scale, but in Q4_0 those opposite to the largest, which move by one at most.

    The scale is what the largest weight, or the distance of the extremes, asks for, and float16's rounding of it.
    """
    x, y = in_blocks(c["x"]), in_blocks(call(f, c["x"], c["kind"]))
    for w, v in zip(x, y, strict=True):
        least = np.float16(w.min())
        least = np.nextafter(least, np.float16(-np.inf)) if least > w.min() else least
        reach = float(w.max() - least) if c["kind"] == "Q4_1" else largest(w)
        scale = reach / LEVELS[c["kind"]] * (1 + 2.0**-10) + 2.0**-24
        allowed = np.full(32, scale / 2)
        if c["kind"] == "Q4_0":
            allowed[w * w[np.argmax(np.abs(w))] < 0] = scale
        excess = float(np.max(np.abs(w - v) - allowed))
        measure.holds(excess <= 2.0**-22 * largest(w), f"a weight of {w!r} moved by {excess:.3g} more than it may")


@law("low-bit", "twice-is-once", serves="eq:low-bit", cases=PLAIN)
def twice_is_once(f: F, c: Case, measure: Measure) -> None:
    """What was rounded is left as it is when it is rounded again, bit for bit."""
    once = call(f, c["x"], c["kind"])
    measure.close(call(f, once, c["kind"]), once, 0.0, "rounded weights, rounded again,")


@law("low-bit", "units", serves="eq:low-bit", cases=PLAIN)
def units(f: F, c: Case, measure: Measure) -> None:
    """Four times the weights give four times what is left, bit for bit."""
    measure.close(call(f, 4 * c["x"], c["kind"]), 4 * call(f, c["x"], c["kind"]), 0.0, "of weights four times as large")


@law("low-bit", "order", serves="eq:low-bit", cases=ANY)
def order(f: F, c: Case, measure: Measure) -> None:
    """Within a block, a larger weight does not become the smaller one."""
    x, y = in_blocks(c["x"]), in_blocks(call(f, c["x"], c["kind"]))
    for w, v in zip(x, y, strict=True):
        sorted_by_weight = v[np.lexsort((v, w))]
        measure.holds(np.all(np.diff(sorted_by_weight) >= 0), f"{w!r} became {v!r}, in another order")


@law("low-bit", "block-by-block", serves="eq:low-bit", cases=ANY)
def block_by_block(f: F, c: Case, measure: Measure) -> None:
    """A block alone gives what it gives among others."""
    alone = np.concatenate([call(f, w[None], c["kind"]) for w in in_blocks(c["x"])])
    measure.close(in_blocks(call(f, c["x"], c["kind"])), alone, 0.0, "a block among others")


@law("low-bit", "constant", serves="eq:low-bit", cases=ANY)
def constant(f: F, c: Case, measure: Measure) -> None:
    """A block of one value becomes one of one value, of its sign and within float16's rounding; 0 stays 0."""
    x = np.repeat(c["x"][:, :1], 32, 1)
    y = call(f, x, c["kind"])
    measure.holds(np.all(y == y[:, :1]), f"{x[:, 0]!r} became unequal values")
    wrong = np.abs(x - y) > 2.0**-10 * np.abs(x) + 2.0**-24 * LEVELS[c["kind"]]
    measure.holds(not wrong.any(), f"{x[:, 0]!r} became {y[:, 0]!r}")


# Mutants: formats by formulas like the equation's, each with one mistake


def rounded(
    x: np.ndarray, kind: str, top: Any = None, levels: float = 0, low: Any = None, nearest: Any = np.rint
) -> np.ndarray:
    """Rounding of (blocks, 32) by these parts instead of the right ones."""
    w, n = in_blocks(x), levels or LEVELS[kind]
    extreme = np.take_along_axis(w, np.abs(w).argmax(1)[:, None], 1)
    m = np.float64(np.float16(w.min(1, keepdims=True))) if kind == "Q4_1" else 0.0
    m = m if low is None else low(w)
    reach = w.max(1, keepdims=True) - m if kind == "Q4_1" else np.abs(extreme) if top is None else top(w)
    s = np.float64(np.float16(reach / n)) * (-np.sign(extreme) if kind == "Q4_0" else 1.0)
    q = nearest((w - m) / np.where(s == 0, 1, s))
    least, most = {"Q8_0": (-127, 127), "Q4_0": (-8, 7), "Q4_1": (0, 15)}[kind]
    return np.asarray(s * np.clip(q, least, most) + m).reshape(x.shape)


@mutant("low-bit", "truncated", kills="half-a-scale", met="plausible: astype(int8) without rounding first")
def truncated(x: Any, kind: str) -> Any:
    return rounded(x, kind, nearest=np.trunc)


@mutant("low-bit", "no-magnitude", kills="half-a-scale", met="plausible: max(x) for max(abs(x))")
def no_magnitude(x: Any, kind: str) -> Any:
    return rounded(x, kind, top=lambda w: np.maximum(w.max(1, keepdims=True), 0))


@mutant("low-bit", "one-level-more", kills=("twice-is-once", "half-a-scale"), met="2^bits steps for 2^bits - 1")
def one_level_more(x: Any, kind: str) -> Any:
    return rounded(x, kind, levels=LEVELS[kind] + 1)


@mutant("low-bit", "least-to-nearest", kills="half-a-scale", met="ggml: m in float16, q by m before it was rounded")
def least_to_nearest(x: Any, kind: str) -> Any:
    w = in_blocks(x)
    shift = w.min(1, keepdims=True) if kind == "Q4_1" else np.zeros((len(w), 1))
    stored = np.float64(np.float16(shift))
    return rounded(x, kind, low=lambda w: shift if kind == "Q4_1" else 0.0) + np.repeat(stored - shift, 32, 1).reshape(
        x.shape
    )


@mutant("low-bit", "row-scale", kills="block-by-block", met="plausible: one scale a row, as of per-channel formats")
def row_scale(x: Any, kind: str) -> Any:
    return rounded(
        x, kind, top=lambda w: np.full((len(w), 1), largest(x)), low=lambda w: float(x.min()) * (kind == "Q4_1")
    )


@mutant(
    "low-bit", "wraps", kills=("order", "half-a-scale"), met="plausible: scale max / 128, so that 128 wraps to -128"
)
def wraps(x: Any, kind: str) -> Any:
    if kind != "Q8_0":
        return rounded(x, kind)
    w = in_blocks(x)
    s = np.float64(np.float16(np.abs(w).max(1, keepdims=True) / 128))
    q = np.rint(w / np.where(s == 0, 1, s)).astype(np.int64).astype(np.int8)
    return (s * q).reshape(x.shape)


@mutant("low-bit", "zero-over-zero", kills="constant", met="plausible: a block of zeros divided by its scale")
def zero_over_zero(x: Any, kind: str) -> Any:
    y = rounded(x, kind)
    flat = np.ptp(in_blocks(x), 1) == 0
    y.reshape(-1, 32)[flat] = np.nan
    return y


@mutant("low-bit", "least-scale", kills="units", met="plausible: 1e-5 added to each scale against a division by 0")
def least_scale(x: Any, kind: str) -> Any:
    return rounded(x, kind, top=lambda w: np.abs(w).max(1, keepdims=True) + 0.02)
