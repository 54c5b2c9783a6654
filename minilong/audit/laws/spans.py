"""Laws of span corruption: the text comes back, sentinels are in order, and as much is lost as was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE, PackedWindows
from minilong.data.spans import SpanWindows, corrupt, draw_spans, restore, span_counts
from minilong.data.vocabulary import BOS, EOS, FIRST
from minilong.keys import Key

kind("span-corruption", "corrupt(tokens, lost, first)", "tokens and booleans (n,), first sentinel -> source, target.")
kind("span-restoration", "restore(source, target, first)", "A source and a target -> the tokens.")
kind("span-draw", "draw(n, seed, density, mean)", "Which of n tokens are lost: booleans (n,).")
kind("span-windows", "windows(documents, context, sentinels)", "Pairs: `batch(step, size, key)`, `sequential(size)`.")

MARK = 1000
SIGMAS = 6

subject("span-corruption", "corrupt", code=corrupt, equation="eq:span-corruption")(corrupt)
subject("span-restoration", "restore", code=restore, equation="eq:span-corruption")(restore)


def our_draw(n: int, seed: int, density: float, mean: float) -> Any:
    """Ours, by the key of a seed."""
    return draw_spans(n, Key.of(seed), density=density, mean=mean)


subject("span-draw", "draw_spans", code=draw_spans, equation="eq:span-counts")(our_draw)


def our_windows(documents: Any, context: int, sentinels: int) -> Any:
    """Ours, over one stream."""
    return SpanWindows(PackedWindows(documents, context, separator=3, partial=True), first=MARK, sentinels=sentinels)


subject("span-windows", "SpanWindows", code=SpanWindows, equation="eq:span-corruption")(our_windows)


def losses(n: Numbers, *, length: int, share: float) -> dict[str, Any]:
    """Tokens, some of them the same, and places that are lost."""
    return {"tokens": n.integers(FIRST, FIRST + 9, length).astype(np.int32), "lost": n.chance(share, length)}


LOSSES = cases(losses, length=(4, 1, 2, 9, 30), share=(0.5, 0.0, 0.15, 0.9, 1.0))


def cut(f: F, c: Case) -> tuple[np.ndarray, np.ndarray]:
    """Source and target."""
    source, target = f(c["tokens"], c["lost"], MARK)
    return np.asarray(source), np.asarray(target)


def put_back(source: Any, target: Any) -> list[int]:
    """The text of a source and a target, read token by token."""
    spans: dict[int, list[int]] = {}
    at: list[int] = []
    for token in target:
        if token >= MARK:
            at = spans.setdefault(int(token), [])
        else:
            at.append(int(token))
    return [t for token in source for t in (spans.get(int(token), []) if token >= MARK else [int(token)])]


@law("span-corruption", "invertible", serves="eq:span-corruption", cases=LOSSES)
def invertible(f: F, c: Case, measure: Measure) -> None:
    """Source and target together give the text back."""
    source, target = cut(f, c)
    measure.holds(put_back(source, target) == c["tokens"].tolist(), f"{source.tolist()} and {target.tolist()}")


@law("span-corruption", "sentinels", serves="eq:span-corruption", cases=LOSSES)
def sentinels(f: F, c: Case, measure: Measure) -> None:
    """Sentinels count up from the first, each once in the source and once in the target, before what it stands for."""
    source, target = cut(f, c)
    begins = int(np.sum(c["lost"] & ~np.concatenate([[False], c["lost"][:-1]])))
    wanted = np.arange(MARK, MARK + begins)
    measure.close(source[source >= MARK], wanted, 0.0, "the sentinels of the source")
    measure.close(target[target >= MARK], wanted, 0.0, "the sentinels of the target")
    measure.holds(not target.size or target[0] == MARK, f"the target begins with {target[:1].tolist()}")


@law("span-corruption", "shares", serves="eq:span-corruption", cases=LOSSES)
def parts(f: F, c: Case, measure: Measure) -> None:
    """The source keeps the tokens that are not lost, the target those that are, in their order."""
    source, target = cut(f, c)
    measure.close(source[source < MARK], c["tokens"][~c["lost"]], 0.0, "what the source keeps")
    measure.close(target[target < MARK], c["tokens"][c["lost"]], 0.0, "what the target tells")


@law("span-restoration", "inverse", serves="eq:span-corruption", cases=LOSSES)
def inverse(f: F, c: Case, measure: Measure) -> None:
    """It undoes the corruption, in whatever order the target tells its spans; a sentinel that the target lacks stands
    for nothing, one too many is not read."""
    source, target = corrupt(c["tokens"], c["lost"], MARK)
    measure.close(np.asarray(f(source, target, MARK)), c["tokens"], 0.0, "the restored text")
    spans = np.split(target, np.flatnonzero(target >= MARK))
    turned = np.concatenate(spans[::-1])
    measure.close(np.asarray(f(source, turned, MARK)), c["tokens"], 0.0, "the text by spans from the last to the first")
    none = np.zeros(0, np.int32)
    measure.close(np.asarray(f(source, none, MARK)), c["tokens"][~c["lost"]], 0.0, "the text without its spans")
    more = np.concatenate([target, np.array([MARK + 500, 7], np.int32)])
    measure.close(np.asarray(f(source, more, MARK)), c["tokens"], 0.0, "the text with a span too many")


def draws(n: Numbers, *, length: int, density: float, mean: float) -> dict[str, Any]:
    """A length, a share and a mean, and a seed."""
    return {"n": length, "density": density, "mean": mean, "seed": int(n.integers(0, 2**31))}


DRAWS = cases(draws, length=(20, 2, 3, 5, 64, 200), density=(0.15, 0.5, 0.01, 0.99), mean=(3.0, 1.0, 2.0, 8.0))
MANY = cases(draws, length=(20, 33), density=(0.15, 0.3), mean=(3.0, 2.0))


def spans_of(lost: np.ndarray) -> list[int]:
    """Lengths of the runs of lost tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]])))
    found: list[int] = (edges[1::2] - edges[::2]).tolist()
    return found


