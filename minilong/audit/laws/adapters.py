"""Laws of low-rank adapters: the identity at the start, the merged weight, the rank, and who learns; and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import SIZES, Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call, largest
from minilong.autodiff import vjp
from minilong.autodiff.tree import leaves
from minilong.nn.layers import Linear
from minilong.nn.lora import Adapted, Adapter, Frozen, attach, merge

Gradient = tuple[Any, Any, Any]

kind(
    "adapter",
    "adapted(x, weight, bias, a, b, alpha)",
    "x (t, k), weight (k, n), bias (n), a (k, r), b (r, n) -> the layer's output with its adapter (t, n).",
)
kind("adapter-merge", "merged(weight, a, b, alpha)", "weight (k, n), a (k, r), b (r, n) -> the merged weight (k, n).")
kind(
    "adapter-gradient",
    "gradient(x, weight, bias, a, b, alpha, g)",
    "as `adapter`, with g (t, n) -> the cotangents of x, a and b. The weight and the bias are constants.",
)


@subject("adapter", "low-rank adapter", code=Adapted, equation="eq:low-rank-adapter")
def ours(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return Adapted(Frozen(weight, bias), Adapter(a, b), alpha)(x)


@subject("adapter-merge", "merged adapter", code=merge, equation="eq:adapter-merge")
def ours_merged(weight: Any, a: Any, b: Any, alpha: float) -> Any:
    (layer,) = merge((Linear(weight, None),), {"0": Adapter(a, b)}, alpha)
    return layer.weight


@subject("adapter-gradient", "gradient of an adapter", code=attach, equation="eq:adapter-gradient")
def ours_gradient(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    def f(x: Any, adapters: dict[str, Adapter]) -> Any:
        return attach((Linear(weight, bias),), adapters, alpha)[0](x)

    for_x, for_adapters = vjp(f, x, {"0": Adapter(a, b)})[1](g)
    return (for_x, *leaves(for_adapters))


def make(r: Numbers, t: int, k: int, n: int, rank: int, alpha: float) -> Case:
    """A layer, an adapter of a rank that need not be below the layer's own, and a cotangent."""
    return {
        "x": r.normal(t, k),
        "weight": r.normal(k, n),
        "bias": r.normal(n),
        "a": r.nonzero(k, rank),
        "b": r.nonzero(rank, n),
        "alpha": alpha,
        "g": r.normal(t, n),
    }


CHOICES: dict[str, Any] = {"t": SIZES, "k": SIZES, "n": SIZES, "rank": (2, 1, 3, 4), "alpha": (1.0, 16.0, 0.5, 3.0)}
anything = cases(make, **CHOICES)
LAYER, UPDATE = ("x", "weight", "bias", "a", "b", "alpha"), ("weight", "a", "b", "alpha")
ALL = (*LAYER, "g")


def take(case: Case, names: tuple[str, ...], **changed: Any) -> tuple[Any, ...]:
    """The arguments, some of them changed."""
    return tuple(changed.get(name, case[name]) for name in names)


def rounding(case: Case) -> float:
    """Sums of k, n or r products of up to four numbers."""
    sizes = [1 + largest(case[name]) for name in ("x", "weight", "a", "b", "g")]
    return bound(case["alpha"] * float(np.prod(sizes)), 64 * max(case["weight"].size, case["a"].size))


@law("adapter", "identity-at-first", serves="eq:low-rank-adapter", cases=anything)
def identity_at_first(f: F, case: Case, measure: Measure) -> None:
    """With B = 0 the layer computes what it computes without an adapter, whatever A and alpha are."""
    y = call(f, *take(case, LAYER, b=0 * case["b"]))
    measure.close(y, case["x"] @ case["weight"] + case["bias"], rounding(case), "the output")


@law("adapter", "definition", serves="eq:low-rank-adapter", cases=anything)
def definition(f: F, case: Case, measure: Measure) -> None:
    """The output is x (W + (alpha / r) A B) + b, the merged weight's."""
    c = case
    merged = c["weight"] + c["alpha"] / c["a"].shape[1] * (c["a"] @ c["b"])
    measure.close(call(f, *take(c, LAYER)), c["x"] @ merged + c["bias"], rounding(c), "the output")


