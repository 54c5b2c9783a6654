"""Cases of blockwise attention, every field of the mask among them, and its equations written out in full."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import DistanceBias, Mask
from minilong.attention.blocks import Blocks
from minilong.audit.draw import SIZES, Numbers, cases
from minilong.audit.law import Case
from minilong.audit.laws.common import bound, largest

NAMES = ("q", "k", "v", "scale", "mask", "blocks", "values", "least")


def make(
    r: Numbers,
    *,
    batch: int,
    groups: int,
    each: int,
    t: int,
    more: int,
    d: int,
    e: int,
    causal: bool,
    window: int | None,
    sinks: int,
    padded: bool,
    packed: bool,
    bias: int,
    rows: int,
    columns: int,
    spread: float,
) -> Case:
    """t queries that stand somewhere among t + more keys; `each` query heads for a key head; bias: its width or 0."""
    s, heads = t + more, groups * each
    mask = Mask(
        causal=causal,
        window=window,
        sinks=sinks if window else 0,
        offset=int(r.integers(0, more + 1)),
        key_lengths=r.integers(0, s + 1, batch) if padded else None,
        segments=np.sort(r.integers(0, 3, batch, s), axis=-1) if packed else None,
    )
    return {
        "q": r.normal(batch, heads, t, d, spread=spread),
        "k": r.normal(batch, groups, s, d),
        "v": r.normal(batch, groups, s, e) + float(r.integers(0, 2)),
        "scale": float(r.uniform(0.3, 1.0)) or 0.5,
        "mask": mask,
        "blocks": Blocks(rows=rows, columns=columns),
        "values": r.normal(heads, bias) if bias else None,
        "least": int(r.integers(-3, 3)),
    }


EVERY: dict[str, Any] = {
    "batch": (1, 2),
    "groups": (1, 2),
    "each": (1, 2, 3),
    "t": SIZES,
    "more": (0, 1, 2, 4),
    "d": (1, 2, 3),
    "e": (1, 2),
    "causal": (True, False),
    "window": (None, 1, 2, 3, 5),
    "sinks": (0, 1, 2),
    "padded": (False, True),
    "packed": (False, True),
    "bias": (0, 1, 4, 9),
    "rows": (1, 2, 3, 6, 8),
    "columns": (1, 2, 3, 4, 7, 11),
    "spread": (1.0, 30.0, 1000.0),
}
"""Lengths and blocks of one, even, odd, prime, one less and one more than each other."""


def drawn(build: Any = make, **fixed: Any) -> Any:
    """A strategy over all choices, some of them fixed or limited."""
    return cases(build, **{**EVERY, **{name: x if isinstance(x, tuple) else (x,) for name, x in fixed.items()}})


def arguments(c: Case) -> list[Any]:
    """The arguments of the kind, in its order."""
    return [c[name] for name in NAMES]


def wide(q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Key heads repeated for the query heads that they serve."""
    return np.repeat(x, q.shape[1] // x.shape[1], axis=1)


def table(c: Case) -> np.ndarray:
    """Who may attend, (batch or 1, 1, t, s)."""
    allowed = c["mask"].dense(np, c["q"].shape[-2], c["k"].shape[-2])
    return np.ones((1, 1, 1, 1), bool) if allowed is None else allowed.reshape(-1, 1, *allowed.shape[-2:])


def scores(c: Case) -> np.ndarray:
    """Scaled scores with their bias, (batch, heads, t, s), and minus infinity where the mask hides a key."""
    s: np.ndarray = c["q"] @ wide(c["q"], c["k"]).swapaxes(-1, -2) * c["scale"]
    if c["values"] is not None:
        s = s + DistanceBias(c["values"], c["least"]).dense(s.shape[-2], s.shape[-1], c["mask"].offset)
    return np.where(table(c), s, -np.inf)


def log_sum_exp(s: np.ndarray) -> np.ndarray:
    """log of the sum of exponentials over the last axis; -inf for a row of nothing else."""
    top = s.max(axis=-1, keepdims=True)
    shift = np.where(top == -np.inf, 0.0, top)
    with np.errstate(divide="ignore"):
        lse: np.ndarray = shift + np.log(np.exp(s - shift).sum(axis=-1, keepdims=True))
    return lse[..., 0]


def weights(c: Case) -> np.ndarray:
    """The attention map, zeros for a query that sees no key."""
    s = scores(c)
    lse = log_sum_exp(s)[..., None]
    p: np.ndarray = np.exp(s - np.where(lse == -np.inf, 0.0, lse))
    return p


def size(c: Case) -> float:
    """1 plus the largest sum of magnitudes in a score: the condition of a weight's relative error."""
    dots = np.abs(c["q"]) @ np.abs(wide(c["q"], c["k"])).swapaxes(-1, -2) * c["scale"]
    return 1.0 + largest(dots) + (0.0 if c["values"] is None else largest(c["values"]))


def rounding(c: Case) -> float:
    """Bound on the rounding of the output."""
    return bound(size(c) * (1 + largest(c["v"])), c["k"].shape[-2] + c["q"].shape[-1])


def rounding_lse(c: Case) -> float:
    """Bound on the rounding of a log-sum-exp."""
    return bound(size(c) + np.log(c["k"].shape[-2]), c["k"].shape[-2] + c["q"].shape[-1])
