"""Laws of attention over keys in parts: the parts side by side, and wrong ways to put them together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from minilong.attention import DistanceBias, Mask, blockwise, naive
from minilong.attention.parts import attention_by_parts
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.memories import cut
from minilong.backend import beside

kind(
    "attention-by-parts",
    "attention_by_parts(q, k, v, slopes, window, sinks, cuts)",
    "q (b, h, t, d), k, v (b, g, n, d), causal: the keys of the queries are the last t; slopes (h,): bias of -slope "
    "times the distance; cuts: lengths of the parts, with the sum n -> (b, h, t, d). window: None shows all keys.",
)


def mask_of(q: Any, k: Any, window: int | None, sinks: int) -> Mask:
    """Causal, the queries last."""
    offset = k.shape[-2] - q.shape[-2]
    return Mask(causal=True, window=window, sinks=0 if window is None else sinks, offset=offset)


def parts_of(k: Any, v: Any, cuts: list[int]) -> list[tuple[Any, Any]]:
    """Keys and values in parts of these lengths."""
    ends = [0, *np.cumsum(cuts).tolist()]
    return [(k[..., i:j, :], v[..., i:j, :]) for i, j in pairwise(ends)]


def bias_of(q: Any, k: Any, slopes: Any) -> DistanceBias:
    """-slope times the distance, by head and distance."""
    return DistanceBias(-slopes[:, None] * beside(q, np.arange(k.shape[-2])).astype(q.dtype))


@subject("attention-by-parts", "by distance", code=attention_by_parts, equation="eq:attention-by-parts")
def by_distance(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    mask = mask_of(q, k, window, sinks)
    return attention_by_parts(q, parts_of(k, v, cuts), mask=mask, bias=bias_of(q, k, slopes))


@subject("attention-by-parts", "by a table", code=attention_by_parts, equation="eq:attention-by-parts")
def by_table(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    mask = mask_of(q, k, window, sinks)
    table = bias_of(q, k, slopes).dense(q.shape[-2], k.shape[-2], mask.offset)
    return attention_by_parts(q, parts_of(k, v, cuts), mask=mask, bias=table)


def make(
    r: Numbers, n: int, t: int, g: int, shared: int, window: int | None, sinks: int, slope: float, longest: int
) -> Case:
    t = min(t, n)
    x = {"q": r.normal(2, g * shared, t, 2), "k": r.normal(2, g, n, 2), "v": r.normal(2, g, n, 3)}
    slopes = slope * np.arange(1.0, g * shared + 1)
    return {**x, "slopes": slopes, "window": window, "sinks": sinks, "cuts": cut(r, n, longest)}


anything = cases(
    make, n=(5, 1, 2, 8, 13), t=(1, 2, 5), g=(1, 2), shared=(1, 2), window=(None, 1, 2, 4, 20), sinks=(0, 1, 3),
    slope=(0.0, 0.5), longest=(2, 1, 4, 20),
)  # fmt: skip
NAMES = ("q", "k", "v", "slopes", "window", "sinks", "cuts")


def asked(f: F, c: Case, **changes: Any) -> np.ndarray:
    """What the function gives for the case."""
    return call(f, *[{**c, **changes}[name] for name in NAMES])


def rounding(c: Case) -> float:
    """As of any attention."""
    scores = largest(c["q"]) * largest(c["k"]) * 2 + largest(c["slopes"]) * c["k"].shape[2]
    return bound((1.0 + scores) * largest(c["v"]), 2 * c["k"].shape[2])


@law("attention-by-parts", "side-by-side", serves="eq:attention-by-parts", cases=anything)
def side_by_side(f: F, c: Case, measure: Measure) -> None:
    """It is attention over all the keys at once."""
    q, k, v = c["q"], c["k"], c["v"]
    mask = mask_of(q, k, c["window"], c["sinks"])
    table = bias_of(q, k, c["slopes"]).dense(q.shape[-2], k.shape[-2], mask.offset)
    measure.close(asked(f, c), naive(q, k, v, mask=mask, bias=table), rounding(c))


@law("attention-by-parts", "any-cut", serves="eq:attention-by-parts", cases=anything)
def any_cut(f: F, c: Case, measure: Measure) -> None:
    """Where the parts end does not matter."""
    y, n = asked(f, c), c["k"].shape[2]
    measure.close(asked(f, c, cuts=[n]), y, 2 * rounding(c), "in one part, the result")
    measure.close(asked(f, c, cuts=[1] * n), y, 2 * rounding(c), "key by key, the result")


# Mutants


def merged(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int], join: Any) -> Any:
    """The parts' outputs and log-sum-exps put together by `join`."""
    mask, done, found = mask_of(q, k, window, sinks), 0, []
    for keys, values in parts_of(k, v, cuts):
        own = Mask(True, mask.window, max(mask.sinks - done, 0), mask.offset - done)
        found.append(blockwise.with_lse(q, keys, values, mask=own, bias=bias_of(q, k, slopes)))
        done += keys.shape[-2]
    return join([y for y, _ in found], [lse for _, lse in found])


