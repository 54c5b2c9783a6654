"""Laws of masks: which tokens of a row are chosen, what stands in their place, and that the row can be restored."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.data.batches import IGNORE
from minilong.data.masking import mask_row, replace_chosen
from minilong.data.vocabulary import BOS, FIRST, SEPARATOR, Ids
from minilong.keys import Key

kind("masking", "masking(tokens, chosen, action, others, mask)", "Arrays (n,) -> inputs and targets, both (n,).")
kind("mask-row", "mask_row(tokens, seed, rate, mask, last)", "A row with special tokens -> inputs and targets.")

SIGMAS = 6

subject("masking", "replace_chosen", code=replace_chosen, equation="eq:masking")(replace_chosen)


def our_row(tokens: Ids, seed: int, rate: float, mask: int, last: int, draw: Any = mask_row) -> tuple[Ids, Ids]:
    """Ours, by the key of a seed."""
    found: tuple[Ids, Ids] = draw(tokens, Key.of(seed), rate=rate, mask=mask, last=last)
    return found


subject("mask-row", "mask_row", code=mask_row, equation="eq:mask-count")(our_row)


def choice(n: Numbers, *, length: int, share: float) -> dict[str, Any]:
    """Tokens, chosen places, actions at and beside the limits, and other tokens."""
    action = n.rng.choice([0.0, 0.3, 0.79, 0.8, 0.85, 0.91, 0.99], length)
    return {
        "tokens": n.integers(FIRST, 30, length).astype(np.int32),
        "chosen": n.chance(share, length),
        "action": action,
        "others": n.integers(40, 60, length).astype(np.int32),
        "mask": 99,
    }


CHOICES = cases(choice, length=(3, 1, 8, 20), share=(1.0, 0.5, 0.15, 0.0))


def run(f: F, c: Case) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a case."""
    inputs, targets = f(c["tokens"], c["chosen"], c["action"], c["others"], c["mask"])
    return np.asarray(inputs), np.asarray(targets)


@law("masking", "invertible", serves="eq:masking", cases=CHOICES)
def invertible(f: F, c: Case, measure: Measure) -> None:
    """Inputs with the targets put back are the row."""
    inputs, targets = run(f, c)
    measure.close(np.where(targets == IGNORE, inputs, targets), c["tokens"], 0.0, "the restored row")


@law("masking", "targets", serves="eq:masking", cases=CHOICES)
def targets_where_chosen(f: F, c: Case, measure: Measure) -> None:
    """Chosen places have targets, all of them, and no other place has one."""
    measure.close(run(f, c)[1] != IGNORE, c["chosen"], 0.0, "where a target counts")


@law("masking", "actions", serves="eq:masking", cases=CHOICES)
def actions(f: F, c: Case, measure: Measure) -> None:
    """At chosen places actions below 0.8 give the mask, from 0.9 on the token itself, between them the other token."""
    inputs = run(f, c)[0]
    seen = np.where(c["action"] < 0.8, c["mask"], np.where(c["action"] < 0.9, c["others"], c["tokens"]))
    measure.close(inputs, np.where(c["chosen"], seen, c["tokens"]), 0.0, "an input")


def row(n: Numbers, *, length: int, rate: float, pair: bool) -> dict[str, Any]:
    """A row with its special tokens; all tokens are below `last`, the mask above."""
    tokens = n.integers(FIRST, 30, length)
    middle = [SEPARATOR, *n.integers(FIRST, 30, length)] if pair else []
    return {
        "tokens": np.array([BOS, *tokens, *middle, SEPARATOR], np.int32),
        "rate": rate,
        "mask": 30,
        "last": 30,
        "seed": int(n.integers(0, 2**31)),
    }


ROWS = cases(row, length=(4, 1, 2, 7, 40), rate=(0.15, 0.5, 0.01, 1.0), pair=(False, True))
LONG = cases(row, length=(3000,), rate=(0.5, 0.15), pair=(False,))


