"""Laws of the networks between attentions, and of the size at which they start to write to the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.models.build import residual_gain
from minilong.models.config import ModelConfig
from minilong.nn import FeedForward, Linear
from minilong.nn.layers import ACTIVATIONS

kind("feed-forward", "feed_forward(x, w1, b1, w2, b2, activation)", "activation: a function of arrays.")
kind("swiglu", "swiglu(x, wg, w1, w2)", "A gated network of three matrices.")
kind("residual-scaling", "residual_scaling(branches, layers, norm)", "The factor of what writes to the stream.")


def our_feed_forward(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, activation: Any) -> Any:
    """Our layer; the activation is looked up by its name there."""
    name = next(name for name, f in FUNCTIONS.items() if f is activation)
    return FeedForward(Linear(w1, b1), Linear(w2, b2), None, name)(x)


def our_swiglu(x: Any, wg: Any, w1: Any, w2: Any) -> Any:
    """Our layer with a gate."""
    return FeedForward(Linear(w1, None), Linear(w2, None), Linear(wg, None), "swiglu")(x)


def our_scaling(branches: int, layers: int, norm: str) -> float:
    """Our gain for a stack of that many layers."""
    return residual_gain(ModelConfig(layers=layers, norm=norm), branches)


subject("feed-forward", "FeedForward", code=FeedForward.__call__, equation="eq:feed-forward")(our_feed_forward)
subject("swiglu", "FeedForward with a gate", code=FeedForward.__call__, equation="eq:swiglu")(our_swiglu)
subject("residual-scaling", "residual_gain", code=residual_gain, equation="eq:residual-scaling")(our_scaling)

FUNCTIONS: dict[str, Callable[[Any], Any]] = dict(ACTIVATIONS)
"""The activations under audit, by name: what they compute is the primitives' business."""


def network(n: Numbers, *, t: int, width: int, hidden: int, activation: str) -> dict[str, Any]:
    """A small network."""
    return {
        "x": n.normal(t, width),
        "w1": n.normal(width, hidden),
        "b1": n.normal(hidden),
        "w2": n.normal(hidden, width),
        "b2": n.normal(width),
        "wg": n.normal(width, hidden),
        "activation": activation,
    }


NETWORK = cases(network, t=(1, 2, 3), width=(1, 2, 3, 5), hidden=(1, 2, 3, 7), activation=("relu", *ACTIVATIONS))


def hidden_bound(c: Case, gate: float = 1.0) -> float:
    """Rounding bound of a network: sums of products with all magnitudes."""
    inner = largest(np.abs(c["x"]) @ np.abs(c["w1"])) + largest(c["b1"])
    return bound((1 + inner) * (1 + gate) * (1 + largest(np.abs(c["w2"]).sum(axis=0))), len(c["w1"]))


@law("feed-forward", "formula", serves="eq:feed-forward", cases=NETWORK)
def network_formula(f: F, c: Case, measure: Measure) -> None:
    """activation(x W1 + b1) W2 + b2, with sums written out."""
    activation = FUNCTIONS[c["activation"]]
    y = call(f, *[c[name] for name in ("x", "w1", "b1", "w2", "b2")], activation)
    hidden = np.asarray(activation(np.einsum("ti,ih->th", c["x"], c["w1"]) + c["b1"]))
    measure.close(y, np.einsum("th,hi->ti", hidden, c["w2"]) + c["b2"], hidden_bound(c) + bound(largest(c["b2"])))


@law("feed-forward", "each-position-alone", serves="eq:feed-forward", cases=NETWORK)
def positions_alone(f: F, c: Case, measure: Measure) -> None:
    """The network moves nothing between positions: the row of a position comes from that position only."""
    rest, activation = [c[name] for name in ("w1", "b1", "w2", "b2")], FUNCTIONS[c["activation"]]
    y = call(f, c["x"], *rest, activation)
    other = np.concatenate([c["x"][:1], c["x"][1:] + 1.0])
    measure.close(call(f, other, *rest, activation)[:1], y[:1], 0.0)


@law("swiglu", "formula", serves="eq:swiglu", cases=NETWORK)
def swiglu_formula(f: F, c: Case, measure: Measure) -> None:
    """(silu(x Wg) times (x W1)) W2, where silu(z) = z / (1 + exp(-z))."""
    z = c["x"] @ c["wg"]
    gate = z / (1 + np.exp(-z))
    expected = (gate * (c["x"] @ c["w1"])) @ c["w2"]
    size = largest(np.abs(c["x"]) @ np.abs(c["wg"]))
    measure.close(call(f, c["x"], c["wg"], c["w1"], c["w2"]), expected, hidden_bound(c, size))


def depth(n: Numbers, *, branches: int, layers: int, norm: str) -> dict[str, Any]:
    """A stack's depth, and a seed for its branches."""
    return {"branches": branches, "layers": layers, "norm": norm}


DEPTH = cases(depth, branches=(2, 3), layers=(1, 2, 3, 6, 12, 48), norm=("pre", "post"))


@law("residual-scaling", "unit-variance", serves="eq:residual-scaling", cases=DEPTH)
def unit_variance(f: F, c: Case, measure: Measure) -> None:
    """In pre-norm the scaled branches of a whole stack add a variance of 1, whatever its depth; in post-norm 1 each."""
    gain = float(f(c["branches"], c["layers"], c["norm"]))
    added = gain**2 * (c["branches"] * c["layers"] if c["norm"] == "pre" else 1)
    measure.close(added, 1.0, bound(1.0))


@mutant(
    "feed-forward",
    "activation after the second matrix",
    kills="formula",
    met="plausible: the order of two lines; with ReLU the output is then never negative",
)
def late(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, activation: Any) -> Any:
    """activation((x W1 + b1) W2 + b2)."""
    return np.asarray(activation((x @ w1 + b1) @ w2 + b2))


@mutant(
    "feed-forward",
    "mean over positions taken in",
    kills="each-position-alone",
    met="plausible: a normalisation over the wrong axis inside the network",
)
def mixing(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, activation: Any) -> Any:
    """Hidden units centred over positions."""
    hidden = np.asarray(activation(x @ w1 + b1))
    return (hidden - hidden.mean(axis=0)) @ w2 + b2 + x.mean(axis=0)


@mutant(
    "swiglu",
    "gate and value exchanged",
    kills="formula",
    met="plausible: checkpoints name the matrices w1, w2, w3 or gate, up, down in differing orders",
)
def ungated(x: Any, wg: Any, w1: Any, w2: Any) -> Any:
    """silu(x W1) times (x Wg)."""
    return our_swiglu(x, w1, wg, w2)


@mutant(
    "residual-scaling",
    "branches not counted",
    kills="unit-variance",
    met="plausible: 1/sqrt(layers) for GPT-2's 1/sqrt(residual branches), of which a layer has two",
)
def per_layer(branches: int, layers: int, norm: str) -> float:
    """1 / sqrt(layers)."""
    return layers**-0.5 if norm == "pre" else 1.0
