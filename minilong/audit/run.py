"""Running laws: on random cases, down to a minimal counterexample, printed so that it pastes into Python."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilong.audit.law import Case, Law, LawBroken, Measure


@dataclass(frozen=True)
class Failure:
    """A minimal case for which a law fails, and what was found. `raised`: by an exception other than LawBroken."""

    case: Case
    message: str
    raised: bool = False


@dataclass(frozen=True)
class Result:
    """A law on a function: examples run, worst error as a share of its bound (0 to 1), and the failure if it failed."""

    law: Law
    examples: int
    worst: float
    seconds: float
    failure: Failure | None = None


def run_law(
    law: Law, f: Callable[..., Any], *, examples: int = 100, seed: int | None = None, patience: float = math.inf
) -> Result:
    """Check `f` on `examples` random cases; the same cases at every run, unless a seed chooses others.

    A law with a `share` runs that part of the examples, but at least 5 if so many are asked for.
    An exception of `f` is a failure like a broken law. Hypothesis shrinks the case, mainly in its shapes, and looks for
    a smaller one for at most `patience` seconds.
    """
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Flaky, Unsatisfiable, UnsatisfiedAssumption

    measure, count, last = Measure(), 0, None
    found: Failure | None = None
    until = math.inf

    @settings(
        max_examples=max(min(examples, 5), round(examples * law.share)),
        derandomize=seed is None,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    @given(law.cases())
    def attempt(case: Case) -> None:
        nonlocal count, last, found, until
        if found is not None and time.perf_counter() > until and repr(case) != repr(found.case):
            return  # Hypothesis comes back to the smallest case at the end, and that one fails again
        count, last = count + 1, case
        try:
            with np.errstate(all="ignore"):
                law.check(f, case, measure)
        except UnsatisfiedAssumption:  # a case that the law has nothing to say about
            count -= 1
            raise
        except Exception as error:
            until = min(until, time.perf_counter() + patience)
            found = _failure(case, error)
            raise

    begin = time.perf_counter()
    failure = None
    try:
        (seeded(seed)(attempt) if seed is not None else attempt)()
    except Unsatisfiable:
        count = 0
    except Flaky:
        failure = found and replace(found, message=f"{found.message} (not each time that it is called)")
    except Exception as error:  # of the function under audit, whatever it is
        failure = _failure(last or {}, error)
    return Result(law, count, measure.worst, time.perf_counter() - begin, failure)


@contextmanager
def quiet_numbers() -> Iterator[None]:
    """No warnings about numbers (a variance of one element, say): laws judge what a function returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _failure(case: Case, error: Exception) -> Failure:
    if isinstance(error, LawBroken):
        return Failure(case, str(error))
    return Failure(case, f"it raised {type(error).__name__}: {error}", raised=True)


def explain(law: Law, failure: Failure) -> str:
    """The law, the equations it serves, what was found, and the case as Python."""
    return (
        f"{law.name}: {law.statement}\nserves {', '.join(law.serves)}\nfound: {failure.message}\n"
        f"minimal counterexample:\n{case_as_python(failure.case)}"
    )


def case_as_python(case: Case) -> str:
    """Assignments that rebuild the case; they need `import numpy as np`."""
    return "\n".join(f"{name} = {as_python(value)}" for name, value in case.items())


def as_python(value: Any) -> str:
    """An expression that evaluates to the value: arrays as `np.array(...)`, every digit kept."""
    if isinstance(value, np.ndarray):
        return f"np.array({_finite(value.tolist())}, dtype=np.{value.dtype.name}).reshape({value.shape!r})"
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, list | tuple):
        inner = ", ".join(as_python(v) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    return _finite(value) if isinstance(value, float) else repr(value)


def _finite(value: Any) -> str:
    """The `repr` of numbers, with NumPy's names for those that Python has no literal for."""
    return re.sub(r"\b(nan|inf)\b", r"np.\1", repr(value))