def drawn(f: F, c: Case, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a row."""
    inputs, targets = f(c["tokens"], c["seed"] + more, c["rate"], c["mask"], c["last"])
    return np.asarray(inputs), np.asarray(targets)


@law("mask-row", "restores", serves=("eq:masking", "eq:mask-count"), cases=ROWS)
def restores(f: F, c: Case, measure: Measure) -> None:
    """Inputs with the targets put back are the row, and its special tokens are no targets."""
    inputs, targets = drawn(f, c)
    measure.close(np.where(targets == IGNORE, inputs, targets), c["tokens"], 0.0, "the restored row")
    measure.holds(np.all(targets[c["tokens"] < FIRST] == IGNORE), f"a special token is a target: {targets.tolist()}")


@law("mask-row", "count", serves="eq:mask-count", cases=ROWS)
def count(f: F, c: Case, measure: Measure) -> None:
    """The targets are the share of the row, to half a token, and at least one."""
    n, found = int(np.sum(c["tokens"] >= FIRST)), int(np.sum(drawn(f, c)[1] != IGNORE))
    near = abs(found - c["rate"] * n) <= 0.5 or (found == 1 and c["rate"] * n < 0.5)
    measure.holds(near and 1 <= found <= n, f"{found} of {n} tokens are chosen at the rate {c['rate']}")


@law("mask-row", "shares", serves="eq:masking", cases=LONG, share=0.2)
def shares(f: F, c: Case, measure: Measure) -> None:
    """Of the chosen places 80 % hold the mask, 10 % another token, 10 % their own, to six standard deviations."""
    inputs, targets = drawn(f, c)
    at = targets != IGNORE
    n = int(at.sum())
    same = (inputs == targets)[at].mean()
    masked = (inputs == c["mask"])[at].mean()
    other = 1 - same - masked
    twin = 0.1 / (c["last"] - FIRST)  # another token is by chance the same
    for name, share, right in (("masks", masked, 0.8), ("others", other, 0.1 - twin), ("kept", same, 0.1 + twin)):
        far = SIGMAS * np.sqrt(right * (1 - right) / n)
        measure.holds(abs(share - right) <= far, f"{name} are {share:.3f} of {n} chosen places, and not {right:.3f}")


@law("mask-row", "uniform", serves=("eq:masking", "eq:mask-count"), cases=LONG, share=0.2)
def uniform(f: F, c: Case, measure: Measure) -> None:
    """Every tenth of the row is chosen equally often, and substitutes come from the whole vocabulary of the text."""
    inputs, targets = drawn(f, c)
    at = np.flatnonzero(targets != IGNORE)
    tenths, _ = np.histogram(at, bins=10, range=(0, len(inputs)))
    spread = SIGMAS * np.sqrt(len(at) * 0.09)
    measure.holds(np.all(np.abs(tenths - len(at) / 10) <= spread), f"tenths of the row hold {tenths.tolist()} masks")
    others = inputs[at][(inputs[at] != targets[at]) & (inputs[at] != c["mask"])]
    inside = (others >= FIRST) & (others < c["last"])
    measure.holds(np.all(inside), f"substitutes are {sorted(set(others[~inside].tolist()))}")
    halves = int(np.sum(others < (FIRST + c["last"]) / 2)), len(others)
    far = SIGMAS * np.sqrt(len(others) / 4)
    measure.holds(
        abs(halves[0] - halves[1] / 2) <= far, f"of {halves[1]} substitutes {halves[0]} are of the lower half"
    )


@law("mask-row", "key", serves="claim:static-dynamic", cases=LONG, share=0.2)
def of_the_key(f: F, c: Case, measure: Measure) -> None:
    """A key gives one mask, however often it is asked; another key gives another."""
    first, again, other = (drawn(f, c, more)[1] for more in (0, 0, 1))
    measure.close(again, first, 0.0, "the mask of the same key")
    measure.holds(np.any(other != first), "another key gives the same mask")


# Mutants


def with_limits(masked: float, substituted: float) -> F:
    """Other shares of masks and substitutes."""

    def f(tokens: Any, chosen: Any, action: Any, others: Any, mask: int) -> Any:
        seen = np.where(action < masked, mask, np.where(action < masked + substituted, others, tokens))
        return np.where(chosen, seen, tokens), np.where(chosen, tokens, IGNORE)

    return f


mutant("masking", "always the mask", kills="actions", met="RoBERTa ablations and many tutorials: 100 % masks")(
    with_limits(1.0, 0.0)
)
mutant("masking", "ten per cent of the rest", kills="actions",
       met="Hugging Face's collator draws 50 % of the rest, which is right; 10 % of the rest is the slip")(
    with_limits(0.8, 0.02))  # fmt: skip


@mutant(
    "masking",
    "targets only at masks",
    kills=("targets", "invertible"),
    met="plausible: targets where inputs are the mask",
)
def only_masks(tokens: Any, chosen: Any, action: Any, others: Any, mask: int) -> Any:
    inputs, targets = replace_chosen(tokens, chosen, action, others, mask)
    return inputs, np.where(inputs == mask, targets, IGNORE)


@mutant("masking", "targets everywhere", kills="targets", met="plausible: labels = tokens, as for a causal model")
def everywhere(tokens: Any, chosen: Any, action: Any, others: Any, mask: int) -> Any:
    return replace_chosen(tokens, chosen, action, others, mask)[0], tokens


@mutant("masking", "targets of the corrupted row", kills="invertible", met="plausible: labels cloned after the masking")
def corrupted(tokens: Any, chosen: Any, action: Any, others: Any, mask: int) -> Any:
    inputs, targets = replace_chosen(tokens, chosen, action, others, mask)
    return inputs, np.where(targets == IGNORE, IGNORE, inputs)


def own_row(choose: Any, lowest: int = FIRST) -> F:
    """A row whose places are chosen otherwise."""

    def f(tokens: Any, seed: int, rate: float, mask: int, last: int) -> Any:
        numbers = Key.of(seed).generator()
        chosen = choose(numbers, tokens, rate)
        action, others = numbers.random(len(tokens)), numbers.integers(lowest, last, len(tokens))
        return replace_chosen(tokens, chosen, action, others.astype(np.int32), mask)

    return f


def coins(numbers: Any, tokens: Any, rate: float) -> Any:
    """A coin for each token."""
    return (numbers.random(len(tokens)) < rate) & (tokens >= FIRST)


def the_first(numbers: Any, tokens: Any, rate: float) -> Any:
    """The first tokens of the row."""
    maskable = tokens >= FIRST
    return maskable & (np.cumsum(maskable) <= max(1, round(rate * maskable.sum())))


def any_token(numbers: Any, tokens: Any, rate: float) -> Any:
    """Special tokens too."""
    return numbers.permutation(len(tokens)) < max(1, round(rate * len(tokens)))


mutant("mask-row", "a coin for each token", kills="count", met="Hugging Face's collator: rows without any mask")(
    own_row(coins)
)
mutant("mask-row", "the first tokens", kills="uniform", met="plausible: sorted places cut at the limit")(
    own_row(the_first)
)
mutant("mask-row", "special tokens masked", kills="restores", met="plausible: no special-tokens mask")(
    own_row(any_token)
)
mutant("mask-row", "special ids as substitutes", kills="uniform",
       met="Hugging Face's collator: randint(len(tokenizer)), special ids included")(
    lambda *a: own_row(lambda n, t, r: mask_row_choice(n, t, r), lowest=0)(*a))  # fmt: skip


def mask_row_choice(numbers: Any, tokens: Any, rate: float) -> Any:
    """As ours chooses."""
    places = np.flatnonzero(tokens >= FIRST)
    chosen = np.zeros(len(tokens), bool)
    chosen[numbers.choice(places, min(len(places), max(1, round(rate * len(places)))), replace=False)] = True
    return chosen


@mutant("mask-row", "only masks", kills="shares", met="plausible: every chosen token becomes the mask")
def masks_only(tokens: Any, seed: int, rate: float, mask: int, last: int) -> Any:
    inputs, targets = our_row(tokens, seed, rate, mask, last)
    return np.where(targets != IGNORE, mask, inputs), targets


@mutant("mask-row", "one mask for all", kills="key", met="plausible: the generator seeded with a constant in a worker")
def one_mask(tokens: Any, seed: int, rate: float, mask: int, last: int) -> Any:
    return our_row(tokens, 0, rate, mask, last)
