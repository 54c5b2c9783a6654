"""Laws of low-bit bytes: which weight a bit belongs to, what a scale multiplies; of products; and wrong readings."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, call
from minilong.autodiff.numeric import rounding_bound
from minilong.nn.blocks import FORMATS, decode
from minilong.nn.planes import Planes

kind("block", "block(data, kind)", "Rows of blocks, bytes (rows, n) -> weights (rows, m), of any of ten formats.")
kind("low-bit-product", "low_bit_product(x, data, kind)", "x (t, in) times weights (out, in), given as rows of blocks.")

KINDS = tuple(FORMATS)
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,)}
"""Where the float16 numbers are; at 0 and 2 in the others."""

INTEGERS = {
    "Q8_0": (2, 34), "Q4_0": (2, 18), "Q4_1": (4, 20), "Q5_0": (2, 22), "Q5_1": (4, 24),
    "Q2_K": (16, 80), "Q3_K": (0, 96), "Q4_K": (16, 144), "Q5_K": (16, 176), "Q6_K": (0, 192),
}  # fmt: skip
"""Bytes of the integers."""


@subject("block", "decode", code=decode, equation="eq:block")
def ours(data: Any, kind: str) -> Any:
    return decode(data, kind)


@subject("low-bit-product", "Planes.product", code=Planes, equation="eq:low-bit-product")
def our_product(x: Any, data: Any, kind: str) -> Any:
    return Planes.of(data, kind).product(x.astype(np.float32))


def drawn(n: Numbers, rows: int, blocks: int, kind: str) -> np.ndarray:
    """Any bytes, with float16 numbers between 1/2 and 2, of either sign, but where they are positive."""
    form = FORMATS[kind]
    data = n.integers(0, 256, rows, blocks, form.bytes).astype(np.uint8)
    for at in SCALES.get(kind, (0, 2)):
        numbers = n.rng.uniform(0.5, 2, (rows, blocks, 1)) * n.rng.choice([-1, 1], (rows, blocks, 1))
        data[..., at : at + 2] = numbers.astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


def make(n: Numbers, *, rows: int, blocks: int, kind: str) -> Case:
    """Rows of blocks; a bit of an integer."""
    begin, end = INTEGERS[kind]
    bit = {"byte": int(n.integers(begin, end)), "bit": int(n.integers(0, 8))}
    return {"data": drawn(n, rows, blocks, kind), "kind": kind, **bit}


DRAWN = cases(make, rows=(1, 2), blocks=(1, 2), kind=KINDS)


def place(kind: str, byte: int, bit: int) -> int:
    """The weight of a block to which a bit of the integers belongs."""
    at, upper = byte - INTEGERS[kind][0], bit // 4
    if kind == "Q8_0":
        return at
    if kind in ("Q5_0", "Q5_1"):
        return 8 * at + bit if at < 4 else at - 4 + 16 * upper
    if kind in ("Q4_0", "Q4_1"):
        return at + 16 * upper
    if kind in ("Q3_K", "Q5_K") and at < 32:
        return 32 * bit + at
    at -= 32 if kind in ("Q3_K", "Q5_K") else 0
    if kind in ("Q2_K", "Q3_K"):
        return 128 * (at // 32) + 32 * (bit // 2) + at % 32
    if kind in ("Q4_K", "Q5_K"):
        return 64 * (at // 32) + 32 * upper + at % 32
    if at < 128:
        return 128 * (at // 64) + 64 * upper + at % 64
    return 128 * ((at - 128) // 32) + 32 * (bit // 2) + at % 32


@law("block", "one-weight", serves="eq:block", cases=DRAWN)
def one_weight(f: F, c: Case, measure: Measure) -> None:
    """A bit of an integer changes the weight it belongs to, and no other."""
    data = c["data"].copy()
    before = call(f, data, c["kind"])
    data[-1, c["byte"]] ^= 1 << c["bit"]
    changed = np.flatnonzero((call(f, data, c["kind"]) != before).reshape(-1))
    right = (len(data) - 1) * before.shape[1] + place(c["kind"], c["byte"], c["bit"])
    measure.holds(set(changed) <= {right}, f"weights {changed.tolist()} changed, and the bit is of weight {right}")


@law("block", "every-bit", serves="eq:block", cases=DRAWN)
def every_bit(f: F, c: Case, measure: Measure) -> None:
    """A bit of an integer changes its weight, unless the weight's scale is 0."""
    data, form, at = c["data"].copy(), FORMATS[c["kind"]], place(c["kind"], c["byte"], c["bit"])
    before = call(f, data, c["kind"])[0, at]
    data[0, c["byte"]] ^= 1 << c["bit"]
    scale = form.unpack(data[0].reshape(-1, form.bytes))[1][0, at // form.run]
    measure.holds(scale == 0 or call(f, data, c["kind"])[0, at] != before, f"weight {at} stayed {before!r}")


@law("block", "scales", serves="eq:block", cases=DRAWN)
def scales(f: F, c: Case, measure: Measure) -> None:
    """Twice the float16 numbers of a block are twice its weights, bit for bit."""
    data = c["data"].copy()
    before = call(f, data, c["kind"])
    blocks = data.reshape(len(data), -1, FORMATS[c["kind"]].bytes)
    for at in SCALES.get(c["kind"], (0, 2)):
        number = np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)
        blocks[..., at : at + 2] = (2 * number).view(np.uint8)
    measure.close(call(f, data, c["kind"]), 2 * before, 0.0, "weights with scales twice as large")


