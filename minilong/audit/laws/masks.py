"""Laws of the mask as a value, and of the softmax over what it allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.attention.naive import masked_softmax
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.backend import array_module, beside

NAMES = ("queries", "keys", "causal", "window", "sinks", "offset", "length", "segments")

kind(
    "mask",
    f"mask({', '.join(NAMES)})",
    "Booleans (queries, keys) for one sequence, True = may attend; window, length, segments (keys,) may be None.",
)
kind("masked-softmax", "masked_softmax(scores, allowed)", "Softmax over the allowed entries of the last axis, else 0.")


def ours(
    queries: int,
    keys: int,
    causal: bool,
    window: int | None,
    sinks: int,
    offset: int,
    length: int | None,
    segments: Any,
) -> Any:
    """Our mask, as booleans of its one sequence."""
    value = Mask(
        causal=causal,
        window=window,
        sinks=sinks if window else 0,
        offset=offset,
        key_lengths=None if length is None else beside(segments, np.array([length])),
        segments=None if segments is None else segments[None],
    )
    xp = array_module(segments)
    allowed = value.dense(xp, queries, keys)
    one = xp.ones((1, 1), bool) if allowed is None else allowed
    return xp.broadcast_to(one.reshape(one.shape[-2:]), (queries, keys)).copy()


subject("mask", "Mask.dense", code=Mask.dense, equation="eq:mask")(ours)
subject("masked-softmax", "masked_softmax", code=masked_softmax, equation="eq:masked-softmax")(masked_softmax)


def fields(
    n: Numbers, *, queries: int, keys: int, causal: bool, window: int | None, sinks: int, padded: bool, packed: bool
) -> dict[str, Any]:
    """Any combination of the fields; queries stand at the end of the keys."""
    queries = min(queries, keys)
    return {
        "queries": queries,
        "keys": keys,
        "causal": causal,
        "window": window,
        "sinks": sinks if window else 0,
        "offset": int(n.integers(0, keys - queries + 1)),
        "length": int(n.integers(0, keys + 1)) if padded else None,
        "segments": np.sort(n.integers(0, 3, keys)) if packed else None,
    }


FIELDS = cases(
    fields,
    queries=(1, 2, 3, 5),
    keys=(1, 2, 3, 5, 7),
    causal=(True, False),
    window=(None, 1, 2, 3, 8),
    sinks=(0, 1, 2),
    padded=(False, True),
    packed=(False, True),
)


def asked(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The function's booleans."""
    return np.asarray(f(*[{**c, **changes}[name] for name in NAMES]))


@law("mask", "definition", serves="eq:mask", cases=FIELDS)
def definition(f: F, c: Case, measure: Measure) -> None:
    """Query i, at place i + offset, sees key j exactly if every field that is set lets it."""
    found = asked(f, c)
    measure.holds(found.shape == (c["queries"], c["keys"]), f"the shape is {found.shape}")
    for row in range(c["queries"]):
        i = row + c["offset"]
        for j in range(c["keys"]):
            sees = not c["causal"] or j <= i
            sees = sees and (c["window"] is None or j < c["sinks"] or i - j < c["window"])
            sees = sees and (c["length"] is None or j < c["length"])
            sees = sees and (c["segments"] is None or c["segments"][i] == c["segments"][j])
            measure.holds(found[row, j] == sees, f"query at {i}, key {j}: {bool(found[row, j])}, should be {sees}")


@law("mask", "window-count", serves="eq:mask", cases=FIELDS)
def window_count(f: F, c: Case, measure: Measure) -> None:
    """Causal with a window of w, query i sees min(i + 1, w) keys, itself among them; a window of all keys is none."""
    w = c["window"] or 1
    plain = {"causal": True, "sinks": 0, "length": None, "segments": None}
    found = asked(f, c, **plain, window=w)
    places = np.arange(c["queries"]) + c["offset"]
    measure.close(found.sum(axis=1), np.minimum(places + 1, w), 0.0, "the number of visible keys")
    measure.holds(np.all(found[np.arange(c["queries"]), places]), "a query does not see its own key")
    whole = asked(f, c, **plain, window=None)
    measure.close(
        asked(f, c, **plain, window=c["keys"] + c["offset"]), whole, 0.0, "with a window of all keys, who sees"
    )


