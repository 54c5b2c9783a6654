"""The kernel for the cotangents of k and v on tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import BFLOAT16

MUTANTS = [
    ("sums[2 * (c0 + column_of(c))])", "sums[2 * column_of(c)])"),
    ("x[r][c] *= w[r][c] - sums[2 * (c0 + column_of(c)) + 1]", "x[r][c] *= w[r][c]"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("accumulate(out_v, x, here + OTHER_BYTES", "accumulate(out_v, x, here"),
    ("prefetch(stage ^ 1, head, n)", "prefetch(stage, head, n)"),
    ("hide<true>(x, sight, j, i + c0)", "hide<true>(x, sight, j, i)"),
]


def check(xp: Any) -> None:
    """Cotangents by the definition."""
    compare(xp, BFLOAT16, ("gk", "gv"))