@law("block", "range", serves="eq:block", cases=DRAWN)
def within_range(f: F, c: Case, measure: Measure) -> None:
    """In Q8_0 weights are -128 to 127 scales, in Q4_0 -8 to 7, in Q4_1 0 to 15 above m: whole numbers all."""
    if c["kind"] not in ("Q8_0", "Q4_0", "Q4_1"):
        return
    blocks = c["data"].reshape(-1, FORMATS[c["kind"]].bytes)
    s, m = (np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float64) for at in (0, 2))
    q = (call(f, c["data"], c["kind"]).reshape(-1, 32) - (m if c["kind"] == "Q4_1" else 0.0)) / s
    least, most = {"Q8_0": (-128, 127), "Q4_0": (-8, 7), "Q4_1": (0, 15)}[c["kind"]]
    measure.holds(np.all(np.abs(q - np.rint(q)) < 1e-4), f"no whole numbers of scales: {q!r}")
    measure.holds(np.all((least - 0.5 < q) & (q < most + 0.5)), f"scales beyond {least} to {most}: {q!r}")


@law("block", "block-by-block", serves="eq:block", cases=DRAWN)
def block_by_block(f: F, c: Case, measure: Measure) -> None:
    """A block alone gives what it gives among others."""
    form = FORMATS[c["kind"]]
    alone = [call(f, block[None], c["kind"])[0] for block in c["data"].reshape(-1, form.bytes)]
    measure.close(call(f, c["data"], c["kind"]).reshape(-1, form.weights), np.array(alone), 0.0, "a block among others")


# Mutants of the readings


@mutant("block", "neighbours", kills="one-weight", met="ggml before May 2023: weights 2 i and 2 i + 1 in byte i")
def neighbours(data: Any, kind: str) -> Any:
    y = decode(data, kind)
    if kind not in ("Q4_0", "Q4_1"):
        return y
    return y.reshape(len(y), -1, 2, 16).swapaxes(2, 3).reshape(y.shape)


@mutant("block", "unsigned", kills="range", met="plausible: bytes of Q8_0 read without their sign")
def unsigned(data: Any, kind: str) -> Any:
    y = decode(data, kind)
    blocks = data.reshape(-1, FORMATS[kind].bytes)
    if kind != "Q8_0":
        return y
    s = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float64)
    return (s * blocks[:, 2:]).reshape(y.shape)


@mutant("block", "least-first", kills="range", met="plausible: d and m of Q4_1 in the other order")
def least_first(data: Any, kind: str) -> Any:
    if kind != "Q4_1":
        return decode(data, kind)
    blocks = data.reshape(-1, 20)
    return decode(np.concatenate([blocks[:, 2:4], blocks[:, :2], blocks[:, 4:]], 1).reshape(data.shape), kind)


@mutant("block", "added-offset", kills="scales", met="plausible: 8 taken off the weight, not off the integer")
def added_offset(data: Any, kind: str) -> Any:
    y = decode(data, kind)
    if kind != "Q4_0":
        return y
    s = np.ascontiguousarray(data.reshape(-1, 18)[:, :2]).view(np.float16).astype(np.float32)
    return (y.reshape(-1, 32) + 8 * s - 8).reshape(y.shape)


