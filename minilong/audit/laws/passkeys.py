"""Laws of the passkey task: the number can be read off the row, at the depth asked for, in every row another one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE
from minilong.data.passkey import Passkey
from minilong.data.tokenizers import ByteTokenizer
from minilong.data.vocabulary import Ids
from minilong.errors import UserError
from minilong.keys import Key

kind(
    "passkey",
    "passkey(text, held_out, room, items, digits)",
    "Passkeys in texts of bytes, `room` tokens above the least.",
)

BYTES = ByteTokenizer()
HIDDEN = re.compile(r" The passkey for (\w+) is (\d+)\. ")
ASKED = re.compile(r"\nWhat is the passkey for (\w+)\? (\d*)$")
SIGMAS = 6


def ours(text: str, held_out: str, room: int, items: int, digits: int, make: Any = Passkey) -> Any:
    """Our task over bytes."""
    ids = BYTES.encode(text), BYTES.encode(held_out)
    task = make(10_000, codec=BYTES, text=ids[0], held_out_text=ids[1], items=items, digits=digits)
    return replace(task, context=task.least + room)


subject("passkey", "Passkey", code=Passkey, equation="eq:passkey")(ours)


def texts(n: Numbers, *, room: int, items: int, digits: int) -> dict[str, Any]:
    """Two texts of different letters without digits, in which every stretch of eight letters tells its place."""
    long = 4 * room + 200
    low, high = ("".join(map(chr, n.integers(first, first + 13, long))) for first in (97, 110))
    return {
        "text": low,
        "held_out": high,
        "room": room,
        "items": items,
        "digits": digits,
        "seed": int(n.integers(0, 2**31)),
    }


TEXTS = cases(texts, room=(30, 0, 1, 61), items=(1, 2, 5), digits=(3, 1, 5))
WIDE = cases(texts, room=(40, 90), items=(1, 3), digits=(5, 6))


def made(f: F, c: Case) -> Any:
    """The task of a case."""
    return f(c["text"], c["held_out"], c["room"], c["items"], c["digits"])


def read(row: Ids) -> str:
    """The text of a row."""
    return BYTES.decode(row)


@law("passkey", "answers", serves="eq:passkey", cases=TEXTS)
def answers(f: F, c: Case, measure: Measure) -> None:
    """The only targets are the digits of the number that the row gives to the name in its question. Each number is
    hidden once, under a name of its own, and the answer's digits follow the question as inputs, all but the last."""
    task = made(f, c)
    for batch in (task.batch(1, 1, Key.of(c["seed"])), task.batch(1, 3, Key.of(c["seed"])), *task.sequential(2, 2)):
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
            measure.holds(inputs.min() >= 0, f"the inputs {inputs.tolist()} are no tokens")
            text, told = read(inputs), read(targets[targets != IGNORE])
            hidden, question = dict(HIDDEN.findall(text)), ASKED.search(text)
            measure.holds(len(HIDDEN.findall(text)) == len(hidden) == c["items"], f"{text!r} hides {hidden}")
            measure.holds(question is not None and question[1] in hidden, f"{text!r} asks for none of {hidden}")
            if question is not None:
                right = hidden[question[1]]
                measure.holds(told == right and len(right) == c["digits"], f"{text!r} has the answer {told!r}")
                measure.holds(question[2] == right[:-1], f"{text!r} gives {question[2]!r} of the answer away")
            last = np.flatnonzero(targets != IGNORE)
            measure.holds(last[-1] == len(targets) - 1 and np.ptp(last) == c["digits"] - 1, f"targets are at {last}")


@law("passkey", "depth", serves="eq:passkey", cases=TEXTS)
def depth(f: F, c: Case, measure: Measure) -> None:
    """Behind a share of depth of the text, to the nearest token, stands the number asked for; without what was put in,
    the row is one stretch of the held-out text."""
    task = made(f, c)
    for share in (0.0, 0.25, 0.5, 1.0):
        for inputs in task.at_depth(share, 2, 2)[0].inputs:
            text = read(inputs)
            question = ASKED.search(text)
            name = question[1] if question else ""
            plain = HIDDEN.sub("", ASKED.sub("", text))
            measure.holds(plain in c["held_out"], f"{plain!r} is no stretch of the text")
            before = HIDDEN.sub("", text.partition(f" The passkey for {name} is ")[0])
            far = abs(len(before) - share * len(plain))
            measure.holds(far <= 0.5, f"at depth {share} of {len(plain)} the number stands behind {len(before)}")


