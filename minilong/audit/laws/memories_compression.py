"""Laws of compression, and of the loss by which a compressor learns and nothing else does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.attention import naive
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.autodiff import grad, linear, ops
from minilong.memory import Compressor, Rows, reconstruction_loss

kind(
    "compress", "compress(x, rate, sort, weight)", "x (..., n, width) -> (..., n / rate, width); sort: mean, max, conv"
)
kind(
    "reconstruction-loss",
    "reconstruction_loss(h, x, query, key, value, weight)",
    "h (b, t, width), x (b, n, width), projections (width, d), weight (rate, width, width) -> (1,)",
)
kind(
    "reconstruction-gradients",
    "reconstruction_gradients(h, x, query, key, value, weight)",
    "The gradient of the reconstruction loss for each argument.",
)


@subject("compress", "Compressor", code=Compressor, equation="eq:compress")
def ours_compress(x: Any, rate: int, sort: str, weight: Any) -> Any:
    return Compressor(sort, rate, weight)(x)


def attend(layer: Any, h: Any, rows: Rows) -> Any:
    """Attention of one head without a mask; layer: the projections."""
    query, key, value = layer
    (x,) = rows
    heads = [
        ops.reshape(y, shape=(y.shape[0], 1, *y.shape[1:]))
        for y in (linear(h, query), linear(x, key), linear(x, value))
    ]
    return naive(*heads)


@subject("reconstruction-loss", "reconstruction_loss", code=reconstruction_loss, equation="eq:reconstruction-loss")
def ours_loss(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> Any:
    loss = reconstruction_loss(Compressor("conv", len(weight), weight), attend, (query, key, value), h, (x,))
    return loss.reshape(1)


@subject(
    "reconstruction-gradients",
    "reconstruction_loss, differentiated",
    code=reconstruction_loss,
    equation="eq:reconstruction-gradients",
)
def ours_loss_gradients(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> list[np.ndarray]:
    def loss(tree: Any) -> Any:
        h, x, query, key, value, weight = tree
        return reconstruction_loss(Compressor("conv", len(weight), weight), attend, (query, key, value), h, (x,))

    return list(grad(loss)([h, x, query, key, value, weight]))


# Compression


def drawn_rows(r: Numbers, front: tuple[int, ...], blocks: int, width: int, rate: int, sort: str) -> Case:
    """Rows in whole blocks, and a convolution's weight."""
    x = r.normal(*front, blocks * rate, width)
    return {"x": x, "rate": rate, "sort": sort, "weight": r.normal(rate, width, width) if sort == "conv" else None}


ROWS = cases(
    drawn_rows, front=((1,), (2,), (2, 3)), blocks=(1, 2, 3, 5), width=(1, 2, 3), rate=(1, 2, 3, 4),
    sort=("mean", "max", "conv"),
)  # fmt: skip


def compressed(f: F, c: Case, **changes: Any) -> np.ndarray:
    """The compressed rows."""
    return call(f, *[{**c, **changes}[name] for name in ("x", "rate", "sort", "weight")])


def size(c: Case) -> float:
    """Rounding bound of sums of a block's products."""
    width = c["x"].shape[-1]
    factor = 1.0 if c["weight"] is None else width * largest(c["weight"])
    return bound(c["rate"] * factor * largest(c["x"]), c["rate"] * width)