@law("mask", "chunks", serves="eq:mask", cases=FIELDS)
def chunks(f: F, c: Case, measure: Measure) -> None:
    """Queries taken one at a time, each with its offset, see what they see together: decoding is the full pass."""
    together = asked(f, c)
    for row in range(c["queries"]):
        one = asked(f, c, queries=1, offset=c["offset"] + row)
        measure.close(one[0], together[row], 0.0, f"for query {row} alone, who sees")


def scores(n: Numbers, *, rows: int, keys: int, spread: float, visible: float) -> dict[str, Any]:
    """Scores, large ones too, and rows that may be hidden whole."""
    return {"scores": n.normal(rows, keys, spread=spread), "allowed": n.chance(visible, rows, keys)}


SCORES = cases(scores, rows=(1, 2, 3), keys=(1, 2, 3, 5), spread=(1.0, 1e3), visible=(0.5, 1.0, 0.2, 0.0))


@law("masked-softmax", "definition", serves=("eq:masked-softmax", "claim:masked-rows"), cases=SCORES)
def softmax_definition(f: F, c: Case, measure: Measure) -> None:
    """Over the allowed entries the softmax, exact zeros elsewhere, and a row of zeros where nothing is allowed."""
    y = call(f, c["scores"], c["allowed"])
    for row, allowed, found in zip(c["scores"], c["allowed"], y, strict=True):
        expected = np.zeros_like(row)
        if allowed.any():
            e = np.exp(row[allowed] - row[allowed].max())
            expected[allowed] = e / e.sum()
        measure.holds(np.all(found[~allowed] == 0), f"hidden entries have the weights {found[~allowed].tolist()}")
        measure.close(found, expected, bound(1 + largest(row), len(row)))


@law("masked-softmax", "hidden-scores-do-not-matter", serves="eq:masked-softmax", cases=SCORES)
def hidden_scores(f: F, c: Case, measure: Measure) -> None:
    """Whatever the scores of hidden entries are, the weights have the same bits."""
    other = np.where(c["allowed"], c["scores"], -3 * c["scores"] + 50.0)
    measure.close(call(f, other, c["allowed"]), call(f, c["scores"], c["allowed"]), 0.0)


# Mutants


def changed(**changes: Any) -> F:
    """Our mask, with some arguments changed by a function of all of them."""

    def mask(*arguments: Any) -> Any:
        given = dict(zip(NAMES, arguments, strict=True))
        return ours(**{**given, **{name: change(given) for name, change in changes.items()}})

    return mask


mutant("mask", "window of one key more", kills=("definition", "window-count"),
       met="transformers 29623, 35924 and 39408; vLLM 3385; flash-attention 1133: i - j <= w for i - j < w")(
    changed(window=lambda g: g["window"] and g["window"] + 1))  # fmt: skip
mutant(
    "mask",
    "offset forgotten",
    kills=("definition", "chunks"),
    met="nanochat 452: the fallback ignored the window when one token is decoded",
)(
    changed(
        offset=lambda g: 0, segments=lambda g: None if g["segments"] is None else np.roll(g["segments"], -g["offset"])
    )
)
mutant("mask", "causal ignored", kills=("definition", "window-count"), met="transformers PR 30652 and 32086")(
    changed(causal=lambda g: False))  # fmt: skip


@mutant(
    "mask",
    "sinks seen by earlier queries",
    kills="definition",
    met="plausible: the sinks set visible last, over the causal mask; streaming-llm keeps them for later tokens",
)
def future_sinks(*arguments: Any) -> Any:
    """The first keys visible to all."""
    given = dict(zip(NAMES, arguments, strict=True))
    allowed = ours(*arguments)
    allowed[:, : given["sinks"]] = True
    return allowed


def added(scores: Any, allowed: Any, low: float) -> Any:
    """A large negative number added to hidden scores."""
    x = scores + np.where(allowed, 0.0, low)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


mutant("masked-softmax", "-1e9 added", kills=("definition", "hidden-scores-do-not-matter"),
       met="allennlp 890, former 10, executorch 9105, burn PR 4697: a row without keys gets uniform weights")(
    lambda scores, allowed: added(scores, allowed, -1e9))  # fmt: skip
mutant("masked-softmax", "minus infinity added", kills="definition",
       met="iree 24175: a row without keys becomes NaN, and the NaN reaches everything")(
    lambda scores, allowed: added(scores, allowed, -np.inf))  # fmt: skip
mutant("masked-softmax", "scores multiplied by the mask", kills="definition",
       met="plausible: a hidden score of zero is a weight like any other")(
    lambda scores, allowed: added(scores * allowed, np.ones_like(allowed), 0.0))  # fmt: skip
