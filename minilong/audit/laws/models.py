"""Laws of whole models, here of the encoder-decoder: what may depend on what.

Weights are drawn once for each configuration; tokens and lengths are the cases. Float64, a width of 8, two layers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import EncoderDecoder, View, flatten
from minilong.nn.layers import Dropout, Embedding
from minilong.nn.models import TokenInput, plain_view
from minilong.positions import sinusoidal

VOCABULARY, LONGEST = 9, 8

kind(
    "input", "input(tokens, table, positions)", "What enters the stack: integers (t,), table (n, d), positions (t, d)."
)
kind(
    "encoder-decoder",
    "encoder_decoder(model, source, target, lengths, memory)",
    "Integers (b, s) and (b, t), lengths (b,) of the sources -> memory (b, s, width) and logits (b, t, n). A memory "
    "that is given replaces the encoder's.",
)


@lru_cache(maxsize=64)
def weights(kind: str, norm: str, position: str, tied: bool = True) -> Any:
    """A model of random weights in float64, none of them zero."""
    config = ModelConfig(
        kind=kind, layers=2, width=8, heads=2, norm=norm, position=position, context=LONGEST, tied=tied, kv_heads=1
    )
    vector, model, _ = flatten(build(config, VOCABULARY, Key.of(7)), np.float64)
    vector += 0.1 * np.random.default_rng(7).standard_normal(vector.size)
    return model


def limit(*values: Any) -> float:
    """Rounding bound of a whole model: about a thousand sums of numbers that layer norms keep near 1."""
    return bound(1.0 + largest(*values), 1000)


def our_input(tokens: Any, table: Any, positions: Any) -> Any:
    """Our input with a learned table of positions."""
    return TokenInput(Embedding(table), Embedding(positions), "learned", Dropout())(tokens)


def ours(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> tuple[Any, Any]:
    """Our encoder-decoder."""
    memory = model.encode(source, lengths) if memory is None else memory
    return memory, model.decode(memory, target, lengths)


subject("input", "TokenInput", code=TokenInput.__call__, equation="eq:input")(our_input)
subject("encoder-decoder", "EncoderDecoder", code=EncoderDecoder.__call__, equation="eq:decoder")(ours)


def table(n: Numbers, *, t: int, d: int) -> dict[str, Any]:
    """A vocabulary of five."""
    return {"tokens": n.integers(0, 5, t), "table": n.normal(5, d), "positions": n.normal(t, d)}


INPUT = cases(table, t=(1, 2, 3, 5), d=(1, 2, 3, 4, 9))


@law("input", "formula", serves="eq:input", cases=INPUT)
def input_formula(f: F, c: Case, measure: Measure) -> None:
    """Row t is sqrt(d) times the token's row of the table, plus row t of the positions."""
    d = c["table"].shape[1]
    rows = [
        [d**0.5 * c["table"][token, i] + c["positions"][t, i] for i in range(d)] for t, token in enumerate(c["tokens"])
    ]
    measure.close(call(f, c["tokens"], c["table"], c["positions"]), rows, bound(1 + 3 * largest(c["table"])))


@mutant(
    "input",
    "no factor sqrt(d)",
    kills="formula",
    met="nanoGPT and others leave it out; then rows of norm 1 meet positions of norm sqrt(d/2)",
)
def unscaled(tokens: Any, table: Any, positions: Any) -> Any:
    """E[n] + P."""
    return table[tokens] + positions[: len(tokens)]


def pair(n: Numbers, *, s: int, t: int, b: int, norm: str, position: str) -> dict[str, Any]:
    """Sources with their lengths, and targets."""
    return {
        "source": n.integers(0, VOCABULARY, b, s),
        "target": n.integers(0, VOCABULARY, b, t),
        "lengths": n.integers(1, s + 1, b),
        "place": int(n.integers(0, t)),
        "norm": norm,
        "position": position,
    }


POSITIONS = ("rotary", "none", "sinusoidal", "learned", "cas")
PAIR = cases(pair, s=(2, 1, 3, 5), t=(2, 1, 3, 5), b=(1, 2), norm=("pre", "post"), position=POSITIONS)


