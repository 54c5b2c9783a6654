"""The reader of specs/: what it takes, and that everything else is an error with file and line."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from toy_book import SPEC

from minilong.audit.specs import SpecError, parse, read_specs, specs_folder


def folder(tmp_path: Path, **files: str) -> Path:
    specs = tmp_path / "specs"
    specs.mkdir()
    for name, text in files.items():
        (specs / f"{name}.md").write_text(text, "utf-8")
    return specs


def test_entries_become_values(tmp_path: Path) -> None:
    specs = read_specs(folder(tmp_path, double=SPEC, README="## not an entry"))
    equation = specs.equations["eq:double"]
    assert (equation.title, equation.file, equation.line) == ("Twice a number", "specs/double.md", 5)
    assert (equation.article, equation.verdict, equation.source) == ("4.1", "holds", "Euclid, Elements")
    assert (equation.reference, equation.latex, equation.reading) == ("toy.double", "y = 2 x", "Elementwise.")
    assert (equation.deviations, equation.parameters, equation.function) == ("None.", ("x",), "double")
    assert SPEC.split("\n")[equation.block_line - 1] == "def double(x):"
    claim = specs.claims["claim:four"]
    assert (claim.verdict, claim.says, claim.right) == ("corrected", "Twice two is five.", "It is 4.")
    assert specs.claims["claim:fame"].block == ""
    assert list(specs.claims) == ["claim:four", "claim:fame"]


def test_formulas_and_paragraphs_may_take_several_lines(tmp_path: Path) -> None:
    text = SPEC.replace("$$ y = 2 x $$", "$$\ny =\n2 x\n$$").replace("Elementwise.", "One\nline.\n\nAnd another: it.")
    equation = read_specs(folder(tmp_path, double=text)).equations["eq:double"]
    assert equation.latex == "y =\n2 x"
    assert equation.reading == "One\nline.\n\nAnd another: it."


def test_parameters_tell_stars_keywords_and_defaults() -> None:
    text = SPEC.replace("def double(x)", "def double(x, y=1, *zs, axis, keep=False)")
    equation = parse(text, "specs/double.md")[0]
    assert equation.parameters == ("x", "y", "*zs", "axis", "keep")  # type: ignore[union-attr]
    assert equation.optional == {"y", "keep"}  # type: ignore[union-attr]


WRONG = {
    "no title": (SPEC.removeprefix("# "), 1, "the first line is no title"),
    "unknown heading": (SPEC.replace("## claim:four", "## Claim four"), 22, "is no heading of an entry"),
    "deeper heading": (SPEC.replace("Reading: E", "### Reading\n\nE"), 18, "is no heading of an entry"),
    "capital in an id": (SPEC.replace("eq:double: T", "eq:Double: T"), 5, "is no heading of an entry"),
    "heading without title": (SPEC.replace("eq:double: Twice a number", "eq:double:"), 5, "is no heading"),
    "unknown key": (SPEC.replace("Source:", "Sourse:"), 8, "did you mean 'Source'?"),
    "line without key": (SPEC.replace("Source: Euclid, Elements", "Euclid"), 8, "'Euclid' is none of Article"),
    "reference of a claim": (SPEC.replace("Verdict: corrected", "Reference: x"), 24, "'Reference: x' is none of"),
    "key given twice": (SPEC.replace("Source: Euclid", "Article: 3"), 8, "Article is given twice"),
    "unknown verdict": (SPEC.replace("corrected", "corected"), 22, "did you mean 'corrected'?"),
    "unchecked equation": (SPEC.replace("Verdict: holds", "Verdict: unchecked"), 5, "the verdict 'unchecked'"),
    "verdict without article": (
        SPEC.replace("Article: 4.1\nVerdict: holds", "Verdict: holds"),
        5,
        "add a line `Article",
    ),
    "no formula": (SPEC.replace("$$ y = 2 x $$\n", ""), 12, "that of an equation stands directly below the formula"),
    "empty formula": (SPEC.replace("$$ y = 2 x $$", "$$ $$"), 11, "write one formula between"),
    "two formulas": (SPEC.replace("$$ y = 2 x $$", "$$ y $$\n\n$$ x $$"), 13, "one displayed formula"),
    "formula not closed": (SPEC.replace("2 x $$", "2 x"), 11, "the formula is not closed"),
    "text between formula and block": (SPEC.replace("2 x $$\n", "2 x $$\n\nso\n"), 13, "a paragraph begins with"),
    "reading before the block": (SPEC.replace("2 x $$\n", "2 x $$\n\nReading: so\n"), 15, "directly below"),
    "no block": (SPEC.replace("```python\ndef double(x):\n    return 2 * x\n```\n", ""), 5, "the block is missing"),
    "empty block": (SPEC.replace("def double(x):\n    return 2 * x\n", "\n"), 14, "the block is empty"),
    "other language": (SPEC.replace("```python\ndef", "```text\ndef"), 13, "the fence is not `python`"),
    "fence not closed": (SPEC.replace("!= 5\n```", "!= 5"), 30, "the fence is not closed"),
    "block that is no Python": (SPEC.replace("return 2 * x", "return 2 *"), 15, "the block is no Python"),
    "block without the function": (SPEC.replace("def double", "def twice"), 14, "define the function 'double'"),
    "paragraph without label": (SPEC.replace("Reading: ", ""), 18, "a paragraph begins with `Reading:`"),
    "label of a claim": (SPEC.replace("Reading: ", "Says: "), 18, "a paragraph begins with `Reading:`"),
    "claim without article": (SPEC.replace("Article: 7\nVerdict: unchecked", "Source: x"), 35, "needs a line `Article"),
    "claim without verdict": (SPEC.replace("Verdict: unchecked\n", ""), 35, "needs a line `Verdict"),
    "claim without right": (SPEC.replace("Right: It is 4.\n", ""), 22, "needs a paragraph `Right"),
    "claim without check": (SPEC.replace("Verdict: unchecked", "Verdict: holds"), 35, "needs a block that checks it"),
    "unchecked claim with a check": (SPEC.replace("corrected", "unchecked"), 22, "so it has no block"),
    "two blocks": (SPEC.replace("!= 5\n```\n", "!= 5\n```\n\n```python\npass\n```\n"), 35, "an entry has one block"),
    "id used twice": (SPEC.replace("claim:fame", "claim:four"), 35, "claim:four is defined at specs/double.md:22 too"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_parse_names_file_and_line(name: str, tmp_path: Path) -> None:
    text, line, message = WRONG[name]
    with pytest.raises(SpecError) as caught:
        read_specs(folder(tmp_path, double=text))
    assert str(caught.value).startswith(f"specs/double.md:{line}: "), caught.value
    assert message in str(caught.value)
    assert caught.value.exit_code == 1


def test_two_files_cannot_define_one_id_or_one_name(tmp_path: Path) -> None:
    specs = folder(tmp_path, a=SPEC, b=SPEC)
    with pytest.raises(SpecError, match=r"^specs/b.md:5: eq:double is defined at specs/a.md:5 too"):
        read_specs(specs)
    head = SPEC[: SPEC.index("## claim")]
    (specs / "b.md").write_text(head.replace("eq:double", "eq:two").replace("def ", "def two(x):\n    pass\n\n\ndef "))
    with pytest.raises(SpecError, match=r"^specs/b.md:14: the block defines 'double', as that of eq:double does"):
        read_specs(specs)


def test_tracebacks_point_into_the_spec(tmp_path: Path) -> None:
    path = folder(tmp_path, double=SPEC.replace("return 2 * x", "return 1 / 0"))
    specs = read_specs(path)
    namespace, broken = specs.functions()
    assert not broken
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["double"](1)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.line) == (str(path / "double.md"), 15, "return 1 / 0")
    assert (
        specs.check(specs.claims["claim:four"], namespace) == "specs/double.md:15: ZeroDivisionError: division by zero"
    )


def test_blocks_share_a_namespace_and_checks_do_not_change_it(tmp_path: Path) -> None:
    other = SPEC[: SPEC.index("## claim")].replace("double", "quadruple").replace("2 * x", "double(double(x))")
    specs = read_specs(folder(tmp_path, a=other, b=SPEC.replace("!= 5", "!= 5\nnp = double = None")))
    namespace, broken = specs.functions()
    assert not broken
    assert namespace["quadruple"](3) == 12
    assert specs.check(specs.claims["claim:four"], namespace) is None
    assert namespace["double"](1) == 2


def test_the_shipped_folder_is_found_and_parses() -> None:
    assert specs_folder().name == "specs"
    specs = read_specs()
    assert len(specs.equations) > 50
    assert not specs.functions()[1]
