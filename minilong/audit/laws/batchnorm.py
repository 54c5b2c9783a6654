"""Laws of batch normalisation, among them what makes it unfit for causal models: asserted, not hidden."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.nn import BatchNorm, BatchState

kind("batch-norm", "batch_norm(x, gain, bias, valid, eps)", "x (b, t, width), valid (b, t) booleans; batch statistics.")
kind(
    "batch-norm-evaluation",
    "batch_norm(x, gain, bias, eps, batches)",
    "x (b, t, width) by the running statistics that a list of batches left behind.",
)


def ours(x: Any, gain: Any, bias: Any, valid: Any = None, eps: float = 1e-5) -> Any:
    """Our layer in training."""
    return BatchNorm(gain, bias, eps).train(x, BatchState.create(x.shape[-1]), valid)[0]


def ours_evaluated(x: Any, gain: Any, bias: Any, eps: float, batches: Any) -> Any:
    """Our layer after some batches."""
    layer, state = BatchNorm(gain, bias, eps), BatchState(np.zeros(x.shape[-1]), np.ones(x.shape[-1]))
    for b in batches:
        _, state = layer.train(b, state)
    return layer.evaluate(x, state)


subject("batch-norm", "BatchNorm, training", code=BatchNorm.train, equation="eq:batch-norm")(ours)
subject("batch-norm-evaluation", "BatchNorm, evaluation", code=BatchNorm.evaluate, equation="eq:batch-norm")(
    ours_evaluated
)

ARGUMENTS = ("x", "gain", "bias", "valid", "eps")


def drawn(n: Numbers, *, b: int, t: int, width: int) -> dict[str, Any]:
    """A batch with padding, of which two positions at least are valid."""
    valid = n.chance(0.6, b, t)
    valid.reshape(-1)[[0, -1]] = True
    return {"x": n.normal(b, t, width), "gain": n.nonzero(width), "bias": n.normal(width), "valid": valid, "eps": 0.01}


DRAWN = cases(drawn, b=(1, 2, 3), t=(2, 3, 5), width=(1, 2, 3))


def size(c: Case, *more: Any) -> float:
    """Rounding bound: differences of the numbers, divided by no less than sqrt(eps)."""
    return bound(
        (1 + largest(c["x"], *more)) ** 2 * (1 + largest(c["gain"])) / c["eps"] + largest(c["bias"]), c["x"].size
    )


@law("batch-norm", "valid-positions-only", serves=("eq:batch-norm", "claim:batch-norm-padding"), cases=DRAWN)
def valid_only(f: F, c: Case, measure: Measure) -> None:
    """Each channel has the mean and the biased variance of the valid positions taken out, padding taken in nowhere."""
    y = call(f, *[c[name] for name in ARGUMENTS])
    for i in range(c["x"].shape[-1]):
        seen = c["x"][..., i][c["valid"]]
        mean = sum(seen) / len(seen)
        variance = sum((seen - mean) ** 2) / len(seen)
        expected = (c["x"][..., i] - mean) / (variance + c["eps"]) ** 0.5 * c["gain"][i] + c["bias"][i]
        measure.close(y[..., i], expected, size(c))


@law("batch-norm", "padding-does-not-matter", serves="claim:batch-norm-padding", cases=DRAWN)
def padding(f: F, c: Case, measure: Measure) -> None:
    """Valid positions have the same values whatever stands in the padding."""
    other = np.where(c["valid"][..., None], c["x"], c["x"] * -7.0 + 3.0)
    rest = [c[name] for name in ARGUMENTS[1:]]
    measure.close(call(f, other, *rest)[c["valid"]], call(f, c["x"], *rest)[c["valid"]], size(c, other))


@law("batch-norm", "breaks-causality", serves=("eq:batch-norm", "claim:batch-norm"), cases=DRAWN)
def breaks_causality(f: F, c: Case, measure: Measure) -> None:
    """A changed last token changes earlier positions of its own sequence, and other sequences: no causal model may use
    the layer."""
    x, valid = c["x"].copy(), np.ones_like(c["valid"])
    x[-1, -1] += 10.0
    before = call(f, c["x"], c["gain"], c["bias"], valid, c["eps"])
    moved = np.abs(call(f, x, c["gain"], c["bias"], valid, c["eps"]) - before)
    measure.holds(np.any(moved[-1, :-1] > 0), "earlier positions stayed as they were")
    measure.holds(len(x) == 1 or np.any(moved[:-1] > 0), "other sequences stayed as they were")


def running(n: Numbers, *, b: int, t: int, width: int, batches: int) -> dict[str, Any]:
    """Batches, and an input to evaluate."""
    return {
        "x": n.normal(b, t, width),
        "gain": n.nonzero(width),
        "bias": n.normal(width),
        "eps": 0.01,
        "batches": [n.normal(2, t, width) for _ in range(batches)],
    }


RUNNING = cases(running, b=(1, 2), t=(1, 2, 3), width=(1, 2, 3), batches=(1, 0, 2, 3))


@law("batch-norm-evaluation", "each-position-alone", serves="eq:batch-norm", cases=RUNNING)
def each_position_alone(f: F, c: Case, measure: Measure) -> None:
    """In evaluation a position's value depends on no other position of the batch, in no bit."""
    rest = [c[name] for name in ("gain", "bias", "eps", "batches")]
    alone = call(f, c["x"][:1, :1], *rest)
    measure.close(call(f, c["x"], *rest)[:1, :1], alone, 0.0)


