"""Wrong blockwise attention: mistakes that were met in fast attention kernels, and likely ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.blockwise import ours, ours_lse, ours_merge
from minilong.audit.laws.blockwise_cases import NAMES, log_sum_exp, scores, wide
from minilong.audit.laws.blockwise_gradients import ours as ours_backward

OUTPUT, BACKWARD, LSE, MERGE = "blockwise-attention", "blockwise-cotangents", "log-sum-exp", "merge-attention"


def online(*arguments: Any, rescale: bool = True, tail: bool = True, skip: Any = None, empty: float = 1.0) -> Any:
    """An online softmax over blocks of keys, with a mistake in it where one is asked for.

    skip(c, i, j): blocks of keys from j on that block of queries from i on leaves out. empty: what a sum of no weights
    is divided by.
    """
    c = dict(zip(NAMES, arguments, strict=True))
    s, v, blocks = scores(c), wide(c["q"], c["v"]), c["blocks"]
    y = np.zeros((*s.shape[:-1], v.shape[-1]))
    for i in range(0, s.shape[-2], blocks.rows):
        m = np.full((*s[..., i : i + blocks.rows, :].shape[:-1], 1), -np.inf)
        l, a = np.zeros_like(m), np.zeros_like(y[..., i : i + blocks.rows, :])
        for j in range(0, s.shape[-1], blocks.columns):
            part = s[..., i : i + blocks.rows, j : j + blocks.columns]
            if (skip is not None and skip(c, i, j)) or not (tail or part.shape[-1] == blocks.columns):
                continue
            higher = np.maximum(m, part.max(axis=-1, keepdims=True))
            shift = np.where(higher == -np.inf, 0.0, higher)
            shrink = np.exp(m - shift) if rescale else 1.0
            p = np.exp(part - shift)
            l, a, m = (
                l * shrink + p.sum(axis=-1, keepdims=True),
                a * shrink + p @ v[..., j : j + blocks.columns, :],
                higher,
            )
        with np.errstate(all="ignore"):
            y[..., i : i + blocks.rows, :] = a / np.where(l == 0, empty, l)
    return y


def remasked(f: Any, **changes: Any) -> Any:
    """A function of ours under another mask: each field given by a function of the right mask."""

    def changed(*arguments: Any) -> Any:
        q, k, v, scale, mask, *rest = arguments
        fields = {name: change(mask) for name, change in changes.items()}
        if mask.segments is not None and "offset" in fields:  # the right segments for the wrong places
            fields["segments"] = np.roll(mask.segments, fields["offset"] - mask.offset, axis=-1)
        return f(q, k, v, scale, replace(mask, **fields), *rest)

    return changed


def one_more(mask: Any) -> int | None:
    return None if mask.window is None else int(mask.window) + 1


# Masks

mutant(OUTPUT, "window with both ends included", kills=("definition",),
       met="flash-attention 1133, vLLM 3385, transformers 29623: window_size counts the keys to the left of the query")(
    remasked(ours, window=one_more))  # fmt: skip
mutant(BACKWARD, "window with both ends included", kills=("definition",),
       met="as in the forward pass (flash-attention 1133); plausible for the backward kernel alone")(
    remasked(ours_backward, window=one_more))  # fmt: skip
mutant(OUTPUT, "causal mask from the top left", kills=("definition", "chunks"),
       met="flash-attention before 2.1 aligned the mask of fewer queries than keys to the top left corner")(
    remasked(ours, offset=lambda mask: 0))  # fmt: skip
mutant(BACKWARD, "causal mask from the top left", kills="definition",
       met="flash-attention before 2.1 aligned the mask of fewer queries than keys to the top left corner")(
    remasked(ours_backward, offset=lambda mask: 0))  # fmt: skip
mutant(OUTPUT, "mask ignored", kills=("definition", "hidden-keys"),
       met="transformers PR 30652 and 32086: the fast kernel was called without the mask")(
    remasked(ours, causal=lambda mask: False, window=lambda mask: None, sinks=lambda mask: 0,
             key_lengths=lambda mask: None, segments=lambda mask: None))  # fmt: skip
mutant(OUTPUT, "padding seen", kills=("definition", "hidden-keys"), met="plausible: the last block read to its end")(
    remasked(ours, key_lengths=lambda mask: None))  # fmt: skip
mutant(OUTPUT, "packed documents see one another", kills="definition",
       met="plausible: a causal kernel without the boundaries of packed sequences")(
    remasked(ours, segments=lambda mask: None))  # fmt: skip
mutant(OUTPUT, "sinks skipped with the blocks before the window", kills="definition",
       met="plausible: the first block to visit taken from the window alone")(
    remasked(ours, sinks=lambda mask: 0))  # fmt: skip

# Blocks

mutant(OUTPUT, "sums not rescaled", kills=("definition", "any-blocks"),
       met="plausible: the running maximum moves and the sums made with the old one stay")(
    lambda *a: online(*a, rescale=False))  # fmt: skip
mutant(OUTPUT, "last partial block lost", kills=("definition", "any-blocks"),
       met="plausible: s // columns blocks")(lambda *a: online(*a, tail=False))  # fmt: skip


@mutant(OUTPUT, "blocks skipped by their first query", kills=("definition", "any-blocks"),
        met="plausible: the causal limit of a block of queries taken from its first, not its last")  # fmt: skip
def skipped(*arguments: Any) -> Any:
    def ahead(c: Any, i: int, j: int) -> bool:
        return bool(c["mask"].causal and j > i + c["mask"].offset)

    return online(*arguments, skip=ahead)


@mutant(OUTPUT, "cut block skipped", kills=("definition", "any-blocks"),
        met="plausible: the window's first block rounded up to whole blocks")  # fmt: skip
def rounded_up(*arguments: Any) -> Any:
    def behind(c: Any, i: int, j: int) -> bool:
        mask = c["mask"]
        return mask.window is not None and mask.sinks <= j <= i + mask.offset - mask.window

    return online(*arguments, skip=behind)


mutant(OUTPUT, "nothing divided by nothing", kills=("definition", "blind-queries"),
       met="iree 24175: a query that sees no key becomes NaN")(lambda *a: online(*a, empty=0.0))  # fmt: skip


@mutant(OUTPUT, "blind queries average", kills=("definition", "blind-queries"),
        met="executorch 9105, burn PR 4697: hidden scores of -1e9, so uniform weights where all are")  # fmt: skip
def uniform(*arguments: Any) -> Any:
    c = dict(zip(NAMES, arguments, strict=True))
    s = np.maximum(scores(c), -1e9)
    return np.exp(s - log_sum_exp(s)[..., None]) @ wide(c["q"], c["v"])


@mutant(OUTPUT, "key heads dealt out in turn", kills="definition",
        met="plausible: query head h reads key head h mod g, not h // (heads / g)")  # fmt: skip
def in_turn(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    each = q.shape[1] // k.shape[1]
    return ours(q, np.tile(k, (1, each, 1, 1)), np.tile(v, (1, each, 1, 1)), *rest)


@mutant(OUTPUT, "bias without the offset", kills=("definition", "chunks"),
        met="x-transformers PR 103: distances counted from the first query of the chunk")  # fmt: skip
def bias_without_offset(q: Any, k: Any, v: Any, scale: float, mask: Any, blocks: Any, values: Any, least: int) -> Any:
    return ours(q, k, v, scale, mask, blocks, values, least + mask.offset)


@mutant(OUTPUT, "no shift at all", kills="definition",
        met="plausible: exponentials of the scores as they are, which overflow")  # fmt: skip
def unshifted(*arguments: Any) -> Any:
    c = dict(zip(NAMES, arguments, strict=True))
    with np.errstate(all="ignore"):
        e = np.exp(scores(c))
        return e @ wide(c["q"], c["v"]) / np.maximum(e.sum(axis=-1, keepdims=True), 1e-300)


@mutant(OUTPUT, "queries scaled in place", kills="pure", met="plausible: q *= scale on the caller's array")
def in_place(q: Any, k: Any, v: Any, scale: float, *rest: Any) -> Any:
    q *= scale
    return ours(q, k, v, 1.0, *rest)


# Backward


def backward(*arguments: Any, along: bool = True, key_scale: bool = True, last_head: bool = False) -> list[Any]:
    """The cotangents with a mistake in them where one is asked for."""
    *inputs, g = arguments
    c = dict(zip(NAMES, inputs, strict=True))
    right: list[Any] = ours_backward(*arguments)
    s, v = scores(c), wide(c["q"], c["v"])
    lse = log_sum_exp(s)[..., None]
    p = np.exp(s - np.where(lse == -np.inf, 0.0, lse))
    ds = p * (g @ v.swapaxes(-1, -2) - (np.sum(g * (p @ v), axis=-1, keepdims=True) if along else 0.0))
    each = c["q"].shape[1] // c["k"].shape[1]
    gk = ds.swapaxes(-1, -2) @ c["q"] * (c["scale"] if key_scale else 1.0)
    stacks = gk.reshape(len(gk), -1, each, *gk.shape[-2:])
    right[0] = ds @ wide(c["q"], c["k"]) * c["scale"]
    right[1] = stacks[:, :, -1] if last_head else stacks.sum(axis=2)
    return right


mutant(BACKWARD, "D omitted", kills="definition", met="plausible: dS = P * dP, without the softmax's second term")(
    lambda *a: backward(*a, along=False))  # fmt: skip
mutant(BACKWARD, "keys without the scale", kills="definition",
       met="plausible: queries were scaled before the product, and the unscaled ones meet dS")(
    lambda *a: backward(*a, key_scale=False))  # fmt: skip
mutant(BACKWARD, "last query head overwrites the others", kills="definition",
       met="plausible: a key head's cotangent is assigned by each of its query heads, not added to")(
    lambda *a: backward(*a, last_head=True))  # fmt: skip


@mutant(BACKWARD, "last partial block lost", kills=("definition", "any-blocks"),
        met="plausible: s // columns blocks, in the backward sweep alone")  # fmt: skip
def tail_lost(*arguments: Any) -> list[Any]:
    right: list[Any] = ours_backward(*arguments)
    columns = arguments[5].columns
    whole = arguments[1].shape[-2] // columns * columns
    right[1], right[2] = right[1].copy(), right[2].copy()
    right[1][..., whole:, :] = right[2][..., whole:, :] = 0
    return right


@mutant(BACKWARD, "far distances lost", kills=("definition", "shift"),
        met="plausible: cotangents beyond the last distance are dropped where values were clipped")  # fmt: skip
def far_lost(q: Any, k: Any, v: Any, scale: float, mask: Any, blocks: Any, values: Any, least: int, g: Any) -> Any:
    reach = q.shape[-2] + k.shape[-2] + abs(least)
    long = np.pad(values, ((0, 0), (reach, reach)), mode="edge")
    right = ours_backward(q, k, v, scale, mask, blocks, long, least - reach, g)
    return [*right[:3], right[3][:, reach : reach + values.shape[-1]]]


@mutant(BACKWARD, "cotangents reach hidden keys", kills=("definition", "blind"),
        met="plausible: the mask applied to the forward pass alone")  # fmt: skip
def hidden_reached(*arguments: Any) -> Any:
    return remasked(ours_backward, causal=lambda m: False, key_lengths=lambda m: None)(*arguments)


# The log-sum-exp and merging


@mutant(LSE, "maximum for the log-sum-exp", kills=("definition", "doubled-keys"),
        met="plausible: the running maximum is saved and the sum's logarithm forgotten")  # fmt: skip
def maximum(*arguments: Any) -> Any:
    return scores(dict(zip(NAMES, arguments, strict=True))).max(axis=-1)


mutant(LSE, "base two", kills=("definition", "shift", "doubled-keys"),
       met="plausible: kernels that compute with powers of two save log2 of the sum")(
    lambda *a: ours_lse(*a) / math.log(2))  # fmt: skip


@mutant(LSE, "zero where nothing is seen", kills="definition", met="plausible: a blind query's sum replaced by one")
def zero_for_nothing(*arguments: Any) -> Any:
    lse = ours_lse(*arguments)
    return np.where(np.isfinite(lse), lse, 0.0)


@mutant(MERGE, "parts weighed alike", kills=("union", "monoid"), met="plausible: the mean of the partial outputs")
def mean(y: Any, a: Any, z: Any, b: Any) -> Any:
    return [(y + z) / 2, np.logaddexp(a, b)]


@mutant(MERGE, "exponentials not shifted", kills="union", met="plausible: exp of a log-sum-exp overflows")
def overflowing(y: Any, a: Any, z: Any, b: Any) -> Any:
    with np.errstate(all="ignore"):
        total = np.exp(a) + np.exp(b)
        return [(y * np.exp(a)[..., None] + z * np.exp(b)[..., None]) / total[..., None], np.log(total)]


@mutant(MERGE, "nothing merged with nothing", kills=("union", "monoid"),
        met="plausible: -inf less -inf, where neither part saw a key (as in iree 24175)")  # fmt: skip
def infinities(y: Any, a: Any, z: Any, b: Any) -> Any:
    with np.errstate(all="ignore"):
        top = np.maximum(a, b)
        u, w = np.exp(a - top), np.exp(b - top)
        return [(y * u[..., None] + z * w[..., None]) / (u + w)[..., None], top + np.log(u + w)]


@mutant(MERGE, "weights exchanged", kills="union", met="plausible: each output weighed by the other's sum")
def exchanged(y: Any, a: Any, z: Any, b: Any) -> Any:
    return ours_merge(z, a, y, b)
