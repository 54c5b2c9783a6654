"""Mutants of the generated recall tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.recall import CopyText, Induction, Mqar, RecallTask, SelectiveCopy, recall_task
from minilong.data.vocabulary import FIRST
from minilong.keys import Key


class Wrong:
    """A task of ours with changed batches. change: of (inputs, targets), both its own to write to."""

    def __init__(self, inner: RecallTask, change: Any) -> None:
        self.inner, self.change = inner, change

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The batch of a step, changed."""
        return self._changed(self.inner.batch(step, size, key))

    def sequential(self, size: int) -> Any:
        """The held-out batches, changed."""
        return map(self._changed, self.inner.sequential(size))

    def _changed(self, batch: LanguageBatch) -> LanguageBatch:
        return LanguageBatch(*self.change(batch.inputs.copy(), batch.targets.copy()))


def wrong(change: Any) -> F:
    """Our tasks with a mistake in their rows."""
    return lambda *arguments: Wrong(recall_task(*arguments), change)


@mutant(
    "recall", "labels one place late", kills="answers", met="plausible: targets shifted, and shifted again by the loss"
)
def late(*arguments: Any) -> Any:
    """Targets moved to the right by one."""
    return Wrong(recall_task(*arguments), lambda x, y: (x, np.roll(y, 1, axis=1)))


def leak(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place behind a question holds its answer."""
    rows, at = np.nonzero(y[:, :-1] != IGNORE)
    x[rows, at + 1] = y[rows, at]
    return x, y


def shown(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The question is replaced by the answer."""
    return np.where(y != IGNORE, y, x), y


def everything(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every next token is a target."""
    return x, np.where(y == IGNORE, np.roll(x, -1, axis=1), y)


def alike(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row in place of all."""
    return x[:1].repeat(len(x), 0), y[:1].repeat(len(y), 0)


mutant("recall", "the answer stands in the input", kills="inputs",
       met="plausible: inputs and targets cut from different ends of one row")(wrong(shown))  # fmt: skip
mutant("recall", "the answer follows its question", kills="inputs",
       met="plausible: the row is written as a stream of keys and values")(wrong(leak))  # fmt: skip
mutant("recall", "all tokens are targets", kills="answers",
       met="plausible: labels left as the shifted inputs; the loss is then mostly that of random tokens")(
    wrong(everything)
)  # fmt: skip
mutant("recall", "the same puzzle in every row", kills="all-different",
       met="RULER: one fixed seed shuffles the needles identically in every sample")(wrong(alike))  # fmt: skip


def same(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as they are."""
    return x, y


class Seeded(Wrong):
    """Every step draws from the same seed."""

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The batch of step 0 under one key."""
        return self.inner.batch(0, size, Key.of(42))


mutant("recall", "the seed is set in every call", kills="all-different",
       met="RULER: random.seed(42) inside the generator; every call gives the same rows")(
    lambda *arguments: Seeded(recall_task(*arguments), same)
)  # fmt: skip


class Stateful(Wrong):
    """Batches by how often one was asked for."""

    asked = 0

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The next batch."""
        self.asked += 1
        return self.inner.batch(self.asked, size, key)


mutant("recall", "the generator has a state", kills="pure",
       met="Zoology and most generators: a data set drawn once from a global generator")(
    lambda *arguments: Stateful(recall_task(*arguments), same)
)  # fmt: skip


class NotHeldOut(Wrong):
    """Held-out rows drawn as training rows are."""

    def sequential(self, size: int) -> Any:
        """Training rows under another key."""
        yield self.inner.batch(0, 4 * size, Key.of(1).fold("held out"))


mutant("recall", "held-out rows are drawn as the others", kills="held-out",
       met="most synthetic benchmarks: another seed only; with few pairs and keys, rows repeat")(
    lambda *arguments: NotHeldOut(recall_task(*arguments), same)
)  # fmt: skip


@mutant("recall", "equally likely gaps", kills="gaps", met="plausible: the power law is left out; the task gets harder")
def uniform_gaps(name: str, context: int, items: int, symbols: int) -> RecallTask:
    """Exponent 0."""
    return Mqar(context, items, symbols, 1.0) if name == "mqar" else recall_task(name, context, items, symbols)


@mutant("recall", "the exponent is a", kills="gaps", met="plausible: g^a for the density a g^(a - 1), nearly uniform")
def exponent(name: str, context: int, items: int, symbols: int) -> RecallTask:
    """g^0.01."""
    return Mqar(context, items, symbols, 1.01) if name == "mqar" else recall_task(name, context, items, symbols)


class Early(Induction):
    """The mark stands in the first half."""

    def rows(self, count: int, key: Key, *, held_out: bool) -> Any:
        """Rows whose mark is moved, with its successor, to the front if it is late."""
        x, y = super().rows(count, key, held_out=held_out)
        at = np.argmax(x == FIRST, axis=1)
        for row, place in zip(x, at, strict=True):
            if place > len(row) // 2:
                row[:-1] = np.roll(row[:-1], -place)
        return x, y


class Bunched(SelectiveCopy):
    """The symbols stand side by side in front of the mark."""

    def rows(self, count: int, key: Key, *, held_out: bool) -> Any:
        """Rows whose filler comes first."""
        x, y = super().rows(count, key, held_out=held_out)
        body = self.context - self.items
        order = np.argsort(x[:, :body] != FIRST, axis=1, kind="stable")
        x[:, :body] = np.take_along_axis(x[:, :body], order, axis=1)
        return x, y


@mutant(
    "recall", "places that favour the front", kills="places", met="plausible: a random place, modulo half of the row"
)
def favoured(name: str, context: int, items: int, symbols: int) -> RecallTask:
    """Marks in front, symbols at the end."""
    if name == "induction":
        return Early(context, symbols)
    return Bunched(context, items, symbols) if name == "selective-copy" else CopyText(context, context // 2, symbols)
