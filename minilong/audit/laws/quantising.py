"""Laws of numbers in few bits, and of a cache that keeps its older rows so; the wrong ones are in
`quantising_mutants.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.attention.parts import attention_by_parts
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.memories import cut, pieces
from minilong.backend import array_module
from minilong.memory import Memory, Quantised, Window, encode

kind("quantise", "quantise(x, bits)", "groups (..., n) of numbers -> the same as 2, 4, 8 or 16 bits give them back")
kind(
    "quantised-cache",
    "quantised_cache(q, k, v, bits, group, recent, window, sinks, splits)",
    "q (b, h, n, d), k, v (b, g, n, d), splits: lengths of the pieces, with the sum n -> (b, h, n, d). window: None "
    "admits all keys. The group divides recent.",
)


@subject("quantise", "encode", code=encode, equation="eq:quantise")
def ours(x: Any, bits: int) -> Any:
    return encode(x, bits).decode()


def streamed(policy: Memory, q: Any, k: Any, v: Any, splits: list[int]) -> Any:
    """Attention of each piece over what the memory gives it."""
    state, y = policy.init(), []
    for seen, t in pieces(policy, splits):
        part = slice(seen, seen + t)
        state = policy.write(state, (k[..., part, :], v[..., part, :]))
        y.append(naive(q[..., part, :], *policy.read(state), mask=policy.mask(seen, t)))
    return array_module(q).concatenate(y, axis=-2)


def policy_of(bits: int, group: int, recent: int, window: int | None, sinks: int) -> Quantised:
    """The cache that a case asks for."""
    return Quantised(bits, group, recent, None if window is None else Window(window, sinks))


@subject("quantised-cache", "Quantised", code=Quantised.write, equation="eq:quantised-cache")
def ours_cache(
    q: Any, k: Any, v: Any, bits: int, group: int, recent: int, window: int | None, sinks: int, splits: Any
) -> Any:
    return streamed(policy_of(bits, group, recent, window, sinks), q, k, v, splits)


@subject("quantised-cache", "by parts", code=Quantised.parts, equation="eq:quantised-cache")
def ours_by_parts(
    q: Any, k: Any, v: Any, bits: int, group: int, recent: int, window: int | None, sinks: int, splits: Any
) -> Any:
    policy = replace(policy_of(bits, group, recent, window, sinks), decoded=1)
    state, y = policy.init(), []
    for seen, t in pieces(policy, splits):
        part = slice(seen, seen + t)
        state = policy.write(state, (k[..., part, :], v[..., part, :]))
        y.append(attention_by_parts(q[..., part, :], policy.parts(state), mask=policy.mask(seen, t)))
    return array_module(q).concatenate(y, axis=-2)


# Numbers


def make(r: Numbers, n: int, front: tuple[int, ...], bits: int, size: float, shift: float) -> Case:
    return {"x": r.normal(*front, n, spread=size) + shift, "bits": bits}


groups = cases(
    make, n=(4, 1, 2, 3, 5, 8), front=((), (2,), (2, 3)), bits=(2, 4, 8, 16), size=(1.0, 100.0, 0.01), shift=(0.0, 3.0)
)
NAMES = ("q", "k", "v", "bits", "group", "recent", "window", "sinks", "splits")


def step(x: np.ndarray, bits: int) -> np.ndarray:
    """The distance of neighbouring values of each group."""
    return np.asarray(np.ptp(x, axis=-1) / (2**bits - 1))


def rounding(x: np.ndarray) -> float:
    """Of a number that is made from its group's zero and step."""
    return bound(4 * largest(x), 4)


@law("quantise", "half-a-step", serves="eq:quantise", cases=groups)
def half_a_step(f: F, c: Case, measure: Measure) -> None:
    """No number is off by more than half a step: the group's range by 2^bits - 1."""
    found = call(f, c["x"], c["bits"])
    measure.holds(found.shape == c["x"].shape, f"the shape is {found.shape}, not {c['x'].shape}")
    error, most = np.abs(found - c["x"]), step(c["x"], c["bits"])[..., None] / 2 + rounding(c["x"])
    measure.holds(np.all(error <= most), f"an error of {np.max(error):.6g} exceeds half a step, {np.min(most):.6g}")


