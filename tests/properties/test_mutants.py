"""Every wrong VJP of `mutants.py`, planted in each primitive that it applies to, is found by the laws."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import Phase, given, settings

from minilong.audit.primitives.cases import PRIMITIVES, Case, cases
from minilong.audit.primitives.mutants import EQUIVALENT, MUTATIONS, planted, verdict
from minilong.autodiff import Primitive

EXAMPLES = 25


def examples(p: Primitive) -> list[Case]:
    """The same random calls of `p` at every run."""
    found: list[Case] = []

    @settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate])
    @given(cases(p))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def test_every_mutant_of_every_rule_is_killed(counted: Callable[[str, int], None]) -> None:
    result: dict[str, list[tuple[str, str]]] = {"killed": [], "survived": [], "equivalent": []}
    for p in PRIMITIVES:
        calls = examples(p)
        assert calls
        for name, mutation in MUTATIONS.items():
            if name == "cotangents swapped" and len(p.core[0]) < 2:
                continue
            result[verdict(p, mutation, calls)].append((p.name, name))
    killed, survived = len(result["killed"]), result["survived"]
    counted("wrong rules of primitives found", killed)
    assert not survived
    assert set(result["equivalent"]) == EQUIVALENT
    assert killed >= 7 * len(PRIMITIVES)


def test_a_planted_rule_is_taken_back() -> None:
    p = PRIMITIVES[0]
    right = p.rule
    with planted(p, MUTATIONS["sign flipped"]):
        assert p.rule is not right
    assert p.rule is right


def test_the_right_rule_survives() -> None:
    for p in PRIMITIVES:
        assert verdict(p, lambda rule, g, saved, params: rule(g, *saved, **params), examples(p)[:3]) == "equivalent"
