"""The kernel for the cotangent of q without tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import FLOAT32

MUTANTS = [
    ("lse[r]) * (w[r][c] - mean[r])", "lse[r]) * w[r][c]"),
    ("head / (heads / groups)", "head % groups"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("accumulate(out, x, here, c0", "accumulate(out, x, here + OTHER_BYTES, c0"),
    ("scores(w, cotangents, here + OTHER_BYTES, c0)", "scores(w, cotangents, here, c0)"),
    ("if (next < walk.stop) prefetch(stage ^ 1, next);", "if (next < walk.stop) prefetch(stage, next);"),
    ("by[r] = (acc_t)scale", "by[r] = 1"),
    ("tiles_of(end, COLUMNS)", "end / COLUMNS"),
]


def check(xp: Any) -> None:
    """Cotangents by the definition."""
    compare(xp, FLOAT32, ("gq",))
