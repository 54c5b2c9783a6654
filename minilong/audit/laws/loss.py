"""Cross-entropy over the tokens kept: what `eq:cross-entropy` says of any implementation, and wrong ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest, leaves_alone
from minilong.autodiff import fused

kind(
    "cross-entropy",
    "cross_entropy(logits, targets, ignore_index)",
    "logits (n, classes), integer targets (n,) -> mean of -log softmax(logits)[target] in nats over the targets that "
    "are not ignore_index; 0 when none is",
    public=True,
)


@subject("cross-entropy", "cross_entropy", code=fused.cross_entropy, equation="eq:cross-entropy")
def ours(logits: Any, targets: Any, ignore_index: int) -> Any:
    return fused.cross_entropy(logits, targets=targets, ignore_index=ignore_index)


@subject("cross-entropy", "cross_entropy_definition", code=fused.cross_entropy_definition, equation="eq:cross-entropy")
def ours_defined(logits: Any, targets: Any, ignore_index: int) -> Any:
    return fused.cross_entropy_definition(logits, targets=targets, ignore_index=ignore_index)


def make(r: Numbers, n: int, classes: int, ignore: int, dropped: float, spread: float) -> Case:
    """Logits, targets of which some are ignored (one is kept unless all are dropped), and a place to cut them."""
    classes = max(classes, 2) if ignore == 0 else classes
    targets = r.integers(0, classes, n)
    targets[r.chance(dropped, n)] = ignore
    if dropped < 1 and np.all(targets == ignore):
        targets[-1] = classes - 1
    return {
        "logits": r.normal(n, classes, spread=spread),
        "targets": targets,
        "ignore_index": ignore,
        "cut": int(r.integers(0, n + 1)),
    }


TOKENS: dict[str, Any] = {"n": (1, 2, 3, 5, 7, 11), "classes": (1, 2, 3, 5, 8), "ignore": (-100, 0, -1)}
anything = cases(make, **TOKENS, dropped=(0.0, 0.3, 0.7, 1.0), spread=(1.0, 30.0, 1000.0))
some = cases(make, **TOKENS, dropped=(0.0, 0.3, 0.7), spread=(1.0, 30.0, 1000.0))
moderate = cases(make, **TOKENS, dropped=(0.0, 0.3, 0.7), spread=(1.0,))
ragged = cases(make, **TOKENS, dropped=(0.5, 0.3, 0.8), spread=(1.0, 30.0))
extreme = cases(make, **TOKENS, dropped=(0.0, 0.3), spread=(1000.0,))
empty = cases(make, **TOKENS, dropped=(1.0,), spread=(1.0, 1000.0))


def arguments(case: Case) -> tuple[np.ndarray, np.ndarray, int]:
    return case["logits"], case["targets"], case["ignore_index"]


def token_losses(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> list[float]:
    """-log softmax(logits)[target] of each token kept, in Python's floating-point numbers."""
    losses = []
    for row, target in zip(logits, targets, strict=True):
        if target != ignore_index:
            top = max(row)
            losses.append(math.log(math.fsum(math.exp(z - top) for z in row)) + top - row[target])
    return losses


