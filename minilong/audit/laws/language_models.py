"""Laws of causal language models: what may depend on what, and the gradient of all weights at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.audit.laws.models import POSITIONS, VOCABULARY, limit, other, weights
from minilong.autodiff import cross_entropy, stop_gradient, value_and_grad
from minilong.autodiff.numeric import directional
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.nn import LanguageModel, Layout, flatten
from minilong.nn.flat import view
from minilong.nn.layers import Dropout, Embedding
from minilong.nn.models import TokenInput, plain_view
from minilong.objectives import causal_loss

kind("language-model", "language_model(model, tokens, segments)", "Integers (b, t) -> logits (b, t, n); causal.")
kind("model-gradient", "gradient(model, batch)", "Loss of a language model on a batch, and its gradient as a model.")


def our_language_model(model: LanguageModel, tokens: Any, segments: Any = None) -> Any:
    """Our language model."""
    return model(tokens, segments=segments)


def our_gradient(model: LanguageModel, batch: LanguageBatch) -> tuple[float, Any]:
    """Loss and gradient by the autodiff core."""
    value, gradient = value_and_grad(lambda m: causal_loss(m, batch))(model)
    return float(value), gradient


subject("language-model", "LanguageModel", code=LanguageModel.__call__, equation="eq:decoder")(our_language_model)
subject("model-gradient", "value_and_grad", code=value_and_grad, equation="eq:causal-loss")(our_gradient)


def packed(n: Numbers, *, t: int, b: int, norm: str, position: str) -> dict[str, Any]:
    """Rows of two documents, and a place to change."""
    cut = int(n.integers(1, t))
    return {
        "tokens": n.integers(0, VOCABULARY, b, t),
        "segments": np.tile((np.arange(t) >= cut).astype(int), (b, 1)),
        "cut": cut,
        "place": int(n.integers(0, t)),
        "norm": norm,
        "position": position,
    }


PACKED = cases(packed, t=(2, 3, 5, 8), b=(1, 2), norm=("pre", "post"), position=POSITIONS)
RELATIVE = cases(packed, t=(2, 3, 5, 8), b=(1, 2), norm=("pre", "post"), position=("rotary", "none"))


def logits_of(c: Case, f: F, tokens: Any = None, segments: Any = None) -> np.ndarray:
    """The function's logits for a case."""
    return np.asarray(
        f(weights("decoder", c["norm"], c["position"]), c["tokens"] if tokens is None else tokens, segments)
    )


@law("language-model", "causality", serves=("eq:decoder", "eq:mask", "eq:causal-loss"), cases=PACKED)
def causality(f: F, c: Case, measure: Measure) -> None:
    """A changed token changes, bit for bit, nothing before it, and something at every position from it on."""
    at, tokens = c["place"], c["tokens"].copy()
    tokens[:, at] = other(tokens[:, at])
    before, after = logits_of(c, f), logits_of(c, f, tokens)
    measure.close(after[:, :at], before[:, :at], 0.0, "a logit before the change")
    reached = np.abs(after - before).max(axis=(0, 2))[at:]
    measure.holds(np.all(reached > 0), f"a changed token reaches the positions {np.flatnonzero(reached > 0) + at} only")


@law("language-model", "segments-apart", serves=("eq:mask", "eq:causal-loss"), cases=PACKED)
def segments_apart(f: F, c: Case, measure: Measure) -> None:
    """In a packed row a document's logits do not depend, in any bit, on the tokens of the document before it."""
    tokens, cut = c["tokens"].copy(), c["cut"]
    tokens[:, :cut] = other(tokens[:, :cut])
    found = logits_of(c, f, tokens, c["segments"])[:, cut:]
    measure.close(found, logits_of(c, f, None, c["segments"])[:, cut:], 0.0)


@law("language-model", "packed-is-alone", serves=("eq:mask", "eq:rotary"), cases=RELATIVE)
def packed_is_alone(f: F, c: Case, measure: Measure) -> None:
    """With rotary positions, or none, a packed document has the logits that it has alone, to rounding."""
    alone = logits_of(c, f, c["tokens"][:, c["cut"] :])
    measure.close(logits_of(c, f, None, c["segments"])[:, c["cut"] :], alone, limit(alone))


@mutant(
    "language-model",
    "bidirectional",
    kills="causality",
    met="nanochat 752: a fallback that ignores `causal`; here the other way round",
)
def bidirectional(model: LanguageModel, tokens: Any, segments: Any = None) -> Any:
    """No causal mask."""
    return replace(model, causal=False)(tokens, segments=segments)


