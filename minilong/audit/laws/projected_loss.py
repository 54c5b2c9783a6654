"""Laws of cross-entropy fused with the projection: loss and both gradients, whatever the chunks.

`eq:linear-cross-entropy-gradient` says what is right. The wrong ways are those of chunked losses in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, copied, largest
from minilong.autodiff import linear_cross_entropy, projected, value_and_grad
from minilong.backend import array_module

Parts = tuple[Any, np.ndarray, np.ndarray]

kind(
    "projected-loss",
    "linear_cross_entropy_gradient(hidden, weight, targets, ignore_index, denominator, chunk)",
    "hidden (n, d), weight (d, classes), integer targets (n,) -> the cross-entropy of the logits hidden weight, "
    "divided by `denominator` (None: by the targets kept), and its gradients for both; `chunk` rows at a time.",
)


def differentiated(loss: Callable[..., Any]) -> F:
    """The loss with its gradients for hidden and weight."""

    def parts(
        hidden: Any, weight: Any, targets: Any, ignore_index: int, denominator: float | None, chunk: int | None
    ) -> Parts:
        def of(inputs: Any) -> Any:
            return loss(*inputs, targets=targets, ignore_index=ignore_index, denominator=denominator, chunk=chunk)

        value, (for_hidden, for_weight) = value_and_grad(of)((hidden, weight))
        return value, for_hidden, for_weight

    return parts


EQUATION = "eq:linear-cross-entropy-gradient"
CODE = projected.linear_cross_entropy_vjp
subject("projected-loss", "linear_cross_entropy", code=CODE, equation=EQUATION)(differentiated(linear_cross_entropy))
subject("projected-loss", "linear_cross_entropy (definition)", code=CODE, equation=EQUATION)(
    differentiated(projected.linear_cross_entropy_definition)
)


@subject("projected-loss", "linear_cross_entropy (tied weights)", code=CODE, equation=EQUATION)
def ours_tied(
    hidden: Any, weight: Any, targets: Any, ignore_index: int, denominator: float | None, chunk: int | None
) -> Parts:
    """A weight in the layout of a table's transpose."""
    table = array_module(weight).asfortranarray(weight)
    parts: Parts = differentiated(linear_cross_entropy)(hidden, table, targets, ignore_index, denominator, chunk)
    return parts


def make(
    r: Numbers, n: int, d: int, classes: int, ignore: int, dropped: float, given: float | None, spread: float
) -> Case:
    """Rows, a weight, targets of which some are ignored (one is kept unless all are dropped), chunks, and a cut."""
    classes = max(classes, 2) if ignore == 0 else classes
    targets = r.integers(0, classes, n)
    targets[r.chance(dropped, n)] = ignore
    if dropped < 1 and np.all(targets == ignore):
        targets[-1] = classes - 1
    return {
        "hidden": r.normal(n, d, spread=spread),
        "weight": r.normal(d, classes),
        "targets": targets,
        "ignore_index": ignore,
        "denominator": given,
        "chunk": (None, 1, 2, 3, n)[int(r.integers(0, 5))],
        "cut": int(r.integers(0, n + 1)),
    }


SIZES: dict[str, Any] = {
    "n": (1, 2, 3, 5, 7, 11), "d": (1, 2, 3, 5), "classes": (1, 2, 3, 5, 8), "ignore": (-100, 0, -1),
}  # fmt: skip
anything = cases(make, **SIZES, dropped=(0.0, 0.3, 0.7, 1.0), given=(None, 1.0, 17.0), spread=(1.0, 30.0))
ragged = cases(make, **SIZES, dropped=(0.5, 0.3, 0.8), given=(None,), spread=(1.0, 30.0))
empty = cases(make, **SIZES, dropped=(1.0,), given=(None,), spread=(1.0, 30.0))


def arguments(case: Case, **changed: Any) -> tuple[Any, ...]:
    """The function's arguments, some of them changed, as copies."""
    names = ("hidden", "weight", "targets", "ignore_index", "denominator", "chunk")
    return tuple(copied(changed.get(name, case[name])) for name in names)


def rounding(case: Case) -> float:
    """Logits are sums of d products; losses their differences; gradients sums of n products with the inputs."""
    size = (1 + largest(case["hidden"])) * (1 + largest(case["weight"]))
    return bound(size * size * case["weight"].shape[0], case["hidden"].size + case["weight"].size)


def equal(measure: Measure, case: Case, found: Parts, right: Parts, what: str) -> None:
    """Loss and both gradients, each to rounding."""
    for part, a, b in zip(("the loss", "the gradient of hidden", "the gradient of weight"), found, right, strict=True):
        measure.close(a, b, rounding(case), f"{part} {what}")


