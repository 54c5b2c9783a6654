"""Laws over this project's own registries: they hold, each kills a mutant, and every mutant dies of what it names."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from minilong.audit.law import KINDS, LAWS, MUTANTS, SUBJECTS, Law, LawBroken, Mutant
from minilong.audit.laws import primitives
from minilong.audit.primitives.mutants import APPLIES, EQUIVALENT, MUTATIONS
from minilong.audit.run import case_as_python, run_law
from minilong.autodiff import REGISTRY

EXAMPLES = 30
INNER = {kind.name for kind in KINDS.values() if not kind.public}
"""Kinds that users may audit have a test of their own, `test_public_laws.py`."""
INNER_LAWS = [law for law in LAWS.values() if law.kind in INNER]
OF_RULES = {m.name for m in MUTANTS.values() if m.name.split(": ")[-1] in MUTATIONS}
OTHERS = [m for m in MUTANTS.values() if m.kind in INNER and m.name not in OF_RULES]


def test_every_kind_has_laws_and_an_implementation() -> None:
    assert len(INNER) >= 60
    assert {law.kind for law in INNER_LAWS} == INNER
    assert {s.kind for s in SUBJECTS.values()} >= INNER


@pytest.mark.parametrize("law", [law for law in INNER_LAWS if law.kind not in ("primitive", "fused")], ids=str)
def test_a_law_holds_for_every_implementation(law: Law) -> None:
    subjects = [s for s in SUBJECTS.values() if s.kind == law.kind]
    assert subjects
    for s in subjects:
        result = run_law(law, s.f, examples=EXAMPLES)
        assert result.failure is None, f"{s.name}: {result.failure}"
        assert result.examples >= 5 or law.cases is None
        assert result.worst <= 1.0


@pytest.mark.parametrize("mutant", OTHERS, ids=lambda m: m.name)
def test_a_mutant_dies_of_the_laws_that_it_names(mutant: Mutant) -> None:
    assert mutant.kills
    assert ": " in mutant.met or " " in mutant.met
    for name in mutant.kills:
        failure = run_law(LAWS[name], mutant.f, examples=100).failure
        assert failure is not None, f"{name} lets it pass"
        assert not failure.raised, failure.message


def test_every_law_has_a_mutant() -> None:
    killed = {name for m in MUTANTS.values() for name in m.kills}
    assert not [law.name for law in INNER_LAWS if law.name not in killed]


def test_every_primitive_is_under_audit_with_every_mutation_of_its_rule() -> None:
    assert {s.f.name for s in SUBJECTS.values() if s.kind == "primitive"} == set(REGISTRY)
    wanted = {
        f"primitive/{p.name}: {name}"
        for p in REGISTRY.values()
        for name in MUTATIONS
        if APPLIES[name](p) and (p.name, name) not in EQUIVALENT
    }
    assert wanted <= OF_RULES


def test_a_mutation_leaves_the_registry_alone() -> None:
    right = REGISTRY["tanh"].rule
    mutant = MUTANTS["primitive/tanh: sign flipped"]
    assert run_law(LAWS["primitive/direction"], mutant.f, examples=5).failure is not None
    assert REGISTRY["tanh"].rule is right


@pytest.mark.parametrize("law", [law for law in INNER_LAWS if law.kind in ("primitive", "fused")], ids=str)
def test_laws_of_primitives_hold(law: Law) -> None:
    """A few examples each: `tests/properties/` runs the same on more."""
    for s in SUBJECTS.values():
        if s.kind == law.kind:
            result = run_law(law, s.f, examples=5)
            assert result.failure is None, f"{s.name}: {result.failure}"


def test_a_recipe_gives_every_primitive_a_call() -> None:
    plain = {"sizes": (1, 1, 1, 1), "square": False, "front": (), "lacks": 0, "seed": 0}
    for p in REGISTRY.values():
        small = primitives.fill(p, primitives.shapes_of(p, plain), 0)
        large = {**plain, "sizes": (2, 3, 5, 2), "front": (3, 2), "lacks": 5}
        batched = primitives.fill(p, primitives.shapes_of(p, large), 0)
        assert np.shape(small.g) == np.shape(small.value(*small.xs))
        assert sum(x.size for x in batched.xs) > sum(x.size for x in small.xs)


def test_a_failure_shows_the_call_of_the_primitive() -> None:
    with pytest.raises(LawBroken, match=r"in tanh\(x=array"):
        LAWS["primitive/direction"](MUTANTS["primitive/tanh: sign flipped"].f, examples=5)


def test_counterexamples_print_as_python() -> None:
    """Cases are arrays, numbers, strings, bytes, lists and dictionaries of them: all can be pasted."""
    for law in INNER_LAWS:
        cases = []
        mark = Law(law.name, law.kind, law.serves, law.statement, law.cases, lambda f, c, m, kept=cases: kept.append(c))
        run_law(mark, lambda: None, examples=3)
        assert cases
        ast.parse(case_as_python(cases[-1]))
