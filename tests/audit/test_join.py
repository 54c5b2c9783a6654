"""Joining entries, code, laws and mutants: what a report says, what a pattern chooses, how agreement is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_book import CODE, KIND, LAW, MUTANT, SPEC, SUBJECT, toy_book

from minilong.audit.agreement import Disagreement, of_kind, of_primitive
from minilong.audit.book import parameters, select
from minilong.audit.join import audit
from minilong.audit.law import Case, LawBroken, Measure
from minilong.audit.run import as_python, run_law
from minilong.audit.sources import by_equation, definitions
from minilong.audit.text import entry, figure, result, share, show
from minilong.autodiff import REGISTRY
from minilong.errors import UserError


def test_a_report_joins_entry_code_laws_and_mutants(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    report = audit(50, book=toy_book(tmp_path), progress=lambda *state: seen.append(state))
    (e,) = report.equations
    assert (e.id, e.stated, e.article, e.verdict) == ("eq:double", "specs/double.md:5", "4.1", "holds")
    assert e.code == (("toy/__init__.py", 4, "toy.double"),)
    assert (e.agrees, e.agreement_worst, e.laws) == (True, 0.0, ("double/definition",))
    assert e.agreement_examples == 9  # all that there are
    assert (e.examples, e.mutants) == (18, (("double/square", True),))
    (law,) = report.laws
    assert law.subjects == ("toy.double", "the block of eq:double")
    assert (law.examples, law.passed, law.failure, law.mutants) == (18, True, None, (("double/square", True),))
    (mutant,) = report.mutants
    assert (mutant.killed, mutant.by) == (True, (("double/definition", True),))
    assert mutant.counterexample is not None
    assert "x = np.array([1.0], dtype=np.float64)" in mutant.counterexample
    four, fame = report.claims
    assert (four.passed, four.laws, fame.passed, fame.laws) == (True, ("double/definition",), None, ())
    assert report.passed
    assert [done for done, *_ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1]
    assert json.loads(json.dumps(report.to_dict()))["equations"][0]["code"] == [["toy/__init__.py", 4, "toy.double"]]


def test_a_failing_law_shows_where_and_a_case(tmp_path: Path) -> None:
    wrong = replace(SUBJECT, f=lambda x: 2 * np.minimum(x, 3.0))
    report = audit(50, book=toy_book(tmp_path, subjects={SUBJECT.name: wrong}))
    assert not report.passed
    failure = report.laws[0].failure
    assert failure is not None
    assert failure.startswith("on toy.double: the result at [3] is 6.0, and the law asks for 8.0")
    assert failure.endswith("x = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float64).reshape((4,))")
    lines = list(entry(report, "eq:double", tmp_path))
    assert any(line.startswith("\nlaw double/definition  FAILS; ") for line in lines)
    assert any("np.array([1.0, 2.0, 3.0, 4.0]" in line for line in lines)


def test_one_entry_shows_formula_block_and_source(tmp_path: Path) -> None:
    report = audit(5, book=toy_book(tmp_path))
    shown = "\n".join(entry(report, "eq:double", tmp_path))
    for part in ("  y = 2 x", "  def double(x):\n      return 2 * x", "Reading: Elementwise.", "      return x + x"):
        assert part in shown
    for part in ("toy/__init__.py:4  toy.double", "Block and code agree on 5 examples", "1 of 1 mutants found"):
        assert part in shown
    claim = "\n".join(entry(report, "claim:four", tmp_path))
    assert "Says: Twice two is five." in claim
    assert "assert double(2) == 4" in claim


@pytest.mark.parametrize(
    ("pattern", "equations", "claims", "laws"),
    [
        (None, 1, 2, 1),
        ("eq:double", 1, 0, 1),
        ("double", 1, 0, 1),
        ("claim:*", 0, 2, 1),
        ("claim:fame", 0, 1, 0),
        ("fam", 0, 1, 0),
        ("double/*", 1, 1, 1),
        ("eq:d?uble", 1, 0, 1),
    ],
)
def test_a_pattern_chooses(pattern: str | None, equations: int, claims: int, laws: int, tmp_path: Path) -> None:
    book = toy_book(tmp_path)
    report = audit(5, pattern, book=book)
    assert (len(report.equations), len(report.claims), len(report.laws)) == (equations, claims, laws)
    assert report.passed, report.holes
    assert select(book, pattern).whole == (pattern is None)


def test_a_part_of_the_book_hides_no_hole_of_that_part(tmp_path: Path) -> None:
    survivor = replace(MUTANT, name="double/add", f=lambda x: x + x)
    other = SPEC[SPEC.index("## eq:") : SPEC.index("## claim:")].replace("double", "triple")
    book = toy_book(tmp_path, spec=SPEC + other, mutants={survivor.name: survivor})
    holes = audit(5, "double/definition", book=book).holes
    assert holes == ("law double/definition finds no mutant", "mutant double/add survives double/definition")
    assert all("triple" in hole for hole in audit(5, "eq:triple", book=book).holes)


def test_a_pattern_that_fits_nothing_suggests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no equation, claim, law or kind fits 'doubel' \(did you mean 'double'\?\)"):
        audit(5, "doubel", book=toy_book(tmp_path))


def test_another_seed_draws_other_cases(tmp_path: Path) -> None:
    drawn: list[float] = []

    def look(f: Any, case: Case, measure: Measure) -> None:
        drawn.append(float(np.sum(case["x"])))
        LAW.check(f, case, measure)

    def sums(seed: int | None) -> list[float]:
        drawn.clear()
        run_law(replace(LAW, check=look), SUBJECT.f, examples=6, seed=seed)
        return list(drawn)

    assert sums(None) == sums(None)
    assert sums(1) == sums(1)
    assert len({tuple(sums(seed)) for seed in range(6)}) > 1


def test_several_processes_find_what_one_finds() -> None:
    def kept(jobs: int) -> dict[str, Any]:
        found = audit(5, "softmax/definition", jobs=jobs).to_dict()
        for law in found["laws"]:
            del law["seconds"]
        for mutant in found["mutants"]:  # how small it becomes depends on the time there is
            del mutant["counterexample"]
        return {**found, "seconds": 0}

    assert kept(2) == kept(1)


def test_another_book_stays_in_one_process(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in one process, not 2"):
        audit(5, book=toy_book(tmp_path), jobs=2)


# Where the code names equations


def test_definitions_are_read_off_the_source(tmp_path: Path) -> None:
    package = tmp_path / "toy"
    (package / "audit").mkdir(parents=True)
    (package / "__init__.py").write_text(CODE)
    (package / "audit/laws.py").write_text('"""`eq:hidden`"""\n')
    (package / "part.py").write_text(
        '"""All of `eq:whole` and `eq:double`, not eq:bare."""\n\n\n'
        "class A:\n"
        '    """`eq:class`, and `eq:class` again"""\n\n'
        "    def f(self):\n"
        '        """`eq:method-2`"""\n\n\n'
        '@primitive(\n    eq="eq:declared",\n    other=False, eqs=eq(eq=True))\n'
        "def g(x):\n"
        '    """`eq:double`"""\n'
        "    return x\n"
    )
    places = definitions(package)
    assert set(places) == {"toy", "toy.double", "toy.part", "toy.part.A", "toy.part.A.f", "toy.part.g"}
    found = {name: [(p.file, p.line, p.name) for p in at] for name, at in by_equation(places).items()}
    assert found["eq:class"] == [("toy/part.py", 4, "toy.part.A")]
    assert found["eq:method-2"] == [("toy/part.py", 7, "toy.part.A.f")]
    assert found["eq:declared"] == [("toy/part.py", 14, "toy.part.g")]
    assert found["eq:whole"] == [("toy/part.py", 1, "toy.part")]
    # The function, and not the module that holds it.
    assert found["eq:double"] == [("toy/__init__.py", 4, "toy.double"), ("toy/part.py", 14, "toy.part.g")]
    assert set(found) == {"eq:class", "eq:method-2", "eq:declared", "eq:whole", "eq:double"}
    assert places["toy.part.g"].end == 16


# Agreement of block and code


def agreement(f: Any, block: Any, *args: Any) -> Measure:
    """One comparison of f with a block on these arguments."""
    measure = Measure()
    law = replace(LAW, check=lambda g, case, measure: g(*args))
    of_kind(law, block).check(f, {}, measure)
    return measure


@pytest.mark.parametrize(
    ("f", "block"),
    [
        (lambda x: x * 1.0001, lambda x: x),
        (lambda x: x[:-1], lambda x: x),
        (lambda x: x * np.nan, lambda x: x),
        (lambda x: (x,), lambda x: (x, x)),
        (lambda x: x, lambda x: (x,)),
        (lambda x: [x, x + 1], lambda x: [x, x]),
        (lambda x: "a", lambda x: "b"),
        (lambda x: None, lambda x: x),
        (lambda x: 2.0, lambda x: 3.0),
        (lambda x: True, lambda x: False),
    ],
)
def test_disagreement_is_found(f: Any, block: Any) -> None:
    with pytest.raises(Disagreement):
        agreement(f, block, np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("f", "block"),
    [
        (lambda x: x * (1 + 1e-15), lambda x: x),
        (lambda x: (x, [x, "a"], 3), lambda x: (x, [x, "a"], 3)),
        (lambda x: x * np.inf, lambda x: x * np.inf),
    ],
)
def test_agreement_is_up_to_rounding(f: Any, block: Any) -> None:
    assert agreement(f, block, np.array([1.0, 2.0])).worst < 1


def test_where_the_problem_is_ill_conditioned_the_bound_is_its_own() -> None:
    # 1 / (sum - 30) of numbers that nearly add up to 30: one rounding of them moves the result by far more than eps.
    x = np.array([0.1, 29.9 + 1e-9])
    values = agreement(lambda x: 1 / (x.sum() - 30), lambda x: 1 / (x[1] - 30 + x[0]), x)
    assert 0 <= values.worst < 1
    with pytest.raises(Disagreement):
        agreement(lambda x: 1.001 / (x.sum() - 30), lambda x: 1 / (x[1] - 30 + x[0]), x)


def test_a_block_is_given_what_the_code_was_given() -> None:
    def overwrites(x: np.ndarray) -> np.ndarray:
        x *= 2
        return x

    agreement(overwrites, lambda x: 2 * x, np.array([1.0, 2.0]))


def test_a_law_that_the_code_breaks_is_no_disagreement() -> None:
    def broken(f: Any, case: Case, measure: Measure) -> None:
        f(np.ones(2))
        raise LawBroken("for another reason")

    of_kind(replace(LAW, check=broken), lambda x: x).check(lambda x: x, {}, Measure())


@pytest.mark.parametrize("name", ["matmul", "concatenate", "cross_entropy", "sum"])
def test_primitives_are_compared_by_inputs_and_keywords(name: str) -> None:
    blocks = {
        "matmul": lambda a, b: np.einsum("...ij,...jk->...ik", a, b),
        "concatenate": lambda *xs, axis: np.concatenate(xs, axis),
        "cross_entropy": lambda logits, targets, ignore_index: REGISTRY["cross_entropy"](
            logits, targets=targets, ignore_index=ignore_index
        ),
        "sum": lambda x, axis, keepdims: np.sum(x, axis, keepdims=keepdims),
    }
    p = REGISTRY[name]
    right = run_law(of_primitive(p, blocks[name], p.eq), p, examples=20)
    assert right.failure is None
    assert right.examples >= 10
    broken = of_primitive(p, wraps(blocks[name])(lambda *xs, **kw: 1.001 * blocks[name](*xs, **kw)), p.eq)
    assert run_law(broken, p, examples=20).failure is not None


def test_a_block_that_lacks_a_keyword_is_compared_with_no_call_that_gives_it() -> None:
    p = REGISTRY["concatenate"]
    ran = run_law(of_primitive(p, lambda *xs: np.concatenate(xs), p.eq), p, examples=20)
    assert (ran.examples, ran.failure) == (0, None)


# Running laws


def test_a_flaky_function_fails_with_what_was_seen() -> None:
    calls = [0]

    def sometimes(x: np.ndarray) -> np.ndarray:
        calls[0] += 1
        return x + x + (calls[0] == 4)

    failure = run_law(LAW, sometimes, examples=30).failure
    assert failure is not None
    assert "(not each time that it is called)" in failure.message


def test_without_patience_the_first_case_is_kept() -> None:
    slow = run_law(LAW, MUTANT.f, examples=50, seed=3, patience=0.0)
    assert slow.failure is not None
    assert not slow.failure.raised
    with pytest.raises(LawBroken):
        LAW.check(MUTANT.f, slow.failure.case, Measure())
    fast = run_law(LAW, MUTANT.f, examples=50, seed=3)
    assert fast.failure is not None
    assert len(fast.failure.case["x"]) == 1 <= len(slow.failure.case["x"])


def test_numbers_without_a_literal_paste_too() -> None:
    for value in (
        np.array([1.0, np.nan, -np.inf]),
        np.float64("inf"),
        float("nan"),
        [np.array([np.inf])],
        np.array(True),
    ):
        again = eval(as_python(value), {"np": np})
        np.testing.assert_array_equal(again, value)


# Text


def test_the_table_fits_and_is_plain_when_it_is_piped(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    report = audit(5, book=toy_book(tmp_path, laws={LAW.name: replace(LAW, serves=("claim:four",))}))
    plain, colour = io.StringIO(), io.StringIO()
    show(report, Console(file=plain, soft_wrap=True, markup=False))
    lines = plain.getvalue().splitlines()
    assert max(map(len, lines)) <= 120  # the holes are as long as they are; the table is not
    assert all(len(line) <= 100 for line in lines if not line.startswith(("hole", "What")))
    assert "\x1b" not in plain.getvalue()
    (row,) = [line for line in lines if line.startswith("eq:double")]
    assert row.split() == ["eq:double", "toy/__init__.py:4", "0", "0", "0", "0/0", "holds"]
    assert lines[-2] == "hole: eq:double (specs/double.md:5) is served by no law"
    assert lines[-1].startswith("FAILED: 1 hole; audit of minilong")
    show(report, Console(file=colour, force_terminal=True, color_system="standard", soft_wrap=True), quiet=True)
    assert "\x1b[31mhole: " in colour.getvalue()
    assert "equations" not in colour.getvalue()
    assert "passed" in result(audit(5, "claim:fame", book=toy_book(tmp_path)))


def test_figures_are_short() -> None:
    assert [figure(n) for n in (7, 999, 1234, 45_678, 3_456_789)] == ["7", "999", "1.2k", "46k", "3.5M"]
    assert [share(x) for x in (0.0, 3e-6, 0.0123, 0.5, 1.0)] == ["0", "3e-06", "0.012", "0.5", "1"]


def test_parameters_are_those_of_the_signature() -> None:
    assert parameters(KIND) == ("x",)
    signature = "adam(param, grad, eps) -> (param, m, v); step counts from 1"
    assert parameters(replace(KIND, signature=signature)) == ("param", "grad", "eps")
    assert parameters(replace(KIND, signature="make()")) == ()