@mutant(
    "language-model",
    "each token sees itself only",
    kills=("causality",),
    met="nanochat 452: the window ignored, or here shrunk, when one token is decoded",
)
def short_sighted(model: LanguageModel, tokens: Any, segments: Any = None) -> Any:
    """A window of 1."""
    x = model.input(tokens)
    x = model.stack(x, view=plain_view(model.scheme, Mask(causal=True, window=1), x))
    return model.input.tokens.logits(x)


@mutant(
    "language-model",
    "segments ignored",
    kills=("segments-apart", "packed-is-alone"),
    met="plausible: packing without a mask, which most trainers do silently",
)
def unpacked(model: LanguageModel, tokens: Any, segments: Any = None) -> Any:
    """One document."""
    return model(tokens)


def batch(n: Numbers, *, t: int, b: int, norm: str, position: str, tied: bool) -> dict[str, Any]:
    """Tokens with ragged targets, and directions."""
    return {
        "inputs": n.integers(0, VOCABULARY, b, t),
        "targets": np.where(n.chance(0.7, b, t), n.integers(0, VOCABULARY, b, t), IGNORE),
        "seed": int(n.integers(0, 2**31)),
        "norm": norm,
        "position": position,
        "tied": tied,
    }


BATCH = cases(batch, t=(2, 1, 3, 5), b=(1, 2), norm=("pre", "post"), position=("learned", "rotary"), tied=(True, False))


@law("model-gradient", "direction", serves=("eq:causal-loss", "eq:cross-entropy"), cases=BATCH, share=0.3)
def direction(f: F, c: Case, measure: Measure) -> None:
    """The gradient of all weights in a random direction is what differences of the loss give; tied weights count once,
    with the gradient of both their uses."""
    model = weights("decoder", c["norm"], c["position"], c["tied"])
    vector, model, layout = flatten(model, np.float64)
    data = LanguageBatch(c["inputs"], c["targets"])
    v = np.random.default_rng(c["seed"]).standard_normal(vector.size)
    v /= np.linalg.norm(v)

    def loss(x: np.ndarray) -> Any:
        logits = view(model, x, layout)(c["inputs"])
        return cross_entropy(logits, targets=c["targets"])

    value, gradient = f(model, data)
    measure.close(value, loss(vector), limit(value), "the loss")
    expected = directional(loss, [vector], [v], np.ones(()), h=1e-2)
    flat = layout.gather(gradient, np.empty(layout.size))
    measure.close(float(flat @ v), expected.value, expected.bound, "the derivative")


@law("model-gradient", "one-name-each", serves="eq:causal-loss", cases=BATCH, share=0.1)
def one_name_each(f: F, c: Case, measure: Measure) -> None:
    """The gradient has the model's structure: an array for each name, of its shape; tied weights have one name."""
    model = weights("decoder", c["norm"], c["position"], c["tied"])
    own, found = Layout.of(model), Layout.of(f(model, LanguageBatch(c["inputs"], c["targets"]))[1])
    measure.holds((found.names, found.shapes) == (own.names, own.shapes), f"gradients are named {found.names}")
    tables = [name for name, shape in zip(own.names, own.shapes, strict=True) if sorted(shape) == [8, VOCABULARY]]
    measure.holds(len(tables) == (1 if c["tied"] else 2), f"tied = {c['tied']}, and the tables are {tables}")


@mutant(
    "model-gradient",
    "tied weights: gradient of one use",
    kills="direction",
    met="plausible: weights tied by assignment after a copy; nanoGPT 325 shows how wrappers part tied names",
)
def one_use(model: LanguageModel, batch: LanguageBatch) -> Any:
    """The input's table held constant."""

    def loss(m: LanguageModel) -> Any:
        x = TokenInput(Embedding(stop_gradient(m.input.tokens.table)), m.input.positions, m.input.position, Dropout())
        h = x(batch.inputs)
        h = m.stack(h, view=plain_view(m.scheme, Mask(causal=True), h))
        logits = m.input.tokens.logits(h) if m.head is None else m.head(h)
        return cross_entropy(logits, targets=batch.targets)

    value, gradient = value_and_grad(loss)(model)
    return float(value), gradient


@mutant(
    "model-gradient",
    "the tied table given twice",
    kills="one-name-each",
    met="plausible: input and output held as two fields, so that the optimiser steps them apart",
)
def twice(model: LanguageModel, batch: LanguageBatch) -> Any:
    """A head of its own in the gradient."""
    value, gradient = our_gradient(model, batch)
    return value, {"input": gradient, "head": gradient.input.tokens.table.T.copy()}
