"""Which element types this GPU and this CuPy multiply rightly, found by trying rather than by version numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from minilong.backend.arrays import Array, to_host
from minilong.backend.products import allow_tf32, matmul
from minilong.errors import UserError

TOLERANCE = {"float64": 1e-14, "float32": 5e-7, "float16": 3e-4, "bfloat16": 2.5e-3}
"""Largest error of a product of rows and columns of length 1, summed in float32 (or float64) and rounded once."""

TF32_ERROR = (1e-5, 1e-3)
"""The same where operands are rounded to ten bits: below it nothing was rounded, above it something else is wrong."""


@dataclass(frozen=True)
class Probes:
    """What was found. wrong: for each type that does not work, why. tf32: whether TF32 changes products of float32."""

    wrong: Mapping[str, str]
    tf32: bool

    def require(self, precision: str) -> None:
        """UserError where products of the type do not work here, with the types that do."""
        if precision in self.wrong:
            works = " or ".join(name for name in TOLERANCE if name not in self.wrong and name != "float64")
            remedy = f"use {works}" if works else "no type works: check the installation of CuPy and the driver"
            raise UserError(f"{precision} cannot be used on this GPU: {self.wrong[precision]}; {remedy}")


@cache
def probe(xp: Any) -> Probes:
    """Try products of two axes, of a batch and of a batch of strided views, in each type, against float64 on the host.

    A few milliseconds, once in a process. Types that the device lacks are found by their error, types that it computes
    wrongly by their numbers.
    """
    wrong = {name: reason for name in TOLERANCE if (reason := _reason(xp, name)[0])}
    if "float32" in wrong:
        return Probes(wrong, tf32=False)
    with allow_tf32():
        reason, error = _reason(xp, "float32", TF32_ERROR[1])
    if reason:
        wrong["tf32"] = reason
    return Probes(wrong, tf32=not reason and error > TF32_ERROR[0])


def _reason(xp: Any, name: str, tolerance: float | None = None) -> tuple[str, float]:
    """Why products of a type do not work, empty where they do; and the largest error."""
    try:
        errors = _errors(xp, name)
    except Exception as failure:  # CuPy and cuBLAS raise types of their own, which have no common base
        return f"its products fail ({type(failure).__name__}: {failure})", float("inf")
    form, error = max(errors.items(), key=lambda item: item[1])
    if error <= (TOLERANCE[name] if tolerance is None else tolerance):
        return "", error
    hint = " (is NVIDIA_TF32_OVERRIDE set?)" if name == "float32" and error < TF32_ERROR[1] else ""
    return f"its {form} are wrong by {error:.1e}{hint}", error


def _errors(xp: Any, name: str) -> dict[str, float]:
    """The largest error of each form of product, from operands that are rounded to the type first."""
    rng = np.random.default_rng(0)
    dtype = _dtype(name)
    a, b = (_unit_rows(rng.standard_normal((2, 24, 3, 64))).astype(dtype) for _ in range(2))
    x, y = xp.asarray(a), xp.asarray(b)
    heads = (0, 2, 1, 3)
    forms = {
        "products of two matrices": (x[0, :, 0], y[0, :, 0].T),
        "products of a batch": (
            xp.ascontiguousarray(x.transpose(heads)),
            xp.ascontiguousarray(y.transpose(0, 2, 3, 1)),
        ),
        "products of a batch of views": (x.transpose(heads), y.transpose(0, 2, 3, 1)),
    }
    return {form: _error(matmul(xp, *operands), *operands) for form, operands in forms.items()}


def _error(product: Array, a: Array, b: Array) -> float:
    """The largest difference from the product in float64 on the host; infinite where something is no number."""
    exact = to_host(a).astype(np.float64) @ to_host(b).astype(np.float64)
    difference = np.abs(to_host(product).astype(np.float64) - exact)
    return float(np.max(np.where(np.isfinite(difference), difference, np.inf)))


def _unit_rows(x: np.ndarray) -> np.ndarray:
    rows: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return rows


def _dtype(name: str) -> Any:
    return np.dtype(import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)
