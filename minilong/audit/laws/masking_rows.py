"""Laws of masked rows in batches: each row once an epoch; static masks stay, dynamic ones change; batches are pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.data.masking import MaskedRows, Row
from minilong.data.vocabulary import BOS, FIRST, PAD, SEPARATOR
from minilong.keys import Key

kind("masked-rows", "rows(rows, masks)", "Rows in masked batches: `batch(step, size, key)`, `sequential(size)`.")

MASK = 10_000


def ours(rows: Any, masks: int | None) -> Any:
    """Our rows, from lists of ids."""
    return MaskedRows([Row(np.asarray(ids, np.int32)) for ids in rows], mask=MASK, last=MASK, masks=masks)


subject("masked-rows", "MaskedRows", code=MaskedRows, equation="claim:static-dynamic")(ours)


def table(n: Numbers, *, count: int, size: int, masks: int) -> dict[str, Any]:
    """Rows of 8 to 15 tokens, of which each begins with a token that no other row has. masks 0: new ones."""
    rows = [
        np.array([BOS, FIRST + i, *n.integers(50, 90, int(n.integers(7, 15))), SEPARATOR], np.int32)
        for i in range(count)
    ]
    return {"rows": rows, "size": size, "masks": masks or None, "seed": int(n.integers(0, 2**31))}


TABLES = cases(table, count=(3, 1, 5, 8), size=(1, 2, 3, 5), masks=(1, 0, 2, 3))
STATIC = cases(table, count=(8, 12), size=(1, 3), masks=(1, 2, 3))
DYNAMIC = cases(table, count=(8, 12), size=(1, 3), masks=(0,))


def seen(batch: MaskedBatch) -> dict[int, tuple[list[int], list[int]]]:
    """Inputs and targets of each row of a batch, by its own first token, which may be masked."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for inputs, targets, length in zip(batch.inputs, batch.targets, batch.lengths, strict=True):
        whole = np.where(targets == IGNORE, inputs, targets)
        found[int(whole[1])] = (inputs[:length].tolist(), targets[:length].tolist())
    return found


def epoch_of(data: Any, c: Case, epoch: int) -> dict[int, tuple[list[int], list[int]]]:
    """All rows of an epoch, one at a time."""
    n = len(c["rows"])
    found: dict[int, tuple[list[int], list[int]]] = {}
    for place in range(n):
        found |= seen(data.batch(epoch * n + place, 1, Key.of(c["seed"])))
    return found


@law("masked-rows", "each-row-once", serves="claim:static-dynamic", cases=TABLES)
def each_row_once(f: F, c: Case, measure: Measure) -> None:
    """In an epoch, and in order, each row comes once, whole; what is behind its end is padding without targets."""
    data, n = f(c["rows"], c["masks"]), len(c["rows"])
    batches = [data.batch(step, 1, Key.of(c["seed"])) for step in range(n)], list(data.sequential(c["size"]))
    for some in batches:
        restored = []
        for batch in some:
            whole = np.where(batch.targets == IGNORE, batch.inputs, batch.targets)
            restored += [row[:length].tolist() for row, length in zip(whole, batch.lengths, strict=True)]
            behind = np.arange(whole.shape[1]) >= batch.lengths[:, None]
            measure.holds(np.all(whole[behind] == PAD), f"behind a row's end is {whole[behind].tolist()}")
        rows = [row.tolist() for row in c["rows"]]
        measure.holds(sorted(restored) == sorted(rows), f"the rows are {restored}, and not {rows}")


@law("masked-rows", "pure", serves="claim:batches-pure", cases=TABLES)
def pure(f: F, c: Case, measure: Measure) -> None:
    """The batch of a step follows from the key and the step: asked for in another order, it is the same."""
    key, first, second = Key.of(c["seed"]), f(c["rows"], c["masks"]), f(c["rows"], c["masks"])
    forwards = [first.batch(step, c["size"], key) for step in range(4)]
    backwards = [second.batch(step, c["size"], key) for step in reversed(range(4))][::-1]
    for step, (a, b) in enumerate(zip(forwards, backwards, strict=True)):
        measure.close(b.inputs, a.inputs, 0.0, f"asked for backwards, the batch of step {step}")


@law("masked-rows", "company", serves="claim:static-dynamic", cases=STATIC)
def company(f: F, c: Case, measure: Measure) -> None:
    """A row's mask does not depend on the rows beside it in the batch."""
    data, n = f(c["rows"], c["masks"]), len(c["rows"])
    alone, together = epoch_of(data, c, 0), seen(data.batch(0, n, Key.of(c["seed"])))
    measure.holds(together == alone, "a row in company has another mask than alone")


@law("masked-rows", "static", serves="claim:static-dynamic", cases=STATIC)
def static(f: F, c: Case, measure: Measure) -> None:
    """With m masks a row, an epoch asks for what it asked m epochs before; and for other tokens than one before."""
    data, m = f(c["rows"], c["masks"]), c["masks"]
    epochs = [epoch_of(data, c, epoch) for epoch in range(m + 1)]
    measure.holds(epochs[m] == epochs[0], f"after {m} epochs the masks are others")
    for before, after in pairwise(epochs[:m]):
        measure.holds(before != after, f"of {m} masks two are the same")