@mutant("attention-by-parts", "mean of the parts", kills=("side-by-side", "any-cut"),
        met="plausible: parts averaged, each with a softmax of its own")  # fmt: skip
def mean(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    return merged(q, k, v, slopes, window, sinks, cuts, lambda ys, _: sum(ys) / len(ys))


@mutant("attention-by-parts", "weights by the largest only", kills=("side-by-side", "any-cut"),
        met="plausible: a merge by exp(lse - max) that forgets to divide by the sum")  # fmt: skip
def unnormalised(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    def join(ys: list[Any], lses: list[Any]) -> Any:
        return sum(y * np.exp(lse - np.max(lses, axis=0))[..., None] for y, lse in zip(ys, lses, strict=True))

    return merged(q, k, v, slopes, window, sinks, cuts, join)


@mutant("attention-by-parts", "each part's keys counted from zero", kills=("side-by-side", "any-cut"),
        met="plausible: the mask of all keys given to each part, so that a later part begins too early")  # fmt: skip
def from_zero(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    mask = mask_of(q, k, window, sinks)
    parts = [(a.copy(), b.copy()) for a, b in parts_of(k, v, cuts)]
    total = None
    for a, b in parts:
        found = blockwise.with_lse(q, a, b, mask=mask, bias=bias_of(q, k, slopes))
        total = found if total is None else _merge(total, found)
    assert total is not None
    return total[0]


def _merge(first: Any, second: Any) -> Any:
    (y, a), (z, b) = first, second
    lse = np.logaddexp(a, b)
    return y * np.exp(a - lse)[..., None] + z * np.exp(b - lse)[..., None], lse


@mutant("attention-by-parts", "sinks in every part", kills=("side-by-side", "any-cut"),
        met="plausible: the mask's offset moved for a part, its sinks not")  # fmt: skip
def sinks_everywhere(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    mask, done, total = mask_of(q, k, window, sinks), 0, None
    for a, b in parts_of(k, v, cuts):
        own = Mask(True, mask.window, mask.sinks, mask.offset - done)
        found = blockwise.with_lse(q, a, b, mask=own, bias=bias_of(q, k, slopes))
        total = found if total is None else _finite(total, found)
        done += a.shape[-2]
    assert total is not None
    return total[0]


def _finite(first: Any, second: Any) -> Any:
    """`_merge`, where a part may see no key."""
    (y, a), (z, b) = first, second
    lse = np.logaddexp(a, b)
    shift = np.where(np.isinf(lse), 0.0, lse)
    return y * np.exp(a - shift)[..., None] + z * np.exp(b - shift)[..., None], lse


@mutant("attention-by-parts", "a part that sees nothing", kills=("side-by-side", "any-cut"),
        met="plausible: -inf less -inf where no key of a part is seen")  # fmt: skip
def not_a_number(q: Any, k: Any, v: Any, slopes: Any, window: int | None, sinks: int, cuts: list[int]) -> Any:
    def join(ys: list[Any], lses: list[Any]) -> Any:
        total = (ys[0], lses[0])
        with np.errstate(all="ignore"):
            for part in zip(ys[1:], lses[1:], strict=True):
                total = _merge(total, part)
        return total[0]

    return merged(q, k, v, slopes, window, sinks, cuts, join)
