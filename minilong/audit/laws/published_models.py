"""Laws of what published models compute otherwise: gates, scales, and positions in a part of a head."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.audit.laws.scaling import plain
from minilong.backend import to_host
from minilong.nn import Dropout, Embedding, FeedForward, Linear, MultiHeadAttention
from minilong.nn.models import TokenInput, scaled
from minilong.positions import Scaling, rotary

kind("geglu", "geglu(x, wg, w1, w2, tanh)", "A gated network of three matrices, with GELU by tanh or exact.")
kind("partial-rotary", "partial_rotary(x, positions, base, share)", "Rotary positions in a share of the components.")
kind("llama3-scaling", "llama3_scaling(dim, base, factor, context)", "Frequencies (dim/2,) of Llama 3.1.")
kind("plain-input", "plain_input(tokens, table, positions)", "Integers (t,) -> rows of a table plus positions.")
kind("given-scale", "given_scale(x, z, wq, wk, wv, wo, heads, scale)", "Multi-head attention, scores times `scale`.")
kind("output-scale", "output_scale(hidden, table, scale)", "Hidden vectors (t, d), table (n, d) -> logits (t, n).")


def our_geglu(x: Any, wg: Any, w1: Any, w2: Any, tanh: bool) -> Any:
    """Our layer with a gate."""
    name = "geglu_tanh" if tanh else "geglu"
    return FeedForward(Linear(w1, None), Linear(w2, None), Linear(wg, None), name)(x)


def our_partial_rotary(x: Any, positions: Any, base: float, share: float) -> Any:
    """Our rotary positions."""
    return rotary(x, to_host(positions), base=base, share=share)


def our_llama3(dim: int, base: float, factor: float, context: int) -> Any:
    """Our frequencies."""
    return Scaling("llama3", factor, context).frequencies(dim, base)


def our_input(tokens: Any, table: Any, positions: Any) -> Any:
    """Our input with a learned table of positions."""
    return TokenInput(Embedding(table), Embedding(positions), "learned", Dropout(), scaled=False)(tokens)


def our_attention(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, scale: float) -> Any:
    """Our layer without biases, on a batch of one."""
    query, key, value, output = (Linear(w, None) for w in (wq, wk, wv, wo))
    layer = MultiHeadAttention(query, key, value, output, heads=heads, kv_heads=heads, scale=scale)
    return layer(x[None], z[None])[0]


def our_output(hidden: Any, table: Any, scale: float) -> Any:
    """The logits of a model whose last vectors these are."""
    return Embedding(table).logits(scaled(hidden, scale))


subject("geglu", "FeedForward with a GELU gate", code=FeedForward.__call__, equation="eq:geglu")(our_geglu)
subject("partial-rotary", "rotary of a share", code=rotary, equation="eq:partial-rotary")(our_partial_rotary)
subject("llama3-scaling", "llama3", code=Scaling.frequencies, equation="eq:llama3-scaling")(our_llama3)
subject("plain-input", "TokenInput unscaled", code=TokenInput.__call__, equation="eq:plain-input")(our_input)
subject("given-scale", "attention scaled", code=MultiHeadAttention.__call__, equation="eq:given-scale")(our_attention)
subject("output-scale", "scaled", code=scaled, equation="eq:output-scale")(our_output)


def network(n: Numbers, *, t: int, width: int, hidden: int, tanh: bool) -> dict[str, Any]:
    """A small network."""
    x, wg, w1, w2 = n.normal(t, width), n.normal(width, hidden), n.normal(width, hidden), n.normal(hidden, width)
    return {"x": x, "wg": wg, "w1": w1, "w2": w2, "tanh": tanh}


NETWORK = cases(network, t=(1, 2, 3), width=(1, 2, 3, 5), hidden=(1, 2, 3, 7), tanh=(False, True))


@law("geglu", "formula", serves="eq:geglu", cases=NETWORK)
def geglu_formula(f: F, c: Case, measure: Measure) -> None:
    """(GELU(x Wg) times (x W1)) W2, where GELU(z) = z (1 + erf(z / sqrt 2)) / 2, or its form by tanh."""
    z = np.einsum("ti,ih->th", c["x"], c["wg"])
    inner = np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)) if c["tanh"] else erf(z / np.sqrt(2))
    right = np.einsum("th,hi->ti", z * (1 + inner) / 2 * np.einsum("ti,ih->th", c["x"], c["w1"]), c["w2"])
    gate, value = (largest(np.abs(c["x"]) @ np.abs(c[name])) for name in ("wg", "w1"))
    most = (1 + gate**2) * (1 + gate) * (1 + value) * (1 + largest(np.abs(c["w2"]).sum(axis=0)))
    measure.close(call(f, *c.values()), right, bound(most, len(c["w1"]) + c["w1"].shape[1]))


def turned(n: Numbers, *, t: int, d: int, share: float, far: int, base: float) -> dict[str, Any]:
    """Rows, their positions, and how much of a row is turned."""
    return {"x": n.nonzero(t, d), "positions": n.integers(1, far + 1, t), "base": base, "share": share}


TURNED = cases(turned, t=(2, 1, 5), d=(8, 4, 16), share=(0.5, 1.0), far=(1, 10, 1000), base=(10000.0, 100.0))
PART = cases(turned, t=(2, 1, 5), d=(8, 12, 16), share=(0.5,), far=(10, 1000), base=(10000.0, 100.0))


@law("partial-rotary", "definition", serves="eq:partial-rotary", cases=PART)
def partial_definition(f: F, c: Case, measure: Measure) -> None:
    """The first m components are turned by p b^(-2j/m), in pairs of neighbours."""
    m = int(c["x"].shape[-1] * c["share"])
    m -= m % 2
    share = m / c["x"].shape[-1]
    z = c["x"][:, 0:m:2] + 1j * c["x"][:, 1:m:2]
    z = z * np.exp(1j * c["positions"][:, None] * c["base"] ** (-np.arange(0, m, 2) / m))
    right = np.stack([z.real, z.imag], axis=-1).reshape(len(z), m)
    found = call(f, c["x"], c["positions"], c["base"], share)
    measure.close(found[:, :m], right, bound(largest(c["x"]) * (1.0 + largest(c["positions"])), 2), "the turned part")


@law("partial-rotary", "rest", serves="eq:partial-rotary", cases=PART)
def rest_stays(f: F, c: Case, measure: Measure) -> None:
    """The other components stay as they are, bit for bit."""
    m = int(c["x"].shape[-1] * c["share"])
    measure.close(call(f, *c.values())[:, m:], c["x"][:, m:], 0.0, "the rest")


@law("partial-rotary", "whole", serves=("eq:partial-rotary", "eq:rotary"), cases=TURNED)
def whole(f: F, c: Case, measure: Measure) -> None:
    """A share of 1 is rotary positions; a share of m is these of the first m components."""
    m = int(c["x"].shape[-1] * c["share"])
    right = rotary(c["x"][:, :m], to_host(c["positions"]), base=c["base"])
    limit = bound(largest(c["x"]) * (1.0 + largest(c["positions"])), 2)
    measure.close(call(f, *c.values())[:, :m], right, limit, "the turned part")


def scaling(n: Numbers, *, dim: int, base: float, factor: float, context: int) -> dict[str, Any]:
    """Head dimension, base, factor, context."""
    return {"dim": dim, "base": base, "factor": factor, "context": context}


SCALED = cases(scaling, dim=(64, 6, 2, 128), base=(10000.0, 500000.0), factor=(8.0, 2.0, 32.0), context=(8192, 64, 100))


@law("llama3-scaling", "ramp", serves="eq:llama3-scaling", cases=SCALED)
def ramp(f: F, c: Case, measure: Measure) -> None:
    """Pairs of 4 turns and more within the context stay, those of 1 and less are divided by s; between, a line."""
    theta = plain(c["dim"], c["base"])
    kept = np.interp(c["context"] * theta / (2 * np.pi), [1.0, 4.0], [0.0, 1.0])
    measure.close(call(f, *c.values()) / theta, kept + (1 - kept) / c["factor"], bound(4.0 + c["context"], 4))


@law("llama3-scaling", "identity", serves="eq:llama3-scaling", cases=SCALED)
def no_factor(f: F, c: Case, measure: Measure) -> None:
    """Factor 1 leaves rotary positions as they are."""
    theta = plain(c["dim"], c["base"])
    measure.close(call(f, c["dim"], c["base"], 1.0, c["context"]) / theta, np.ones_like(theta), bound(2.0, 2))


def entry(n: Numbers, *, t: int, d: int) -> dict[str, Any]:
    """A vocabulary of five."""
    return {"tokens": n.integers(0, 5, t), "table": n.normal(5, d), "positions": n.normal(t, d)}


@law("plain-input", "formula", serves="eq:plain-input", cases=cases(entry, t=(1, 2, 3, 5), d=(2, 3, 4, 9)))
def input_formula(f: F, c: Case, measure: Measure) -> None:
    """Row t is the token's row of the table, plus row t of the positions."""
    rows = [[c["table"][n, i] + p[i] for i in range(len(p))] for n, p in zip(c["tokens"], c["positions"], strict=True)]
    measure.close(call(f, *c.values()), rows, 0.0)


