"""Wrong VJPs: eight plausible mistakes, to be made in the rule of every primitive and found by the properties.

A property suite that lets one of these pass has a hole. A mutant that changes no cotangent of any case is the right
rule in other words (exchanging the two equal cotangents of a sum, say); such ones are listed by `EQUIVALENT` and must
be exactly those.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from minilong.audit.primitives import laws
from minilong.audit.primitives.cases import Case
from minilong.autodiff import Primitive

Cotangents: TypeAlias = tuple[Any, ...]
Mutation = Callable[[Callable[..., Cotangents], Any, tuple[Any, ...], dict[str, Any]], Cotangents]


def after(change: Callable[[Cotangents], Cotangents]) -> Mutation:
    """A mutation of the result of a rule."""
    return lambda rule, g, saved, params: change(tuple(rule(g, *saved, **params)))


def off_by_a_hundredth(cs: Cotangents) -> Cotangents:
    """The last element of the first cotangent 0.01 too large."""
    first = np.array(cs[0])
    first.reshape(-1)[-1:] += 0.01
    return (first, *cs[1:])


def swapped(cs: Cotangents) -> Cotangents:
    """The first two cotangents of equal shape exchanged."""
    for i in range(len(cs)):
        for j in range(i + 1, len(cs)):
            if np.shape(cs[i]) == np.shape(cs[j]):
                return (*cs[:i], cs[j], *cs[i + 1 : j], cs[i], *cs[j + 1 :])
    return cs


MUTATIONS: dict[str, Mutation] = {
    "sign flipped": after(lambda cs: tuple(-c for c in cs)),
    "times 1.001": after(lambda cs: tuple(c * 1.001 for c in cs)),
    "times 1.02": after(lambda cs: tuple(c * 1.02 for c in cs)),
    "last cotangent zeroed": after(lambda cs: (*cs[:-1], cs[-1] * 0)),
    "g squared": lambda rule, g, saved, params: rule(g * g, *saved, **params),
    "float64 leak": after(lambda cs: tuple(np.asarray(c, np.float64) for c in cs)),
    "one element off by 0.01": after(off_by_a_hundredth),
    "cotangents swapped": after(swapped),
}

EQUIVALENT = {("add", "cotangents swapped")}

FOUND_BY = dict.fromkeys(MUTATIONS, "direction") | {"g squared": "linear", "float64 leak": "shape-and-dtype"}
"""The law, by its name in the audit, that has to find each mutation."""

APPLIES: dict[str, Callable[[Primitive], bool]] = dict.fromkeys(MUTATIONS, lambda p: True) | {
    "cotangents swapped": lambda p: len(p.core[0]) > 1
}
"""Whether a mutation can be made in the rule of a primitive."""

MET = {
    "sign flipped": "plausible: a minus sign; labmlai PR 193 and scipy PR 2965 mended one in a formula",
    "times 1.001": "plausible: a rounded constant; checks with tolerances of 1e-2 let it pass",
    "times 1.02": "plausible: a wrong constant; checks with tolerances of 1e-2 let it pass",
    "last cotangent zeroed": "plausible: an input that the rule forgets (None taken as zero)",
    "g squared": "plausible: a check against an upstream gradient of ones cannot see it (Odyssey 3247, mlpack 1923)",
    "float64 leak": "netket PR 1218: `np.sqrt` of a Python number promoted a float32 network to float64",
    "one element off by 0.01": "plausible: a boundary of a loop; checks with absolute tolerances of 1e-2 let it pass",
    "cotangents swapped": "plausible: the two inputs of a product have equal shapes in most tests",
}
"""Where each mistake was met, or why it is likely."""


def wrong_rule(p: Primitive, name: str) -> Primitive:
    """A copy of `p`, not in the registry, whose rule has a mutation."""
    other, right, mutation = copy.copy(p), p.rule, MUTATIONS[name]
    other.rule = lambda g, *saved, **params: mutation(right, g, saved, params)
    return other


@contextmanager
def planted(p: Primitive, mutation: Mutation) -> Iterator[list[bool]]:
    """`p` with a wrong rule; yields a list that gets an entry for each time the mutation made a difference."""
    right, differences = p.rule, []

    def wrong(g: Any, *saved: Any, **params: Any) -> Cotangents:
        expected: Cotangents = right(g, *saved, **params)
        actual = mutation(right, g, saved, params)
        for a, e in zip(actual, expected, strict=True):
            if a.dtype != e.dtype or not np.array_equal(a, e):
                differences.append(True)
        return actual

    p.rule = wrong
    try:
        yield differences
    finally:
        p.rule = right


def verdict(p: Primitive, mutation: Mutation, cases: Sequence[Case]) -> str:
    """`killed`, `survived`, or `equivalent` (no case made a difference). Only a failed assertion kills."""
    properties = [laws.shape_and_dtype, laws.linear, laws.direction] + ([laws.reference] if p.ref else [])
    with planted(p, mutation) as differences:
        for case in cases:
            for check in properties:
                try:
                    check(case)
                except AssertionError:
                    return "killed"
    return "survived" if differences else "equivalent"
