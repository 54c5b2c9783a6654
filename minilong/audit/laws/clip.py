"""Clipping a list of gradients by their global norm: what `eq:clip` says of any implementation, and wrong ones.

Gradients of infinite norm are left out: the equation gives no answer there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, copied
from minilong.audit.laws.updates import clipped
from minilong.backend import array_module
from minilong.optim import clip

kind(
    "clip",
    "clip(grads, max_norm)",
    "a list of arrays of any shapes -> a list of the same shapes, whose norm over all of them is at most max_norm > 0",
    public=True,
)


@subject("clip", "clip", code=clip, equation="eq:clip")
def ours(grads: Any, max_norm: float) -> Any:
    flat = clipped(array_module(*grads).concatenate([g.ravel() for g in grads]), max_norm)
    ends = np.cumsum([g.size for g in grads])
    return [flat[end - g.size : end].reshape(g.shape) for end, g in zip(ends.tolist(), grads, strict=True)]


SHAPES = (((3,),), ((1,),), ((2,), (3,)), ((2, 3), (1,)), ((4,), (2, 2), (1,)), ((2,), (2,), (3, 1), (5,)))


def make(r: Numbers, shapes: tuple[tuple[int, ...], ...], share: float, size: float) -> Case:
    """Gradients, and a limit that is a share of their norm."""
    grads = [r.nonzero(*shape) * size for shape in shapes]
    limit = float(np.round(share * norm(grads), 3 if size < 1 else 2))
    return {"grads": grads, "max_norm": max(limit, 0.001)}


SIZES: dict[str, Any] = {"shapes": SHAPES, "size": (1.0, 100.0, 0.01)}
anything = cases(make, **SIZES, share=(0.5, 0.01, 0.9, 0.999, 1.1, 2.0, 100.0))
above = cases(make, **SIZES, share=(0.5, 0.01, 0.9))
below = cases(make, **SIZES, share=(1.1, 2.0, 100.0))


def norm(grads: list[np.ndarray]) -> float:
    """Euclidean norm over all components of all arrays."""
    return math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in g.flat))


def run(f: F, grads: list[np.ndarray], max_norm: float, measure: Measure) -> list[np.ndarray]:
    """The function's list, checked to be of the right shapes."""
    found = [np.asarray(g) for g in f(copied(grads), max_norm)]
    shapes, right = [g.shape for g in found], [g.shape for g in grads]
    measure.holds(shapes == right, f"the list has shapes {shapes}, and the law asks for {right}")
    return found


def each_close(found: list[np.ndarray], right: list[np.ndarray], measure: Measure, what: str) -> None:
    """Equal to the rounding of a norm over all components."""
    n = sum(g.size for g in right)
    for i, (g, h) in enumerate(zip(found, right, strict=True)):
        measure.close(g, h, bound(float(np.max(np.abs(h))), n), f"{what} {i}")


