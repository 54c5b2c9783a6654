"""Several heads and rows of a batch in one block of attention: each is as it is alone, whatever it is grouped with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.law import Case, Measure, law, mutant
from minilong.audit.laws.blockwise import ours
from minilong.audit.laws.blockwise_cases import arguments, drawn, rounding
from minilong.audit.laws.blockwise_gradients import biased, found
from minilong.audit.laws.blockwise_gradients import ours as ours_backward
from minilong.audit.laws.blockwise_gradients import rounding as rounding_backward
from minilong.audit.laws.blockwise_mutants import BACKWARD, OUTPUT, remasked
from minilong.audit.laws.common import F, call

GROUPED: dict[str, Any] = {"batch": (2, 1, 3), "groups": (2, 1, 3), "rows": (8, 16, 3), "columns": (11, 30, 2)}
"""Rows and heads that may share a block, in blocks with room for several of them, or for less than one."""


def alone(c: Case) -> Iterator[tuple[int, slice, int, Case]]:
    """For each row of the batch and each key head: the row, its query heads, the head, and a case of nothing else."""
    each = c["q"].shape[1] // c["k"].shape[1]
    mask: Mask = c["mask"]
    for b in range(len(c["q"])):
        own = replace(
            mask,
            key_lengths=None if mask.key_lengths is None else mask.key_lengths[b : b + 1],
            segments=None if mask.segments is None else mask.segments[b : b + 1],
        )
        for g in range(c["k"].shape[1]):
            heads = slice(g * each, (g + 1) * each)
            parts = {name: c[name][b : b + 1, g : g + 1] for name in ("k", "v")}
            parts |= {name: c[name][b : b + 1, heads] for name in ("q", "g") if name in c}
            values = None if c["values"] is None else c["values"][heads]
            yield b, heads, g, {**c, **parts, "mask": own, "values": values}


@law("blockwise-attention", "one-at-a-time", serves=("eq:blockwise-attention", "eq:mask"), cases=drawn(**GROUPED))
def one_at_a_time(f: F, c: Case, measure: Measure) -> None:
    """A row of the batch and a key head give alone, with the row's own mask, what they give among others."""
    together = call(f, *arguments(c))
    for b, heads, g, part in alone(c):
        y = call(f, *arguments(part))
        measure.close(y, together[b : b + 1, heads], rounding(c), f"row {b}, key head {g} alone")


@law("blockwise-cotangents", "one-at-a-time", serves="eq:blockwise-cotangents", cases=biased(**GROUPED))
def cotangents_one_at_a_time(f: F, c: Case, measure: Measure) -> None:
    """So do their cotangents; those of a bias that the rows share add up."""
    gq, gk, gv, gb = found(f, c)
    total = np.zeros_like(gb)
    for b, heads, g, part in alone(c):
        q, k, v, bias = found(f, part)
        total[heads] += bias
        row, bound = slice(b, b + 1), rounding_backward(c)
        measure.close(q, gq[row, heads], bound, f"the cotangent of the queries of row {b}, key head {g} alone")
        for x, y, name in ((k, gk, "keys"), (v, gv, "values")):
            measure.close(x, y[row, g : g + 1], bound, f"the cotangent of the {name} of row {b}, head {g} alone")
    measure.close(total, gb, rounding_backward(c), "the cotangent of the bias, summed over the rows")


# Mutants


def of_the_first(rows: Any) -> Any:
    """What the first row of a batch has, for all rows."""
    return None if rows is None else np.repeat(rows[:1], len(rows), axis=0)


FIRST: dict[str, Any] = {
    "key_lengths": lambda mask: of_the_first(mask.key_lengths),
    "segments": lambda mask: of_the_first(mask.segments),
}
MET = "plausible: rows with masks of their own are grouped, and the block is cut by the first one's"

mutant(OUTPUT, "rows with masks of their own are grouped", kills=("one-at-a-time", "definition"), met=MET)(
    remasked(ours, **FIRST)
)
mutant(BACKWARD, "rows with masks of their own are grouped", kills=("one-at-a-time", "definition"), met=MET)(
    remasked(ours_backward, **FIRST)
)


@mutant(BACKWARD, "bias of the first row alone", kills=("one-at-a-time", "definition"),
        met="plausible: rows that share a block assign the bias's cotangent, and do not add to it")  # fmt: skip
def first_row(*arguments: Any) -> Any:
    """The others' part is missing."""
    *rest, g = arguments
    right = ours_backward(*arguments)
    bias = ours_backward(*rest, np.where(np.arange(len(g))[:, None, None, None] == 0, g, 0.0))[3]
    return [*right[:3], bias]


@mutant(OUTPUT, "keys of the block's first head", kills=("one-at-a-time", "definition"),
        met="plausible: one index of a key head for a block that holds several")  # fmt: skip
def first_head(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    """Every head reads the keys of the first."""
    return ours(q, np.repeat(k[:, :1], k.shape[1], axis=1), v, *rest)
