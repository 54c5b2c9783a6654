"""Laws of learning rate schedules: where they start, how high they get, where they end, and that nothing jumps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.optim import Schedule

kind("cosine", "cosine(step, lr, steps, warmup, final)", "The learning rate of a step, counted from 0: cosine decay.")
kind("schedule", "schedule(step, lr, steps, warmup, final, kind)", "The same of each kind: cosine, linear, constant.")


def our_cosine(step: int, lr: float, steps: int, warmup: int, final: float) -> float:
    """Our schedule, cosine."""
    return Schedule(lr, steps, warmup, "cosine", final)(step)


def our_schedule(step: int, lr: float, steps: int, warmup: int, final: float, kind: str) -> float:
    """Our schedule of a kind."""
    return Schedule(lr, steps, warmup, kind, final)(step)


subject("cosine", "Schedule, cosine", code=Schedule, equation="eq:cosine")(our_cosine)
subject("schedule", "Schedule", code=Schedule, equation="eq:cosine")(our_schedule)


def plan(n: Numbers, *, steps: int, warm: float, final: float) -> dict[str, Any]:
    """A schedule whose warm-up leaves two steps."""
    warmup = min(int(warm * steps), max(0, steps - 2))
    return {"lr": float(n.uniform(0.5, 2)), "steps": steps, "warmup": warmup, "final": final}


def plan_of(n: Numbers, *, steps: int, warm: float, final: float, kind: str) -> dict[str, Any]:
    """A schedule of some kind."""
    return plan(n, steps=steps, warm=warm, final=final) | {"kind": kind}


SHARES, ENDS = (0.0, 0.2, 0.5, 0.9), (0.1, 0.0, 0.5, 1.0)
LENGTHS = (2, 1, 3, 5, 11, 40)
PLAN = cases(plan, steps=LENGTHS, warm=SHARES, final=ENDS)
EACH = cases(plan_of, steps=LENGTHS, warm=SHARES, final=ENDS, kind=("cosine", "linear", "constant"))


def rates(f: F, c: Case) -> np.ndarray:
    """The rates of all steps and of three after the last."""
    rest = [c[name] for name in ("lr", "steps", "warmup", "final", "kind") if name in c]
    return np.array([float(f(step, *rest)) for step in range(c["steps"] + 3)])


@law("cosine", "formula", serves="eq:cosine", cases=PLAN)
def formula(f: F, c: Case, measure: Measure) -> None:
    """Half a cosine from lr after the warm-up to lr times final at the last step, and that from then on."""
    found = rates(f, c)
    for s in range(c["warmup"], c["steps"] + 3):
        u = min(1.0, (s - c["warmup"]) / max(1, c["steps"] - 1 - c["warmup"]))
        expected = c["lr"] * (c["final"] + (1 - c["final"]) * math.cos(math.pi * u / 2) ** 2)
        measure.close(found[s], expected, bound(1 + c["lr"]), f"the rate of step {s}")


@law("schedule", "warm-up", serves="eq:cosine", cases=EACH)
def warm_up(f: F, c: Case, measure: Measure) -> None:
    """The rate begins at lr / warmup, not at 0, rises by equal steps, and is lr at the last step of the warm-up."""
    w = c["warmup"]
    measure.close(
        rates(f, c)[:w], c["lr"] * (np.arange(w) + 1) / max(w, 1), bound(1 + c["lr"]), "a rate of the warm-up"
    )


@law("schedule", "peak-and-end", serves="eq:cosine", cases=EACH)
def peak_and_end(f: F, c: Case, measure: Measure) -> None:
    """The highest rate is lr, reached when the warm-up ends; at the last step and after it the rate is lr final."""
    found, w = rates(f, c), c["warmup"]
    measure.close(found.max(), c["lr"], bound(1 + c["lr"]), "the highest rate")
    measure.close(found[w], c["lr"], bound(1 + c["lr"]), "the rate after the warm-up")
    if c["kind"] != "constant" and c["steps"] - 1 > w:
        end = np.full(4, c["lr"] * c["final"])
        measure.close(found[c["steps"] - 1 :], end, bound(1 + c["lr"]), "the rate at the end")


@law("schedule", "falls-smoothly", serves="eq:cosine", cases=EACH)
def falls_smoothly(f: F, c: Case, measure: Measure) -> None:
    """After the warm-up the rate never rises, and no step takes more than pi/2 of an even share of the way."""
    found, w = rates(f, c), c["warmup"]
    moves = -np.diff(found[w:])
    share = c["lr"] * (1 - c["final"]) / max(1, c["steps"] - 1 - w)
    slack = bound(1 + c["lr"])
    measure.holds(np.all(moves >= -slack), f"the rate rises after the warm-up: {found[w:].tolist()}")
    measure.holds(np.all(moves <= math.pi / 2 * share + slack), f"the rate jumps: {found[w:].tolist()}")


def wrong(**mistakes: bool) -> F:
    """A schedule with one mistake."""
    zero, late, open_end, floor = (mistakes.get(m, False) for m in ("zero", "late", "open_end", "floor"))

    def schedule(step: int, lr: float, steps: int, warmup: int, final: float, kind: str = "cosine") -> float:
        if step < warmup:
            return lr * (step + (0 if zero else 1)) / warmup
        if kind == "constant":
            return lr
        start = 0 if late else warmup
        done = min(1.0, (step - start) / max(1, steps - (0 if open_end else 1) - start))
        left = 0.5 * (1 + math.cos(math.pi * done)) if kind == "cosine" else 1 - done
        return lr * max(left, final) if floor else lr * (final + (1 - final) * left)

    return schedule


mutant(
    "schedule",
    "the first step has the rate 0",
    kills="warm-up",
    met="nanoGPT before it added the 1: a first step that does nothing",
)(wrong(zero=True))
mutant(
    "schedule",
    "decay counted from step 0",
    kills="peak-and-end",
    met="plausible: a jump at the end of the warm-up, hidden where it is short",
)(wrong(late=True))
mutant(
    "schedule",
    "the end is never reached",
    kills="peak-and-end",
    met="plausible: steps for steps - 1, since the last step has the number steps - 1",
)(wrong(open_end=True))
mutant(
    "cosine", "the end as a floor", kills="formula", met="plausible: max(cosine, final) for a cosine that ends at final"
)(wrong(floor=True))


@mutant(
    "schedule",
    "warm restarts",
    kills="falls-smoothly",
    met="Loshchilov and Hutter 2017 restart the cosine; a step beyond the last begins a new one",
)
def restarted(step: int, lr: float, steps: int, warmup: int, final: float, kind: str = "cosine") -> float:
    """The schedule again after its last step."""
    length = max(1, steps - warmup)
    return our_schedule(warmup + (step - warmup) % length if step >= warmup else step, lr, steps, warmup, final, kind)
