"""Laws of the generated recall tasks: the answer follows from the inputs and is not given away; rows all differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.recall import recall_task
from minilong.data.vocabulary import FIRST
from minilong.keys import Key

kind(
    "recall", "recall(name, context, items, symbols)", "Generated tasks: `batch(step, size, key)`, `sequential(size)`."
)
subject("recall", "recall_task", code=recall_task, equation="eq:mqar")(recall_task)

TASKS = ("copy-lm", "selective-copy", "induction", "mqar")
IDS = ("eq:mqar", "eq:induction", "eq:selective-copy")
SIGMAS = 6  # of a frequency: beyond, by chance, in one of 10^9 cases


def small(n: Numbers, *, name: str, items: int, extra: int, more: int) -> dict[str, Any]:
    """A task in the smallest context that has room, or a little more."""
    if name == "induction":
        context, symbols = 4 + extra, 3 + more
    elif name == "mqar":
        context, symbols = 4 * items + extra, 2 * items + more
    else:
        context, symbols = 2 * items + (extra if name == "selective-copy" else extra % 2), 2 + more
    return {"name": name, "context": context, "items": items, "symbols": symbols, "seed": int(n.integers(0, 2**31))}


SMALL = cases(small, name=TASKS, items=(2, 3, 5), extra=(0, 1, 2, 7, 12), more=(0, 1, 5, 30))
SMALLEST = cases(small, name=TASKS, items=(2,), extra=(0,), more=(0, 1))
LARGE = cases(small, name=TASKS, items=(12,), extra=(30, 61), more=(40,))
PAIRS = cases(small, name=("mqar",), items=(2, 3), extra=(8, 20), more=(3,))
PLACES = cases(small, name=("induction", "selective-copy"), items=(2, 3), extra=(3, 9), more=(4,))


def made(f: F, c: Case) -> Any:
    """The task of a case."""
    return f(c["name"], c["context"], c["items"], c["symbols"])


def some(f: F, c: Case) -> list[LanguageBatch]:
    """A training batch and the first held-out one."""
    task = made(f, c)
    return [task.batch(3, 5, Key.of(c["seed"])), next(iter(task.sequential(5)))]


def solve(c: Case, row: list[int]) -> dict[int, int]:
    """The answers of a row by place, worked out from its inputs alone, token by token."""
    answers: dict[int, int] = {}
    if c["name"] == "mqar":
        values = {row[2 * j]: row[2 * j + 1] for j in range(c["items"])}
        for t in range(2 * c["items"], len(row)):
            if row[t] in values:
                answers[t] = values[row[t]]
    elif c["name"] == "induction":
        answers[len(row) - 1] = row[row.index(row[-1]) + 1]
    else:
        mark = row.index(FIRST + 1)
        found = [token for token in row[:mark] if token != FIRST]
        answers = {mark + j: token for j, token in enumerate(found)}
    return answers


@law("recall", "answers", serves=IDS, cases=SMALL)
def answers(f: F, c: Case, measure: Measure) -> None:
    """The targets are the answers that follow from the inputs, at the places that ask for them, and no others."""
    for batch in some(f, c):
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            given = {t: token for t, token in enumerate(targets) if token != IGNORE}
            measure.holds(given == solve(c, inputs), f"{inputs} has the answers {solve(c, inputs)}, and not {given}")
            measure.holds(len(given) == (1 if c["name"] == "induction" else asked(c)), f"{inputs} asks for {given}")


def asked(c: Case) -> int:
    """How many answers a row has."""
    return c["context"] // 2 if c["name"] == "copy-lm" else int(c["items"])


@law("recall", "inputs", serves=IDS, cases=SMALL)
def inputs(f: F, c: Case, measure: Measure) -> None:
    """Inputs hold what the task says and nothing that gives an answer away: mqar's values stand in the pairs only, and
    each key comes once more, at an even gap; the mark of induction comes twice, at least one symbol apart, the second
    time at the end; of copied symbols all but the last follow the mark."""
    for batch in some(f, c):
        for row in batch.inputs.tolist():
            measure.holds(len(row) == c["context"], f"{row} has {len(row)} tokens and not {c['context']}")
            measure.holds(well_formed(c, row), f"{row} is no row of {c['name']}")


def well_formed(c: Case, row: list[int]) -> bool:
    """Whether inputs have the form of their task."""
    if c["name"] == "mqar":
        head, tail = row[: 2 * c["items"]], row[2 * c["items"] :]
        keys, values = head[::2], head[1::2]
        first = FIRST + 1 + c["symbols"] // 2
        ranges = all(FIRST < k < first for k in keys) and all(first <= v < FIRST + 1 + c["symbols"] for v in values)
        once = len(set(keys)) == len(set(values)) == c["items"]
        return ranges and once and sorted(tail[::2]) == sorted(keys + [FIRST] * (len(tail[::2]) - len(keys))) and (
            set(tail[1::2]) <= {FIRST}
        )  # fmt: skip
    if c["name"] == "induction":
        ordinary = [t for t in row if FIRST < t < FIRST + c["symbols"]]
        return row[-1] == FIRST and row.count(FIRST) == 2 and FIRST not in row[-2:-1] and len(ordinary) == len(row) - 2
    body, count = row[: len(row) - asked(c)], asked(c)
    copied = [t for t in body if t != FIRST]
    letters = all(FIRST + 2 <= t < FIRST + 2 + c["symbols"] for t in copied)
    return letters and len(copied) == count and row[len(body) :] == [FIRST + 1, *copied[:-1]]


@law("recall", "held-out", serves="claim:held-out", cases=SMALLEST, share=0.3)
def held_out(f: F, c: Case, measure: Measure) -> None:
    """No held-out row is a training row, even where there are few rows in all."""
    task, key = made(f, c), Key.of(c["seed"])
    trained = {tuple(row) for step in range(4) for row in task.batch(step, 40, key).inputs.tolist()}
    held = {tuple(row) for batch in task.sequential(100) for row in batch.inputs.tolist()}
    both = trained & held
    measure.holds(trained and held and not both, f"{len(both)} rows are in both, such as {next(iter(both), None)}")


@law("recall", "all-different", serves="claim:held-out", cases=LARGE, share=0.3)
def all_different(f: F, c: Case, measure: Measure) -> None:
    """Where there are many possible rows, none comes twice: not in a batch, not in two steps, not under two keys."""
    task = made(f, c)
    drawn = [task.batch(step, 9, Key.of(c["seed"] + other)).inputs for step in (0, 1) for other in (0, 1)]
    rows = [tuple(row) for batch in drawn for row in batch.tolist()]
    measure.holds(len(set(rows)) == len(rows), f"of {len(rows)} rows {len(set(rows))} are different")


@law("recall", "pure", serves="claim:batches-pure", cases=SMALL, share=0.5)
def pure(f: F, c: Case, measure: Measure) -> None:
    """The batch of a step follows from the key and the step: asked for in another order, it is the same."""
    key, first, second = Key.of(c["seed"]), made(f, c), made(f, c)
    forwards = [first.batch(step, 3, key) for step in range(3)]
    backwards = [second.batch(step, 3, key) for step in reversed(range(3))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        measure.close(b.inputs, a.inputs, 0.0, "asked for backwards, an input")
        measure.close(b.targets, a.targets, 0.0, "asked for backwards, a target")


@law("recall", "gaps", serves="eq:recall-gaps", cases=PAIRS, share=0.2)
def gaps(f: F, c: Case, measure: Measure) -> None:
    """The gap of the first pair is as frequent as the power law has it; so is the second's, drawn without the first."""
    count, pairs = 3000, c["items"]
    rows = made(f, c).batch(0, count, Key.of(c["seed"])).inputs
    space = (c["context"] - 2 * pairs) // 2
    p = np.arange(1, space + 1) ** (0.01 - 1)
    p /= p.sum()
    after = np.array([p[j] * sum(p[i] / (1 - p[i]) for i in range(space) if i != j) for j in range(space)])
    for pair, expected in ((0, p), (1, after)):
        found = np.argmax(rows[:, 2 * pairs :: 2] == rows[:, 2 * pair, None], axis=1)
        frequent(measure, np.bincount(found, minlength=space), expected, count, f"the gap of pair {pair}")


@law("recall", "places", serves=("eq:induction", "eq:selective-copy"), cases=PLACES, share=0.2)
def places(f: F, c: Case, measure: Measure) -> None:
    """Where nothing else is said, places are equally frequent: those of the mark, and those of the symbols to copy."""
    count = 3000
    rows = made(f, c).batch(0, count, Key.of(c["seed"])).inputs
    if c["name"] == "induction":
        room = c["context"] - 2
        frequent(measure, (rows == FIRST).sum(axis=0)[:room], np.full(room, 1 / room), count, "the mark")
    else:
        body = c["context"] - c["items"]
        share = c["items"] / body
        frequent(measure, (rows[:, :body] != FIRST).sum(axis=0), np.full(body, share), count, "a symbol")


def frequent(measure: Measure, found: np.ndarray, expected: np.ndarray, count: int, what: str) -> None:
    """Each place is found as often as expected, within a few standard deviations."""
    spread = SIGMAS * np.sqrt(expected * (1 - expected) * count) + 1
    far = np.abs(found - expected * count) > spread
    at = int(np.argmax(far))
    measure.holds(
        not far.any(), f"{what} is at place {at} in {found[at]} of {count} rows, not {expected[at] * count:.0f}"
    )