@law("span-draw", "counts", serves="eq:span-counts", cases=DRAWS)
def counts(f: F, c: Case, measure: Measure) -> None:
    """As many tokens are lost as the share says, to half a token, in as many spans as the mean length says, none next
    to another; at least one is lost, and one kept."""
    lost = np.asarray(f(c["n"], c["seed"], c["density"], c["mean"]))
    measure.holds(lost.shape == (c["n"],), f"the places have shape {lost.shape}")
    number, lengths, most = int(lost.sum()), spans_of(lost), c["n"] - 1
    right = min(max(round(c["density"] * c["n"]), 1), most)
    measure.holds(number == right, f"{number} of {c['n']} tokens are lost, and not {right}")
    wanted = min(max(round(right / c["mean"]), 1), right, c["n"] - right + 1)
    measure.holds(len(lengths) == wanted, f"they are in {len(lengths)} spans, and not in {wanted}")


@law("span-draw", "everywhere", serves="eq:span-counts", cases=MANY, share=0.1)
def everywhere(f: F, c: Case, measure: Measure) -> None:
    """A row read backwards is as likely: its first token is lost as often as its last, and each at times."""
    rows = np.stack([f(c["n"], c["seed"] + i, c["density"], c["mean"]) for i in range(600)])
    often = rows.sum(axis=0)
    far = SIGMAS * np.sqrt(2 * np.maximum(often, often[::-1]) + 1)
    measure.holds(np.all(np.abs(often - often[::-1]) <= far), f"places are lost {often.tolist()} times of 600")
    measure.holds(often.min() > 0 and often.max() < 600, f"places are lost {often.tolist()} times of 600")


@law("span-draw", "lengths", serves="eq:span-counts", cases=MANY, share=0.1)
def lengths(f: F, c: Case, measure: Measure) -> None:
    """A key gives one draw, another key another, and spans differ in length where they can."""
    args = c["n"], c["seed"], c["density"], c["mean"]
    measure.close(f(*args), f(*args), 0.0, "the spans of the same key")
    some = [np.asarray(f(c["n"], c["seed"] + i, c["density"], c["mean"])) for i in range(20)]
    measure.holds(len({row.tobytes() for row in some}) > 5, "of 20 keys at most 5 give different spans")
    number, spans = span_counts(c["n"], c["density"], c["mean"])
    if number > spans > 1:
        measure.holds(len({tuple(spans_of(row)) for row in some}) > 1, "all spans have the same lengths")