def of_row(hidden: np.ndarray, weight: np.ndarray, target: int) -> tuple[float, np.ndarray]:
    """A row's loss, and its gradient for the logits, written out."""
    logits = hidden @ weight
    e = np.exp(logits - logits.max())
    difference = e / e.sum()
    difference[target] -= 1.0
    return float(np.log(e.sum()) + logits.max() - logits[target]), difference


def definition(case: Case) -> Parts:
    """The equation, row by row, all rows at once."""
    hidden, weight, targets = case["hidden"], case["weight"], case["targets"]
    total, for_hidden, for_weight = 0.0, np.zeros_like(hidden), np.zeros_like(weight)
    kept = [i for i, target in enumerate(targets) if target != case["ignore_index"]]
    count = max(len(kept), 1) if case["denominator"] is None else case["denominator"]
    for i in kept:
        loss, difference = of_row(hidden[i], weight, targets[i])
        total += loss
        for_hidden[i] = weight @ difference / count
        for_weight += np.outer(hidden[i], difference) / count
    return total / count, for_hidden, for_weight


@law("projected-loss", "definition", serves=("eq:linear-cross-entropy", EQUATION), cases=anything)
def is_the_definition(f: F, case: Case, measure: Measure) -> None:
    """Loss and gradients are the sums over the rows kept of log sum exp z - z[target], (p - onehot) W^T and
    x^T (p - onehot), divided by the denominator."""
    equal(measure, case, f(*arguments(case)), definition(case), "")


@law("projected-loss", "any-chunk", serves=("eq:linear-cross-entropy", EQUATION), cases=anything)
def any_chunk(f: F, case: Case, measure: Measure) -> None:
    """However many rows are taken at a time, loss and both gradients are those of all rows at once."""
    whole = f(*arguments(case, chunk=max(1, len(case["targets"]))))
    for chunk in (1, 2, 3, 5, 100, None):
        equal(measure, case, f(*arguments(case, chunk=chunk)), whole, f"with chunks of {chunk} rows")


@law("projected-loss", "ignored-rows", serves=("eq:linear-cross-entropy", EQUATION), cases=ragged)
def ignored_rows(f: F, case: Case, measure: Measure) -> None:
    """What a row holds whose target is ignored does not matter; its gradient is zero, and it may be left out."""
    kept = case["targets"] != case["ignore_index"]
    before = f(*arguments(case))
    measure.close(before[1][~kept], np.zeros_like(case["hidden"][~kept]), 0.0, "the gradient of an ignored row")
    other = np.where(kept[:, None], case["hidden"], 5 - 2 * case["hidden"])
    equal(measure, case, f(*arguments(case, hidden=other)), before, "with other numbers in ignored rows")
    alone = f(*arguments(case, hidden=case["hidden"][kept], targets=case["targets"][kept]))
    equal(measure, case, alone, (before[0], before[1][kept], before[2]), "without the ignored rows")


@law("projected-loss", "accumulation", serves=("eq:linear-cross-entropy", "claim:code-accumulation"), cases=ragged)
def accumulation(f: F, case: Case, measure: Measure) -> None:
    """The losses and gradients of parts of a batch add up to those of the whole, if all are divided by the number of
    tokens kept in the whole; weighted by their own numbers of tokens, their means do too."""
    whole, cut = f(*arguments(case)), case["cut"]
    kept = case["targets"] != case["ignore_index"]
    count = float(kept.sum())
    for given in (count, None):
        loss, rows, for_weight = 0.0, [], np.zeros_like(case["weight"])
        for part in (slice(None, cut), slice(cut, None)):
            pieces = {"hidden": case["hidden"][part], "targets": case["targets"][part], "denominator": given}
            share = 1.0 if given else kept[part].sum() / count
            value, for_hidden, more = f(*arguments(case, **pieces))
            loss, for_weight = loss + share * float(value), for_weight + share * more
            rows.append(share * for_hidden)
        equal(measure, case, (loss, np.concatenate(rows), for_weight), whole, "of two parts")


@law("projected-loss", "none-kept", serves=("eq:linear-cross-entropy", EQUATION), cases=empty)
def none_kept(f: F, case: Case, measure: Measure) -> None:
    """If every target is ignored, the loss is 0 and so are both gradients."""
    zeros = 0.0, np.zeros_like(case["hidden"]), np.zeros_like(case["weight"])
    for found, right in zip(f(*arguments(case)), zeros, strict=True):
        measure.close(found, right, 0.0, "what no token gives")


