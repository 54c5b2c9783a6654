"""The shipped specifications: every id that the code uses is stated once, every claim's check runs and can fail."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minilong.attention import Mask
from minilong.attention.naive import masked_softmax
from minilong.audit.mathml import to_mathml
from minilong.audit.specs import Claim, Equation, read_specs
from minilong.autodiff import REGISTRY
from minilong.data.vocabulary import FIRST
from minilong.positions import cas, rotary
from minilong.train.generate import choose
from minilong.train.translate import length_norm

ROOT = Path(__file__).parents[2]
SPECS = read_specs(ROOT / "specs")
NAMESPACE, BROKEN = SPECS.functions()
NAMED = re.compile(r"(?:eq|claim):[a-z0-9]+(?:-[a-z0-9]+)*")
PARTS = {1: 4, 2: 6, 3: 4, 4: 3, 5: 3, 6: 4, 7: 3, 8: 3, 9: 4}
SECTIONS = ("summary", "10", *(f"{section}.{part + 1}" for section, parts in PARTS.items() for part in range(parts)))

every_equation = pytest.mark.parametrize("equation", SPECS.equations.values(), ids=lambda e: e.id)
checked_claim = pytest.mark.parametrize("claim", [c for c in SPECS.claims.values() if c.block], ids=lambda c: c.id)


def named_in_code() -> set[str]:
    """Ids in the package, the audit's own files left out: its laws are checked where they are joined with this."""
    files = [p for p in (ROOT / "minilong").rglob("*.py") if "audit" not in p.relative_to(ROOT / "minilong").parts]
    return {name for p in files for name in NAMED.findall(p.read_text("utf-8")) if name.startswith("eq:")}


def test_the_code_names_what_is_stated_and_nothing_else() -> None:
    assert named_in_code() == set(SPECS.equations)


def test_each_id_is_stated_once() -> None:
    texts = [p.read_text("utf-8") for p in (ROOT / "specs").glob("*.md")]
    headings = [h for text in texts for h in re.findall(r"^## ((?:eq|claim):[a-z0-9-]+): ", text, re.MULTILINE)]
    assert len(headings) == len(set(headings)) == len(SPECS.equations) + len(SPECS.claims)


def test_equation_blocks_run() -> None:
    assert not BROKEN


@every_equation
def test_a_formula_can_be_shown(equation: Equation) -> None:
    assert to_mathml(equation.latex).startswith("<math")


@checked_claim
def test_the_check_of_a_claim_runs(claim: Claim) -> None:
    assert SPECS.check(claim, NAMESPACE) is None


@checked_claim
def test_the_check_of_a_claim_is_the_same_every_time(claim: Claim) -> None:
    for call in re.findall(r"(?:np\.random|random)\.\w+\(\)?", claim.block):
        assert call == "np.random.default_rng(", f"{call} draws without a seed"


@checked_claim
def test_the_check_of_a_claim_asserts_something_that_it_computes(claim: Claim) -> None:
    assert [test for test in asserted(claim) if any(isinstance(n, ast.Name) for n in ast.walk(test))]


@pytest.mark.parametrize("claim", [c for c in SPECS.claims.values() if c.verdict == "corrected"], ids=lambda c: c.id)
def test_a_corrected_claim_shows_that_what_is_printed_fails(claim: Claim) -> None:
    denied = [part for test in asserted(claim) for part in denials(test)]
    assert any(names_what_is_printed(test) for test in denied), "no assertion denies something named `printed...`"


def asserted(claim: Claim) -> list[ast.expr]:
    """The conditions of the block's assertions."""
    return [node.test for node in ast.walk(ast.parse(claim.block)) if isinstance(node, ast.Assert)]


def denials(test: ast.expr) -> list[ast.expr]:
    """The parts of a condition that say that something is not so."""
    if isinstance(test, ast.BoolOp):
        return [part for value in test.values for part in denials(value)]
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    unequal = isinstance(test, ast.Compare) and any(isinstance(op, ast.NotEq) for op in test.ops)
    return [test] if negated or unequal else []


def names_what_is_printed(test: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and n.id.startswith("printed") for n in ast.walk(test))


@pytest.mark.parametrize(
    "equation", [e for e in SPECS.equations.values() if e.verdict == "corrected"], ids=lambda e: e.id
)
def test_a_corrected_equation_names_the_claim_that_shows_it(equation: Equation) -> None:
    named = [name for name in NAMED.findall(equation.reading + equation.deviations) if name.startswith("claim:")]
    assert any(SPECS.claims[name].verdict == "corrected" for name in named)


def test_an_entry_names_only_entries_that_exist() -> None:
    known = {*SPECS.equations, *SPECS.claims}
    entries: list[Equation | Claim] = [*SPECS.equations.values(), *SPECS.claims.values()]
    for entry in entries:
        text = f"{entry.reading}{entry.deviations}" if isinstance(entry, Equation) else f"{entry.says}{entry.right}"
        assert set(re.findall(r"`((?:eq|claim):[^`]*)`", text)) <= known, entry.id


def test_every_section_of_the_article_has_a_claim() -> None:
    covered = {claim.article for claim in SPECS.claims.values()}
    covered |= {".".join(section.split(".")[:2]) for section in covered}
    assert [section for section in SECTIONS if section not in covered] == []


def test_a_primitives_block_takes_its_inputs_and_keywords() -> None:
    for primitive in REGISTRY.values():
        names = SPECS.equations[primitive.eq].parameters
        if primitive.name == "rotate":  # stated for positions; the primitive takes the turns that they give
            continue
        inputs = ("*xs",) if primitive.variadic else primitive.inputs
        assert names[: len(inputs)] == inputs, primitive.name
        assert set(names[len(inputs) :]) <= set(primitive.defaults), primitive.name