def attended(n: Numbers, *, t: int, s: int, width: int, d: int, heads: int, scale: float) -> dict[str, Any]:
    """Rows, and maps to heads whose width does not follow from the model's."""
    inner = heads * d
    return {
        "x": n.normal(t, width), "z": n.normal(s, width), "wq": n.normal(width, inner), "wk": n.normal(width, inner),
        "wv": n.normal(width, inner), "wo": n.normal(inner, width), "heads": heads, "scale": scale,
    }  # fmt: skip


ATTENDED = cases(attended, t=(1, 3), s=(2, 1, 5), width=(4, 3), d=(5, 2, 1), heads=(2, 1, 3), scale=(1.0, 0.25, 2.0))


@law("given-scale", "formula", serves="eq:given-scale", cases=ATTENDED)
def scale_formula(f: F, c: Case, measure: Measure) -> None:
    """Head by head: softmax(c q k^T) v, concatenated and mixed, with all sums written out."""
    apart = (3, c["heads"], -1)
    q, k, v = (
        np.einsum("ti,io->to", c[x], c[w]).reshape(len(c[x]), *apart[1:])
        for x, w in (("x", "wq"), ("z", "wk"), ("z", "wv"))
    )
    scores = c["scale"] * np.einsum("thd,shd->hts", q, k)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    right = np.einsum("hts,shd->thd", weights, v).reshape(len(q), -1) @ c["wo"]
    size = (1 + largest(q) * largest(k) * c["scale"] * q.shape[-1]) * (1 + largest(v)) * (1 + largest(c["wo"]))
    measure.close(call(f, *c.values()), right, bound(size * len(c["wo"]), 4 * len(c["wo"]) * len(k)))


