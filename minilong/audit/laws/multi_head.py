"""Laws of multi-head attention: what the heads share, and what they do not."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import Mask, dense, naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.backend import beside, to_host
from minilong.nn import Linear, MultiHeadAttention, View
from minilong.positions import rotary_turns

NAMES = ("x", "z", "wq", "wk", "wv", "wo", "heads", "mask")
TURNED = ("x", "wq", "wk", "wv", "wo", "heads", "positions")

kind(
    "multi-head",
    f"multi_head({', '.join(NAMES)})",
    "x (t, width) attends to z (s, width) in `heads` subspaces, each d = width / heads wide. wq and wo (width, width); "
    "wk and wv (width, g d), where g divides heads: each of the g key heads serves heads / g neighbouring query heads. "
    "mask (t, s): True = may attend.",
)
kind(
    "rotary-multi-head",
    f"multi_head({', '.join(TURNED)})",
    "The same for self-attention without a mask, with queries and keys turned by their positions (t,).",
)


class Given:
    """A mask of given booleans, in the form in which kernels ask for it."""

    def __init__(self, allowed: np.ndarray) -> None:
        self.allowed = allowed

    def dense(self, xp: Any, queries: int, keys: int) -> np.ndarray:
        """The booleans."""
        return self.allowed


def layer(wq: Any, wk: Any, wv: Any, wo: Any, heads: int, kernel: Any) -> MultiHeadAttention:
    """Our layer without biases."""
    kv_heads = heads * wk.shape[1] // wq.shape[1]
    return MultiHeadAttention(
        Linear(wq, None), Linear(wk, None), Linear(wv, None), Linear(wo, None), heads, kv_heads, kernel
    )


def ours(kernel: Any) -> F:
    """Our layer with one of our kernels."""

    def multi_head(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, mask: Any = None) -> Any:
        allowed: Any = Mask() if mask is None else Given(mask)
        return layer(wq, wk, wv, wo, heads, kernel)(x[None], z[None], view=View(allowed))[0]

    return multi_head


def ours_turned(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, positions: Any) -> Any:
    """Our layer with rotary positions."""
    turns = rotary_turns(to_host(positions), x.shape[1] // heads, dtype="complex128")
    return layer(wq, wk, wv, wo, heads, dense)(x[None], view=View(turns=beside(x, turns)))[0]


subject("multi-head", "multi-head, dense kernel", code=MultiHeadAttention.__call__, equation="eq:multi-head")(
    ours(dense)
)
subject("multi-head", "multi-head, naive kernel", code=naive, equation="eq:multi-head")(ours(naive))
subject("rotary-multi-head", "multi-head with turns", code=rotary_turns, equation="eq:rotary")(ours_turned)


def case(n: Numbers, *, d: int, heads: int, groups: int, t: int, s: int, visible: float) -> dict[str, Any]:
    """Random arrays; `groups` key heads divide `heads`."""
    width, inner = heads * d, (heads if heads % groups else groups) * d
    return {
        "x": n.normal(t, width),
        "z": n.normal(s, width),
        "wq": n.normal(width, width),
        "wk": n.normal(width, inner),
        "wv": n.normal(width, inner),
        "wo": n.normal(width, width),
        "heads": heads,
        "mask": n.chance(visible, t, s),
    }


DRAWN = cases(
    case,
    d=(1, 2, 3, 4),
    heads=(1, 2, 3, 4),
    groups=(1, 2, 3, 4),
    t=(1, 2, 3, 5),
    s=(1, 2, 3, 5),
    visible=(1.0, 0.6, 0.2),
)


def itself(n: Numbers, *, d: int, heads: int, groups: int, t: int) -> dict[str, Any]:
    """Self-attention without a mask."""
    c = case(n, d=d, heads=heads, groups=groups, t=t, s=t, visible=1.0)
    return {**c, "z": c["x"], "mask": np.ones((t, t), bool)}


def rotated(n: Numbers, *, d: int, heads: int, groups: int, t: int, by: int) -> dict[str, Any]:
    """Self-attention with rotary positions, and how far they are moved."""
    c = itself(n, d=d, heads=heads, groups=groups, t=t)
    return {**c, "positions": np.sort(n.integers(0, 50, t)), "by": by}


SELF = cases(itself, d=(1, 2, 3, 4), heads=(1, 2, 3, 4), groups=(1, 2, 3, 4), t=(2, 3, 5, 1))
ROTATED = cases(rotated, d=(2, 4, 6), heads=(1, 2, 3, 4), groups=(1, 2, 4), t=(2, 3, 5, 1), by=(1, 7, 100))


def run(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's value for a case, with the arguments of its kind."""
    arguments = {**c, **changes}
    return call(f, *[arguments[name] for name in (TURNED if "positions" in c else NAMES)])


