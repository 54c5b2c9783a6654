"""Laws of sizes: what a memory holds, and how far back a stack of layers reaches through it."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.audit.laws.memories import cut, pieces
from minilong.memory import Compressive, Compressor, Full, Memory, Segments, Window

POLICIES = "policy: ['full'], ['window', w, sinks], ['segments', S, M] or ['compressive', S, M, slots, rate]"
kind("memory-rows", "memory_rows(policy, splits)", f"{POLICIES} -> rows that it holds after each piece (a list)")
kind("memory-reach", "memory_reach(policy, layers)", f"{POLICIES} -> the largest distance of an influence")


def policy_of(policy: list[Any]) -> Memory:
    """The memory that a case names."""
    name, *sizes = policy
    if name == "full":
        return Full()
    if name == "window":
        return Window(*sizes)
    if name == "segments":
        return Segments(*sizes)
    segment, memory, slots, rate = sizes
    return Compressive(segment, memory, slots, Compressor("mean", rate))


def rows_held(memory: Memory, splits: list[int]) -> list[int]:
    """Rows in the state after each piece, by its bytes."""
    state, rows = memory.init(), []
    for _, t in pieces(memory, splits):
        state = memory.write(state, (np.zeros((1, t, 1)), np.zeros((1, t, 2))))
        rows.append(memory.bytes(state) // 24)
    return rows


@subject("memory-rows", "Memory.bytes", code=Memory.bytes, equation="eq:memory-rows")
def ours_rows(policy: list[Any], splits: list[int]) -> list[int]:
    return rows_held(policy_of(policy), splits)


@subject("memory-rows", "Memory.predicted_bytes", code=Memory.predicted_bytes, equation="eq:memory-rows")
def ours_predicted(policy: list[Any], splits: list[int]) -> list[int]:
    memory = policy_of(policy)
    return [memory.predicted_bytes(seen, t, 1) for seen, t in pieces(memory, splits)]


@subject("memory-reach", "Memory.reach", code=Memory.reach, equation="eq:memory-reach")
def ours_reach(policy: list[Any], layers: int) -> int | None:
    return policy_of(policy).reach(layers)


def drawn_policy(r: Numbers, name: str) -> list[Any]:
    """Small sizes; the rate divides segment and memory."""
    if name == "full":
        return ["full"]
    if name == "window":
        return ["window", int(r.integers(1, 6)), int(r.integers(0, 4))]
    rate = int(r.integers(1, 4)) if name == "compressive" else 1
    sizes = [rate * int(r.integers(1, 4)), rate * int(r.integers(0, 4))]
    return [name, *sizes, int(r.integers(0, 4)), rate] if name == "compressive" else [name, *sizes]


def drawn(r: Numbers, name: str, n: int, longest: int) -> Case:
    """A policy and pieces that end where its segments end."""
    policy = drawn_policy(r, name)
    return {"policy": policy, "splits": [t for _, t in pieces(policy_of(policy), cut(r, n, longest))]}


STREAMS = cases(drawn, name=("window", "full", "segments", "compressive"), n=(1, 5, 40, 70), longest=(1, 2, 5, 40))
BOUNDED = cases(drawn, name=("window", "segments", "compressive"), n=(60, 90), longest=(1,))
STACKS = cases(
    lambda r, name, layers: {"policy": drawn_policy(r, name), "layers": layers},
    name=("window", "segments", "compressive"), layers=(1, 2, 3),
)  # fmt: skip


@law("memory-rows", "formula", serves="eq:memory-rows", cases=STREAMS)
def formula(f: F, c: Case, measure: Measure) -> None:
    """After each piece, a memory holds the rows that its formula gives."""
    found, seen = f(c["policy"], list(c["splits"])), 0
    measure.holds(len(found) == len(c["splits"]), f"{len(found)} numbers for {len(c['splits'])} pieces")
    name, *sizes = c["policy"]
    for rows, t in zip(found, c["splits"], strict=True):
        before, seen = seen, seen + t
        if name == "full":
            expected = 16
            while expected < seen:
                expected *= 2
        elif name == "window":
            w, s = sizes
            expected = max(2 * w + s, min(before, w - 1 + s) + t)
        else:
            start = max(before - before % sizes[0] - sizes[1], 0)
            slots = min(sizes[2], start // sizes[3]) if name == "compressive" else 0
            expected = slots + seen - start
        measure.holds(rows == expected, f"after {seen} rows it holds {rows}, and the formula says {expected}")


@law("memory-rows", "constant", serves="eq:memory-rows", cases=BOUNDED)
def constant(f: F, c: Case, measure: Measure) -> None:
    """Row by row, a window or a segment memory never holds more in the second half of a long stream than in the first,
    nor more than its own sizes."""
    rows, sizes = f(c["policy"], list(c["splits"])), c["policy"][1:]
    most = 2 * sizes[0] + sizes[1] if c["policy"][0] == "window" else sum(sizes[:3])
    half = len(rows) // 2
    measure.holds(max(rows[half:]) <= max(rows[:half]), f"it grows from {max(rows[:half])} to {max(rows[half:])} rows")
    measure.holds(max(rows) <= most, f"it holds {max(rows)} rows, more than {most}")


@law("memory-reach", "walk", serves="eq:memory-reach", cases=STACKS)
def walk(f: F, c: Case, measure: Measure) -> None:
    """The furthest row that a walk of L steps finds, each from a row to one that it sees, from any row of a long
    stream."""
    name, *sizes = c["policy"]
    n, furthest = 120, 0
    for i in range(n - 12, n):
        at = i
        for _ in range(c["layers"]):
            if name == "window":
                at = at - sizes[0] + 1
            else:
                rows = sizes[2] * sizes[3] if name == "compressive" else 0
                at = at - at % sizes[0] - sizes[1] - rows
        furthest = max(furthest, i - at)
    found = f(list(c["policy"]), c["layers"])
    measure.holds(found == furthest, f"the reach is given as {found}, and a walk finds {furthest}")


# Mutants


@mutant("memory-rows", "a view that keeps its base", kills="formula",
        met="plausible: x[-M:] of the joined rows holds all of them in memory")  # fmt: skip
def based(policy: list[Any], splits: list[int]) -> list[int]:
    """The rows from which the memory was cut are still there."""
    held: list[int] = ours_rows(policy, splits)
    return [rows + policy[1] if policy[0] == "segments" and rows > policy[1] else rows for rows in held]


@mutant("memory-rows", "a window in a growing buffer", kills=("constant", "formula"),
        met="plausible: a cache that hides what is older than the window, and never frees it")  # fmt: skip
def growing(policy: list[Any], splits: list[int]) -> list[int]:
    """The full cache."""
    rows: list[int] = ours_rows(["full"] if policy[0] == "window" else policy, splits)
    return rows


@mutant("memory-reach", "memory times layers", kills="walk",
        met="Rae et al. 2020 give l (n_m + c n_cm): without the own segment")  # fmt: skip
def without_segment(policy: list[Any], layers: int) -> int:
    """The papers' short form."""
    if policy[0] == "window":
        return int(layers * (policy[1] - 1))
    _, _, memory, slots, rate = [*policy, 0, 1][:5]
    return int(layers * (memory + rate * slots))


@mutant("memory-reach", "window times layers", kills="walk",
        met="plausible: the row itself counted in each layer, where it counts in none")  # fmt: skip
def inclusive(policy: list[Any], layers: int) -> int | None:
    """w for w - 1."""
    return policy_of(policy).reach(layers) if policy[0] != "window" else int(layers * policy[1])
