"""A planted hole of each sort makes `minilong audit` exit with 1 and name it; without one the same audit passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st
from toy_book import CODE, KIND, LAW, MUTANT, SPEC, SUBJECT, toy_book

from minilong.audit.book import Book
from minilong.audit.law import Mutant
from minilong.autodiff import REGISTRY
from minilong.cli import main

ENTRY = SPEC[SPEC.index("## eq:") : SPEC.index("## claim:")]


def nothing(*_args: object) -> None:
    """A check that finds nothing wrong with anything."""


def crash(_x: Any) -> Any:
    raise KeyError("not a finding")


def two_laws(**changes: Any) -> dict[str, Any]:
    """A second law, with or without what it needs."""
    other = replace(LAW, name="double/other", **changes)
    return {"laws": {LAW.name: LAW, other.name: other}}


def with_mutant(mutant: Mutant) -> dict[str, Any]:
    return {"mutants": {MUTANT.name: MUTANT, mutant.name: mutant}}


ADD = SPEC + ENTRY.replace("double", "add").replace("add(x)", "add(a, b)").replace("2 * x", "a - b")
HOLES: dict[str, tuple[dict[str, Any], str]] = {
    "equation without code": (
        {"spec": SPEC + ENTRY.replace("double", "triple").replace("toy.triple", "toy.double")},
        "eq:triple (specs/double.md:42) has no code",
    ),
    "equation without law": (
        {"laws": {LAW.name: replace(LAW, serves=("claim:four",))}},
        "eq:double (specs/double.md:5) is served by no law",
    ),
    "reference that is not there": (
        {"spec": SPEC.replace("toy.double", "toy.twice")},
        "refers to toy.twice, which the package does not define",
    ),
    "code without equation": (
        {"code": CODE + '\n\ndef halve(x):\n    """Half of x (`eq:half`)."""\n    return x / 2\n'},
        "toy/__init__.py:9 toy.halve names eq:half, which no entry of specs/ defines",
    ),
    "declaration without equation": (
        {"code": CODE + '\n\n@primitive(eq="eq:half")\ndef halve(x):\n    return x / 2\n'},
        "toy/__init__.py:10 toy.halve names eq:half, which no entry of specs/ defines",
    ),
    "implementation of an unknown equation": (
        {"subjects": {"toy.double": SUBJECT, "odd": replace(SUBJECT, name="odd", equation="eq:odd")}},
        "implementation odd names eq:odd, which no entry",
    ),
    "block that disagrees": (
        {"spec": SPEC.replace("return 2 * x", "return 2 * x + (x > 7)").replace("assert double(2) == 4\n", "")},
        "eq:double: block and code (toy.double) disagree: the result of the code at [7] is 16.0, and the block gives",
    ),
    "block that disagrees with a primitive": (
        {"spec": ADD, "primitives": {"add": REGISTRY["add"]}},
        "eq:add: block and code (add) disagree: the result of the code",
    ),
    "block that does not run": (
        {"spec": SPEC.replace("def double", "unknown\ndef double")},
        "the block of eq:double (specs/double.md:5) does not run: specs/double.md:14: NameError: name 'unknown'",
    ),
    "block that raises when it is called": (
        {"spec": SPEC.replace("return 2 * x", "return 2 * x[1]").replace("assert", "# assert")},
        "disagree: the block raised IndexError",
    ),
    "block with other parameters": (
        {"spec": SPEC.replace("def double(x)", "def double(y, x=2)")},
        "the block of eq:double (specs/double.md:14) takes y, x, its code double(x)",
    ),
    "claim whose check fails": (
        {"spec": SPEC.replace("double(2) != 5", "double(2) == 5")},
        "the check of claim:four fails: specs/double.md:32: AssertionError",
    ),
    "law that fails": (
        {"subjects": {"toy.double": replace(SUBJECT, f=lambda x: 2.0 * np.minimum(x, 3.0))}},
        "law double/definition fails on toy.double: the result at [3] is 6.0, and the law asks for 8.0",
    ),
    "law that fails on the block": (
        {"spec": SPEC.replace("return 2 * x", "return x**2")},
        "law double/definition fails on the block of eq:double",
    ),
    "implementation that raises": (
        {"subjects": {"toy.double": replace(SUBJECT, f=crash)}},
        "law double/definition fails on toy.double: it raised KeyError: 'not a finding'",
    ),
    "law that ran no example": (
        two_laws(cases=lambda: st.nothing()),
        "law double/other ran no example on toy.double",
    ),
    "law whose examples are all refused": (
        two_laws(cases=lambda: st.integers().filter(lambda _: False)),
        "law double/other ran no example on toy.double",
    ),
    "law that serves an unknown entry": (
        {"laws": {LAW.name: replace(LAW, serves=("eq:double", "eq:gone"))}},
        "law double/definition serves eq:gone, which no entry",
    ),
    "law without mutant": (two_laws(), "law double/other finds no mutant"),
    "law that is skipped": (two_laws(skip="too slow here"), "law double/other is skipped: too slow here"),
    "law of an unknown kind": (two_laws(kind="triple"), "law double/other is of the kind triple, which is not"),
    "mutant that survives": (
        with_mutant(replace(MUTANT, name="double/add", f=lambda x: x + x)),
        "mutant double/add survives double/definition",
    ),
    "mutant that only raises": (
        with_mutant(replace(MUTANT, name="double/crash", f=crash)),
        "mutant double/crash survives double/definition: it raised KeyError",
    ),
    "mutant of a law that is not there": (
        with_mutant(replace(MUTANT, name="double/odd", kills=("double/gone",))),
        "mutant double/odd is to be found by double/gone, which is no law",
    ),
    "mutant that no law is to find": (
        with_mutant(replace(MUTANT, name="double/free", kills=())),
        "mutant double/free names no law",
    ),
    "law that checks nothing": (
        {"laws": {LAW.name: replace(LAW, check=nothing)}},
        "mutant double/square survives double/definition",
    ),
    "kind without implementation": (
        {"kinds": {"double": KIND, "triple": replace(KIND, name="triple")}},
        "kind triple has no implementation under audit",
    ),
    "kind without law": (
        {"kinds": {"double": KIND, "triple": replace(KIND, name="triple")}},
        "kind triple has no law",
    ),
}


@pytest.fixture
def run_audit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Book], Any]:
    def run(book: Book) -> Any:
        monkeypatch.setattr("minilong.audit.join.open_book", lambda: book)
        return CliRunner().invoke(main, ["audit", "--jobs", "1", "--examples", "30"])

    return run


def test_the_whole_book_passes(tmp_path: Path, run_audit: Any) -> None:
    result = run_audit(toy_book(tmp_path))
    assert result.exit_code == 0, result.output
    assert "passed: no hole" in result.stdout
    assert "hole:" not in result.stdout


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_fails_the_audit_and_is_named(name: str, tmp_path: Path, run_audit: Any) -> None:
    changes, line = HOLES[name]
    result = run_audit(toy_book(tmp_path, **changes))
    assert result.exit_code == 1, result.output
    holes = [text for text in result.stdout.splitlines() if text.startswith("hole: ")]
    assert [text for text in holes if line in text], holes
    assert f"FAILED: {len(holes)} hole" in result.stdout


def test_an_entry_that_does_not_parse_fails_the_audit(
    tmp_path: Path, run_audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_book(tmp_path)
    (tmp_path / "specs/double.md").write_text(SPEC.replace("Verdict: holds", "Verdict: true"), "utf-8")
    monkeypatch.setattr("minilong.audit.specs.specs_folder", lambda: tmp_path / "specs")
    result = CliRunner().invoke(main, ["audit", "--jobs", "1"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(
        "minilong: error: specs/double.md:5: eq:double: the verdict 'true' is none of holds"
    )
