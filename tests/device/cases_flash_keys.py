"""The kernel for the cotangents of k and v without tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import FLOAT32

MUTANTS = [
    ("x[r][c] *= w[r][c] - sums[2 * (c0 + column_of(c)) + 1]", "x[r][c] *= w[r][c]"),
    ("if (n >= walk.stop) n = first, head++;", "if (n >= walk.stop) n = first, head = shared_by;"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("head * q_head", "0"),
    ("head * g_head", "0"),
    ("(i64)head * t + n * COLUMNS", "(i64)n * COLUMNS"),
    ("(i64)group * shared_by * q_head", "(i64)group * q_head"),
    ("accumulate(out_v, x, here + OTHER_BYTES", "accumulate(out_v, x, here"),
    ("prefetch(stage ^ 1, head, n)", "prefetch(stage, head, n)"),
    ("j_end + sight.behind", "j_end - 1 + sight.behind"),
    ("j + 1 - sight.ahead", "j + 40 - sight.ahead"),
    ("if (j >= sight.sinks) end", "end"),
    ("by[r] = (acc_t)scale", "by[r] = 1"),
    ("(j < end(i))", "(j <= end(i))"),
    ("((j >= begin(i)) |", "((j > begin(i)) |"),
    ("| (j < sinks)", "| (j <= sinks)"),
    ("(i < queries)", "(i <= queries)"),
    ("SIGN * (row_of(r) - column - column_of(c))", "row_of(r) - column - column_of(c)"),
]


def check(xp: Any) -> None:
    """Cotangents by the definition."""
    compare(xp, FLOAT32, ("gk", "gv"))
