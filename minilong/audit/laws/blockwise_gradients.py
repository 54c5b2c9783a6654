"""The cotangents of blockwise attention: of queries, keys, values, and of a bias by distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import DistanceBias, Mask
from minilong.attention.blocks import Blocks
from minilong.attention.blockwise import attend_blocks_biased_vjp
from minilong.audit.draw import Numbers
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.blockwise import blockwise_of
from minilong.audit.laws.blockwise_cases import arguments, drawn, make, size, table, weights, wide
from minilong.audit.laws.common import F, bound, copied, largest
from minilong.autodiff import vjp

kind(
    "blockwise-cotangents",
    "blockwise_cotangents(q, k, v, scale, mask, blocks, values, least, g)",
    "Arguments as blockwise-attention, g (b, h, t, e) -> [of q, of k, of v, of values]: what g makes of the inputs.",
)


@subject(
    "blockwise-cotangents",
    "attend_blocks_biased_vjp",
    code=attend_blocks_biased_vjp,
    equation="eq:blockwise-cotangents",
)
def ours(
    q: Any, k: Any, v: Any, scale: float, mask: Mask, blocks: Blocks, values: Any, least: int, g: Any
) -> list[Any]:
    def attention(q: Any, k: Any, v: Any, values: Any) -> Any:
        return blockwise_of(blocks)(q, k, v, mask=mask, scale=scale, bias=DistanceBias(values, least))

    return list(vjp(attention, q, k, v, values)[1](g))


def with_cotangent(r: Numbers, **choices: Any) -> Case:
    """A case with a cotangent of the output."""
    c = make(r, **choices)
    return {**c, "g": r.normal(*c["q"].shape[:-1], c["v"].shape[-1])}


def biased(**fixed: Any) -> Any:
    """Cases that have a bias."""
    return drawn(with_cotangent, **{"bias": (1, 4, 9), **fixed})


def found(f: F, c: Case) -> list[np.ndarray]:
    """The function's cotangents."""
    return [np.asarray(x) for x in f(*[copied(x) for x in (*arguments(c), c["g"])])]


def rounding(c: Case) -> float:
    """Bound on the rounding of any of the cotangents."""
    products = largest(c["g"]) * (1 + largest(c["v"])) * c["v"].shape[-1]
    other = max(1.0, largest(c["q"]), largest(c["k"]))
    each = c["q"].shape[1] // c["k"].shape[1]
    terms = c["k"].shape[-2] + each * c["q"].shape[-2] + c["q"].shape[-1] + c["v"].shape[-1]
    return bound(size(c) * products * other, terms * len(c["q"]) * c["k"].shape[-2])


def score_cotangents(c: Case) -> np.ndarray:
    """P * (g v^T - <g, y>), all of it at once."""
    p, v = weights(c), wide(c["q"], c["v"])
    along = np.sum(c["g"] * (p @ v), axis=-1, keepdims=True)
    return np.asarray(p * (c["g"] @ v.swapaxes(-1, -2) - along))


def of_key_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """Sums over the query heads that a key head serves."""
    sums: np.ndarray = x.reshape(len(x), heads, -1, *x.shape[-2:]).sum(axis=2)
    return sums


@law("blockwise-cotangents", "definition", serves=("eq:blockwise-cotangents", "eq:distance-bias"), cases=biased())
def definition(f: F, c: Case, measure: Measure) -> None:
    """The cotangents are those of the written-out attention, for every mask, bias, size and block."""
    q, k, p, ds, groups = c["q"], c["k"], weights(c), score_cotangents(c), c["k"].shape[1]
    right = [
        ds @ wide(q, k) * c["scale"],
        of_key_heads(ds.swapaxes(-1, -2) @ q * c["scale"], groups),
        of_key_heads(p.swapaxes(-1, -2) @ c["g"], groups),
        np.zeros_like(c["values"]),
    ]
    t, s = ds.shape[-2:]
    for i in range(t):
        for j in range(s):
            place = min(max(i + c["mask"].offset - j - c["least"], 0), c["values"].shape[-1] - 1)
            right[3][:, place] += ds[:, :, i, j].sum(axis=0)
    for x, y, name in zip(found(f, c), right, ("queries", "keys", "values", "bias"), strict=True):
        measure.close(x, y, rounding(c), f"the cotangent of the {name}")


@law("blockwise-cotangents", "shift", serves="eq:blockwise-cotangents", cases=biased())
def shift(f: F, c: Case, measure: Measure) -> None:
    """Adding one number to all of a query's scores changes nothing: a head's cotangents of the bias sum to zero."""
    total = found(f, c)[3].sum(axis=-1)
    measure.close(total, np.zeros_like(total), rounding(c) * c["values"].shape[-1], "the sum over the distances")


@law("blockwise-cotangents", "blind", serves=("eq:blockwise-cotangents", "claim:masked-rows"), cases=biased())
def blind(f: F, c: Case, measure: Measure) -> None:
    """Queries that see no key, and keys and values that no query sees, have cotangents of exactly zero."""
    gq, gk, gv, _ = found(f, c)
    seen = np.broadcast_to(table(c), (len(c["q"]), 1, c["q"].shape[-2], c["k"].shape[-2]))
    no_key = np.broadcast_to(~seen.any(axis=-1), gq.shape[:-1])
    no_query = np.broadcast_to(~seen.any(axis=-2), gk.shape[:-1])
    for x, hidden, name in ((gq, no_key, "query"), (gk, no_query, "key"), (gv, no_query, "value")):
        measure.holds(np.all(x[hidden] == 0), f"a {name} out of sight has the cotangent {x[hidden].tolist()}")


@law("blockwise-cotangents", "any-blocks", serves="eq:blockwise-cotangents", cases=biased())
def any_blocks(f: F, c: Case, measure: Measure) -> None:
    """Blocks of one query and one key, and one block for all, give the same."""
    names = ("queries", "keys", "values", "bias")
    for rows, columns in ((1, 1), (100, 100)):
        other = found(f, {**c, "blocks": Blocks(rows=rows, columns=columns)})
        for x, y, name in zip(found(f, c), other, names, strict=True):
            measure.close(x, y, rounding(c), f"the cotangent of the {name} in blocks of {rows} x {columns}")
