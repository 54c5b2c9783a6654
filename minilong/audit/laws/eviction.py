"""Laws of caches that choose by attention what they keep, H2O and SnapKV; the wrong ones are in `eviction_mutants.py`
and `snapkv_mutants.py`.

Values that are unit vectors show the weights themselves, and so which rows a query saw. Queries and keys are not
rounded, because equal sums of attention would be told apart by rounding alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.memories import cut, pieces
from minilong.backend import array_module
from minilong.memory import HeavyHitters, Memory, SnapKV

STREAM = "q (b, h, n, d), k, v (b, g, n, d), splits: lengths of the pieces, with the sum n -> (b, h, n, d)"
kind("heavy-hitters", "heavy_hitters(q, k, v, budget, recent, sinks, block, splits)", STREAM)
kind("snapkv", "snapkv(q, k, v, budget, window, kernel, prompt, splits)", f"{STREAM}. The prompt is the first part.")


def heeding(policy: Memory, q: Any, k: Any, v: Any, splits: list[int]) -> Any:
    """Attention of each piece over what the memory gives it, of whose queries it is then told."""
    state, y = policy.init(), []
    for seen, t in pieces(policy, splits):
        part = slice(seen, seen + t)
        state = policy.write(state, (k[..., part, :], v[..., part, :]))
        keys, values = policy.read(state)
        y.append(naive(q[..., part, :], keys, values, mask=policy.mask(seen, t)))
        state = policy.heed(state, q[..., part, :], 1 / math.sqrt(q.shape[-1]))
    return array_module(q).concatenate(y, axis=-2)


@subject("heavy-hitters", "HeavyHitters", code=HeavyHitters.weigh, equation="eq:heavy-hitters")
def ours_heavy(q: Any, k: Any, v: Any, budget: int, recent: int, sinks: int, block: int, splits: list[int]) -> Any:
    return heeding(HeavyHitters(budget, recent, sinks, block), q, k, v, splits)


@subject("snapkv", "SnapKV", code=SnapKV.weigh, equation="eq:snapkv")
def ours_snapkv(q: Any, k: Any, v: Any, budget: int, window: int, kernel: int, prompt: int, splits: list[int]) -> Any:
    return heeding(SnapKV(budget, window, kernel).prompted(prompt), q, k, v, splits)


# Cases

NAMES = {
    "heavy-hitters": ("q", "k", "v", "budget", "recent", "sinks", "block", "splits"),
    "snapkv": ("q", "k", "v", "budget", "window", "kernel", "prompt", "splits"),
}


def arrays(r: Numbers, n: int, g: int, shared: int, b: int = 1, d: int = 2) -> dict[str, np.ndarray]:
    """Queries, keys and values without ties."""
    sizes = {"q": g * shared, "k": g, "v": g}
    return {name: 1.5 * r.rng.standard_normal((b, h, n, d)) for name, h in sizes.items()}


def make_heavy(
    r: Numbers, n: int, g: int, shared: int, b: int, recent: int, sinks: int, heavy: int, block: int, longest: int
) -> Case:
    budget = max(1, recent + sinks + heavy)
    sizes = {"budget": budget, "recent": recent, "sinks": sinks, "block": block}
    return {**arrays(r, n, g, shared, b), **sizes, "splits": cut(r, n, longest)}


def make_snapkv(
    r: Numbers, n: int, g: int, shared: int, b: int, window: int, heavy: int, kernel: int, share: float, longest: int
) -> Case:
    """A prompt with more rows before the window than the kernel has: in fewer, votes pooled over all are equal."""
    prompt = max(window + kernel, round(share * n))
    sizes = {"budget": window + heavy, "window": window, "kernel": kernel, "prompt": prompt}
    return {**arrays(r, max(n, prompt), g, shared, b), **sizes, "splits": cut(r, max(n, prompt), longest)}


HEADS: dict[str, Any] = {"g": (1, 2), "shared": (1, 2), "b": (1, 2)}
LENGTHS: dict[str, Any] = {**HEADS, "n": (5, 2, 1, 8, 13), "longest": (1, 3, 20)}
heavies = cases(make_heavy, **LENGTHS, recent=(1, 0, 2), sinks=(0, 1, 2), heavy=(1, 0, 2, 3), block=(1, 2, 4))
prompts = cases(make_snapkv, **LENGTHS, window=(1, 2), heavy=(1, 0, 2, 3), kernel=(1, 3), share=(0.6, 0.9))
ALL = {"heavy-hitters": heavies, "snapkv": prompts}


def asked(f: F, of: str, c: Case, **changes: Any) -> np.ndarray:
    """What the function of this kind gives for the case."""
    return call(f, *[{**c, **changes}[name] for name in NAMES[of]])


def weights(f: F, of: str, c: Case, **changes: Any) -> np.ndarray:
    """Weights (b, h, n, n) of each query on each row: what one-hot values give."""
    c = {**c, **changes}
    n = c["k"].shape[-2]
    return asked(f, of, c, v=np.broadcast_to(np.eye(n), (*c["k"].shape[:2], n, n)).copy())


def seen(f: F, of: str, c: Case) -> np.ndarray:
    """Which rows each query saw, by key head: (b, g, n, n). LawBroken is left to others where its heads differ."""
    found = weights(f, of, c) > 0
    return found[:, :: c["q"].shape[1] // c["k"].shape[1]]


def rounding(c: Case) -> float:
    """As of any attention."""
    q, k, v = c["q"], c["k"], c["v"]
    scores = largest(q) * largest(k) * q.shape[-1]
    return bound((1.0 + scores) * (1.0 + largest(v)), 2 * q.shape[-2] + q.shape[-1])


def over(c: Case, rows: np.ndarray) -> np.ndarray:
    """Attention in which query i sees the rows where `rows` (b, g, n, n) is true."""
    shared = c["q"].shape[1] // c["k"].shape[1]
    keys, values, table = (np.repeat(x, shared, axis=1) for x in (c["k"], c["v"], rows))
    scores = np.where(table, c["q"] @ keys.swapaxes(-1, -2) / math.sqrt(keys.shape[-1]), -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y: np.ndarray = p / p.sum(axis=-1, keepdims=True) @ values
    return y


# What both have in common


def declare_common(of: str, equation: str) -> None:
    """Laws of a cache that chooses."""

    @law(of, "any-split", serves=equation, cases=ALL[of])
    def any_split(f: F, c: Case, measure: Measure) -> None:
        """The result is the same for one piece, for pieces of one row, and for any pieces."""
        y, n = asked(f, of, c), c["q"].shape[-2]
        measure.close(asked(f, of, c, splits=[1] * n), y, 2 * rounding(c), "row by row, the result")
        measure.close(asked(f, of, c, splits=[n]), y, 2 * rounding(c), "in one piece, the result")

    @law(of, "full-budget", serves=equation, cases=ALL[of])
    def full_budget(f: F, c: Case, measure: Measure) -> None:
        """With a budget for all rows it is full attention."""
        n = c["q"].shape[-2]
        full = over(c, np.broadcast_to(np.tri(n) > 0, (*c["k"].shape[:2], n, n)))
        least = c["sinks"] + c["recent"] if of == "heavy-hitters" else c["window"]
        measure.close(asked(f, of, c, budget=max(n, least)), full, rounding(c))

    @law(of, "batch-rows-alone", serves=equation, cases=ALL[of])
    def batch_rows_alone(f: F, c: Case, measure: Measure) -> None:
        """The last row of the batch has the result that it has alone."""
        alone = asked(f, of, c, **{name: c[name][-1:] for name in ("q", "k", "v")})
        measure.close(asked(f, of, c)[-1:], alone, 2 * rounding(c), "the last row of the batch")

    @law(of, "attends-to-what-is-kept", serves=equation, cases=ALL[of])
    def attends(f: F, c: Case, measure: Measure) -> None:
        """Each result is attention over the rows that its key head keeps, the same ones for all its query heads, at
        the weights that these have among themselves."""
        table = weights(f, of, c) > 0
        shared = c["q"].shape[1] // c["k"].shape[1]
        alike = table.reshape(*c["k"].shape[:2], shared, *table.shape[2:])
        measure.holds(np.all(alike == alike[:, :, :1]), "query heads of one key head see different rows")
        measure.close(asked(f, of, c), over(c, alike[:, :, 0]), rounding(c))

    @law(of, "evicted-stays-evicted", serves=equation, cases=ALL[of])
    def no_return(f: F, c: Case, measure: Measure) -> None:
        """A row that a query does not see is seen by no later one, and no query sees a later row."""
        rows = seen(f, of, c)
        n = rows.shape[-1]
        known = np.arange(n) <= np.arange(n - 1)[:, None]
        measure.holds(not np.any(rows[..., 1:, :] & ~rows[..., :-1, :] & known), "a row that was evicted is seen again")
        measure.holds(not np.any(rows & ~(np.tri(n) > 0)), "a query sees a later row")


declare_common("heavy-hitters", "eq:heavy-hitters")
declare_common("snapkv", "eq:snapkv")


# H2O


@law("heavy-hitters", "window-and-sinks", serves="eq:heavy-hitters", cases=heavies)
def window_and_sinks(f: F, c: Case, measure: Measure) -> None:
    """A query sees itself, the w rows before it, and the s first rows."""
    rows, n = seen(f, "heavy-hitters", c), c["q"].shape[-2]
    i, j = np.arange(n)[:, None], np.arange(n)
    least = (j <= i) & ((i - j <= c["recent"]) | (j < c["sinks"]))
    measure.holds(np.all(rows | ~least), f"a row of the window or a sink is not seen: {rows.astype(int).tolist()}")


@law("heavy-hitters", "count", serves="eq:heavy-hitters", cases=heavies)
def count(f: F, c: Case, measure: Measure) -> None:
    """Of i rows before a query, min(B, i - i mod m) + i mod m are left: never more than the budget and a block."""
    rows, m = seen(f, "heavy-hitters", c).sum(axis=-1), c["block"]
    for i in range(rows.shape[-1]):
        expected = min(i - i % m, c["budget"]) + i % m + 1
        measure.holds(np.all(rows[..., i] == expected), f"query {i} sees {rows[..., i].tolist()} rows, not {expected}")


@law("heavy-hitters", "most-attention", serves="eq:heavy-hitters", cases=heavies)
def most_attention(f: F, c: Case, measure: Measure) -> None:
    """Of the rows between sinks and window, each that stays has received no less attention than each that goes."""
    p = weights(f, "heavy-hitters", c)
    shared, n = c["q"].shape[1] // c["k"].shape[1], p.shape[-1]
    mass = np.cumsum(p.reshape(*c["k"].shape[:2], shared, n, n).sum(axis=2), axis=-2)
    rows, slack = seen(f, "heavy-hitters", c), bound(4.0 * shared * n * (1 + largest(c["q"]) * largest(c["k"]) * 2), n)
    for at in np.ndindex(*rows.shape[:2]):
        for i in range(n - 1):
            gone = rows[at][i] & ~rows[at][i + 1]
            free = (np.arange(n) >= c["sinks"]) & (np.arange(n) <= i - c["recent"])
            stays = rows[at][i] & ~gone & free
            if gone.any() and stays.any():
                least, most = mass[at][i][stays].min(), mass[at][i][gone].max()
                measure.holds(least >= most - slack, f"a row of {most:.6g} went, and one of {least:.6g} stayed")


@law("heavy-hitters", "no-heavy-rows", serves=("eq:heavy-hitters", "eq:cache"), cases=heavies)
def no_heavy_rows(f: F, c: Case, measure: Measure) -> None:
    """With no room for heavy rows, row by row, it is a window of w + 1 with s sinks."""
    changes = {"budget": max(1, c["recent"] + c["sinks"]), "block": 1}
    recent = changes["budget"] - c["sinks"]
    n = c["q"].shape[-2]
    i, j = np.arange(n)[:, None], np.arange(n)
    table = (j <= i) & ((i - j <= recent) | (j < c["sinks"]))
    expected = over(c, np.broadcast_to(table, (*c["k"].shape[:2], n, n)))
    measure.close(asked(f, "heavy-hitters", c, recent=recent, **changes), expected, rounding(c))


# SnapKV


@law("snapkv", "prompt-is-whole", serves="eq:snapkv", cases=prompts)
def prompt_is_whole(f: F, c: Case, measure: Measure) -> None:
    """While the prompt is read, all of it is seen."""
    n, p = c["q"].shape[-2], c["prompt"]
    full = over(c, np.broadcast_to(np.tri(n) > 0, (*c["k"].shape[:2], n, n)))
    measure.close(asked(f, "snapkv", c)[:, :, :p], full[:, :, :p], rounding(c), "a result within the prompt")


@law("snapkv", "window-and-later", serves="eq:snapkv", cases=prompts)
def window_and_later(f: F, c: Case, measure: Measure) -> None:
    """A query after the prompt sees the last w rows of the prompt, all since, and B - w others."""
    rows, p = seen(f, "snapkv", c)[:, :, c["prompt"] :], c["prompt"]
    for i in range(rows.shape[-2]):
        later = rows[..., i, p - c["window"] : p + i + 1]
        measure.holds(np.all(later), f"query {p + i} does not see all rows since the window")
        chosen, of = rows[..., i, : p - c["window"]].sum(axis=-1), min(c["budget"], p) - c["window"]
        measure.holds(np.all(chosen == of), f"query {p + i} sees {chosen.tolist()} older rows, not {of}")


@law("snapkv", "most-votes", serves="eq:snapkv", cases=prompts)
def most_votes(f: F, c: Case, measure: Measure) -> None:
    """Each older row that stays has no fewer votes than each that goes: the attention of the last w queries, summed
    over the query heads of the key head and averaged over the neighbours."""
    w, p, half = c["window"], c["prompt"], c["kernel"] // 2
    if c["q"].shape[-2] == p:
        return
    q, k, (b, g, n, d) = c["q"][:, :, p - w : p], c["k"][:, :, :p], c["k"].shape
    shared = c["q"].shape[1] // g
    scores = q @ np.repeat(k, shared, axis=1).swapaxes(-1, -2) / math.sqrt(d)
    x = np.exp(np.where(np.arange(p) <= np.arange(p - w, p)[:, None], scores, -np.inf))
    votes = (x / x.sum(axis=-1, keepdims=True)).reshape(b, g, shared * w, p).sum(axis=2)[..., : p - w]
    padded = np.pad(votes, ((0, 0), (0, 0), (half, half)))
    pooled = np.stack([padded[..., j : j + c["kernel"]].sum(axis=-1) for j in range(p - w)], axis=-1)
    stay, slack = seen(f, "snapkv", c)[:, :, p, : p - w], bound(4.0 * n * (1 + largest(q) * largest(k) * d), n)
    for at in np.ndindex(b, g):
        if stay[at].any() and not stay[at].all():
            least, most = pooled[at][stay[at]].min(), pooled[at][~stay[at]].max()
            measure.holds(least >= most - slack, f"a row of {most:.6g} votes went, and one of {least:.6g} stayed")