@law("adapter", "rank-does-not-scale", serves="eq:low-rank-adapter", cases=anything)
def rank_does_not_scale(f: F, case: Case, measure: Measure) -> None:
    """An adapter written twice, side by side, has twice the rank and adds the same: alpha is divided by the rank."""
    a, b = np.concatenate([case["a"]] * 2, axis=1), np.concatenate([case["b"]] * 2, axis=0)
    twice, once = call(f, *take(case, LAYER, a=a, b=b)), call(f, *take(case, LAYER))
    measure.close(twice, once, rounding(case), "the output with the adapter written twice")


@law("adapter", "alpha", serves="eq:low-rank-adapter", cases=anything)
def alpha_scales(f: F, case: Case, measure: Measure) -> None:
    """Twice alpha adds twice as much."""
    plain = case["x"] @ case["weight"] + case["bias"]
    once, twice = call(f, *take(case, LAYER)), call(f, *take(case, LAYER, alpha=2 * case["alpha"]))
    measure.close(twice - plain, 2 * (once - plain), rounding(case), "what twice alpha adds")


@law("adapter-merge", "definition", serves="eq:adapter-merge", cases=anything)
def merged_definition(f: F, case: Case, measure: Measure) -> None:
    """Each component of the merged weight is W + (alpha / r) times the sum of r products."""
    w, a, b = (case[name] for name in ("weight", "a", "b"))
    r = a.shape[1]
    right = np.array([[w[i, j] + case["alpha"] / r * sum(a[i, l] * b[l, j] for l in range(r))
                       for j in range(w.shape[1])] for i in range(w.shape[0])])  # fmt: skip
    measure.close(call(f, *take(case, UPDATE)), right, rounding(case), "the merged weight")


@law("adapter-merge", "rank", serves="eq:adapter-merge", cases=anything)
def low_rank(f: F, case: Case, measure: Measure) -> None:
    """What is added has the rank r at most: its singular values beyond r vanish."""
    added = call(f, *take(case, UPDATE)) - case["weight"]
    rest = np.linalg.svd(added, compute_uv=False)[case["a"].shape[1] :]
    measure.close(rest, np.zeros_like(rest), rounding(case), "a singular value beyond the rank")


@law("adapter-merge", "base-untouched", serves="eq:adapter-merge", cases=anything)
def base_untouched(f: F, case: Case, measure: Measure) -> None:
    """The weight that is merged into stays as it is, bit by bit; to merge again gives the same again."""
    weight = case["weight"].copy()
    first = np.array(f(weight, case["a"].copy(), case["b"].copy(), case["alpha"]))
    measure.close(weight, case["weight"], 0.0, "the weight afterwards")
    second = np.array(f(weight, case["a"].copy(), case["b"].copy(), case["alpha"]))
    measure.close(second, first, 0.0, "the second merged weight")


@law("adapter-gradient", "projection", serves="eq:adapter-gradient", cases=anything)
def projection(f: F, case: Case, measure: Measure) -> None:
    """The cotangents of A and B are the gradient that the weight would have, seen through B and through A."""
    _, for_a, for_b = f(*take(case, ALL))
    dense, scale = case["x"].T @ case["g"], case["alpha"] / case["a"].shape[1]
    measure.close(for_a, scale * dense @ case["b"].T, rounding(case), "the cotangent of A")
    measure.close(for_b, scale * case["a"].T @ dense, rounding(case), "the cotangent of B")


@law("adapter-gradient", "input", serves="eq:adapter-gradient", cases=anything)
def for_the_input(f: F, case: Case, measure: Measure) -> None:
    """The cotangent of x goes through the frozen weight and through the adapter."""
    merged = case["weight"] + case["alpha"] / case["a"].shape[1] * (case["a"] @ case["b"])
    measure.close(f(*take(case, ALL))[0], case["g"] @ merged.T, rounding(case), "the cotangent of x")


@law("adapter-gradient", "first-step", serves="eq:adapter-gradient", cases=anything)
def first_step(f: F, case: Case, measure: Measure) -> None:
    """At B = 0 the cotangent of A is zero and that of B is not held back: training starts, by B."""
    _, for_a, for_b = f(*take(case, ALL, b=0 * case["b"]))
    measure.close(for_a, np.zeros_like(case["a"]), 0.0, "the cotangent of A")
    right = case["alpha"] / case["a"].shape[1] * case["a"].T @ (case["x"].T @ case["g"])
    measure.close(for_b, right, rounding(case), "the cotangent of B")


