"""Whether code agrees with the executable block of its equation, on random cases.

A kind's implementation and block are called with the arguments that the kind's laws use; a primitive's forward pass
and block with random calls made from the primitive's declaration. Two results agree if they differ by no more than
rounding: the bound for sums of products of the arguments, or, where the problem itself is worse conditioned than that
(a row without variance), the change that one rounding of the arguments makes in the block's own result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.law import Case, Law, LawBroken, Measure
from minilong.audit.primitives.cases import cases
from minilong.audit.specs import Equation
from minilong.autodiff import Primitive
from minilong.autodiff.numeric import ROUNDING, rounding_bound

Function = Callable[..., Any]


class Disagreement(LawBroken):
    """Code and block give different results for the same arguments."""


def of_kind(law: Law, block: Function) -> Law:
    """The law that `f` returns what the block returns, for all arguments that `law` would call it with."""

    def check(f: Function, case: Case, measure: Measure) -> None:
        def both(*args: Any) -> Any:
            before = _copied(args)
            actual = f(*args)
            _compare(measure, actual, block, before)
            return actual

        try:
            law.check(both, case, Measure())
        except Disagreement:
            raise
        except LawBroken:
            pass  # reported where the law itself is run

    statement = "The code returns what the block of its equation returns."
    return replace(law, name=f"{law.name} (agreement)", statement=statement, check=check)


def of_primitive(p: Primitive, block: Function, equation: str) -> Law:
    """The law that a primitive's forward pass returns what the block returns, inputs first, then its keywords."""
    from hypothesis import reject

    wanted = inspect.signature(block).parameters

    def check(_f: Function, case: Any, measure: Measure) -> None:
        call = case["call"]
        keywords = {**p.defaults, **call.params}
        for name in [name for name in keywords if name not in wanted]:
            if keywords.pop(name) is not p.defaults[name]:
                reject()  # a call that the equation says nothing about
        _compare(measure, p(*call.xs, **call.params), block, call.xs, keywords)

    return Law(
        f"{p.name} (agreement)", "primitive", (equation,), "The code returns what the block of its equation returns.",
        lambda: cases(p).map(lambda call: {"call": call}), check,
    )  # fmt: skip


def fits_primitive(p: Primitive, equation: Equation) -> bool:
    """Whether a block can be called with the inputs of a primitive, then keywords of it."""
    inputs = (f"*{p.inputs[0]}",) if p.variadic else p.inputs
    given, rest = equation.parameters[: len(inputs)], set(equation.parameters[len(inputs) :])
    return given == inputs and rest - equation.optional <= set(p.defaults)


def fits(equation: Equation, parameters: tuple[str, ...]) -> bool:
    """Whether a block can be called with these parameters: further ones have defaults."""
    first, rest = equation.parameters[: len(parameters)], equation.parameters[len(parameters) :]
    return first == parameters and set(rest) <= equation.optional


def _compare(
    measure: Measure, actual: Any, block: Function, args: Sequence[Any], keywords: dict[str, Any] | None = None
) -> None:
    keywords = keywords or {}
    try:
        expected = block(*_copied(args), **keywords)
    except Exception as error:
        raise Disagreement(f"the block raised {type(error).__name__}: {error}") from error
    pairs = list(_paired(actual, expected))
    floats = [x for x in _arrays((actual, *args)) if x.dtype.kind == "f"]
    dtype = max((x.dtype for x in floats), key=lambda d: float(np.finfo(d).eps), default=np.dtype(np.float64))
    condition = float(np.prod([1.0 + np.max(np.abs(x), initial=0.0) for x in _arrays(args) if x.dtype.kind in "fc"]))
    terms = max((x.size for x in _arrays((actual, *args))), default=1)
    moved: list[Any] | None = None
    for i, (a, e) in enumerate(pairs):
        if not isinstance(e, np.ndarray):
            if a != e:
                raise Disagreement(f"the code returns {a!r}, and the block {e!r}")
            continue
        bound = rounding_bound(dtype, condition * (1.0 + _largest(e)), terms)
        if a.shape == e.shape and a.size and not np.array_equal(a, e):
            apart = np.abs(a.astype(np.float64) - e.astype(np.float64))
            if not np.all(apart <= bound):
                moved = _sensitivity(block, args, keywords, float(np.finfo(dtype).eps)) if moved is None else moved
                worse = bound + ROUNDING * moved[i]
                if np.all(apart <= worse):
                    measure.worst = max(measure.worst, float(np.max(apart / worse)))
                    a = e
                else:
                    a = np.where(apart <= worse, e, a)  # so that what is reported is beyond any bound
        try:
            measure.close(a, e, bound, "the result of the code")
        except LawBroken as found:
            raise Disagreement(str(found).replace("the law asks for", "the block gives")) from None


def _sensitivity(block: Function, args: Sequence[Any], keywords: dict[str, Any], eps: float) -> list[Any]:
    """How far each number of the block's result moves if all those of the arguments are rounded once, at random."""
    rng = np.random.default_rng(0)

    def rounded(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(rounded(v) for v in value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value * (1 + eps * rng.choice([-1.0, 1.0], value.shape))
        return value

    here = block(*_copied(args), **keywords)
    farthest = [np.zeros(np.shape(e)) for _, e in _paired(here, here)]
    for _ in range(3):
        pairs = _paired(block(*(rounded(x) for x in args), **keywords), here)
        for far, (a, e) in zip(farthest, pairs, strict=True):
            if isinstance(e, np.ndarray) and e.dtype.kind in "fc" and a.shape == e.shape:
                np.maximum(far, np.abs(a - e), out=far)
    return farthest


def _paired(actual: Any, expected: Any) -> list[tuple[Any, Any]]:
    """Corresponding parts of two results: numbers and arrays as arrays, the members of lists and tuples."""
    if isinstance(expected, list | tuple):
        if not isinstance(actual, list | tuple) or len(actual) != len(expected):
            raise Disagreement(f"the code returns a {type(actual).__name__}, and the block {len(expected)} results")
        return [pair for a, e in zip(actual, expected, strict=True) for pair in _paired(a, e)]
    if isinstance(expected, np.ndarray | np.generic | int | float | bool):
        try:
            return [(np.asarray(actual), np.asarray(expected))]
        except ValueError:
            raise Disagreement(f"the code returns a {type(actual).__name__}, and the block numbers") from None
    return [(actual, expected)]


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, list | tuple):
        return [x for v in value for x in _arrays(v)]
    return [np.asarray(value)] if isinstance(value, np.ndarray | np.generic | int | float) else []


def _copied(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_copied(v) for v in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _largest(x: Any) -> float:
    return float(np.max(np.abs(x), initial=0.0))