@law("passkey", "held-out", serves=("eq:passkey", "claim:held-out"), cases=TEXTS)
def held_out(f: F, c: Case, measure: Measure) -> None:
    """Training rows are stretches of the training text, held-out rows of the held-out text."""
    task = made(f, c)
    for batch, source in (
        (task.batch(0, 3, Key.of(c["seed"])), "text"),
        (next(iter(task.sequential(3, 3))), "held_out"),
    ):
        for inputs in batch.inputs:
            plain = HIDDEN.sub("", ASKED.sub("", read(inputs)))
            measure.holds(plain in c[source], f"{plain!r} is no stretch of the {source}")


@law("passkey", "all-different", serves="claim:held-out", cases=WIDE, share=0.3)
def all_different(f: F, c: Case, measure: Measure) -> None:
    """Rows differ in number, name, depth and text: in a batch, and from step to step."""
    task = made(f, c)
    rows = [read(row) for step in (0, 1) for row in task.batch(step, 12, Key.of(c["seed"])).inputs]
    found = [(ASKED.search(row), HIDDEN.findall(row)) for row in rows]
    numbers = [dict(hidden)[asked[1]] for asked, hidden in found if asked]
    measure.holds(len(set(numbers)) > len(rows) // 2, f"the numbers are {numbers}")
    measure.holds(len({asked[1] for asked, _ in found if asked}) > 3, "of 24 rows at most 3 ask for different names")
    places = [
        row.index(f" The passkey for {asked[1]} is ") for row, (asked, _) in zip(rows, found, strict=True) if asked
    ]
    measure.holds(len(set(places)) > len(rows) // 3, f"the numbers stand at {places}")
    starts = {HIDDEN.sub("", row)[:8] for row in rows}
    measure.holds(len(starts) > len(rows) // 2, f"of {len(rows)} rows {len(starts)} begin differently")


@law("passkey", "uniform-depth", serves="eq:passkey", cases=WIDE, share=0.05)
def uniform_depth(f: F, c: Case, measure: Measure) -> None:
    """In training every tenth of the text is equally often where the number stands."""
    count, task = 1500, made(f, c)
    shares = []
    for row in map(read, task.batch(0, count, Key.of(c["seed"])).inputs):
        asked = ASKED.search(row)
        before = HIDDEN.sub("", row.partition(f" The passkey for {asked[1] if asked else ''} is ")[0])
        shares.append(len(before) / len(HIDDEN.sub("", ASKED.sub("", row))))
    for tenth, found in enumerate(np.histogram(shares, bins=10, range=(0, 1))[0]):
        # The places are whole numbers, so that a tenth may hold one more or less of them than its share.
        far = abs(found - count / 10) - count / (c["room"] + 1)
        measure.holds(far <= SIGMAS * np.sqrt(count * 0.09), f"tenth {tenth} has {found} of {count} numbers")


@law(
    "passkey", "smallest", serves="eq:passkey", cases=cases(texts, room=(0,), items=(1, 2, 5), digits=(1, 5)), share=0.5
)
def smallest(f: F, c: Case, measure: Measure) -> None:
    """In the smallest context every row can be made at once; in one that is smaller by one the task is refused."""
    task = made(f, c)
    try:
        count = len(task.batch(0, 20, Key.of(c["seed"])).inputs)
    except RuntimeError as error:
        count = 0
        measure.holds(False, f"in the smallest context: {error}")
    measure.holds(count == 20, f"of 20 rows {count} came out")
    refused = False
    try:
        replace(task, context=task.context - 1)
    except UserError:
        refused = True
    measure.holds(refused, f"a context of {task.context - 1} has no room, and is taken")


# Mutants


class FixedSeed(Passkey):
    """All rows draw from one seed."""

    def _row(self, numbers: np.random.Generator, text: Ids, depth: float | None) -> Ids:
        return super()._row(np.random.default_rng(42), text, depth)


class FixedNumber(Passkey):
    """The sentences are made once, and only the text around them changes."""

    def _row(self, numbers: np.random.Generator, text: Ids, depth: float | None) -> Ids:
        where = round(float(numbers.random()), 3) if depth is None else depth
        start = int(numbers.integers(len(text) - self.context))
        return super()._row(np.random.default_rng(42), text[start : start + self.context], where)


class Retried(Passkey):
    """Places are drawn over the whole context, again until they fit."""

    def _row(self, numbers: np.random.Generator, text: Ids, depth: float | None) -> Ids:
        room = self.context - self.least
        for _ in range(100):  # the original has no end
            if int(numbers.integers(self.context)) < room:
                return super()._row(numbers, text, depth)
        raise RuntimeError("after 100 draws still no place that fits")


class Late(Passkey):
    """The labels begin with the space before the number."""

    def _rows(self, count: int, key: Key, text: Ids, depth: float | None) -> tuple[Ids, Ids]:
        x, y = super()._rows(count, key, text, depth)
        return x, np.where(np.roll(y, -1, axis=1) == IGNORE, IGNORE, np.roll(x, -1, axis=1))


class Told(Passkey):
    """The whole answer is among the inputs."""

    def _rows(self, count: int, key: Key, text: Ids, depth: float | None) -> tuple[Ids, Ids]:
        x, y = super()._rows(count, key, text, depth)
        return np.concatenate([x[:, 1:], y[:, -1:]], axis=1), y


class Shared(Passkey):
    """The targets of a single row are a view of what its inputs view."""

    def _rows(self, count: int, key: Key, text: Ids, depth: float | None) -> tuple[Ids, Ids]:
        whole = replace(self, whole=True)
        x, y = super(Shared, whole)._rows(count, key, text, depth)
        rows = np.concatenate([x, y[:, -1:]], axis=1)
        inputs, targets = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
        targets[:, : -self.digits] = IGNORE
        return inputs, targets


class Upside(Passkey):
    """Depth counted from the question."""

    def _rows(self, count: int, key: Key, text: Ids, depth: float | None) -> tuple[Ids, Ids]:
        return super()._rows(count, key, text, None if depth is None else 1 - depth)


class OneText(Passkey):
    """Held-out rows from the training text."""

    def rows(self, count: int, key: Key, *, held_out: bool) -> tuple[Ids, Ids]:
        """Rows from the training text."""
        return super().rows(count, key, held_out=False)


class Front(Passkey):
    """Depth is drawn twice, and the smaller one taken."""

    def _row(self, numbers: np.random.Generator, text: Ids, depth: float | None) -> Ids:
        return super()._row(numbers, text, float(min(numbers.random(2))) if depth is None else depth)


def mistaken(make: type[Passkey]) -> F:
    """The task with a mistake."""

    def made_wrong(text: str, held_out: str, room: int, items: int, digits: int) -> Any:
        return ours(text, held_out, room, items, digits, make)

    return made_wrong


for make, name, kills, met in (
    (FixedSeed, "every row from one seed", "all-different",
     "RULER: a fixed seed shuffles the needles identically in every sample"),
    (FixedNumber, "the same number in every row", "all-different", "RULER: as above, with another essay around it"),
    (Retried, "drawn again until it fits", "smallest",
     "RULER: the retry loop spins for ever at the smallest size (scitix/sieval, pull request 11)"),
    (Late, "labels one place early", "answers", "plausible: targets shifted once more"),
    (Told, "the answer among the inputs", "answers", "plausible: the row cut one token too late"),
    (Shared, "inputs and targets share memory", "answers",
     "met here: ascontiguousarray copies slices of several rows, and not of one"),
    (Upside, "depth from the end", "depth", "plausible: depth as the distance from the question"),
    (OneText, "held-out rows from the training text", "held-out", "plausible: one haystack for both"),
    (Front, "depths that favour the beginning", "uniform-depth", "plausible: sentences drawn, and then sorted"),
):  # fmt: skip
    mutant("passkey", name, kills=kills, met=met)(mistaken(make))