# Mutants


def adapted(x: Any, weight: Any, bias: Any, update: Any) -> Any:
    return x @ (weight + update) + bias


@mutant("adapter", "no scale", kills=("alpha", "definition"), met="plausible: alpha and the rank both forgotten")
def no_scale(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return adapted(x, weight, bias, a @ b)


@mutant(
    "adapter",
    "scale alpha",
    kills="rank-does-not-scale",
    met="plausible: alpha itself; the rank then changes the learning rate",
)
def scale_alpha(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return adapted(x, weight, bias, alpha * (a @ b))


@mutant(
    "adapter", "root of the rank", kills="rank-does-not-scale", met="peft: use_rslora divides by the root of the rank"
)
def root_of_rank(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return adapted(x, weight, bias, alpha / np.sqrt(a.shape[1]) * (a @ b))


@mutant("adapter", "scale r / alpha", kills=("alpha", "definition"), met="plausible: the fraction upside down")
def upside_down(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return adapted(x, weight, bias, a.shape[1] / alpha * (a @ b))


@mutant("adapter", "both random", kills="identity-at-first", met="plausible: B drawn as A is; the model starts spoilt")
def both_random(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    return adapted(x, weight, bias, alpha / a.shape[1] * (a @ np.where(b == 0, 1.0, b)))


@mutant(
    "adapter",
    "bias scaled too",
    kills="definition",
    met="plausible: the layer called on the scaled input, bias and all",
)
def bias_twice(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float) -> Any:
    scale = alpha / a.shape[1]
    return x @ weight + scale * (x @ a @ b + np.where(np.any(b != 0), 1.0, 0.0) * bias) + bias


@mutant("adapter-merge", "alpha forgotten", kills="definition", met="plausible: merged as if alpha were r")
def merge_unscaled(weight: Any, a: Any, b: Any, alpha: float) -> Any:
    return weight + a @ b


@mutant("adapter-merge", "in place", kills="base-untouched", met="peft: merging twice adds the update twice")
def merge_in_place(weight: Any, a: Any, b: Any, alpha: float) -> Any:
    weight += alpha / a.shape[1] * (a @ b)
    return weight


@mutant(
    "adapter-merge",
    "full rank",
    kills="rank",
    met="plausible: A and B multiplied element by element where they broadcast",
)
def full_rank(weight: Any, a: Any, b: Any, alpha: float) -> Any:
    return weight + alpha / a.shape[1] * np.eye(*weight.shape) * largest(a, b) + a @ b * 0


@mutant("adapter-gradient", "A and B swapped", kills="projection", met="plausible: the paper's A is the second factor")
def swapped(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    scale, dense = alpha / a.shape[1], x.T @ g
    return g @ (weight + scale * a @ b).T, (scale * b @ dense.T).T * 0 + scale * dense.sum() * a, scale * a.T @ dense


@mutant("adapter-gradient", "no scale", kills="projection", met="plausible: the factor applied to the value alone")
def gradient_unscaled(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    dense = x.T @ g
    return g @ (weight + alpha / a.shape[1] * a @ b).T, dense @ b.T, a.T @ dense


@mutant(
    "adapter-gradient",
    "input past the adapter",
    kills="input",
    met="plausible: x detached before the adapter, to save memory",
)
def past_the_adapter(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    scale, dense = alpha / a.shape[1], x.T @ g
    return g @ weight.T, scale * dense @ b.T, scale * a.T @ dense


@mutant(
    "adapter-gradient",
    "input past the weight",
    kills="input",
    met="plausible: a frozen layer taken out of the graph, not its weight",
)
def past_the_weight(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    scale, dense = alpha / a.shape[1], x.T @ g
    return g @ (scale * a @ b).T, scale * dense @ b.T, scale * a.T @ dense


@mutant(
    "adapter-gradient", "A frozen at zero", kills="first-step", met="plausible: A zero and B random learns nothing of A"
)
def both_zero(x: Any, weight: Any, bias: Any, a: Any, b: Any, alpha: float, g: Any) -> Gradient:
    scale, dense = alpha / a.shape[1], x.T @ g
    return g @ (weight + scale * a @ b).T, scale * dense @ b.T, scale * a.T @ dense * np.any(b != 0)
