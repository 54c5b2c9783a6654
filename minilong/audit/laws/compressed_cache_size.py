"""Laws of bytes: what caches that evict rows, or keep them in few bits, hold after each piece."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, copied
from minilong.audit.laws.memories import cut, pieces
from minilong.memory import HeavyHitters, Memory, Quantised, SnapKV

kind(
    "compressed-cache-bytes",
    "compressed_cache_bytes(policy, splits, heads, head, shared, itemsize)",
    "policy: ['h2o', budget, block], ['snapkv', budget, window, prompt] or ['bits', bits, group, recent]; heads: key "
    "heads of `head` components of `itemsize` bytes, each for `shared` query heads -> bytes after each piece (a list)",
)


def policy_of(policy: list[Any]) -> Memory:
    """The memory that a case names."""
    name, *sizes = policy
    if name == "h2o":
        return HeavyHitters(sizes[0], block=sizes[1])
    return SnapKV(sizes[0], sizes[1], 3, sizes[2]) if name == "snapkv" else Quantised(*sizes)


@subject(
    "compressed-cache-bytes", "bytes of a compressed cache", code=Memory.bytes, equation="eq:compressed-cache-bytes"
)
def measured(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> list[int]:
    memory, dtype, found = policy_of(policy), np.dtype(f"f{itemsize}"), []
    state = memory.init()
    for _, t in pieces(memory, splits):
        rows = np.zeros((1, heads, t, head), dtype)
        state = memory.write(state, (rows, rows))
        state = memory.heed(state, np.zeros((1, heads * shared, t, head), dtype), 1.0)
        found.append(memory.bytes(state))
    return found


@subject("compressed-cache-bytes", "bytes predicted", code=Memory.predicted_bytes, equation="eq:compressed-cache-bytes")
def predicted(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> list[int]:
    memory, row = policy_of(policy), 2 * heads * head * itemsize
    sizes = {"head": head, "shared": shared, "itemsize": itemsize}
    return [memory.predicted_bytes(seen, t, row, **sizes) for seen, t in pieces(memory, splits)]


def drawn(r: Numbers, name: str, n: int, longest: int, **sizes: int) -> Case:
    """A policy, and pieces that end where it changes."""
    a, b = int(r.integers(1, 20)), int(r.integers(1, 6))
    policy = {
        "h2o": ["h2o", a, b],
        "snapkv": ["snapkv", a + b, b, int(r.integers(1, 40))],
        "bits": ["bits", int(r.rng.choice((2, 4, 8))), b, b * int(r.integers(1, 4))],
    }[name]
    return {"policy": policy, "splits": [t for _, t in pieces(policy_of(policy), cut(r, n, longest))], **sizes}


SIZES: dict[str, Any] = {"heads": (1, 2), "head": (4, 2, 6, 8), "shared": (1, 3), "itemsize": (4, 8)}
anything = cases(drawn, name=("h2o", "snapkv", "bits"), n=(20, 1, 5, 60), longest=(1, 3, 40), **SIZES)
NAMES = ("policy", "splits", "heads", "head", "shared", "itemsize")


def asked(f: F, c: Case) -> list[int]:
    """What the function gives."""
    return [int(x) for x in f(*[copied(c[name]) for name in NAMES])]


@law("compressed-cache-bytes", "formula", serves="eq:compressed-cache-bytes", cases=anything)
def formula(f: F, c: Case, measure: Measure) -> None:
    """Rows, and beside them positions, sums, queries and codes with their two numbers a group."""
    name, *sizes = c["policy"]
    heads, head, size = c["heads"], c["head"], c["itemsize"]
    row, n = 2 * heads * head * size, 0
    for found, t in zip(asked(f, c), c["splits"], strict=True):
        n += t
        if name == "h2o":
            rows = min(sum(sizes), _power(n))
            expected = rows * row + rows * heads * (size + 4)
        elif name == "snapkv":
            budget, window, prompt = sizes
            left = n if n < prompt or prompt <= budget else budget + n - prompt
            expected = _power(left) * (row + 4 * heads)
            if n < prompt and budget < prompt:
                expected += min(window, n) * heads * c["shared"] * head * size
        else:
            bits, group, recent = sizes
            blocks = max((n - t) // recent - 1, 0)
            wide = group if head % group == 0 else head
            groups_of_keys, groups_of_values = blocks * recent // group * head, blocks * recent * head // wide
            expected = 2 * recent * row + heads * groups_of_keys * (math.ceil(bits * group / 8) + 2 * size)
            expected += heads * groups_of_values * (math.ceil(bits * wide / 8) + 2 * size)
        measure.holds(found == expected, f"after {n} rows it holds {found} bytes, and the formula says {expected}")


def _power(n: int) -> int:
    size = 16
    while size < n:
        size *= 2
    return size


@law("compressed-cache-bytes", "bounded", serves="eq:compressed-cache-bytes", cases=anything)
def bounded(f: F, c: Case, measure: Measure) -> None:
    """Heavy hitters never hold more than the budget and a block of rows, each with its sum and position; a cache in
    few bits never more than two blocks, and of the rest the bits, a byte of padding and two numbers a group."""
    found, (name, *sizes) = asked(f, c), c["policy"]
    heads, head, size, n = c["heads"], c["head"], c["itemsize"], sum(c["splits"])
    if name == "h2o":
        most = sum(sizes) * heads * (2 * head * size + size + 4)
    elif name == "bits":
        bits, group, recent = sizes
        most = 4 * recent * heads * head * size + 2 * n * heads * head * (bits / 8 + (2 * size + 1) / min(group, head))
    else:
        return
    measure.holds(max(found) <= most, f"it holds {max(found)} bytes, more than {most:g}")


# Mutants


@mutant("compressed-cache-bytes", "steps and zeros not counted", kills="formula",
        met="plausible: bits / 32 of the cache, as it is advertised")  # fmt: skip
def codes_alone(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> Any:
    found = predicted(policy, splits, heads, head, shared, itemsize)
    if policy[0] != "bits":
        return found
    exact = 2 * policy[3] * 2 * heads * head * itemsize
    return [exact + (x - exact) // 2 for x in found]


@mutant("compressed-cache-bytes", "evicted rows stay in memory", kills=("formula", "bounded"),
        met="plausible: a view of what is kept, whose base holds all rows")  # fmt: skip
def based(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> Any:
    whole = ["h2o", 10**6, policy[2]] if policy[0] == "h2o" else policy
    return predicted(whole, splits, heads, head, shared, itemsize)


@mutant("compressed-cache-bytes", "queries of the whole prompt", kills="formula",
        met="plausible: all queries kept, though the last few vote")  # fmt: skip
def all_queries(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> Any:
    found, n = predicted(policy, splits, heads, head, shared, itemsize), np.cumsum(splits)
    if policy[0] != "snapkv":
        return found
    row = heads * shared * head * itemsize
    return [x + row * (m if m < policy[3] else 0) for x, m in zip(found, n.tolist(), strict=True)]


@mutant("compressed-cache-bytes", "floating-point rows never freed", kills=("formula", "bounded"),
        met="plausible: the codes beside the rows that they were made of")  # fmt: skip
def both(policy: list[Any], splits: list[int], heads: int, head: int, shared: int, itemsize: int) -> Any:
    found = predicted(policy, splits, heads, head, shared, itemsize)
    if policy[0] != "bits":
        return found
    return [x + 2 * heads * head * itemsize * m for x, m in zip(found, np.cumsum(splits).tolist(), strict=True)]
