"""CONTRIBUTING is true: its primitive runs, gets through every law, and its wrong rules are found."""

from __future__ import annotations

import re
from pathlib import Path

from fenced import ROOT, blocks, run

TRIAL = """
from hypothesis import settings
settings.register_profile("once", max_examples=15, deadline=None, derandomize=True, database=None)
settings.load_profile("once")

import example
from minilong.audit.primitives import laws
from minilong.audit.primitives.cases import cases, for_all
from minilong.audit.primitives.mutants import MUTATIONS, verdict

p = example.softplus
properties = (laws.reference, laws.direction, laws.second_order, laws.linear, laws.shape_and_dtype, laws.layout,
              laws.purity, laws.residuals)
calls = []
for law in properties:
    assert for_all(cases(p), law) > 0
for_all(cases(p), calls.append)
verdicts = {name: verdict(p, mutation, calls) for name, mutation in MUTATIONS.items() if name != "cotangents swapped"}
assert set(verdicts.values()) == {"killed"}, verdicts
print(len(verdicts), "killed")
"""


def test_the_primitive_of_the_text_passes_the_laws_and_its_mutants_do_not(tmp_path: Path) -> None:
    (example,) = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "example.py").write_text(example.text, "utf-8")
    (tmp_path / "trial.py").write_text(TRIAL, "utf-8")
    assert run(["python", "trial.py"], tmp_path).stdout == "7 killed\n"


def test_every_path_of_the_documents_exists() -> None:
    for document in ("CONTRIBUTING.md", "CHANGELOG.md", "specs/README.md"):
        named = set(re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*|[A-Z]+\.md)`", (ROOT / document).read_text("utf-8")))
        assert not [name for name in named if not (ROOT / name).exists()], document


def test_names_of_the_test_suite_are_as_told() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for name, home in {
        "EQUIVALENT": "minilong/audit/primitives/mutants.py",
        "MUTANTS": "tests/engine/test_engine_mutants.py",
        "problems": "tests/nn/test_mask_and_kernels.py",
        "rounding_bound": "minilong/autodiff/numeric.py",
        "directional": "minilong/autodiff/numeric.py",
        "attend": "minilong/attention/dense.py",
        "workspace": "minilong/backend/arrays.py",
    }.items():
        assert f"`{name}`" in text
        assert re.search(rf"^(def )?{name}\b", (ROOT / home).read_text("utf-8"), re.MULTILINE), f"{name} in {home}"