def definition(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> float:
    """The equation: the mean over the tokens kept, 0 where none is."""
    losses = token_losses(logits, targets, ignore_index)
    return math.fsum(losses) / len(losses) if losses else 0.0


def rounding(logits: np.ndarray) -> float:
    """A loss is a difference of logits plus at most log(classes)."""
    return bound(1.0 + 2 * largest(logits) + math.log(logits.shape[1]), logits.size)


# Laws


@law("cross-entropy", "definition", serves="eq:cross-entropy", cases=anything)
def equals_definition(f: F, case: Case, measure: Measure) -> None:
    """The mean of -log softmax(logits)[target] over the tokens that are not ignored."""
    measure.close(call(f, *arguments(case)), definition(*arguments(case)), rounding(case["logits"]), "cross-entropy")


@law("cross-entropy", "ignored-tokens", serves="eq:cross-entropy", cases=some)
def ignored_tokens(f: F, case: Case, measure: Measure) -> None:
    """The logits of an ignored token do not matter, and the token may as well be left out."""
    logits, targets, ignore = arguments(case)
    kept = targets != ignore
    other = np.where(kept[:, None], logits, 5 - 2 * logits)
    before = call(f, logits, targets, ignore)
    measure.close(call(f, other, targets, ignore), before, rounding(logits), "with other logits of ignored tokens, it")
    alone = call(f, logits[kept], targets[kept], ignore)
    measure.close(alone, before, rounding(logits), "without the ignored tokens, it")


@law("cross-entropy", "concatenation", serves=("eq:cross-entropy",), cases=ragged)
def concatenation(f: F, case: Case, measure: Measure) -> None:
    """The loss of a whole is the mean of its parts' losses weighted by their tokens kept, not the mean of means."""
    logits, targets, ignore = arguments(case)
    total, kept = 0.0, targets != ignore
    for part in (slice(None, case["cut"]), slice(case["cut"], None)):
        if kept[part].any():
            total += int(kept[part].sum()) * float(call(f, logits[part], targets[part], ignore))
    whole = call(f, logits, targets, ignore)
    measure.close(whole, total / int(kept.sum()), rounding(logits), "the loss of the whole, beside its parts',")


@law("cross-entropy", "none-kept", serves="eq:cross-entropy", cases=empty)
def none_kept(f: F, case: Case, measure: Measure) -> None:
    """If every token is ignored the loss is 0, and a number."""
    measure.close(call(f, *arguments(case)), 0.0, 0.0, "the loss of no token")


@law("cross-entropy", "shift", serves="eq:cross-entropy", cases=some)
def shift(f: F, case: Case, measure: Measure) -> None:
    """Adding one number to all logits of a token changes nothing."""
    logits, targets, ignore = arguments(case)
    moved = logits + 10.0 * np.arange(1, len(logits) + 1)[:, None]
    measure.close(
        call(f, moved, targets, ignore), call(f, logits, targets, ignore), rounding(moved), "with logits moved, it"
    )


@law("cross-entropy", "bounds", serves="eq:cross-entropy", cases=some)
def bounds(f: F, case: Case, measure: Measure) -> None:
    """A loss is at least 0, and at most log(classes) plus the largest gap below a token's best logit."""
    logits, targets, ignore = arguments(case)
    y, slack = float(call(f, logits, targets, ignore)), rounding(logits)
    most = float(np.max(np.ptp(logits, axis=-1))) + math.log(logits.shape[1])
    measure.holds(-slack <= y <= most + slack, f"the loss is {y!r}, outside [0, {most!r}]")


@law("cross-entropy", "uniform", serves="eq:cross-entropy", cases=moderate)
def uniform(f: F, case: Case, measure: Measure) -> None:
    """Equal logits lose log(classes), in nats, whatever the targets are."""
    logits, targets, ignore = arguments(case)
    right = math.log(logits.shape[1])
    measure.close(call(f, np.full(logits.shape, 3.0), targets, ignore), right, bound(4.0, logits.size), "the loss")


@law("cross-entropy", "difference", serves="eq:cross-entropy", cases=moderate)
def difference(f: F, case: Case, measure: Measure) -> None:
    """For one token, two targets' losses differ by exactly their logits' difference."""
    logits, ignore = case["logits"][:1], case["ignore_index"]
    losses = {j: float(call(f, logits, np.array([j]), ignore)) for j in range(logits.shape[1]) if j != ignore}
    for j, first in losses.items():
        k = max(losses)
        right = logits[0, k] - logits[0, j]
        measure.close(first - losses[k], right, rounding(logits), f"the loss of target {j}, less that of {k},")


@law("cross-entropy", "extreme-logits", serves="eq:cross-entropy", cases=extreme)
def extreme_logits(f: F, case: Case, measure: Measure) -> None:
    """Logits of thousands give a finite loss, which grows with the gap: no floor under the probability."""
    y = call(f, *arguments(case))
    measure.holds(np.all(np.isfinite(y)), f"the loss is {y!r}")
    measure.close(y, definition(*arguments(case)), rounding(case["logits"]), "the loss")


@law("cross-entropy", "class-permutation", serves="eq:cross-entropy", cases=some)
def class_permutation(f: F, case: Case, measure: Measure) -> None:
    """Classes have no order: renaming them in logits and targets changes nothing."""
    logits, targets, ignore = arguments(case)
    last = logits.shape[1] - 1
    if ignore >= 0:  # the ignored index keeps its name
        order = np.concatenate([[0], np.arange(last, 0, -1)])
    else:
        order = np.arange(last, -1, -1)
    kept = targets != ignore
    renamed = np.where(kept, np.argsort(order)[np.where(kept, targets, 0)], ignore)
    found, before = call(f, logits[:, order], renamed, ignore), call(f, logits, targets, ignore)
    measure.close(found, before, rounding(logits), "with the classes renamed, it")


@law("cross-entropy", "token-permutation", serves="eq:cross-entropy", cases=some)
def token_permutation(f: F, case: Case, measure: Measure) -> None:
    """Tokens have no order: each target belongs to the logits of its own row."""
    logits, targets, ignore = arguments(case)
    p = Numbers(case["cut"], 0).order(len(targets))
    found, before = call(f, logits[p], targets[p], ignore), call(f, logits, targets, ignore)
    measure.close(found, before, rounding(logits), "with the tokens permuted, it")


@law("cross-entropy", "pure", serves="eq:cross-entropy", cases=anything)
def pure(f: F, case: Case, measure: Measure) -> None:
    """Logits and targets are left as they are."""
    leaves_alone(f, {name: case[name] for name in ("logits", "targets", "ignore_index")}, measure)
