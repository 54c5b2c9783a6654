"""The laws of blockwise attention and of its maps hold, and every mutant dies of the laws that it names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import minilong.audit.laws  # noqa: F401 - registers the laws
from minilong.audit.law import LAWS, MUTANTS, SUBJECTS, Case, Law, LawBroken, Measure, Mutant
from minilong.audit.run import run_law

KINDS = (
    "blockwise-attention", "blockwise-cotangents", "log-sum-exp", "merge-attention", "attention-tile",
    "attention-picture",
)  # fmt: skip
FIRST = settings(max_examples=200, phases=[Phase.generate], derandomize=True, database=None, report_multiple_bugs=False)
"""The first counterexample will do: a smaller one takes ten times as long to find."""

OWN_LAWS = [law for law in LAWS.values() if law.kind in KINDS]
OWN_MUTANTS = [m for m in MUTANTS.values() if m.kind in KINDS]


def test_each_law_has_a_mutant() -> None:
    assert {law.name for law in OWN_LAWS} == {name for m in OWN_MUTANTS for name in m.kills}


@pytest.mark.parametrize("law", OWN_LAWS, ids=str)
def test_a_law_holds(law: Law) -> None:
    subjects = [s for s in SUBJECTS.values() if s.kind == law.kind]
    assert subjects
    for s in subjects:
        result = run_law(law, s.f, examples=60)
        assert result.failure is None, f"{s.name}: {result.failure}"
        assert result.worst <= 1.0


def check(law: Law, mutant: Mutant) -> None:
    """Run a law on a mutant up to the first counterexample."""

    @settings(FIRST)
    @given(law.cases())
    def attempt(case: Case) -> None:
        with np.errstate(all="ignore"):
            law.check(mutant.f, case, Measure())

    attempt()


@pytest.mark.parametrize("mutant", OWN_MUTANTS, ids=lambda m: m.name)
def test_a_mutant_dies(mutant: Mutant) -> None:
    for name in mutant.kills:
        with pytest.raises(LawBroken):
            check(LAWS[name], mutant)