def test_references_exist() -> None:
    for equation in SPECS.equations.values():
        if equation.reference is not None:
            *module, name = equation.reference.split(".")
            if not ROOT.joinpath(*module).with_suffix(".py").exists():  # a method, of a class in a module
                module.pop()
            text = ROOT.joinpath(*module).with_suffix(".py").read_text("utf-8")
            assert re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), equation.id


def test_readme_lists_every_file() -> None:
    readme = (ROOT / "specs/README.md").read_text("utf-8")
    files = {p.name for p in (ROOT / "specs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"`([\w.-]+\.md)`", readme)) == files


def test_counts_of_verdicts() -> None:
    """The counts, printed for the README's table (`pytest -s -k verdicts`): most claims can be computed."""
    claims = Counter(claim.verdict for claim in SPECS.claims.values())
    equations = Counter(equation.verdict for equation in SPECS.equations.values())
    print(f"\nclaims: {dict(claims)}, in all {claims.total()}")
    print(f"equations: {dict(equations)}, in all {equations.total()}")
    assert claims["corrected"] >= 50
    assert claims.total() >= 150
    assert claims["unchecked"] < claims.total() / 3


def test_blocks_agree_with_known_values() -> None:
    """The blocks are oracles for everything else, so a few of their values are written out here."""
    n = NAMESPACE
    assert np.allclose(n["softmax"](np.array([0.0, np.log(3.0)])), [0.25, 0.75])
    assert np.allclose(n["layer_norm"](np.array([1.0, 0, 0, 0]), 1.0, 0.0, 0.0), np.array([3, -1, -1, -1]) / np.sqrt(3))
    assert np.allclose(n["rms_norm"](np.array([3.0, 4.0]), 1.0, 0.0), np.array([3.0, 4.0]) / np.sqrt(12.5))
    assert np.isclose(n["cross_entropy"](np.zeros((2, 4)), np.array([1, -100])), np.log(4))
    assert n["cross_entropy"](np.zeros((1, 4)), np.array([-100])) == 0
    assert np.allclose(n["adam"](np.zeros(1), np.ones(1), np.zeros(1), np.zeros(1), 1, 0.1, 0.9, 0.999, 0.0)[0], -0.1)
    assert np.allclose(n["clip"]([np.array([3.0]), np.array([4.0])], 1.0), [[0.6], [0.8]])
    assert np.allclose(n["sinusoidal"](2, 2), [[0, 1], [np.sin(1), np.cos(1)]])
    assert np.allclose(n["alibi"](8, 3, 3)[0], [[0, -0.5, -1], [-0.5, 0, -0.5], [-1, -0.5, 0]])
    assert np.allclose(n["rotary"](np.array([[1.0, 0.0]]), np.array([np.pi / 2])), [[0, 1]])
    assert np.array_equal(n["mask"](3, 3, causal=True, window=2), [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    assert np.isclose(n["gelu"](np.array(1.0)), 0.8413447460685429)
    assert np.isclose(n["bits"](np.log(2), 10, 5), 2)
    assert np.allclose(n["sampling"](np.log([0.5, 0.3, 0.2]), top_p=0.6), [0.625, 0.375, 0])


def test_the_mask_is_its_block() -> None:
    segments = np.array([0, 0, 1, 1, 1, 2])
    fields = itertools.product((False, True), (None, 1, 3), (0, 2), (0, 2), (None, 4), (None, segments))
    for causal, window, sinks, offset, length, owner in fields:
        if sinks and window is None:
            continue
        batch = None if length is None else np.array([length])
        rows = None if owner is None else owner[None]
        mask = Mask(causal=causal, window=window, sinks=sinks, offset=offset, key_lengths=batch, segments=rows)
        found = mask.dense(np, 4, 6)
        expected = NAMESPACE["mask"](4, 6, causal, window, sinks, offset, length, owner)
        assert np.array_equal(np.broadcast_to(True if found is None else found, (1, 1, 4, 6))[0, 0], expected)


def test_blocks_without_a_kind_agree_with_the_code() -> None:
    rng = np.random.default_rng(0)
    scores, allowed = rng.normal(size=(2, 4, 5)) * 30, rng.random((4, 5)) < 0.5
    allowed[1] = False
    assert np.allclose(
        masked_softmax(scores, allowed), NAMESPACE["masked_softmax"](scores, allowed), rtol=0, atol=1e-13
    )
    assert np.allclose(cas(9, 6, dtype="float64"), NAMESPACE["cas"](9, 6), rtol=0, atol=1e-13)
    x = rng.normal(size=(4, 6))
    expected = NAMESPACE["rotary"](x, np.arange(4), 100.0, interleaved=False)
    assert np.allclose(rotary(x, np.arange(4), base=100.0, interleaved=False), expected, rtol=0, atol=1e-13)
    for length, penalty in ((1, 0.0), (7, 0.6), (30, 1.0)):
        assert np.isclose(-3.5 / length_norm(length, penalty), NAMESPACE["beam"](-3.5, length, penalty))


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}])
def test_tokens_are_drawn_as_the_block_says(options: dict[str, float]) -> None:
    logits = np.random.default_rng(1).normal(size=FIRST + 6) * 2
    draws = np.random.default_rng(2)
    drawn = Counter(choose(logits, draws, **options) - FIRST for _ in range(4000))  # type: ignore[arg-type]
    expected = NAMESPACE["sampling"](logits[FIRST:], **options)
    assert set(drawn) <= set(np.flatnonzero(expected))
    for token, p in enumerate(expected):
        assert abs(drawn[token] / 4000 - p) <= 6 * np.sqrt(p * (1 - p) / 4000)  # six deviations