@law("clip", "definition", serves="eq:clip", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """Every gradient times min(1, max_norm / norm), with one norm over all components of all arrays."""
    grads, limit = case["grads"], case["max_norm"]
    factor = min(1.0, limit / norm(grads))
    each_close(run(f, grads, limit, measure), [g * factor for g in grads], measure, "gradient")


@law("clip", "norm-afterwards", serves="eq:clip", cases=above)
def norm_afterwards(f: F, case: Case, measure: Measure) -> None:
    """Gradients above the limit come out with a norm that is the limit."""
    grads, limit = case["grads"], case["max_norm"]
    after = norm(run(f, grads, limit, measure))
    measure.close(after, min(limit, norm(grads)), bound(limit, sum(g.size for g in grads)), "the norm afterwards")


@law("clip", "never-enlarges", serves="eq:clip", cases=anything)
def never_enlarges(f: F, case: Case, measure: Measure) -> None:
    """No component grows or changes its sign."""
    grads = case["grads"]
    for g, h in zip(run(f, grads, case["max_norm"], measure), grads, strict=True):
        measure.holds(np.all(np.abs(g) <= np.abs(h)), f"{h!r} became {g!r}, which is larger")
        measure.holds(np.all(g * h >= 0), f"{h!r} became {g!r}, of the other sign")


@law("clip", "direction", serves="eq:clip", cases=above)
def direction(f: F, case: Case, measure: Measure) -> None:
    """All components shrink by one and the same factor, above 0: the direction stays."""
    grads = case["grads"]
    found = run(f, grads, case["max_norm"], measure)
    ratios = np.concatenate([(g / h).ravel() for g, h in zip(found, grads, strict=True)])
    measure.holds(np.all(ratios > 0), f"a gradient vanished: {found!r}")
    measure.close(ratios, np.full(ratios.shape, ratios[0]), bound(1.0, ratios.size), "the factor of a component")


@law("clip", "below-the-limit", serves="eq:clip", cases=below)
def below_the_limit(f: F, case: Case, measure: Measure) -> None:
    """Gradients below the limit come back bit by bit."""
    grads = case["grads"]
    for g, h in zip(run(f, grads, case["max_norm"], measure), grads, strict=True):
        measure.close(g, h, 0.0, "a gradient below the limit")


@law("clip", "zero", serves="eq:clip", cases=anything)
def zero(f: F, case: Case, measure: Measure) -> None:
    """Gradients of zero stay zero, and are no zero over zero."""
    nothing = [0 * g for g in case["grads"]]
    for g, h in zip(run(f, nothing, case["max_norm"], measure), nothing, strict=True):
        measure.close(g, h, 0.0, "a gradient of zero")


@law("clip", "regrouping", serves="eq:clip", cases=anything)
def regrouping(f: F, case: Case, measure: Measure) -> None:
    """How the components are distributed over arrays does not matter: one long array gives the same."""
    grads, limit = case["grads"], case["max_norm"]
    whole = run(f, [np.concatenate([g.ravel() for g in grads])], limit, measure)
    parts = np.concatenate([g.ravel() for g in run(f, grads, limit, measure)])
    each_close([parts], whole, measure, "the gradient in parts, beside that in one array,")


@law("clip", "units", serves="eq:clip", cases=anything)
def units(f: F, case: Case, measure: Measure) -> None:
    """Twice the gradients under twice the limit come out twice as large."""
    grads, limit = case["grads"], case["max_norm"]
    twice = run(f, [2 * g for g in grads], 2 * limit, measure)
    each_close(twice, [2 * g for g in run(f, grads, limit, measure)], measure, "gradient")


# Mutants


def scaled(grads: Any, factor: float) -> Any:
    return [g * factor for g in grads]


@mutant(
    "clip",
    "per-array",
    kills=("regrouping", "direction", "norm-afterwards"),
    met="clip_by_norm for clip_by_global_norm",
)
def per_array(grads: Any, max_norm: float) -> Any:
    return [g * min(1.0, max_norm / max(norm([g]), 1e-30)) for g in grads]


@mutant(
    "clip", "always-scales", kills=("below-the-limit", "never-enlarges"), met="plausible: max_norm / norm without min"
)
def always_scales(grads: Any, max_norm: float) -> Any:
    return scaled(grads, max_norm / max(norm(grads), 1e-30))


@mutant("clip", "by-value", kills=("direction", "definition"), met="clip_grad_value_ for clip_grad_norm_")
def by_value(grads: Any, max_norm: float) -> Any:
    return [np.clip(g, -max_norm, max_norm) for g in grads]


@mutant("clip", "largest-component", kills=("norm-afterwards", "definition"), met="norm_type=inf for 2")
def largest_component(grads: Any, max_norm: float) -> Any:
    return scaled(grads, min(1.0, max_norm / max(max(np.max(np.abs(g)) for g in grads), 1e-30)))


@mutant(
    "clip", "sum-of-norms", kills=("regrouping", "norm-afterwards"), met="plausible: norms added, not their squares"
)
def sum_of_norms(grads: Any, max_norm: float) -> Any:
    return scaled(grads, min(1.0, max_norm / max(sum(norm([g]) for g in grads), 1e-30)))


@mutant("clip", "no-root", kills=("norm-afterwards", "units"), met="plausible: the squared norm against the limit")
def no_root(grads: Any, max_norm: float) -> Any:
    return scaled(grads, min(1.0, max_norm / max(norm(grads) ** 2, 1e-30)))


@mutant(
    "clip", "root-mean-square", kills=("norm-afterwards", "definition"), met="plausible: mean of squares for the sum"
)
def root_mean_square(grads: Any, max_norm: float) -> Any:
    mean = norm(grads) / math.sqrt(sum(g.size for g in grads))
    return scaled(grads, min(1.0, max_norm / max(mean, 1e-30)))


@mutant("clip", "zero-over-zero", kills=("zero",), met="plausible: min(norm, limit) / norm")
def zero_over_zero(grads: Any, max_norm: float) -> Any:
    length = np.float64(norm(grads))
    return scaled(grads, float(np.minimum(length, max_norm) / length))


@mutant(
    "clip",
    "padded-norm",
    kills=("definition", "norm-afterwards"),
    met="PyTorch: norm + 1e-6, short of the limit by that",
)
def padded_norm(grads: Any, max_norm: float) -> Any:
    return scaled(grads, min(1.0, max_norm / (norm(grads) + 1e-6)))


@mutant(
    "clip",
    "dropped",
    kills=("direction", "norm-afterwards"),
    met="plausible: a step skipped when the norm is too large",
)
def dropped(grads: Any, max_norm: float) -> Any:
    return scaled(grads, 1.0 if norm(grads) <= max_norm else 0.0)


@mutant(
    "clip", "unclipped", kills=("norm-afterwards", "definition"), met="plausible: clipped copies, originals returned"
)
def unclipped(grads: Any, max_norm: float) -> Any:
    return [g.copy() for g in grads]


@mutant("clip", "last-array-kept", kills=("direction", "norm-afterwards"), met="plausible: a loop over grads[:-1]")
def last_array_kept(grads: Any, max_norm: float) -> Any:
    return [*scaled(grads[:-1], min(1.0, max_norm / max(norm(grads), 1e-30))), grads[-1]]


@mutant(
    "clip", "flattened", kills=("definition", "regrouping"), met="plausible: views of the flat vector not shaped back"
)
def flattened(grads: Any, max_norm: float) -> Any:
    return [(g * min(1.0, max_norm / max(norm(grads), 1e-30))).ravel() for g in grads]
