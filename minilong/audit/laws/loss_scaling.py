"""The scale of a float16 run's loss: what `eq:loss-scaling` says of any rule that adapts it, and wrong ones."""

from __future__ import annotations

from typing import Any

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.optim import next_scale

kind(
    "loss-scaling",
    "loss_scaling(scale, good, finite, growth)",
    "the loss scale, the good steps since it changed, and whether this step is good -> the next scale and number",
)

subject("loss-scaling", "next_scale", code=next_scale, equation="eq:loss-scaling")(next_scale)


def make(r: Numbers, power: int, growth: int, steps: int) -> Case:
    """A scale, and steps that are good or not, about a tenth of them bad."""
    finite = [bool(r.integers(0, 10)) for _ in range(steps)]
    return {"scale": 2.0**power, "growth": growth, "finite": finite}


LIVES = cases(make, power=(8, 4, 16), growth=(3, 1, 2, 7), steps=(5, 1, 20))


def run(f: F, scale: float, growth: int, finite: list[bool]) -> list[tuple[float, int]]:
    """The scale and the count after each step."""
    good, states = 0, []
    for ok in finite:
        scale, good = f(scale, good, ok, growth)
        states.append((scale, good))
    return states


@law("loss-scaling", "halved-after-bad", serves="eq:loss-scaling", cases=LIVES)
def halved_after_bad(f: F, case: Case, measure: Measure) -> None:
    """A bad step halves the scale, down to 1, whatever went before, and the count of good steps begins again."""
    states = [(case["scale"], 0), *run(f, case["scale"], case["growth"], case["finite"])]
    scale, good = f(*states[-1], False, case["growth"])
    measure.close(scale, max(states[-1][0] / 2, 1.0), 0.0, "the scale after a bad step")
    measure.close(good, 0, 0.0, "the good steps after a bad one")


@law("loss-scaling", "doubled-after-growth", serves="eq:loss-scaling", cases=LIVES)
def doubled_after_growth(f: F, case: Case, measure: Measure) -> None:
    """After a bad step, exactly the growth-th good one doubles the scale, up to 2^24, and again after as many."""
    growth = case["growth"]
    states = run(f, case["scale"], growth, [*case["finite"], False, *[True] * (2 * growth)])[-2 * growth - 1 :]
    start = states[0][0]
    for n, (scale, _) in enumerate(states):
        measure.close(scale, min(start * 2 ** (n // growth), 2.0**24), 0.0, f"the scale after {n} good steps")


@law("loss-scaling", "changes-by-two", serves="eq:loss-scaling", cases=LIVES)
def changes_by_two(f: F, case: Case, measure: Measure) -> None:
    """The scale stays, is halved or is doubled: it changes no bit of a number but the exponent."""
    before = case["scale"]
    for scale, _ in run(f, before, case["growth"], case["finite"]):
        measure.holds(scale / before in (0.5, 1.0, 2.0), f"the scale went from {before} to {scale}")
        before = scale


@mutant("loss-scaling", "count-kept", kills=("doubled-after-growth",), met="plausible: the count is not begun again")
def count_kept(scale: float, good: int, finite: bool, growth: int) -> Any:
    if not finite:
        return scale / 2, good
    return (scale * 2, 0) if good + 1 >= growth else (scale, good + 1)


@mutant("loss-scaling", "one-late", kills=("doubled-after-growth",), met="plausible: > for >=")
def one_late(scale: float, good: int, finite: bool, growth: int) -> Any:
    if not finite:
        return scale / 2, 0
    return (scale * 2, 0) if good + 1 > growth else (scale, good + 1)


@mutant("loss-scaling", "never-shrinks", kills=("halved-after-bad",), met="a static scale: steps are left out for ever")
def never_shrinks(scale: float, good: int, finite: bool, growth: int) -> Any:
    return next_scale(scale, good, finite, growth) if finite else (scale, 0)


@mutant(
    "loss-scaling", "grows-without-end", kills=("doubled-after-growth",), met="plausible: the count stays at growth"
)
def grows_without_end(scale: float, good: int, finite: bool, growth: int) -> Any:
    if not finite:
        return scale / 2, 0
    return scale * 2 if good + 1 >= growth else scale, good + 1


@mutant(
    "loss-scaling", "by-ten", kills=("changes-by-two", "halved-after-bad"), met="plausible: a tenth rounds the numbers"
)
def by_ten(scale: float, good: int, finite: bool, growth: int) -> Any:
    return next_scale(scale, good, finite, growth) if finite else (scale / 10, 0)
