"""Laws of models that read a text in pieces, and of the sinks' distance.

Weights are drawn once for each configuration, in float64; tokens and cuts are the cases.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from minilong.attention import Mask, naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.models import limit
from minilong.backend import array_module, to_host
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import Linear, MultiHeadAttention, flatten
from minilong.nn.models import LanguageModel
from minilong.nn.scheme import Scheme
from minilong.positions import rotary

VOCABULARY, CONTEXT = 7, 8

SETTINGS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "half": {"rope_layout": "half"},
    "alibi": {"position": "alibi"},
    "t5": {"position": "t5"},
    "xl": {"position": "xl"},
    "sinusoidal": {"position": "sinusoidal"},
    "window": {"window": 3},
    "sinks": {"window": 3, "sinks": 2},
    "sinks, alibi": {"window": 3, "sinks": 2, "position": "alibi"},
    "yarn": {"rope_scaling": "yarn", "rope_factor": 4.0},
    "dynamic": {"rope_scaling": "dynamic", "rope_factor": 4.0},
    "segments": {"memory": "xl", "segment": 4, "memory_length": 2},
    "compressive": {"memory": "compressive", "segment": 4, "memory_length": 2, "compressed": 2, "compression": 2},
    "momentum": {"depth": "momentum"},
}
"""By name: what differs from a rotary model with full attention."""

kind("stream", "stream(model, tokens, cuts)", "Integers (b, n), read in pieces that end at the cuts -> (b, n, width).")
kind(
    "sink-distance",
    "sink_distance(q, k, v, window, sinks, reach)",
    "Causal attention (n, d), (n, d), (n, e) -> (n, e): rotary positions, a window, and sinks at most reach - 1 away.",
)


@lru_cache(maxsize=32)
def model_of(name: str) -> LanguageModel:
    """A model of random weights in float64, none of them zero, with a context of 8."""
    config = replace(ModelConfig(layers=2, width=8, heads=2, kv_heads=1, context=CONTEXT), **SETTINGS[name])
    vector, model, _ = flatten(build(config, VOCABULARY, Key.of(7)), np.float64)
    vector += 0.2 * np.random.default_rng(7).standard_normal(vector.size)
    assert isinstance(model, LanguageModel)
    return model


def in_pieces(model: LanguageModel, tokens: Any, cuts: Any) -> Any:
    """Our stream."""
    stream, ends = model.start(), [*to_host(cuts), tokens.shape[1]]
    pieces = [model.extend(tokens[:, a:b], stream) for a, b in zip([0, *ends], ends, strict=False)]
    return array_module(*pieces).concatenate(pieces, axis=1)


subject("stream", "LanguageModel.extend", code=LanguageModel.extend, equation="eq:streaming")(in_pieces)


def text(n: Numbers, *, t: int, b: int, name: str) -> dict[str, Any]:
    """Rows of tokens, and where they are cut."""
    inside = np.flatnonzero(n.chance(0.5, max(t - 1, 0))) + 1
    return {"tokens": n.integers(0, VOCABULARY, b, t), "cuts": inside, "name": name}


TEXT = cases(text, t=(2, 1, 5, 9, 13), b=(1, 2), name=tuple(SETTINGS))


@law("stream", "any-split", serves="eq:streaming", cases=TEXT)
def any_split(f: F, c: Case, measure: Measure) -> None:
    """However the text is cut, the pieces together are what one pass gives."""
    model = model_of(c["name"])
    whole = np.asarray(model.hidden(c["tokens"]))
    measure.close(f(model, c["tokens"], c["cuts"]), whole, 10 * limit(whole) + 1e-9 * (c["name"] == "momentum"))


@law("stream", "rows-apart", serves="eq:streaming", cases=TEXT)
def rows_apart(f: F, c: Case, measure: Measure) -> None:
    """A row of a batch is read as it is read alone."""
    model = model_of(c["name"])
    together = np.asarray(f(model, c["tokens"], c["cuts"]))
    alone = np.concatenate([f(model, row[None], c["cuts"]) for row in c["tokens"]])
    measure.close(together, alone, 10 * limit(alone) + 1e-9 * (c["name"] == "momentum"))


@mutant("stream", "pieces forgotten", kills="any-split", met="nanochat 452: decoding with the window of one token")
def forgetful(model: LanguageModel, tokens: Any, cuts: Any) -> Any:
    """Each piece as a text of its own."""
    ends = [*cuts, tokens.shape[1]]
    return np.concatenate([model.hidden(tokens[:, a:b]) for a, b in zip([0, *ends], ends, strict=False)], axis=1)


@mutant("stream", "window of another size", kills="any-split", met="HF 29623, vLLM 3385: off by one when cached")
def another_window(model: LanguageModel, tokens: Any, cuts: Any) -> Any:
    """One key fewer, or a window where there is none."""
    window = model.window - 1 if model.window else 2
    return in_pieces(replace(model, window=window, memory=None), tokens, cuts)


@mutant("stream", "positions restart", kills="any-split", met="x-transformers 103: keys not shifted by the memory")
def slots_for_positions(model: LanguageModel, tokens: Any, cuts: Any) -> Any:
    """Positions restart at each piece, though keys are kept."""
    stream, ends, parts = model.start(), [*cuts, tokens.shape[1]], []

    class Restarted(Scheme):
        def view(self, mask: Any, queries: Any, keys: Any, dtype: Any, starts: Any = None) -> Any:
            first = queries[0] if len(queries) else 0
            return super().view(mask, queries - first, np.maximum(keys - first, 0), dtype, starts)

    own = Restarted(**{name: getattr(model.scheme, name) for name in model.scheme.__dataclass_fields__})
    wrong = replace(model, scheme=own)
    for a, b in zip([0, *ends], ends, strict=False):
        parts.append(wrong.extend(tokens[:, a:b], stream))
    return np.concatenate(parts, axis=1)


@mutant("stream", "rows mixed", kills="rows-apart", met="plausible: beams reordered in the tokens, not in the cache")
def mixed(model: LanguageModel, tokens: Any, cuts: Any) -> Any:
    """The cache of a row serves the next one."""
    stream, ends, parts = model.start(), [*cuts, tokens.shape[1]], []
    for a, b in zip([0, *ends], ends, strict=False):
        parts.append(model.extend(tokens[:, a:b], stream))
        for past in stream.pasts:
            past.state = past.state.select(np.roll(np.arange(len(tokens)), 1))
    return np.concatenate(parts, axis=1)


# Sinks


def our_sinks(q: Any, k: Any, v: Any, window: int, sinks: int, reach: int) -> Any:
    """One head of our layer, with the view that our scheme gives."""
    n, d = q.shape
    nothing = Linear(np.zeros((1, 1)), None)
    layer = MultiHeadAttention(nothing, nothing, nothing, nothing, 1, 1, naive)
    scheme = Scheme("rotary", heads=1, head_width=d, width=d, reach=reach)
    places = np.arange(n)
    view = scheme.view(Mask(causal=True, window=window, sinks=sinks), places, places, q.dtype)
    return layer._attend(rotary(q, places)[None, None], rotary(k, places)[None, None], v[None, None], view)[0, 0]


subject("sink-distance", "Scheme", code=Scheme.view, equation="eq:sink-distance")(our_sinks)


def heads(n: Numbers, *, t: int, d: int, window: int, sinks: int, reach: int) -> dict[str, Any]:
    """One head."""
    return {
        "q": n.normal(t, d), "k": n.normal(t, d), "v": n.normal(t, 2), "window": window, "sinks": sinks, "reach": reach,
    }  # fmt: skip


HEADS = cases(heads, t=(3, 1, 7, 11), d=(2, 4), window=(1, 2, 4), sinks=(1, 2, 3), reach=(5, 3, 8))


def close(measure: Measure, found: Any, right: Any, c: Case) -> None:
    size = largest(np.abs(c["q"]) @ np.abs(c["k"]).T)
    measure.close(found, right, bound((1.0 + size) * largest(c["v"]), 40))


@law("sink-distance", "within-reach", serves="eq:sink-distance", cases=HEADS)
def within_reach(f: F, c: Case, measure: Measure) -> None:
    """As long as the text is no longer than the reach, it is plain attention under the mask of window and sinks."""
    q, k, v = (c[name][: c["reach"]] for name in "qkv")
    places = np.arange(len(q))
    mask = Mask(causal=True, window=c["window"], sinks=c["sinks"])
    right = naive(rotary(q, places)[None], rotary(k, places)[None], v[None], mask=mask)[0]
    close(measure, call(f, q, k, v, c["window"], c["sinks"], c["reach"]), right, c)


@law("sink-distance", "no-new-distance", serves="eq:sink-distance", cases=HEADS)
def no_new_distance(f: F, c: Case, measure: Measure) -> None:
    """Beyond reach and window, a text that repeats one token gives one output at every position."""
    n = c["reach"] + c["window"] + c["sinks"] + 6
    q, k = (np.broadcast_to(c[name][:1], (n, c[name].shape[1])) for name in "qk")
    v = np.concatenate([c["v"][:1] + 1.0] * min(c["sinks"], n) + [c["v"][:1]] * (n - min(c["sinks"], n)))
    y = call(f, q, k, v, c["window"], c["sinks"], c["reach"])[n - 4 :]
    close(measure, y, np.broadcast_to(y[:1], y.shape), {**c, "v": v})


@mutant("sink-distance", "true distance", kills="no-new-distance", met="the plain mask: sinks recede for ever")
def receding(q: Any, k: Any, v: Any, window: int, sinks: int, reach: int) -> Any:
    """No bound."""
    return our_sinks(q, k, v, window, sinks, 10**6)


@mutant("sink-distance", "counted in the cache", kills="within-reach", met="StreamingLLM: positions inside the cache")
def in_the_cache(q: Any, k: Any, v: Any, window: int, sinks: int, reach: int) -> Any:
    """The sinks move nearer as soon as the window forgets."""
    return our_sinks(q, k, v, window, sinks, min(reach, max(window, 1)))


@mutant("sink-distance", "sinks forgotten", kills="within-reach", met="StreamingLLM's own ablation: 5,158 for 5.40")
def no_sinks(q: Any, k: Any, v: Any, window: int, sinks: int, reach: int) -> Any:
    """A window alone."""
    return our_sinks(q, k, v, window, 0, reach)