@law("quantise", "nearest", serves="eq:quantise", cases=groups)
def nearest(f: F, c: Case, measure: Measure) -> None:
    """Each number comes back as one of the 2^bits values from the least to the largest, in equal steps."""
    found, x = call(f, c["x"], c["bits"]), c["x"]
    width = step(x, c["bits"])[..., None]
    code = (found - x.min(axis=-1, keepdims=True)) / np.where(width > 0, width, 1.0)
    slack = 2 * rounding(x) / np.where(width > 0, width, 1.0)
    measure.holds(np.all(np.abs(code - np.rint(code)) <= slack), f"values between the steps: {code.ravel().tolist()}")
    inside = (code >= -slack) & (code <= 2 ** c["bits"] - 1 + slack)
    measure.holds(np.all(inside), f"values beyond the range: {code.ravel().tolist()}")


@law("quantise", "ends-are-exact", serves="eq:quantise", cases=groups)
def ends(f: F, c: Case, measure: Measure) -> None:
    """The least and the largest of each group come back as they are, but for rounding."""
    found, x = call(f, c["x"], c["bits"]), c["x"]
    measure.close(found.min(axis=-1), x.min(axis=-1), 0.0, "the least")
    measure.close(found.max(axis=-1), x.max(axis=-1), rounding(x), "the largest")


@law("quantise", "constant", serves="eq:quantise", cases=groups)
def constant(f: F, c: Case, measure: Measure) -> None:
    """A group of equal numbers comes back bit by bit."""
    same = np.broadcast_to(c["x"][..., :1], c["x"].shape).copy()
    measure.close(call(f, same, c["bits"]), same, 0.0, "a constant")


@law("quantise", "idempotent", serves="eq:quantise", cases=groups)
def idempotent(f: F, c: Case, measure: Measure) -> None:
    """What came back comes back again, but for rounding."""
    once = call(f, c["x"], c["bits"])
    measure.close(call(f, once, c["bits"]), once, 2 * rounding(c["x"]), "the second time")


@law("quantise", "order", serves="eq:quantise", cases=groups)
def order(f: F, c: Case, measure: Measure) -> None:
    """A larger number comes back no smaller."""
    at = np.argsort(c["x"], axis=-1, kind="stable")
    rows = np.take_along_axis(call(f, c["x"], c["bits"]), at, axis=-1)
    measure.holds(np.all(np.diff(rows, axis=-1) >= 0), f"in order of the numbers, they are {rows.tolist()}")


# The cache


def make_cache(
    r: Numbers, n: int, g: int, shared: int, b: int, d: int, longest: int, window: int | None, **sizes: Any
) -> Case:
    """Keys and values are not rounded: those half-way between two steps would be told apart by rounding alone."""
    x = {name: r.rng.standard_normal((b, h, n, d)) for name, h in (("q", g * shared), ("k", g), ("v", g))}
    sizes["recent"] *= sizes["group"]
    return {**x, **sizes, "window": window, "splits": cut(r, n, longest)}


caches = cases(
    make_cache, n=(9, 1, 3, 5, 13, 17), g=(1, 2), shared=(1, 2), b=(1, 2), d=(2, 1, 3, 4), longest=(1, 3, 20),
    window=(None, 1, 3, 6, 20), sinks=(0, 1, 2), bits=(2, 4, 8), group=(1, 2, 3), recent=(1, 2),
)  # fmt: skip


def asked(f: F, c: Case, **changes: Any) -> np.ndarray:
    """What the function gives for the case."""
    return call(f, *[{**c, **changes}[name] for name in NAMES])