@law("projected-loss", "pure", serves=EQUATION, cases=anything)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Rows, weight and targets are left as they were."""
    given = arguments(case)
    f(*given)
    for name, x, y in zip(("hidden", "weight", "targets"), given, arguments(case), strict=False):
        measure.holds(np.array_equal(x, y), f"{name} was changed in place: it is now {x!r}")


# Mutants


def chunked(
    *,
    mean: str = "whole",
    last: bool = True,
    add: bool = True,
    ignored: bool = False,
    threshold: float = 0.0,
    shift: bool = False,
    overwrite: bool = False,
    empty: bool = True,
) -> F:
    """A chunked loss with one mistake."""

    def f(
        hidden: Any, weight: Any, targets: Any, ignore_index: int, denominator: float | None, chunk: int | None
    ) -> Parts:
        size = chunk or 4
        kept = targets != ignore_index
        found = float(kept.sum())
        count = denominator or (max(found, 1.0) if empty else found)
        total, for_hidden, for_weight = 0.0, np.zeros_like(hidden), np.zeros_like(weight)
        starts = [b for b in range(0, len(targets), size) if last or b + size <= len(targets)]
        for begin in starts:
            at = slice(begin, begin + size)
            x, row = hidden[at], kept[at]
            target = np.where(row, targets[: len(x)] if shift else targets[at], 0)
            losses, p = _losses(x @ weight, np.where(target == ignore_index, 0, target))
            p[np.abs(p) < threshold] = 0.0
            divisor = {"whole": count, "own": max(row.sum(), 1), "of means": max(row.sum(), 1) * len(starts)}[mean]
            p = p / divisor if ignored else p * row[:, None] / divisor
            total += float((losses * row).sum() / divisor)
            for_hidden[at] = p @ weight.T
            for_weight = (for_weight if add else 0.0) + x.T @ p
            if overwrite:
                x[:] = for_hidden[at]
        return total, for_hidden, for_weight

    return f


def _losses(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses of rows, and softmax - onehot."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    p = np.exp(logits)
    losses = np.log(p.sum(axis=-1)) - np.take_along_axis(logits, targets[:, None], -1)[:, 0]
    p /= p.sum(axis=-1, keepdims=True)
    p[np.arange(len(p)), targets] -= 1.0
    return losses, p


def _mutant(name: str, kills: str | tuple[str, ...], met: str, f: F) -> None:
    mutant("projected-loss", name, kills=kills, met=met)(f)


_mutant(
    "sum of the chunks' means", ("any-chunk", "definition"),
    "NVIDIA-NeMo/Automodel 3803: with 128 chunks the loss is 128 times too large; with one chunk it is right",
    chunked(mean="own"),
)  # fmt: skip
_mutant(
    "mean of the chunks' means", ("any-chunk", "definition", "accumulation"),
    "HF 34191, torchtune 1875, axolotl 1100: parts with few tokens weigh as much as those with many",
    chunked(mean="of means"),
)  # fmt: skip
_mutant(
    "NaN where no target counts", "none-kept",
    "torchtune 2341 and NVIDIA-NeMo/Automodel 3796: a division by the number of tokens, which is zero",
    chunked(empty=False),
)  # fmt: skip
_mutant(
    "the last chunk is left out", ("any-chunk", "definition"),
    "plausible: n // chunk chunks, and n is seldom a multiple",
    chunked(last=False),
)  # fmt: skip
_mutant(
    "the weight's gradient is the last chunk's", ("any-chunk", "definition"),
    "plausible: = where += belongs; with one chunk it is right",
    chunked(add=False),
)  # fmt: skip
_mutant(
    "ignored rows have a gradient", ("ignored-rows", "definition", "none-kept"),
    "plausible: the loss is masked, the gradient of the logits is not",
    chunked(ignored=True),
)  # fmt: skip
_mutant(
    "small gradients are dropped", "definition",
    "Cut Cross-Entropy (2411.09009) by default: entries below 2^-12 are set to zero",
    chunked(threshold=2.0**-12),
)  # fmt: skip
_mutant(
    "targets of the first chunk for all", ("any-chunk", "definition"),
    "plausible: the slice of the rows is moved, that of the targets is not",
    chunked(shift=True),
)  # fmt: skip
_mutant(
    "gradients written over the rows", "pure",
    "plausible: to save memory, as fused kernels write the gradient of the logits over the logits",
    chunked(overwrite=True),
)  # fmt: skip
