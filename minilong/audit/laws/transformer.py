"""Laws of the layers around attention: residual and norm, the stacks of encoder and decoder.

The parts of a stack are functions here, so that the wiring is audited and nothing else: `attend`, `cross` and `feed`
are small fixed maps that mix positions, read a memory, or do neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest, of_host
from minilong.nn import Decoder, DecoderLayer, Dropout, Encoder, EncoderLayer, View
from minilong.nn.transformer import residual

Map = Callable[[np.ndarray], np.ndarray]

kind("residual", "residual(x, f, norm, kind)", "x (t, width), functions f and norm; kind `pre` or `post`.")
kind("encoder", "encoder(x, layers, norm, kind)", "layers: pairs of functions (attend, feed).")
kind("decoder", "decoder(x, memory, layers, norm, kind)", "layers: triples (attend, cross or None, feed).")


# Ours, with functions in the places of layers.


def our_residual(x: Any, f: Map, norm: Map, kind: str) -> Any:
    """Our `residual`, without dropout."""
    f, norm = of_host(f, x), of_host(norm, x)
    owner: Any = EncoderLayer(f, norm, f, norm, Dropout(), kind)  # type: ignore[arg-type]
    return residual(owner, norm, x, f, None)


def our_encoder(x: Any, layers: Any, norm: Map, kind: str) -> Any:
    """Our stack of encoder layers."""
    norm = of_host(norm, x)
    own: Any = tuple(
        EncoderLayer(
            attention=lambda h, *, view, past, attend=attend: of_host(attend, x)(h),  # type: ignore[arg-type]
            attention_norm=norm,
            feed_forward=lambda h, key, feed=feed: of_host(feed, x)(h),  # type: ignore[arg-type]
            feed_forward_norm=norm,
            dropout=Dropout(),
            norm=kind,
        )
        for attend, feed in layers
    )
    return Encoder(own, norm if kind == "pre" else None)(x, view=View())


def our_decoder(x: Any, memory: Any, layers: Any, norm: Map, kind: str) -> Any:
    """Our stack of decoder layers."""
    norm = of_host(norm, x)
    own: Any = tuple(
        DecoderLayer(
            attention=lambda h, *, view, past, attend=attend: of_host(attend, x)(h),  # type: ignore[arg-type]
            attention_norm=norm,
            cross=cross and (lambda h, m, *, view, cross=cross: of_host(cross, x)(h, m)),  # type: ignore[arg-type]
            cross_norm=norm if cross else None,
            feed_forward=lambda h, key, feed=feed: of_host(feed, x)(h),  # type: ignore[arg-type]
            feed_forward_norm=norm,
            dropout=Dropout(),
            norm=kind,
        )
        for attend, cross, feed in layers
    )
    return Decoder(own, norm if kind == "pre" else None)(x, memory, view=View(Mask(causal=True)))


subject("residual", "residual", code=residual, equation="eq:residual")(our_residual)
subject("encoder", "Encoder", code=Encoder.__call__, equation="eq:encoder")(our_encoder)
subject("decoder", "Decoder", code=Decoder.__call__, equation="eq:decoder")(our_decoder)


# Cases: numbers that become functions inside the laws.


def stream(n: Numbers, *, t: int, width: int, layers: int, kind: str, s: int = 2) -> dict[str, Any]:
    """x, a memory, and for each layer a mixing matrix of positions, of the memory, and of components."""
    return {
        "x": n.normal(t, width),
        "memory": n.normal(s, width),
        "mix": n.uniform(-1, 1, layers, t, t),
        "read": n.uniform(-1, 1, layers, t, s),
        "weight": n.uniform(-1, 1, layers, width, width),
        "gain": n.uniform(0.5, 1.5, width),
        "kind": kind,
    }


STREAM = cases(stream, t=(1, 2, 3), width=(2, 3, 5), layers=(1, 2, 3), kind=("pre", "post"), s=(1, 2, 3))


def norm_of(c: Case) -> Map:
    """A bounded norm, so that stacks stay in range: x / sqrt(1 + mean of squares), times the gain."""
    return lambda x: x * (((x * x).sum(axis=-1, keepdims=True) / x.shape[-1] + 1.0) ** -0.5) * c["gain"]


def parts(c: Case, i: int) -> tuple[Map, Callable[[np.ndarray, np.ndarray], np.ndarray], Map]:
    """attend mixes positions, cross reads the memory, feed works on each position alone."""
    mix, read, weight = c["mix"][i], c["read"][i], c["weight"][i]
    return lambda h: mix @ h, lambda h, m: h * 0.5 + read @ m, lambda h: np.maximum(h @ weight, 0.0)


def room(c: Case) -> float:
    """Rounding bound of a stack: each layer can enlarge what is in it by its matrices."""
    growth = 1.0
    for i in range(len(c["mix"])):
        row = max(largest(np.abs(c[name][i]).sum(axis=-1)) for name in ("mix", "read", "weight"))
        growth *= (2.0 + row) ** 3
    return bound((1 + largest(c["x"], c["memory"])) * growth * 2, 8)


@law("residual", "formula", serves="eq:residual", cases=STREAM)
def residual_formula(f: F, c: Case, measure: Measure) -> None:
    """Post: norm(x + f(x)). Pre: x + f(norm(x))."""
    norm, (attend, _, _) = norm_of(c), parts(c, 0)
    expected = norm(c["x"] + attend(c["x"])) if c["kind"] == "post" else c["x"] + attend(norm(c["x"]))
    measure.close(call(f, c["x"], attend, norm, c["kind"]), expected, room(c))


@law("residual", "pass-through", serves="eq:residual", cases=STREAM)
def pass_through(f: F, c: Case, measure: Measure) -> None:
    """A sub-layer that gives zero leaves x in pre-norm, bit for bit, and norm(x) in post-norm."""
    norm = norm_of(c)
    expected = norm(c["x"]) if c["kind"] == "post" else c["x"]
    measure.close(call(f, c["x"], lambda h: 0.0 * h, norm, c["kind"]), expected, 0.0)


@law("encoder", "formula", serves=("eq:encoder", "eq:residual"), cases=STREAM)
def encoder_formula(f: F, c: Case, measure: Measure) -> None:
    """Each layer is self-attention, then the feed-forward network, with residual and norm; pre-norm ends with one."""
    norm, x, layers = norm_of(c), c["x"], [parts(c, i) for i in range(len(c["mix"]))]
    for attend, _, feed in layers:
        for g in (attend, feed):
            x = norm(x + g(x)) if c["kind"] == "post" else x + g(norm(x))
    x = norm(x) if c["kind"] == "pre" else x
    measure.close(call(f, c["x"], [(a, g) for a, _, g in layers], norm, c["kind"]), x, room(c))


@law("decoder", "formula", serves=("eq:decoder", "eq:residual"), cases=STREAM)
def decoder_formula(f: F, c: Case, measure: Measure) -> None:
    """Each layer is self-attention, attention to the memory as it came, then the feed-forward network."""
    norm, x, layers = norm_of(c), c["x"], [parts(c, i) for i in range(len(c["mix"]))]
    for attend, cross, feed in layers:
        for g in (attend, lambda h, cross=cross: cross(h, c["memory"]), feed):
            x = norm(x + g(x)) if c["kind"] == "post" else x + g(norm(x))
    x = norm(x) if c["kind"] == "pre" else x
    measure.close(call(f, c["x"], c["memory"], layers, norm, c["kind"]), x, room(c))


@law("decoder", "without-cross-is-encoder", serves=("eq:decoder", "eq:encoder"), cases=STREAM)
def without_cross(f: F, c: Case, measure: Measure) -> None:
    """Without attention to a memory, nothing of the memory is seen, and a layer is one of the encoder's form."""
    norm, layers = norm_of(c), [(a, None, g) for a, _, g in (parts(c, i) for i in range(len(c["mix"])))]
    y = call(f, c["x"], c["memory"], layers, norm, c["kind"])
    measure.close(call(f, c["x"], c["memory"] + 1.0, layers, norm, c["kind"]), y, 0.0)
    measure.close(y, our_encoder(c["x"], [(a, g) for a, _, g in layers], norm, c["kind"]), room(c))


