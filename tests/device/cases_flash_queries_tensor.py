"""The kernel for the cotangent of q on tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import BFLOAT16

MUTANTS = [
    ("hide<false>(x, sight, i, j + c0)", "hide<false>(x, sight, i, j)"),
    ("lse[r]) * (w[r][c] - mean[r])", "lse[r]) * w[r][c]"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("accumulate(out, x, here, c0", "accumulate(out, x, here + OTHER_BYTES, c0"),
    ("scores(w, cotangents, here + OTHER_BYTES, c0)", "scores(w, cotangents, here, c0)"),
    ("if (next < walk.stop) prefetch(stage ^ 1, next);", "if (next < walk.stop) prefetch(stage, next);"),
]


def check(xp: Any) -> None:
    """Cotangents by the definition."""
    compare(xp, BFLOAT16, ("gq",))
