"""What the laws of all kinds share: calling the function under audit, and looking whether it wrote to its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.law import Measure
from minilong.autodiff.numeric import rounding_bound
from minilong.backend import beside, to_host

F = Callable[..., Any]


def call(f: F, *args: Any) -> np.ndarray:
    """The function's value as an array. It works on copies: a function that writes to its arguments spoils no law."""
    return np.asarray(f(*[copied(a) for a in args]))


def copied(x: Any) -> Any:
    """A copy of an array, or of a list of arrays; numbers as they are."""
    if isinstance(x, list):
        return [copied(v) for v in x]
    return x.copy() if isinstance(x, np.ndarray) else x


def of_host(f: F, like: Any) -> F:
    """A function of a law's own, which knows the host's arrays only, for arrays that lie where `like` does."""
    return lambda *args: beside(like, f(*map(to_host, args)))


def leaves_alone(f: F, args: dict[str, Any], measure: Measure) -> None:
    """Calls f and looks whether an array among the arguments has changed."""
    given = {name: copied(x) for name, x in args.items()}
    f(*given.values())
    for name, x in args.items():
        if isinstance(x, np.ndarray):
            measure.holds(np.array_equal(given[name], x), f"{name} was changed in place: it is now {given[name]!r}")


def bound(condition: float, terms: int = 1) -> float:
    """Rounding bound in float64, the precision of every case."""
    return rounding_bound(np.float64, condition, terms)


def bound_of(y: np.ndarray, condition: float, terms: int = 1) -> float:
    """Rounding bound in the precision of the result: for tables, whose precision the implementation chooses."""
    return rounding_bound(y.dtype if y.dtype.kind == "f" else np.float64, condition, terms)


def largest(*arrays: Any) -> float:
    """The largest magnitude in the arrays; 0 for empty ones."""
    return max((float(np.max(np.abs(a), initial=0.0)) for a in arrays), default=0.0)