@law("compress", "definition", serves="eq:compress", cases=ROWS)
def compress_definition(f: F, c: Case, measure: Measure) -> None:
    """Row i is the mean, the maximum or the mapped sum of the rows from r i up to r (i + 1)."""
    x, r = c["x"], c["rate"]
    expected = np.zeros((*x.shape[:-2], x.shape[-2] // r, x.shape[-1]))
    for *row, i, channel in np.ndindex(expected.shape):
        block = x[*row, r * i : r * (i + 1)]
        if c["sort"] == "conv":
            expected[*row, i, channel] = sum(block[s] @ c["weight"][s, :, channel] for s in range(r))
        else:
            column = [float(number) for number in block[:, channel]]
            expected[*row, i, channel] = sum(column) / r if c["sort"] == "mean" else max(column)
    measure.close(compressed(f, c), expected, size(c))


@law("compress", "averaging-convolution", serves="eq:compress", cases=ROWS)
def averaging_convolution(f: F, c: Case, measure: Measure) -> None:
    """With the identity over r as each weight, the convolution is the mean; at rate 1 it is the rows themselves."""
    r, width = c["rate"], c["x"].shape[-1]
    weight = np.stack([np.eye(width) / r] * r)
    mean = compressed(f, c, sort="mean", weight=None)
    measure.close(compressed(f, c, sort="conv", weight=weight), mean, bound(r * largest(c["x"]), r * width), "conv")
    same = compressed(f, c, rate=1, sort="conv", weight=np.eye(width)[None])
    measure.close(same, c["x"], bound(largest(c["x"]), width), "at rate 1, a row")


# Reconstruction


def drawn_loss(r: Numbers, b: int, t: int, blocks: int, rate: int, width: int, d: int) -> Case:
    """A segment's inputs, old rows, one head's projections, and a convolution."""
    x = {"h": r.normal(b, t, width), "x": r.normal(b, blocks * rate, width)}
    layer = {name: r.normal(width, d) for name in ("query", "key", "value")}
    return {**x, **layer, "weight": r.normal(rate, width, width)}


LOSSES = cases(drawn_loss, b=(1, 2), t=(1, 2, 3), blocks=(2, 1, 3), rate=(2, 1, 3), width=(1, 2, 3), d=(1, 2))
ARGUMENTS = ("h", "x", "query", "key", "value", "weight")


def reconstruction(c: Case, weight: Any) -> Any:
    """The loss, one query at a time; weight may be complex."""
    x, rate = c["x"], len(weight)
    short = np.stack([
        sum(x[:, rate * i + s] @ weight[s] for s in range(rate)) for i in range(x.shape[1] // rate)
    ], axis=1)  # fmt: skip
    total: Any = 0.0
    for row, i in np.ndindex(c["h"].shape[:2]):
        q, y = c["h"][row, i] @ c["query"], []
        for rows in (x[row], short[row]):
            scores = rows @ c["key"] @ q / math.sqrt(len(q))
            e = np.exp(scores - np.max(scores.real))
            y.append(e @ (rows @ c["value"]) / e.sum())
        total = total + np.sum((y[0] - y[1]) ** 2)
    return total / (c["h"].shape[0] * c["h"].shape[1] * c["value"].shape[1])


def loss_size(c: Case) -> float:
    """Rounding bound: the largest score and value before and after compression, squared."""
    width, d = c["query"].shape
    rows = largest(c["x"]) * (1.0 + width * len(c["weight"]) * largest(c["weight"]))
    scores = width * largest(c["h"]) * largest(c["query"]) * width * rows * largest(c["key"]) * d
    values = width * rows * largest(c["value"])
    return bound((1.0 + scores) * (1.0 + values) ** 2, c["x"].size + c["weight"].size)


@law("reconstruction-loss", "definition", serves="eq:reconstruction-loss", cases=LOSSES)
def loss_definition(f: F, c: Case, measure: Measure) -> None:
    """The mean squared difference between what the segment reads from the old rows and from their compression."""
    found = call(f, *[c[name] for name in ARGUMENTS])
    measure.close(found, np.array([reconstruction(c, c["weight"])]), loss_size(c), "the loss")


@law("reconstruction-loss", "nothing-lost-at-rate-one", serves="eq:reconstruction-loss", cases=LOSSES)
def nothing_lost(f: F, c: Case, measure: Measure) -> None:
    """At rate 1 with the identity nothing is lost, and the loss is zero."""
    identity = {**c, "weight": np.eye(c["x"].shape[-1])[None]}
    found = call(f, *[identity[name] for name in ARGUMENTS])
    measure.close(found, np.zeros(1), loss_size(identity) ** 2, "the loss")


@law("reconstruction-gradients", "compressor-only", serves="eq:reconstruction-gradients", cases=LOSSES)
def compressor_only(f: F, c: Case, measure: Measure) -> None:
    """The segment, the old rows and the projections get no gradient, not in any bit."""
    for name, found in zip(ARGUMENTS[:-1], f(*[c[name].copy() for name in ARGUMENTS])[:-1], strict=True):
        measure.close(found, np.zeros_like(c[name]), 0.0, f"the gradient of {name}")


@law("reconstruction-gradients", "definition", serves="eq:reconstruction-gradients", cases=LOSSES)
def gradient_definition(f: F, c: Case, measure: Measure) -> None:
    """The compressor's gradient is the derivative of the loss, by a complex step."""
    expected, step = np.zeros_like(c["weight"]), 1e-30
    for at in np.ndindex(expected.shape):
        moved = c["weight"].astype(complex)
        moved[at] += 1j * step
        expected[at] = reconstruction(c, moved).imag / step
    found = f(*[c[name].copy() for name in ARGUMENTS])[-1]
    size = 1.0 + largest(c["x"]) * (1.0 + largest(c["h"] @ c["query"]) * largest(c["key"])) * c["weight"].size
    measure.close(found, expected, loss_size(c) * size, "the compressor's gradient")


# Mutants


@mutant("compress", "every r-th row in a block", kills="definition",
        met="plausible: reshaped to (rate, n / rate) for (n / rate, rate)")  # fmt: skip
def interleaved(x: Any, rate: int, sort: str, weight: Any) -> Any:
    """Rows i, i + n/r, i + 2n/r in block i."""
    order = np.arange(x.shape[-2]).reshape(rate, -1).T.reshape(-1)
    return ours_compress(x[..., order, :], rate, sort, weight)


@mutant("compress", "a convolution turned round", kills="definition",
        met="plausible: convolution as in signal processing, which reads the weight from its end")  # fmt: skip
def turned(x: Any, rate: int, sort: str, weight: Any) -> Any:
    """The weight's rows reversed."""
    return ours_compress(x, rate, sort, None if weight is None else weight[::-1].copy())


@mutant("compress", "a sum under the name of the mean", kills=("definition", "averaging-convolution"),
        met="plausible: the pooled rows are then r times as long as the others")  # fmt: skip
def summed(x: Any, rate: int, sort: str, weight: Any) -> Any:
    """Not divided."""
    return ours_compress(x, rate, sort, weight) * (rate if sort == "mean" else 1)


def direct(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> np.ndarray:
    """The rows compared, and not what attention reads from them."""
    short = np.repeat(ours_compress(x, len(weight), "conv", weight), len(weight), axis=1)
    return np.array([np.mean((x - short) ** 2)])


mutant("reconstruction-loss", "rows compared", kills="definition",
       met="plausible: the paper's other loss, that of an autoencoder")(direct)  # fmt: skip


@mutant("reconstruction-loss", "a causal mask on one side", kills=("definition", "nothing-lost-at-rate-one"),
        met="plausible: the layer's own attention, mask and all, for the old rows")  # fmt: skip
def half_masked(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> np.ndarray:
    """Query i sees the first i + 1 of the old rows."""

    def read(rows: Any, causal: bool) -> Any:
        scores = h @ query @ (rows @ key).swapaxes(-1, -2) / math.sqrt(query.shape[-1])
        if causal:
            scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True) @ (rows @ value)

    gap = read(x, True) - read(ours_compress(x, len(weight), "conv", weight), False)
    return np.array([np.mean(gap**2)])


@mutant("reconstruction-gradients", "the layer learns to ignore", kills="compressor-only",
        met="Rae et al. 2020 stop these gradients: else attention learns what compresses well")  # fmt: skip
def all_learn(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> list[np.ndarray]:
    """Nothing is a constant."""

    def loss(tree: Any) -> Any:
        h, x, query, key, value, weight = tree
        short = Compressor("conv", len(weight), weight)(x)
        gap = attend((query, key, value), h, (x,)) - attend((query, key, value), h, (short,))
        return ops.mean(gap * gap)

    return [np.asarray(a) for a in grad(loss)([h, x, query, key, value, weight])]


@mutant("reconstruction-gradients", "the compressor detached too", kills="definition",
        met="plausible: the loss taken from the slots in memory, which are constants")  # fmt: skip
def none_learns(h: Any, x: Any, query: Any, key: Any, value: Any, weight: Any) -> list[np.ndarray]:
    """No gradient at all."""
    return [np.zeros_like(a) for a in (h, x, query, key, value, weight)]