def limit(c: Case) -> float:
    """Rounding bound: the sums of the formula with all magnitudes, scores times values times output matrix."""
    x, z, wq, wk, wv, wo = (np.abs(c[name]) for name in NAMES[:6])
    d = wq.shape[1] // c["heads"]
    score = largest(x @ wq) * largest(z @ wk) * np.sqrt(d)
    turns = 1 + (largest(c["positions"]) + c["by"] if "positions" in c else 0)
    return bound((1 + score * turns) * largest(z @ wv) * largest(wo.sum(axis=0)), len(z) * d)


def sharing(c: Case) -> tuple[int, int]:
    """Width of a head, and query heads for each key head."""
    return c["wq"].shape[1] // c["heads"], c["wq"].shape[1] // c["wk"].shape[1]


def one_head(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Attention of one head, row by row."""
    y = np.zeros((len(q), v.shape[1]))
    for i, row in enumerate(q):
        seen = np.flatnonzero(mask[i])
        if len(seen):
            scores = k[seen] @ row / np.sqrt(len(row))
            weights = np.exp(scores - scores.max())
            y[i] = weights @ v[seen] / weights.sum()
    return y


@law("multi-head", "concatenation", serves=("eq:multi-head", "eq:attention"), cases=DRAWN)
def concatenation(f: F, c: Case, measure: Measure) -> None:
    """The layer equals single heads, each on its own columns of the projections, side by side, times the output
    matrix."""
    d, shared = sharing(c)
    columns = []
    for h in range(c["heads"]):
        own, key = slice(h * d, (h + 1) * d), slice(h // shared * d, (h // shared + 1) * d)
        q, k, v = c["x"] @ c["wq"][:, own], c["z"] @ c["wk"][:, key], c["z"] @ c["wv"][:, key]
        columns.append(one_head(q, k, v, c["mask"]))
    joined = np.concatenate(columns, axis=1)
    measure.close(run(f, c), joined @ c["wo"], limit(c))


@law("multi-head", "grouped-is-repeated", serves="eq:multi-head", cases=DRAWN)
def grouped_is_repeated(f: F, c: Case, measure: Measure) -> None:
    """Grouped and multi-query attention equal full multi-head attention whose key and value columns are repeated."""
    d, shared = sharing(c)

    def repeated(w: np.ndarray) -> np.ndarray:
        return np.repeat(w.reshape(len(w), -1, d), shared, axis=1).reshape(len(w), -1)

    full = run(f, c, wk=repeated(c["wk"]), wv=repeated(c["wv"]))
    measure.close(run(f, c), full, limit(c))


@law("multi-head", "equivariance", serves="eq:multi-head", cases=SELF)
def equivariance(f: F, c: Case, measure: Measure) -> None:
    """Without positions and mask, self-attention of permuted tokens is the permuted self-attention of the tokens."""
    order = np.roll(np.arange(len(c["x"])), 1)
    x = c["x"][order]
    y = run(f, c)
    measure.close(run(f, c, x=x, z=x), y[order], limit(c))


@law("rotary-multi-head", "distances-only", serves=("eq:multi-head", "eq:rotary"), cases=ROTATED)
def distances_only(f: F, c: Case, measure: Measure) -> None:
    """With rotary positions, moving all of them by one number changes nothing."""
    y = run(f, c)
    measure.close(run(f, c, positions=c["positions"] + c["by"]), y, limit(c))


@law("rotary-multi-head", "one-place-is-none", serves="eq:rotary", cases=ROTATED)
def one_place_is_none(f: F, c: Case, measure: Measure) -> None:
    """Rotary positions that are all the same are none at all."""
    same = np.full(len(c["x"]), c["by"])
    measure.close(run(f, c, positions=same), run(f, c, positions=0 * same), limit(c))
    plain = ours(naive)(*[c[name] for name in NAMES])
    measure.close(run(f, c, positions=same), plain, limit(c))


@law("rotary-multi-head", "turned-pairs", serves=("eq:multi-head", "eq:rotary"), cases=ROTATED)
def turned_pairs(f: F, c: Case, measure: Measure) -> None:
    """With rotary positions, each neighbouring pair of a head's query and key is turned by position / 10000^(2j/d)."""
    d, shared = sharing(c)

    def turned(x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        for j in range(d // 2):
            angle = c["positions"] / 10000 ** (2 * j / d)
            a, b = x[:, 2 * j], x[:, 2 * j + 1]
            y[:, 2 * j], y[:, 2 * j + 1] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
        return y

    columns = []
    for h in range(c["heads"]):
        own, key = slice(h * d, (h + 1) * d), slice(h // shared * d, (h // shared + 1) * d)
        q, k = turned(c["x"] @ c["wq"][:, own]), turned(c["x"] @ c["wk"][:, key])
        columns.append(one_head(q, k, c["x"] @ c["wv"][:, key], c["mask"]))
    measure.close(run(f, c), np.concatenate(columns, axis=1) @ c["wo"], limit(c))


def uncut(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, mask: Any = None) -> Any:
    """Heads cut from the rows without the transposition, and merged without it."""
    t, s, d, groups = len(x), len(z), wq.shape[1] // heads, heads * wk.shape[1] // wq.shape[1]
    q = (x @ wq).reshape(heads, t, d)  # should be (t, heads, d), transposed
    k, v = (np.repeat((z @ w).reshape(groups, s, d), heads // groups, axis=0) for w in (wk, wv))
    return np.stack([one_head(q[h], k[h], v[h], mask) for h in range(heads)]).reshape(t, -1) @ wo


def in_turn(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, mask: Any = None) -> Any:
    """Query head h reads key head h modulo the number of key heads."""
    shared = wq.shape[1] // wk.shape[1]
    return ours(naive)(x, z, wq, np.tile(wk, (1, shared)), np.tile(wv, (1, shared)), wo, heads, mask)


def first_group(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, mask: Any = None) -> Any:
    """Every query head reads the first key head wherever heads are grouped."""
    d = wq.shape[1] // heads
    grouped = wk.shape[1] < wq.shape[1]
    return ours(naive)(x, z, wq, wk[:, :d] if grouped else wk, wv[:, :d] if grouped else wv, wo, heads, mask)


def whole_width(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, mask: Any = None) -> Any:
    """Scores divided by sqrt(width)."""
    return ours(naive)(x, z, wq / np.sqrt(heads), wk, wv, wo, heads, mask)


def keys_only(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, positions: Any) -> Any:
    """Queries are not turned: scores depend on the keys' positions, not on distances."""
    d, shared = wq.shape[1] // heads, wq.shape[1] // wk.shape[1]
    turns = rotary_turns(positions, d, dtype="complex128")
    k = (x @ wk).reshape(len(x), -1, d)
    k = ((k[..., 0::2] + 1j * k[..., 1::2]) * turns[:, None]).view(np.float64)
    q, v = (x @ wq).reshape(len(x), -1, d), (x @ wv).reshape(len(x), -1, d)
    everything = np.ones((len(x), len(x)), bool)
    parts = [one_head(q[:, h], k[:, h // shared], v[:, h // shared], everything) for h in range(heads)]
    return np.concatenate(parts, axis=1) @ wo


def unturned(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, positions: Any) -> Any:
    """Positions do nothing."""
    return ours(naive)(x, x, wq, wk, wv, wo, heads)


mutant(
    "multi-head", "heads cut without the transposition", kills=("concatenation", "equivariance"),
    met="plausible: reshape to (heads, t, d) instead of (t, heads, d) and a transposition; the shapes agree",
)(uncut)  # fmt: skip
mutant(
    "multi-head", "key heads in turn", kills="concatenation",
    met="plausible: tile for repeat; `repeat` and `repeat_interleave` are easily confused for grouped queries",
)(in_turn)  # fmt: skip
mutant(
    "multi-head", "all read the first key head", kills="grouped-is-repeated",
    met="plausible: broadcasting over heads is right for multi-query attention and taken for grouped queries",
)(first_group)  # fmt: skip
mutant(
    "multi-head", "scaled by the whole width", kills="concatenation",
    met="plausible: 1/sqrt(width) instead of 1/sqrt(width / heads)",
)(whole_width)  # fmt: skip
mutant(
    "rotary-multi-head", "keys turned, queries not", kills=("distances-only", "one-place-is-none", "turned-pairs"),
    met="how-to-train-your-gpt 6: queries and keys treated differently (there: two layouts mixed)",
)(keys_only)  # fmt: skip
mutant(
    "rotary-multi-head", "positions ignored", kills="turned-pairs",
    met="plausible: the turns are passed on by every layer but one",
)(unturned)  # fmt: skip