@mutant(
    "residual",
    "pre and post exchanged",
    kills=("formula", "pass-through"),
    met="annotated-transformer 1, 13, 92, 110: text says post-norm, code is pre-norm, asked for seven years",
)
def exchanged(x: Any, f: Map, norm: Map, kind: str) -> Any:
    """Each where the other is asked for."""
    return our_residual(x, f, norm, "pre" if kind == "post" else "post")


@mutant(
    "residual",
    "residual taken after the norm",
    kills=("formula", "pass-through"),
    met="plausible: norm(x) is assigned to x first, so that the stream itself is normalised in pre-norm",
)
def normed_stream(x: Any, f: Map, norm: Map, kind: str) -> Any:
    """norm(x) + f(norm(x))."""
    h = norm(x)
    return h + f(h) if kind == "pre" else norm(x + f(x))


def wrong_encoder(final: bool = True, order: int = 1, skip: bool = True) -> F:
    """An encoder with one mistake."""

    def encoder(x: Any, layers: Any, norm: Map, kind: str) -> Any:
        for layer in layers:
            for g in layer[::order]:
                x = our_residual(x, g, norm, kind) if skip else norm(g(x))
        return norm(x) if kind == "pre" and final else x

    return encoder


mutant("encoder", "no norm at the end of a pre-norm stack", kills="formula",
       met="plausible: a post-norm stack needs none, and pre-norm is made from it by moving one line")(
    wrong_encoder(final=False))  # fmt: skip
mutant(
    "encoder",
    "no residual connection",
    kills="formula",
    met="the article's 3.1.4 lists norms after each step and no residual connection",
)(wrong_encoder(skip=False))


def wrong_decoder(encoded: bool = False, first: bool = False, always: bool = False) -> F:
    """A decoder with one mistake: memory normalised again, cross-attention first, or a memory where none is read."""

    def decoder(x: Any, memory: Any, layers: Any, norm: Map, kind: str) -> Any:
        m = norm(memory) if encoded else memory
        for attend, cross, feed in layers:
            read = cross and (lambda h, cross=cross: cross(h, m))
            if always and not cross:
                x = x + m.mean(axis=0)
            for g in (read, attend, feed) if first else (attend, read, feed):
                x = our_residual(x, g, norm, kind) if g else x
        return norm(x) if kind == "pre" else x

    return decoder


mutant(
    "decoder",
    "memory normalised in each layer",
    kills="formula",
    met="plausible: the norm of pre-norm applied to both arguments of cross-attention",
)(wrong_decoder(encoded=True))
mutant("decoder", "attention to the memory comes first", kills="formula",
       met="plausible: the order of the sub-layers; the article's 3.1.3 lists them in words only")(
    wrong_decoder(first=True))  # fmt: skip
mutant("decoder", "a memory seen without cross-attention", kills="without-cross-is-encoder",
       met="plausible: the memory pooled and added, so that a language model needs a source")(
    wrong_decoder(always=True))  # fmt: skip
