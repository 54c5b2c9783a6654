"""Running laws: on random cases, down to a minimal counterexample, printed so that it pastes into Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.audit.law import Case, Law, LawBroken, Measure


@dataclass(frozen=True)
class Failure:
    """A minimal case for which a law fails, and what was found."""

    case: Case
    message: str


@dataclass(frozen=True)
class Result:
    """A law on a function: examples run, worst error as a share of its bound (0 to 1), and the failure if it failed."""

    law: Law
    examples: int
    worst: float
    seconds: float
    failure: Failure | None = None


def run_law(law: Law, f: Callable[..., Any], *, examples: int = 100, seed: int | None = None) -> Result:
    """Check `f` on `examples` random cases; the same cases at every run, unless a seed chooses others.

    An exception of `f` is a failure like a broken law. Hypothesis shrinks the case, mainly in its shapes.
    """
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable

    measure, count, last = Measure(), 0, None

    @settings(
        max_examples=examples,
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
        nonlocal count, last
        count, last = count + 1, case
        with np.errstate(all="ignore"):
            law.check(f, case, measure)

    begin = time.perf_counter()
    failure = None
    try:
        (seeded(seed)(attempt) if seed is not None else attempt)()
    except Unsatisfiable:
        count = 0
    except LawBroken as error:
        failure = Failure(last or {}, str(error))
    except Exception as error:  # of the function under audit, whatever it is
        failure = Failure(last or {}, f"it raised {type(error).__name__}: {error}")
    return Result(law, count, measure.worst, time.perf_counter() - begin, failure)


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
        return f"np.array({value.tolist()!r}, dtype=np.{value.dtype.name}).reshape({value.shape!r})"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, list | tuple):
        inner = ", ".join(as_python(v) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    return repr(value)
