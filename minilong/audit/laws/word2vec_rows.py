"""Laws of steps on rows of a table that a batch meets several times: descent with a cap, and AdaGrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.embeddings.glove import adagrad_step
from minilong.embeddings.rows import RowGradient, capped_step

kind(
    "capped-step",
    "capped_step(table, rows, values, mass, lr, cap)",
    "A table (V, d), rows (n,) with repetitions, their gradients (n, d) and masses (n,) -> the table after the step.",
)


@subject("capped-step", "capped_step", code=capped_step, equation="eq:capped-step")
def ours(table: Any, rows: Any, values: Any, mass: Any, lr: float, cap: float) -> Any:
    after = table.copy()
    capped_step(after, [RowGradient(rows, values, mass)], lr, cap)
    return after


@subject("capped-step", "capped_step (two halves)", code=capped_step, equation="eq:capped-step")
def ours_halved(table: Any, rows: Any, values: Any, mass: Any, lr: float, cap: float) -> Any:
    after, middle = table.copy(), len(rows) // 2
    halves = [slice(0, middle), slice(middle, None)]
    capped_step(after, [RowGradient(rows[h], values[h], mass[h]) for h in halves], lr, cap)
    return after


def met(r: Numbers, *, size: int, n: int, d: int, cap: float, heavy: float) -> Case:
    """Gradients of few rows, some of them met often."""
    return {
        "table": r.normal(size, d),
        "rows": r.integers(0, size, n),
        "values": r.normal(n, d),
        "mass": r.uniform(0, heavy, n),
        "lr": 0.5,
        "cap": cap,
    }


CHOICES: dict[str, Any] = {"size": (2, 1, 5), "n": (1, 2, 5, 20), "d": (1, 3)}
MET = cases(met, cap=(2.0, 0.5, 100.0), heavy=(1.0, 4.0, 0.0), **CHOICES)
LIGHT = cases(met, cap=(100.0,), heavy=(1.0,), **CHOICES)


def stepped(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The table afterwards."""
    given = {**c, **changes}
    return np.asarray(f(*[x.copy() if isinstance(x, np.ndarray) else x for x in given.values()]))


def near(c: Case) -> float:
    """Rounding of a sum over all entries."""
    return bound(largest(c["table"]) + c["lr"] * c["rows"].size * largest(c["values"]), c["rows"].size)


@law("capped-step", "descent", serves="eq:capped-step", cases=LIGHT)
def descent(f: F, c: Case, measure: Measure) -> None:
    """Below the cap, each row moves by lr times the sum of all of its gradients."""
    right = c["table"].copy()
    np.subtract.at(right, c["rows"], c["lr"] * c["values"])
    measure.close(stepped(f, c), right, near(c), "the table")


@law("capped-step", "no farther", serves="eq:capped-step", cases=MET)
def no_farther(f: F, c: Case, measure: Measure) -> None:
    """A row's step is that of plain descent, by a factor: 1 up to the cap, cap / mass beyond."""
    plain = np.zeros_like(c["table"])
    np.add.at(plain, c["rows"], c["lr"] * c["values"])
    mass = np.bincount(c["rows"], c["mass"], len(c["table"]))
    factor = np.minimum(1.0, c["cap"] / np.maximum(mass, 1e-12))
    measure.close(stepped(f, c), c["table"] - factor[:, None] * plain, near(c), "the table")


@law("capped-step", "strangers stay", serves="eq:capped-step", cases=MET)
def strangers_stay(f: F, c: Case, measure: Measure) -> None:
    """A row that is not met stays, bit by bit."""
    away = np.setdiff1d(np.arange(len(c["table"])), c["rows"])
    measure.close(stepped(f, c)[away], c["table"][away], 0.0, "a row that is not met")


@law("capped-step", "any order", serves="eq:capped-step", cases=MET)
def any_order(f: F, c: Case, measure: Measure) -> None:
    """The order in which gradients come does not matter."""
    turned = {name: c[name][::-1] for name in ("rows", "values", "mass")}
    measure.close(stepped(f, c, **turned), stepped(f, c), near(c), "the table")


def wrong(scale: Any) -> F:
    """A step with another factor for each row, of its mass and of how often it is met."""

    def f(table: Any, rows: Any, values: Any, mass: Any, lr: float, cap: float) -> Any:
        total = np.zeros_like(table)
        np.add.at(total, rows, values)
        heavy, often = np.bincount(rows, mass, len(table)), np.bincount(rows, minlength=len(table))
        with np.errstate(all="ignore"):
            factor = np.nan_to_num(scale(heavy, np.maximum(often, 1), cap), nan=1.0, posinf=1.0)
        return table - lr * factor[:, None] * total

    return f