def streams(n: Numbers, *, context: int, size: int, tokens: int) -> dict[str, Any]:
    """A stream whose tokens tell their places."""
    return {
        "documents": [np.arange(FIRST, FIRST + tokens)],
        "context": context,
        "size": size,
        "seed": int(n.integers(0, 2**31)),
    }


STREAMS = cases(streams, context=(12, 2, 8, 30), size=(1, 2, 3), tokens=(70, 35, 200))


@law("span-windows", "windows", serves="eq:span-corruption", cases=STREAMS)
def windows(f: F, c: Case, measure: Measure) -> None:
    """Each pair restored is a stretch of the text as long as the context; the decoder reads a begin token and the
    target, and is to tell the target and an end."""
    batch = f(c["documents"], c["context"], 100).batch(0, c["size"], Key.of(c["seed"]))
    for source, length, inputs, targets in zip(
        batch.source, batch.source_lengths, batch.inputs, batch.targets, strict=True
    ):
        told = targets[targets != IGNORE]
        text = np.array(put_back(source[:length], told[:-1]))
        measure.holds(len(text) == c["context"] and np.all(np.diff(text) == 1), f"{text.tolist()} is no stretch")
        measure.holds(
            told[-1] == EOS and inputs[0] == BOS, f"the decoder reads {inputs.tolist()}, tells {told.tolist()}"
        )
        measure.close(inputs[1 : len(told)], told[:-1], 0.0, "what the decoder reads")


@law("span-windows", "pure", serves="claim:batches-pure", cases=STREAMS)
def pure(f: F, c: Case, measure: Measure) -> None:
    """The pairs of a step follow from the key and the step; in another step the same window loses other spans."""
    key, first, second = Key.of(c["seed"]), *(f(c["documents"], c["context"], 100) for _ in range(2))
    forwards = [first.batch(step, c["size"], key) for step in range(4)]
    backwards = [second.batch(step, c["size"], key) for step in reversed(range(4))][::-1]
    for step, (a, b) in enumerate(zip(forwards, backwards, strict=True)):
        measure.close(b.source, a.source, 0.0, f"asked for backwards, the source of step {step}")
        measure.close(b.targets, a.targets, 0.0, f"asked for backwards, the target of step {step}")


@law("span-windows", "new-spans", serves="claim:static-dynamic", cases=STREAMS)
def new_spans(f: F, c: Case, measure: Measure) -> None:
    """Among many rows, the places that are lost differ."""
    data = f(c["documents"], c["context"], 100)
    rows = [data.batch(step, 1, Key.of(c["seed"])) for step in range(24)]
    places = {tuple(np.flatnonzero(batch.source[0] >= MARK).tolist()) for batch in rows}
    measure.holds(len(places) > 1, f"24 rows lose their spans at {places}")


@law("span-windows", "held-out", serves="eq:span-corruption", cases=STREAMS)
def held_out(f: F, c: Case, measure: Measure) -> None:
    """In order, windows follow one another to the end of the text but one token, the same however often asked."""
    data = f(c["documents"], c["context"], 100)
    runs = []
    for _ in range(2):
        text: list[int] = []
        for batch in data.sequential(c["size"]):
            for source, length, targets in zip(batch.source, batch.source_lengths, batch.targets, strict=True):
                text += put_back(source[:length], targets[targets != IGNORE][:-1])
        runs.append((text, [batch.source.tolist() for batch in data.sequential(c["size"])]))
    whole = c["documents"][0].tolist()
    short = len(whole) - len(runs[0][0])
    measure.holds(runs[0][0] == whole[: len(runs[0][0])] and 0 <= short <= 2, f"the text is {runs[0][0]}")
    measure.holds(runs[0] == runs[1], "asked again, the held-out rows are others")