@law("batch-norm-evaluation", "running-statistics", serves="eq:batch-norm", cases=RUNNING)
def running_statistics(f: F, c: Case, measure: Measure) -> None:
    """Running mean and variance start at 0 and 1 and go a tenth of the way to each batch's mean and unbiased
    variance."""
    y = call(f, *[c[name] for name in ("x", "gain", "bias", "eps", "batches")])
    for i in range(c["x"].shape[-1]):
        mean, variance = 0.0, 1.0
        for b in c["batches"]:
            mean += 0.1 * (b[..., i].mean() - mean)
            variance += 0.1 * (b[..., i].var(ddof=1) - variance)
        expected = (c["x"][..., i] - mean) / (variance + c["eps"]) ** 0.5 * c["gain"][i] + c["bias"][i]
        measure.close(y[..., i], expected, size(c, *c["batches"]))


# Mutants


@mutant(
    "batch-norm",
    "padding counted",
    kills=("valid-positions-only", "padding-does-not-matter"),
    met="plausible: the layer of the frameworks, which knows no mask, on padded batches",
)
def unmasked(x: Any, gain: Any, bias: Any, valid: Any, eps: float) -> Any:
    """Statistics of all positions."""
    return ours(x, gain, bias, None, eps)


@mutant(
    "batch-norm",
    "unbiased variance",
    kills="valid-positions-only",
    met="plausible: torch.var's default; the layer itself normalises by the biased one",
)
def unbiased(x: Any, gain: Any, bias: Any, valid: Any, eps: float) -> Any:
    """Divided by n - 1."""
    rows = x[np.asarray(valid, bool)]
    return (x - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0, ddof=1) + eps) * gain + bias


@mutant(
    "batch-norm",
    "layer norm under its name",
    kills="breaks-causality",
    met="plausible: statistics over the last axis; harmless, and not what is asked for",
)
def layer_norm(x: Any, gain: Any, bias: Any, valid: Any, eps: float) -> Any:
    """Statistics of each position."""
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps) * gain + bias


@mutant(
    "batch-norm-evaluation",
    "batch statistics in evaluation",
    kills=("each-position-alone", "running-statistics"),
    met="a model left in training mode; chainer PR 4568, equinox 37, 45 and 166 on the state of this layer",
)
def still_training(x: Any, gain: Any, bias: Any, eps: float, batches: Any) -> Any:
    """Statistics of the batch that is evaluated."""
    return (x - x.mean(axis=(0, 1))) / np.sqrt(x.var(axis=(0, 1)) + eps) * gain + bias


@mutant(
    "batch-norm-evaluation",
    "momentum the other way round",
    kills="running-statistics",
    met="PyTorch's momentum 0.1 is Keras's 0.9: one is the share of the new, the other of the old",
)
def keras(x: Any, gain: Any, bias: Any, eps: float, batches: Any) -> Any:
    """Nine tenths of the way."""
    layer = BatchNorm(gain, bias, eps, momentum=0.9)
    state = BatchState(np.zeros(x.shape[-1]), np.ones(x.shape[-1]))
    for b in batches:
        _, state = layer.train(b, state)
    return layer.evaluate(x, state)