mutant("capped-step", "mean for sum", kills="descent", met="a mean over the batch: rare and common words move alike")(
    wrong(lambda mass, often, cap: np.minimum(1.0, cap / mass) / often)
)
mutant("capped-step", "no cap", kills="no farther", met="plausible: overshoots on small vocabularies")(
    wrong(lambda mass, often, cap: np.ones_like(mass))
)
mutant(
    "capped-step", "by occurrences", kills="no farther", met="plausible: entries counted, not the losses they stand for"
)(wrong(lambda mass, often, cap: np.minimum(1.0, cap / often)))


@mutant("capped-step", "last write wins", kills=("descent", "any order"), met="table[rows] -= lr * values")
def last_write_wins(table: Any, rows: Any, values: Any, mass: Any, lr: float, cap: float) -> Any:
    table[rows] -= lr * values
    return table


@mutant("capped-step", "whole table", kills="strangers stay", met="plausible: decay of all rows at each batch")
def whole_table(table: Any, rows: Any, values: Any, mass: Any, lr: float, cap: float) -> Any:
    return ours(table, rows, values, mass, lr, cap) * (1 - 1e-6)


# AdaGrad

kind(
    "adagrad",
    "adagrad(table, squares, rows, values, lr)",
    "A table (V, d), its sums of squares (V, d), rows (n,) with repetitions, gradients (n, d) -> both after.",
)


@subject("adagrad", "adagrad_step", code=adagrad_step, equation="eq:adagrad")
def our_adagrad(table: Any, squares: Any, rows: Any, values: Any, lr: float) -> Any:
    table, squares = table.copy(), squares.copy()
    adagrad_step(table, squares, rows, values, lr)
    return table, squares


def learnt(r: Numbers, *, size: int, n: int, d: int) -> Case:
    """A table in training."""
    return {
        "table": r.normal(size, d),
        "squares": 1.0 + r.uniform(0, 3, size, d),
        "rows": r.integers(0, size, n),
        "values": r.normal(n, d),
        "lr": 0.25,
    }


LEARNT = cases(learnt, **CHOICES)


@law("adagrad", "definition", serves="eq:adagrad", cases=LEARNT)
def adagrad_definition(f: F, c: Case, measure: Measure) -> None:
    """Squares of all gradients of a row are added, and its step is lr times the sum of them over the root of that."""
    total, squares = np.zeros_like(c["table"]), c["squares"].copy()
    np.add.at(total, c["rows"], c["values"])
    np.add.at(squares, c["rows"], c["values"] ** 2)
    after = f(*[x.copy() if isinstance(x, np.ndarray) else x for x in c.values()])
    slack = bound(1 + largest(c["table"], squares, total), c["rows"].size)
    measure.close(after[0], c["table"] - c["lr"] * total / np.sqrt(squares), slack, "the table")
    measure.close(after[1], squares, slack, "the squares")


@law("adagrad", "bounded", serves="eq:adagrad", cases=LEARNT)
def bounded(f: F, c: Case, measure: Measure) -> None:
    """However large the gradients, n of them move a number by at most lr times the root of n."""
    large = 1e6 * c["values"]
    after = f(c["table"].copy(), c["squares"].copy(), c["rows"], large, c["lr"])[0]
    often = np.bincount(c["rows"], minlength=len(c["table"]))
    most = c["lr"] * np.sqrt(often)[:, None] * (1 + 1e-9) + bound(largest(c["table"]))
    measure.holds(np.all(np.abs(after - c["table"]) <= most), f"a step of {np.abs(after - c['table']).max()}")


@mutant("adagrad", "square of the sum", kills="definition", met="plausible: the summed gradient of a row squared")
def square_of_the_sum(table: Any, squares: Any, rows: Any, values: Any, lr: float) -> Any:
    total = np.zeros_like(table)
    np.add.at(total, rows, values)
    return table - lr * total / np.sqrt(squares + total**2), squares + total**2


@mutant("adagrad", "squares of before", kills="bounded", met="GloVe's program: the step first, the squares afterwards")
def squares_of_before(table: Any, squares: Any, rows: Any, values: Any, lr: float) -> Any:
    _, after = our_adagrad(table, squares, rows, values, lr)
    total = np.zeros_like(table)
    np.add.at(total, rows, values)
    return table - lr * total / np.sqrt(squares), after


@mutant("adagrad", "no root", kills=("definition",), met="plausible: divided by the squares")
def no_root(table: Any, squares: Any, rows: Any, values: Any, lr: float) -> Any:
    _, after = our_adagrad(table, squares, rows, values, lr)
    total = np.zeros_like(table)
    np.add.at(total, rows, values)
    return table - lr * total / after, after