@law("masked-rows", "dynamic", serves="claim:static-dynamic", cases=DYNAMIC)
def dynamic(f: F, c: Case, measure: Measure) -> None:
    """With new masks, no two of four epochs mask all rows alike, and not even half of them."""
    data = f(c["rows"], None)
    epochs = [epoch_of(data, c, epoch) for epoch in range(4)]
    for a in range(4):
        for b in range(a):
            same = sum(epochs[a].get(row) == masked for row, masked in epochs[b].items())
            measure.holds(same <= len(c["rows"]) / 2, f"epochs {b} and {a} mask {same} rows alike")


@law("masked-rows", "shards", serves="eq:masked-loss", cases=TABLES)
def shards(f: F, c: Case, measure: Measure) -> None:
    """The shares of a batch, one after another, are the batch, and their targets add up."""
    batch = f(c["rows"], c["masks"]).batch(0, c["size"], Key.of(c["seed"]))
    for n in (1, 2, 3):
        parts = batch.shards(n)
        for name in ("inputs", "targets", "lengths"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            measure.close(joined, getattr(batch, name), 0.0, f"{name} of {n} shares")
        measure.holds(sum(part.tokens for part in parts) == batch.tokens, f"{n} shares have other targets")


# Mutants


class Wrong:
    """Our rows with a mistake: `change(rows, step, size, key)` gives the batch."""

    def __init__(self, inner: MaskedRows, change: Any) -> None:
        self.inner, self.change, self.asked = inner, change, 0

    def batch(self, step: int, size: int, key: Key) -> MaskedBatch:
        """The batch of a step, changed."""
        found: MaskedBatch = self.change(self, step, size, key)
        return found

    def sequential(self, size: int) -> Any:
        """As ours."""
        return self.inner.sequential(size)


def wrong(change: Any) -> F:
    """Our rows with a mistake."""
    return lambda rows, masks: Wrong(ours(rows, masks), change)


def renewed(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """New masks in every epoch, whatever was asked for."""
    return MaskedRows(self.inner.rows, mask=MASK, last=MASK, masks=None).batch(step, size, key)


def fixed(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """One mask for each row."""
    return MaskedRows(self.inner.rows, mask=MASK, last=MASK, masks=1).batch(step, size, key)


def by_step(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """Rows in order with masks that count how often a batch was asked for."""
    self.asked += 1
    return self.inner.batch(step, size, key.fold(self.asked))


def by_batch(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """Masks drawn for the whole batch at once, from its size."""
    order = self.inner.batch(step, size, key)
    whole = np.where(order.targets == IGNORE, order.inputs, order.targets)
    rows = [Row(row[:length]) for row, length in zip(whole, order.lengths, strict=True)]
    return next(MaskedRows(rows, mask=MASK, last=MASK).sequential(size))


def with_replacement(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """Rows drawn anew at every step."""
    return self.inner.batch(0, size, key.fold(step))


def padded_targets(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """A row is a token longer than it is."""
    batch = self.inner.batch(step, size, key)
    return replace(batch, lengths=batch.lengths - 1)


class OneShard(MaskedBatch):
    """A batch whose shares lose the rows that do not divide evenly."""

    def shards(self, n: int) -> list[MaskedBatch]:
        size = max(1, len(self.inputs) // n)
        return [
            MaskedBatch(self.inputs[i : i + size], self.targets[i : i + size], self.lengths[i : i + size])
            for i in range(0, size * min(n, len(self.inputs)), size)
        ]


def uneven(self: Wrong, step: int, size: int, key: Key) -> MaskedBatch:
    """Our batch, with shares that lose rows."""
    batch = self.inner.batch(step, size, key)
    return OneShard(batch.inputs, batch.targets, batch.lengths)


mutant(
    "masked-rows", "masks renewed in every epoch", kills="static", met="plausible: BERT's recipe by a dynamic collator"
)(wrong(renewed))
mutant("masked-rows", "masks made once", kills="dynamic", met="BERT's recipe where RoBERTa's is asked for")(
    wrong(fixed)
)
mutant("masked-rows", "masks with a state", kills=("pure",), met="plausible: a collator with a generator of its own")(
    wrong(by_step)
)
mutant("masked-rows", "masks by place in the batch", kills="company", met="plausible: one draw of the batch's shape")(
    wrong(by_batch)
)
mutant("masked-rows", "rows with replacement", kills="each-row-once", met="plausible: random rows at each step")(
    wrong(with_replacement)
)
mutant(
    "masked-rows", "lengths without the separator", kills="each-row-once", met="plausible: lengths counted before it"
)(wrong(padded_targets))
mutant("masked-rows", "shares of even size", kills="shards", met="plausible: rows // n in each share")(wrong(uneven))
