"""Rules that hold for every file: length, no code from data, nothing of the machine that it was written on."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path

import pytest
from fenced import ROOT

import minilong
from minilong.autodiff import REGISTRY
from minilong.data.corpora import CORPORA
from minilong.train.presets import preset_names

CODE = sorted((ROOT / "minilong").rglob("*.py"))
MOST_LINES = 330
LONG = {"autodiff/ops.py": 480}
"""A closed list of operations with their rules: one idea, read as a table."""

EXECUTES = {"audit/specs.py"}
"""The blocks of `specs/` are code of this project, which the audit runs."""

PROJECT = (".ci", "minilong", "tests", "specs", "bench")
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".json", ".sh", ""}
DATA = ROOT / "minilong/data/files"


def project_files() -> list[Path]:
    """Every text of the project but the corpora: the top folder's own files and the folders of `PROJECT`."""
    inside = [p for folder in PROJECT for p in (ROOT / folder).rglob("*") if DATA not in p.parents]
    own = [p for p in (*ROOT.iterdir(), *inside) if p.is_file() and p.suffix in TEXTS]
    return sorted(p for p in own if "__pycache__" not in p.parts and p.name != ".git")


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_readable_in_one_sitting(path: Path) -> None:
    most = LONG.get(path.relative_to(ROOT / "minilong").as_posix(), MOST_LINES)
    assert len(path.read_text("utf-8").splitlines()) <= most


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_data_becomes_code(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            assert not {n.split(".")[0] for n in names} & {"pickle", "cPickle", "dill", "marshal", "shelve"}
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if path.relative_to(ROOT / "minilong").as_posix() not in EXECUTES:
                assert name not in ("exec", "eval", "compile", "__import__"), f"line {node.lineno} calls {name}"
            assert "allow_pickle" not in [k.arg for k in node.keywords], f"line {node.lineno} allows pickle"


def test_nothing_names_the_machine_it_was_written_on() -> None:
    # Spelt in parts, so that this file does not name them either.
    folders = "|".join(("wo" + "rk", "tm" + "p", "ro" + "ot", "ho" + "me"))
    notes = "|".join((r"\bsha" + "red/", "origin-" + "document", "DES" + r"IGN\.md"))
    pattern = re.compile(rf"(?<![\w.~])/(?:{folders})\b|{notes}")
    looked = project_files()
    assert len(looked) > 100
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in looked if (m := pattern.search(p.read_text("utf-8")))]
    assert not found


def test_the_installed_package_holds_its_data() -> None:
    package = files("minilong")
    texts = [package / "data/files" / corpus.file for corpus in CORPORA.values()]
    presets = [package / f"train/presets/{name}.toml" for name in preset_names()]
    assert len(presets) >= 5
    assert all(p.is_file() for p in (*texts, *presets, package / "data/files/NOTICE.md"))


def test_each_primitive_has_an_equation_of_its_own() -> None:
    ids = [p.eq for p in REGISTRY.values()]
    assert len(set(ids)) == len(ids)
    assert not [name for name in ids if not re.fullmatch(r"eq:[a-z0-9]+(-[a-z0-9]+)*", name)]


def test_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] in ("Unreleased", minilong.__version__)
    assert minilong.__version__ in versions
