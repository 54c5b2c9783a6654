"""`minilong audit`: every option, what it prints and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from toy_book import MUTANT, SPEC, SUBJECT, toy_book

from minilong.audit import KINDS, LAWS, load
from minilong.backend import CPU
from minilong.cli import main


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy book in place of the real one; the folder that it lies in."""
    book = toy_book(tmp_path)
    monkeypatch.setattr("minilong.audit.join.open_book", lambda: book)
    monkeypatch.setattr("minilong.audit.specs.specs_folder", lambda: tmp_path / "specs")
    monkeypatch.setattr("minilong.__file__", str(tmp_path / "toy/__init__.py"))
    return tmp_path


def test_the_table_and_the_counts(toy: Path) -> None:
    result = call("--jobs", "1", "--examples", "20")
    assert result.exit_code == 0
    assert result.stderr == ""
    for part in (
        "eq:double", "double.md:5", "toy/__init__.py:4", "= double", "1/1", "holds",
        "equations  1: 1 holds; 0 not printed by the article",
        "blocks     1 agree with the code, 0 disagree, 0 are to read",
        "claims     2: 1 corrected, 1 unchecked",
        "laws       1: 1 hold, on 18 examples; worst error 0 of its bound",
        "mutants    1 planted, 1 found",
        "passed: no hole; audit of minilong",
        "20 examples a law",
    ):  # fmt: skip
        assert part in result.stdout


def test_quiet_prints_the_result(toy: Path) -> None:
    result = call("--jobs", "1", "--examples", "5", "--quiet")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_only(toy: Path) -> None:
    result = call("--jobs", "1", "--only", "claim:*")
    assert result.exit_code == 0
    assert "claim:four  corrected, checked  (specs/double.md:22)" in result.stdout
    assert "claim:fame  unchecked, no check" in result.stdout
    wrong = call("--jobs", "1", "--only", "doubel")
    assert wrong.exit_code == 2
    assert "did you mean 'double'?" in wrong.stderr


@pytest.mark.parametrize("name", ["eq:double", "double"])
def test_show(toy: Path, name: str) -> None:
    result = call("--jobs", "1", "--show", name, "--examples", "20")
    assert result.exit_code == 0
    for part in ("eq:double  Twice a number", "  y = 2 x", "  def double(x):", "    return x + x", "double/definition"):
        assert part in result.stdout


def test_show_a_claim_and_what_is_not_there(toy: Path) -> None:
    result = call("--jobs", "1", "--show", "four")
    assert result.exit_code == 0
    assert "claim:four  Twice two" in result.stdout
    wrong = call("--jobs", "1", "--show", "eq:doubel")
    assert wrong.exit_code == 2
    assert "there is no equation or claim 'eq:doubel' (did you mean 'eq:double'?)" in wrong.stderr


def test_show_a_law_that_fails(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    book = toy_book(tmp_path, subjects={SUBJECT.name: replace(SUBJECT, f=MUTANT.f)})
    monkeypatch.setattr("minilong.audit.join.open_book", lambda: book)
    result = call("--jobs", "1", "--show", "eq:double")
    assert result.exit_code == 1
    assert "law double/definition  FAILS" in result.stdout
    assert "  x = np.array([1.0], dtype=np.float64).reshape((1,))" in result.stdout
    assert "\nhole: law double/definition fails on toy.double" in result.stdout


def test_json_to_a_file_and_to_standard_output(toy: Path) -> None:
    file = toy / "report.json"
    assert call("--jobs", "1", "--json", str(file)).exit_code == 0
    result = call("--jobs", "1", "--json", "-")
    assert result.exit_code == 0
    there, here = json.loads(file.read_text("utf-8")), json.loads(result.stdout)
    assert there | {"seconds": 0, "laws": 0} == here | {"seconds": 0, "laws": 0}
    assert here["passed"] is True
    assert here["equations"][0]["id"] == "eq:double"


def test_html(toy: Path) -> None:
    file = toy / "report.html"
    assert call("--jobs", "1", "--html", str(file)).exit_code == 0
    text = file.read_text("utf-8")
    assert text.startswith("<!")
    assert "eq:double" in text


def test_a_failed_audit_still_writes_its_report(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = toy_book(toy, mutants={})
    monkeypatch.setattr("minilong.audit.join.open_book", lambda: book)
    result = call("--jobs", "1", "--json", str(toy / "report.json"), "--quiet")
    assert result.exit_code == 1
    assert json.loads((toy / "report.json").read_text("utf-8"))["holes"] == ["law double/definition finds no mutant"]
    assert result.stdout.splitlines()[0] == "hole: law double/definition finds no mutant"


def test_list_shows_kinds_signatures_and_laws() -> None:
    result = call("--list")
    assert result.exit_code == 0
    load()
    flat = " ".join(result.stdout.split())
    for kind in KINDS.values():
        assert " ".join(kind.signature.split()) in flat
    for law in LAWS.values():
        assert f"{law.name}:" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    public = [kind.name for kind in KINDS.values() if kind.public]
    assert result.stdout.splitlines()[0] in public


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "a", "--show", "b"], "--only and --show are different things to ask for; give one of them"),
        (["--list", "--on", "x.py"], "--list and --on are different things"),
        (["--list", "--json", "-"], "--json holds the audit of minilong itself, not --list"),
        (["--on", "x.py", "--html", "y.html"], "--html holds the audit of minilong itself, not --on"),
        (["--as", "softmax"], "--as softmax says what the function of --on is; give --on FILE.py as well"),
        (["--as", "sofmax"], "did you mean 'softmax'"),
        (["--on", __file__], "needs --as KIND, to say what it is; choose one of"),
        (["--on", "gone.py"], "there is no file 'gone.py'"),
        (["--examples", "0"], "0 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--json", "no/such/folder/x.json"], "there is no folder for --json no/such/folder/x.json; create it"),
        (["--html", "."], "--html . is a folder; name a file"),
        (["--html", "-"], "--html writes a file, not standard output"),
        (["extra"], "unexpected extra argument (extra)"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("minilong: error: ")
    assert message in line


def test_without_hypothesis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilong.cli.audit.find_spec", lambda name: None)
    result = call()
    assert result.exit_code == 2
    assert 'pip install "minilong[audit]"' in result.stderr


def test_progress_goes_to_standard_error(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilong.cli.audit.PLAIN_INTERVAL", 0.0)
    result = call("--jobs", "1")
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("100%  ")
    assert "/" in lines[0]
    assert call("--jobs", "1", "--quiet").stderr == ""


def test_seed_and_examples_reach_the_laws(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def look(*arguments: Any, **keywords: Any) -> Any:
        asked.update(keywords, arguments=arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("minilong.audit.join.audit", look)
    result = call("--seed", "7", "--examples", "33", "--jobs", "3", "--only", "x", "--quiet")
    assert result.exit_code == 130
    assert asked == {"arguments": (33, "x", None, 7, 3), "device": CPU}


def test_the_real_book_in_a_real_process() -> None:
    command = [sys.executable, "-m", "minilong", "audit", "--only", "eq:softmax", "--examples", "5", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eq:softmax" in done.stdout
    assert "passed: no hole" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_shipped_specifications_are_not_the_toy() -> None:
    from minilong.audit.specs import read_specs

    assert "eq:double" not in read_specs().equations
    assert "## eq:double" in SPEC
