"""The forward kernel on tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import BFLOAT16

MUTANTS = [
    ("if (most > top[r] + SLACK) {", "if (false) {"),
    ("sum[r] *= shrink[r];", ""),
    ("y[r][n] *= shrink[r];", ";"),
    ("top[r] == -INFINITE ? 0 : -top[r]", "-top[r]"),
    ("most_of(most, x[r][c])", "x[r][c]"),
    ("most = most_of(most, __shfl_xor_sync(ALL, most, lanes))", "most = most"),
    ("sum[r] += __shfl_xor_sync(ALL, sum[r], lanes)", "sum[r] += 0"),
    ("2 * k + half", "2 * k"),
    ("n / 2 + (lane >> 4)", "n / 2"),
    ("(lane >> 4 << 3)", "0"),
    ("pack(x[m + 1][k + 2], x[m + 1][k + 3])", "pack(x[m][k + 2], x[m][k + 3])"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("if (next < walk.stop) prefetch(stage ^ 1, next);", "if (next < walk.stop) prefetch(stage, next);"),
]


def check(xp: Any) -> None:
    """Values and logarithms of sums by the definition."""
    compare(xp, BFLOAT16, ("y", "lse"))