def hidden(n: Numbers, *, t: int, d: int, scale: float) -> dict[str, Any]:
    """Last vectors of a model, and a table of five."""
    return {"hidden": n.normal(t, d), "table": n.normal(5, d), "scale": scale}


@law("output-scale", "formula", serves="eq:output-scale", cases=cases(hidden, t=(1, 3), d=(1, 2, 7), scale=(0.25, 2.0)))
def output_formula(f: F, c: Case, measure: Measure) -> None:
    """Logits are c times the products of vectors and rows of the table."""
    right = c["scale"] * np.einsum("td,nd->tn", c["hidden"], c["table"])
    size = c["scale"] * largest(np.abs(c["hidden"]) @ np.abs(c["table"]).T)
    measure.close(call(f, *c.values()), right, bound(1 + size, c["table"].shape[1] + 1))


@mutant("geglu", "the other form of GELU", kills="formula", met="T5 1.1 says gated-gelu, and means the form by tanh")
def other_form(x: Any, wg: Any, w1: Any, w2: Any, tanh: bool) -> Any:
    return our_geglu(x, wg, w1, w2, not tanh)


@mutant(
    "geglu", "gate and value exchanged", kills="formula", met="plausible: wi_0 and wi_1, or the halves of one matrix"
)
def exchanged(x: Any, wg: Any, w1: Any, w2: Any, tanh: bool) -> Any:
    return our_geglu(x, w1, wg, w2, tanh)


@mutant(
    "partial-rotary", "frequencies of the whole head", kills=("definition", "whole"),
    met="plausible: the exponent -2j/d with the head's d, which transformers' type `proportional` has on purpose",
)  # fmt: skip
def whole_frequencies(x: Any, positions: Any, base: float, share: float) -> Any:
    m = int(x.shape[-1] * share)
    return np.concatenate([rotary(x, to_host(positions), base=base)[..., :m], x[..., m:]], axis=-1)


@mutant("partial-rotary", "the whole head turned", kills=("definition", "rest"), met="partial_rotary_factor overlooked")
def all_of_it(x: Any, positions: Any, base: float, share: float) -> Any:
    return rotary(x, to_host(positions), base=base)


@mutant("partial-rotary", "the last components turned", kills=("definition", "rest"), met="plausible: the other part")
def last_part(x: Any, positions: Any, base: float, share: float) -> Any:
    rest = x.shape[-1] - int(x.shape[-1] * share)
    return np.concatenate([x[..., :rest], rotary(x[..., rest:], to_host(positions), base=base)], axis=-1)


@mutant("llama3-scaling", "YaRN's ramp", kills="ramp", met="plausible: beta 32 for 4, the same formula otherwise")
def yarns(dim: int, base: float, factor: float, context: int) -> Any:
    return Scaling("yarn", factor, context, "paper").frequencies(dim, base)


@mutant("llama3-scaling", "position interpolation", kills="ramp", met="llama3 read as linear, since both have a factor")
def interpolated(dim: int, base: float, factor: float, context: int) -> Any:
    return Scaling("pi", factor).frequencies(dim, base)


@mutant("llama3-scaling", "a factor where none is asked", kills="identity", met="plausible: a usual factor of 8")
def usual(dim: int, base: float, factor: float, context: int) -> Any:
    return our_llama3(dim, base, max(factor, 8.0), context)


@mutant("plain-input", "times sqrt(d)", kills="formula", met="the paper's factor before weights made without it")
def rooted(tokens: Any, table: Any, positions: Any) -> Any:
    return table[tokens] * table.shape[1] ** 0.5 + positions[: len(tokens)]


@mutant("given-scale", "divided by sqrt(d)", kills="formula", met="T5's weights in a network that divides its scores")
def divided(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, scale: float) -> Any:
    return our_attention(x, z, wq, wk, wv, wo, heads, (wq.shape[-1] // heads) ** -0.5)


@mutant(
    "given-scale", "a scale on top of the usual", kills="formula", met="plausible: queries scaled before the kernel"
)
def on_top(x: Any, z: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int, scale: float) -> Any:
    return our_attention(x, z, wq, wk, wv, wo, heads, scale * (wq.shape[-1] // heads) ** -0.5)


@mutant("output-scale", "not scaled", kills="formula", met="T5 1.1, whose output is not scaled, taken for 1.0")
def not_scaled(hidden: Any, table: Any, scale: float) -> Any:
    return hidden @ table.T