@mutant("block", "no-high-bits", kills="every-bit", met="plausible: bits of a weight that lie apart are left out")
def no_high_bits(data: Any, kind: str) -> Any:
    if kind not in ("Q6_K", "Q3_K"):
        return decode(data, kind)
    blocks = data.reshape(-1, FORMATS[kind].bytes).copy()
    blocks[:, 32:96] = 0
    return decode(blocks.reshape(data.shape), kind)


@mutant("block", "first-scale", kills="block-by-block", met="plausible: a row's first block's scale for all of it")
def first_scale(data: Any, kind: str) -> Any:
    if kind != "Q8_0":
        return decode(data, kind)
    blocks = data.reshape(len(data), -1, 34).copy()
    blocks[:, :, :2] = blocks[:, :1, :2]
    return decode(blocks.reshape(data.shape), kind)


# Products


def product_case(n: Numbers, *, t: int, out: int, blocks: int, kind: str) -> Case:
    """Rows of x and blocks of a weight."""
    form = FORMATS[kind]
    return {"x": n.normal(t, blocks * form.weights), "data": drawn(n, out, blocks, kind), "kind": kind}


PRODUCTS = cases(product_case, t=(1, 4, 5), out=(1, 5, 17), blocks=(1, 2), kind=KINDS)


def size_of(c: Case) -> float:
    """What a sum of a product is made of: scale times integer, and least value, apart."""
    q, s, m = FORMATS[c["kind"]].unpack(c["data"].reshape(-1, FORMATS[c["kind"]].bytes))
    parts = 64.0 * float(np.abs(s).max()) + float(np.abs(q).max()) * float(np.abs(s).max())
    return float(np.abs(c["x"]).sum(1).max()) * (parts + (0.0 if m is None else float(np.abs(m).max())))


@law("low-bit-product", "decoded", serves="eq:low-bit-product", cases=PRODUCTS)
def as_decoded(f: F, c: Case, measure: Measure) -> None:
    """The product is that of x and the decoded weights."""
    right = c["x"] @ decode(c["data"], c["kind"]).T.astype(np.float64)
    allowed = rounding_bound(np.float32, size_of(c), c["x"].shape[1])
    measure.close(call(f, c["x"], c["data"], c["kind"]), right, allowed, "the product")


@law("low-bit-product", "rows-apart", serves="eq:low-bit-product", cases=PRODUCTS)
def rows_apart(f: F, c: Case, measure: Measure) -> None:
    """A row of x alone gives what it gives among others."""
    alone = np.concatenate([call(f, row[None], c["data"], c["kind"]) for row in c["x"]])
    allowed = rounding_bound(np.float32, size_of(c), c["x"].shape[1])
    measure.close(call(f, c["x"], c["data"], c["kind"]), alone, allowed, "a row among others")


@mutant("low-bit-product", "no-least", kills="decoded", met="plausible: the term of least values left out")
def no_least(x: Any, data: Any, kind: str) -> Any:
    p = Planes.of(data, kind)
    return Planes(p.codes, p.scales, None, p.shape).product(x.astype(np.float32))


@mutant("low-bit-product", "sum-of-all", kills="decoded", met="plausible: least values times the sum of all of x")
def sum_of_all(x: Any, data: Any, kind: str) -> Any:
    p = Planes.of(data, kind)
    if p.least is None:
        return p.product(x.astype(np.float32))
    added = x.sum(1, keepdims=True) * p.least.sum(1).reshape(-1)[: p.shape[0]]
    return Planes(p.codes, p.scales, None, p.shape).product(x.astype(np.float32)) + added


@mutant("low-bit-product", "first-row", kills="rows-apart", met="plausible: sums of x taken of its first row only")
def first_row(x: Any, data: Any, kind: str) -> Any:
    p = Planes.of(data, kind)
    right = p.product(x.astype(np.float32))
    if p.least is None:
        return right
    plain = Planes(p.codes, p.scales, None, p.shape)
    return plain.product(x.astype(np.float32)) + (right - plain.product(x.astype(np.float32)))[:1]