def of(c: Case, f: F, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """The function's memory and logits for a case."""
    model, a = weights("encoder-decoder", c["norm"], c["position"]), {**c, **changes}
    memory, logits = f(model, a["source"], a["target"], a["lengths"], a.get("memory"))
    return np.asarray(memory), np.asarray(logits)


def other(tokens: np.ndarray) -> np.ndarray:
    """Each token replaced by another."""
    return (tokens + 1) % VOCABULARY


@law("encoder-decoder", "encoder-ignores-target", serves=("eq:encoder", "claim:encoder-cross-attention"), cases=PAIR)
def encoder_ignores_target(f: F, c: Case, measure: Measure) -> None:
    """The memory is the same, bit for bit, whatever the target."""
    measure.close(of(c, f, target=other(c["target"]))[0], of(c, f)[0], 0.0, "the memory")


@law("encoder-decoder", "through-memory", serves="eq:decoder", cases=PAIR)
def through_memory(f: F, c: Case, measure: Measure) -> None:
    """With the memory given, the logits do not depend on the source; with the encoder's own, they are the same bits."""
    memory, logits = of(c, f)
    measure.close(of(c, f, memory=memory)[1], logits, 0.0, "with the memory given, a logit")
    measure.close(of(c, f, memory=memory, source=other(c["source"]))[1], logits, 0.0, "for another source, a logit")
    measure.holds(largest(of(c, f, memory=memory + 1.0)[1] - logits) > 0, "the memory does not reach the logits")


@law("encoder-decoder", "memory-is-a-set", serves=("eq:decoder", "eq:attention"), cases=PAIR)
def memory_is_a_set(f: F, c: Case, measure: Measure) -> None:
    """Permuting the rows of the memory changes no logit: places are known to the encoder, not to cross-attention."""
    full = {"lengths": np.full(len(c["source"]), c["source"].shape[1])}
    memory, logits = of(c, f, **full)
    measure.close(of(c, f, memory=memory[:, ::-1], **full)[1], logits, limit(logits))


@law("encoder-decoder", "masked-memory", serves=("eq:decoder", "eq:mask"), cases=PAIR)
def masked_memory(f: F, c: Case, measure: Measure) -> None:
    """Rows of the memory beyond a source's length change no logit, bit for bit; no row at all does where it is 0."""
    memory, logits = of(c, f)
    beyond = (np.arange(memory.shape[1]) >= c["lengths"][:, None])[..., None]
    measure.close(of(c, f, memory=np.where(beyond, memory * -3 + 5, memory))[1], logits, 0.0)
    empty = {"lengths": c["lengths"] * 0}
    measure.close(of(c, f, memory=memory * -3 + 5, **empty)[1], of(c, f, memory=memory, **empty)[1], 0.0)


@law("encoder-decoder", "causality", serves=("eq:decoder", "eq:mask", "claim:decoder-mask"), cases=PAIR)
def target_causality(f: F, c: Case, measure: Measure) -> None:
    """Logits at a position do not depend, in any bit, on later tokens of the target; those from there on do."""
    at, target = c["place"], c["target"].copy()
    target[:, at] = other(target[:, at])
    before, after = of(c, f)[1], of(c, f, target=target)[1]
    measure.close(after[:, :at], before[:, :at], 0.0, "a logit before the change")
    reached = np.abs(after - before).max(axis=(0, 2))[at:]
    measure.holds(np.all(reached > 0), f"a changed token reaches the positions {np.flatnonzero(reached > 0) + at} only")


@law("encoder-decoder", "padding", serves=("eq:encoder", "eq:mask"), cases=PAIR)
def padding(f: F, c: Case, measure: Measure) -> None:
    """More padding behind the sources changes no logit beyond rounding, whatever it consists of."""
    logits = of(c, f)[1]
    wider = np.concatenate([c["source"], np.full((len(c["source"]), 3), 2)], axis=1)
    measure.close(of(c, f, source=wider)[1], logits, limit(logits))


def decoded(model: EncoderDecoder, memory: Any, target: Any, mask: Mask, memory_mask: Mask) -> Any:
    """The decoder with masks of one's own."""
    x = model.input(target)
    x = model.decoder(x, memory, view=plain_view(model.decoder_scheme, mask, x), memory_view=View(memory_mask))
    return model.input.tokens.logits(x)


@mutant(
    "encoder-decoder",
    "the encoder attends to the target",
    kills="encoder-ignores-target",
    met="the article's 3.1.4, whose encoder has encoder-decoder attention among its steps",
)
def looking_ahead(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """Cross-attention of the encoder's output to the embedded target."""
    memory = model.encode(source, lengths) if memory is None else memory
    cross: Any = model.decoder.layers[0].cross
    memory = memory + cross(memory, model.input(target))
    return memory, model.decode(memory, target, lengths)


@mutant(
    "encoder-decoder",
    "the decoder sees the embedded source",
    kills="through-memory",
    met="plausible: a shortcut from the source's embeddings, which makes caching the memory wrong",
)
def shortcut(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """The mean embedding of the source added to the memory."""
    memory = model.encode(source, lengths) if memory is None else memory
    return memory, model.decode(memory + model.input(source).mean(axis=1, keepdims=True), target, lengths)


@mutant(
    "encoder-decoder",
    "positions added to the memory again",
    kills="memory-is-a-set",
    met="plausible: the decoder embeds whatever it attends to; rotary keys turned in cross-attention too",
)
def placed_memory(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """Sinusoids added to the memory's rows."""
    memory = model.encode(source, lengths) if memory is None else memory
    return memory, model.decode(memory + sinusoidal(*memory.shape[1:], dtype="float64"), target, lengths)


@mutant(
    "encoder-decoder",
    "padding seen by cross-attention",
    kills=("masked-memory", "padding"),
    met="transformers' attention interface: an unregistered mask function means that the mask is ignored",
)
def unmasked_memory(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """No mask on the memory."""
    memory = model.encode(source, lengths) if memory is None else memory
    return memory, decoded(model, memory, target, Mask(causal=True), Mask())


@mutant(
    "encoder-decoder",
    "padding seen by the encoder",
    kills="padding",
    met="transformers PR 30652 and 32086: one of two attention paths without its mask",
)
def unmasked_source(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """No mask in the encoder."""
    memory = model.encode(source, None) if memory is None else memory
    return memory, model.decode(memory, target, lengths)


@mutant(
    "encoder-decoder",
    "no causal mask in the decoder",
    kills="causality",
    met="the article's 3.1.3 and 3.1.4, which mention no mask; transformers 32086",
)
def acausal(model: EncoderDecoder, source: Any, target: Any, lengths: Any, memory: Any = None) -> Any:
    """The decoder sees all of the target."""
    memory = model.encode(source, lengths) if memory is None else memory
    return memory, decoded(model, memory, target, Mask(), Mask(key_lengths=lengths))
