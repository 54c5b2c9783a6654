"""Wrong cross-entropies: mistakes that were met in code and bug reports, and likely ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.law import mutant


def losses_of(logits: Any, targets: Any) -> Any:
    """-log softmax(logits)[target] of each row; a negative target counts as class 0."""
    top = logits.max(axis=-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, np.maximum(targets, 0)[:, None], axis=-1)[:, 0]


def mean_kept(losses: Any, kept: Any) -> Any:
    return (losses * kept).sum() / max(kept.sum(), 1)


@mutant(
    "cross-entropy",
    "ignored-in-the-mean",
    kills=("definition", "ignored-tokens", "concatenation"),
    met="mean() after zeroing",
)
def ignored_in_the_mean(logits: Any, targets: Any, ignore_index: int) -> Any:
    return (losses_of(logits, targets) * (targets != ignore_index)).mean()


@mutant(
    "cross-entropy",
    "mean-of-means",
    kills=("concatenation", "definition"),
    met="HF 34191, torchtune 1875, axolotl 1100",
)
def mean_of_means(logits: Any, targets: Any, ignore_index: int) -> Any:
    losses, kept, half = losses_of(logits, targets), targets != ignore_index, (len(targets) + 1) // 2
    parts = [mean_kept(losses[p], kept[p]) for p in (slice(half), slice(half, None)) if kept[p].any()]
    return sum(parts) / max(len(parts), 1)


@mutant(
    "cross-entropy",
    "nothing-ignored",
    kills=("ignored-tokens", "none-kept"),
    met="plausible: padding counted as class 0",
)
def nothing_ignored(logits: Any, targets: Any, ignore_index: int) -> Any:
    return losses_of(logits, targets).mean()


@mutant("cross-entropy", "fixed-ignore-index", kills=("ignored-tokens", "none-kept"), met="plausible: -100 written out")
def fixed_ignore_index(logits: Any, targets: Any, ignore_index: int) -> Any:
    return mean_kept(losses_of(logits, targets), targets != -100)


@mutant(
    "cross-entropy", "padding-is-zero", kills=("definition", "difference"), met="plausible: targets > 0 for the mask"
)
def padding_is_zero(logits: Any, targets: Any, ignore_index: int) -> Any:
    return mean_kept(losses_of(logits, targets), targets > 0)


@mutant("cross-entropy", "nan-when-none", kills=("none-kept",), met="PyTorch: the mean over no token is NaN")
def nan_when_none(logits: Any, targets: Any, ignore_index: int) -> Any:
    kept = targets != ignore_index
    return (losses_of(logits, targets) * kept).sum() / kept.sum()


@mutant("cross-entropy", "sum", kills=("definition", "concatenation", "bounds"), met="reduction='sum'")
def total(logits: Any, targets: Any, ignore_index: int) -> Any:
    return (losses_of(logits, targets) * (targets != ignore_index)).sum()


@mutant("cross-entropy", "bits", kills=("uniform", "difference"), met="plausible: log2; bits reported as nats")
def bits(logits: Any, targets: Any, ignore_index: int) -> Any:
    return mean_kept(losses_of(logits, targets), targets != ignore_index) / np.log(2)


@mutant(
    "cross-entropy",
    "probabilities-in",
    kills=("shift", "difference", "definition"),
    met="softmax before CrossEntropyLoss",
)
def probabilities_in(logits: Any, targets: Any, ignore_index: int) -> Any:
    e = np.exp(logits - logits.max(axis=0, keepdims=True))
    p = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-30)
    return mean_kept(losses_of(p, targets), targets != ignore_index)


@mutant("cross-entropy", "floor", kills=("extreme-logits", "difference"), met="log(p + 1e-9) in hand-written losses")
def floor(logits: Any, targets: Any, ignore_index: int) -> Any:
    return mean_kept(-np.log(np.exp(-losses_of(logits, targets)) + 1e-9), targets != ignore_index)


@mutant("cross-entropy", "no-maximum", kills=("extreme-logits",), met="textbook code; exp overflows at 710")
def no_maximum(logits: Any, targets: Any, ignore_index: int) -> Any:
    chosen = np.take_along_axis(logits, np.maximum(targets, 0)[:, None], axis=-1)[:, 0]
    losses = np.log(np.exp(logits).sum(axis=-1)) - chosen
    return mean_kept(losses, targets != ignore_index)


@mutant(
    "cross-entropy",
    "unnormalised",
    kills=("shift", "bounds", "uniform"),
    met="plausible: minus the logit, no log sum exp",
)
def unnormalised(logits: Any, targets: Any, ignore_index: int) -> Any:
    chosen = np.take_along_axis(logits, np.maximum(targets, 0)[:, None], axis=-1)[:, 0]
    return mean_kept(-chosen, targets != ignore_index)


@mutant("cross-entropy", "smoothed", kills=("difference", "definition"), met="label smoothing left on in evaluation")
def smoothed(logits: Any, targets: Any, ignore_index: int) -> Any:
    every = np.stack([losses_of(logits, np.full_like(targets, j)) for j in range(logits.shape[1])])
    losses = 0.9 * losses_of(logits, targets) + 0.1 * every.mean(axis=0)
    return mean_kept(losses, targets != ignore_index)


@mutant("cross-entropy", "z-loss", kills=("shift", "uniform"), met="PaLM's z-loss left on in evaluation")
def z_loss(logits: Any, targets: Any, ignore_index: int) -> Any:
    losses = losses_of(logits, targets) + 1e-4 * logits.max(axis=-1) ** 2
    return mean_kept(losses, targets != ignore_index)


@mutant(
    "cross-entropy",
    "shifted-again",
    kills=("token-permutation", "definition"),
    met="targets shifted in the data and in the loss",
)
def shifted_again(logits: Any, targets: Any, ignore_index: int) -> Any:
    return mean_kept(losses_of(logits[:-1], targets[1:]), targets[1:] != ignore_index)


@mutant(
    "cross-entropy",
    "weighted-classes",
    kills=("class-permutation", "definition"),
    met="plausible: class weights, rare up",
)
def weighted_classes(logits: Any, targets: Any, ignore_index: int) -> Any:
    weight = (targets != ignore_index) * (1.0 + np.maximum(targets, 0))
    return (losses_of(logits, targets) * weight).sum() / max(weight.sum(), 1)


@mutant("cross-entropy", "in-place", kills=("pure",), met="plausible: logits -= max on the caller's logits")
def in_place(logits: Any, targets: Any, ignore_index: int) -> Any:
    logits -= logits.max(axis=-1, keepdims=True)
    return mean_kept(losses_of(logits, targets), targets != ignore_index)
