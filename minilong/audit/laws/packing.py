"""Laws of packed windows: every token is a target once, one step behind the inputs, and batches are pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE, LanguageBatch, PackedWindows
from minilong.data.vocabulary import SEPARATOR
from minilong.keys import Key

kind(
    "packing",
    "windows(documents, context)",
    "Windows over token streams: `batch(step, size, key)`, `sequential(size)`.",
)


def ours(documents: Any, context: int) -> Any:
    """Our windows, with separators."""
    return PackedWindows(documents, context, separator=SEPARATOR)


subject("packing", "PackedWindows", code=PackedWindows, equation="eq:causal-loss")(ours)


def documents(n: Numbers, *, count: int, longest: int, context: int, size: int) -> dict[str, Any]:
    """Documents whose tokens tell their places: no number occurs twice."""
    lengths = n.integers(1, longest + 1, count)
    lengths[0] += context + 1
    tokens = np.split(np.arange(int(lengths.sum())) + 10, np.cumsum(lengths)[:-1])
    return {"documents": tokens, "context": context, "size": size, "seed": int(n.integers(0, 2**31))}


DOCUMENTS = cases(documents, count=(1, 2, 3), longest=(3, 1, 9), context=(1, 2, 3, 5), size=(1, 2, 3))


def stream(c: Case) -> np.ndarray:
    """All documents with separators between them."""
    parts = [p for d in c["documents"] for p in ([SEPARATOR], d)]
    return np.concatenate(parts[1:])


def shifted_once(measure: Measure, batch: LanguageBatch, whole: np.ndarray) -> None:
    """Counted targets are what follows their inputs in the stream."""
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        for t in np.flatnonzero(targets != IGNORE):
            places = np.flatnonzero((whole[:-1] == inputs[t]) & (whole[1:] == targets[t]))
            measure.holds(len(places), f"{targets[t]} is the target of {inputs[t]} in {whole.tolist()}")


@law("packing", "each-token-once", serves=("claim:packing", "eq:causal-loss"), cases=DOCUMENTS)
def each_token_once(f: F, c: Case, measure: Measure) -> None:
    """In order, every token of the stream but the first is a target exactly once, right behind its input."""
    whole, found = stream(c), []
    for batch in f(c["documents"], c["context"]).sequential(c["size"]):
        shifted_once(measure, batch, whole)
        found += batch.targets[batch.targets != IGNORE].tolist()
    measure.holds(sorted(found) == sorted(whole[1:].tolist()), f"the targets are {found}, the stream {whole.tolist()}")


@law("packing", "shifted-once", serves=("eq:causal-loss", "claim:code-shift", "claim:code-shift-once"), cases=DOCUMENTS)
def batches_shifted_once(f: F, c: Case, measure: Measure) -> None:
    """A training batch has whole windows, and targets are its inputs moved by one along time."""
    batch = f(c["documents"], c["context"]).batch(0, c["size"], Key.of(c["seed"]))
    measure.holds(batch.inputs.shape == batch.targets.shape == (c["size"], c["context"]), f"{batch.targets.shape}")
    measure.close(batch.targets[:, :-1], batch.inputs[:, 1:], 0.0, "a target")
    shifted_once(measure, batch, stream(c))


@law("packing", "pure", serves="claim:batches-pure", cases=DOCUMENTS)
def pure(f: F, c: Case, measure: Measure) -> None:
    """The batch of a step follows from the key and the step: asked for in another order, it is the same."""
    key, first, second = Key.of(c["seed"]), f(c["documents"], c["context"]), f(c["documents"], c["context"])
    forwards = [first.batch(step, c["size"], key).inputs for step in range(4)]
    backwards = [second.batch(step, c["size"], key).inputs for step in reversed(range(4))][::-1]
    for step, (a, b) in enumerate(zip(forwards, backwards, strict=True)):
        measure.close(b, a, 0.0, f"asked for backwards, the batch of step {step}")


@law("packing", "epochs", serves=("claim:packing", "claim:batches-pure"), cases=DOCUMENTS)
def epochs(f: F, c: Case, measure: Measure) -> None:
    """In an epoch windows do not overlap and each comes once; the number of windows left out is less than two."""
    windows = f(c["documents"], c["context"])
    whole, key = stream(c), Key.of(c["seed"])
    rows = np.concatenate([windows.batch(step, 1, key).inputs for step in range(windows.windows)])
    unique = [int(i) for i in rows.ravel() if i != SEPARATOR]
    measure.holds(len(set(unique)) == len(unique), f"an epoch has the inputs {rows.tolist()}")
    measure.holds(len(whole) - 1 - rows.size < 2 * c["context"], f"{rows.size} of {len(whole)} tokens are visited")


@law("packing", "segments", serves=("claim:packing", "eq:mask"), cases=DOCUMENTS)
def segments(f: F, c: Case, measure: Measure) -> None:
    """A new segment begins at each separator, and nowhere else."""
    for batch in f(c["documents"], c["context"]).sequential(c["size"]):
        given = np.zeros_like(batch.inputs) if batch.segments is None else batch.segments
        counted = np.where(batch.targets != IGNORE, batch.inputs == SEPARATOR, False)
        inside = batch.targets[:, 1:] != IGNORE
        measure.close(np.diff(given, axis=1)[inside] != 0, counted[:, 1:][inside], 0.0, "where a segment begins")


# Mutants


class Wrong:
    """Our windows, each batch changed by a function."""

    def __init__(self, inner: PackedWindows, change: Any) -> None:
        self.inner, self.change, self.windows, self.asked = inner, change, inner.windows, 0

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """The batch of a step, changed."""
        found: LanguageBatch = self.change(self, self.inner.batch(step, size, key), step, size, key)
        return found

    def sequential(self, size: int) -> Any:
        """The batches in order, changed."""
        for batch in self.inner.sequential(size):
            yield self.change(self, batch, 0, size, None)


def wrong(change: Any) -> F:
    """Our windows with a mistake."""
    return lambda documents, context: Wrong(ours(documents, context), change)


def twice(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """Targets moved once more, the last ignored."""
    moved = np.concatenate([b.targets[:, 1:], np.full((len(b.targets), 1), IGNORE, np.int32)], axis=1)
    return replace(b, targets=moved)


def along_batch(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """Targets are the inputs of the next rows."""
    return replace(b, targets=b.inputs[1:])


def stateful(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """The step is how often a batch was asked for."""
    if key is None:
        return b
    self.asked += 1
    return self.inner.batch(self.asked - 1, size, key)


def with_replacement(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """Windows from random places."""
    return b if key is None else self.inner.batch(0, size, key.fold(step))


def one_segment(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """No segments."""
    return replace(b, segments=None)


def last_dropped(self: Wrong, b: LanguageBatch, step: int, size: int, key: Any) -> LanguageBatch:
    """Each window's last target does not count."""
    targets = b.targets.copy()
    targets[:, -1] = IGNORE
    return replace(b, targets=targets)


mutant(
    "packing",
    "shifted twice",
    kills=("shifted-once", "each-token-once"),
    met="the article's 5.2, where targets are cut and the model shifts its labels again",
)(wrong(twice))
mutant(
    "packing",
    "targets along the batch axis",
    kills=("shifted-once",),
    met="the article's 5.2: `input_ids[1:]` cuts the batch axis",
)(wrong(along_batch))
mutant(
    "packing",
    "the order has a state",
    kills="pure",
    met="plausible: a shuffling loader; after a resume it starts from the beginning",
)(wrong(stateful))
mutant(
    "packing",
    "windows drawn with replacement",
    kills="epochs",
    met="nanoGPT's get_batch: random places at each step; legitimate, and no epoch",
)(wrong(with_replacement))
mutant(
    "packing",
    "documents see one another",
    kills="segments",
    met="plausible: packing without segments, which most trainers do silently",
)(wrong(one_segment))
mutant("packing", "the last target of a window is lost", kills="each-token-once",
       met="plausible: windows of `context` tokens cut into inputs and targets, so that each loses one")(
    wrong(last_dropped))  # fmt: skip