def exact(c: Case, i: int) -> list[int]:
    """Rows that query i sees as they are."""
    sinks = 0 if c["window"] is None else c["sinks"]
    return [j for j in visible(c, i) if j < sinks or j - sinks >= c["recent"] * ((i - sinks) // c["recent"] - 1)]


def visible(c: Case, i: int) -> list[int]:
    """Rows that query i sees."""
    return [j for j in range(i + 1) if c["window"] is None or i - j < c["window"] or j < c["sinks"]]


def decoded(c: Case) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values in few bits, all of whole groups after the sinks."""
    sinks, group, levels = 0 if c["window"] is None else c["sinks"], c["group"], 2 ** c["bits"] - 1
    k, v = c["k"].copy(), c["v"].copy()

    def few(x: np.ndarray, axis: int) -> np.ndarray:
        least, most = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
        width = np.where(most > least, (most - least) / levels, 1.0)
        y: np.ndarray = least + width * np.rint((x - least) / width)
        return y

    for start in range(sinks, k.shape[2] - group + 1, group):
        k[:, :, start : start + group] = few(k[:, :, start : start + group], 2)
    size = group if v.shape[-1] % group == 0 else v.shape[-1]
    for start in range(0, v.shape[-1], size):
        v[..., start : start + size] = few(v[..., start : start + size], -1)
    return k, v


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Attention of one query a head: (b, h, d) on (b, g, s, d) -> (b, h, d)."""
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("bhd,bhjd->bhj", q, k) / math.sqrt(q.shape[-1])
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y: np.ndarray = np.einsum("bhj,bhjd->bhd", p / p.sum(axis=-1, keepdims=True), v)
    return y


def rounding_of(c: Case) -> float:
    """As of any attention."""
    scores = largest(c["q"]) * largest(c["k"]) * c["q"].shape[-1]
    return bound((1.0 + scores) * (1.0 + largest(c["v"])), 2 * c["q"].shape[-2] + c["q"].shape[-1])


@law("quantised-cache", "definition", serves="eq:quantised-cache", cases=caches)
def definition(f: F, c: Case, measure: Measure) -> None:
    """Query i attends to the rows of the window and the sinks; its block of R rows, the one before it and the sinks are
    exact, and older keys are rounded channel by channel, older values row by row."""
    y, (k, v) = asked(f, c), decoded(c)
    for i in range(y.shape[2]):
        keep, rows = exact(c, i), visible(c, i)
        keys, values = (np.where(np.isin(rows, keep)[:, None], a[:, :, rows], z[:, :, rows])
                        for a, z in ((c["k"], k), (c["v"], v)))  # fmt: skip
        measure.close(y[:, :, i], attended(c["q"][:, :, i], keys, values), 4 * rounding_of(c), f"query {i}'s result")


@law("quantised-cache", "error-bound", serves="eq:quantised-cache", cases=caches)
def error_bound(f: F, c: Case, measure: Measure) -> None:
    """A result is off by at most tanh(d / 2) times the range of the values, and half a step of those: d is the largest
    change that half a step in each channel of a key can make to a score."""
    y, q, levels = asked(f, c), np.abs(c["q"]), 2 ** c["bits"] - 1
    shared = q.shape[1] // c["k"].shape[1]
    for i in range(y.shape[2]):
        rows = visible(c, i)
        keys, values = (np.repeat(c[name][:, :, rows], shared, axis=1) for name in ("k", "v"))
        half = np.ptp(c["k"], axis=2) / levels / 2  # of all rows: no less than of a group
        moved = np.einsum("bhd,bhd->bh", q[:, :, i], np.repeat(half, shared, axis=1)) / math.sqrt(q.shape[-1])
        own = np.max(np.ptp(values, axis=-1), axis=-1) / levels / 2
        most = np.tanh(moved / 2)[..., None] * np.ptp(values, axis=2) + own[..., None]
        error = np.abs(y[:, :, i] - attended(c["q"][:, :, i], keys, values))
        measure.holds(np.all(error <= most + rounding_of(c)), f"query {i}: {error.tolist()} exceeds {most.tolist()}")


@law("quantised-cache", "recent-is-exact", serves=("eq:quantised-cache", "eq:cache"), cases=caches)
def recent_is_exact(f: F, c: Case, measure: Measure) -> None:
    """Within two blocks of R rows it is the full cache, or the window with its sinks, exactly."""
    n = c["q"].shape[2]
    y = asked(f, c, recent=-(-n // (2 * c["group"])) * c["group"])
    for i in range(n):
        rows = visible(c, i)
        expected = attended(c["q"][:, :, i], c["k"][:, :, rows], c["v"][:, :, rows])
        measure.close(y[:, :, i], expected, 2 * rounding_of(c), f"query {i}'s result")


@law("quantised-cache", "any-split", serves="eq:quantised-cache", cases=caches)
def any_split(f: F, c: Case, measure: Measure) -> None:
    """The result is the same for one piece, for pieces of one row, and for any pieces."""
    y, n = asked(f, c), c["q"].shape[2]
    measure.close(asked(f, c, splits=[1] * n), y, 2 * rounding_of(c), "row by row, the result")
    measure.close(asked(f, c, splits=[n]), y, 2 * rounding_of(c), "in one piece, the result")


@law("quantised-cache", "batch-rows-alone", serves="eq:quantised-cache", cases=caches)
def batch_rows_alone(f: F, c: Case, measure: Measure) -> None:
    """The last row of the batch has the result that it has alone."""
    alone = asked(f, c, **{name: c[name][-1:] for name in ("q", "k", "v")})
    measure.close(asked(f, c)[-1:], alone, 2 * rounding_of(c), "the last row of the batch")
