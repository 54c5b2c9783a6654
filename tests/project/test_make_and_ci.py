"""The Makefile, `.ci/run` and the pre-commit hooks do what README says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fenced import BIN, ROOT, run

MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(MAKE is None, reason="make is not installed: README names another way")


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """make, without the settings of a make that may be running this test."""
    command = ["env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "-u", "MAKELEVEL", str(MAKE), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@needs_make
def test_targets_do_what_they_say(tmp_path: Path) -> None:
    venv = f"VENV={tmp_path / 'venv'}"
    train = make("-n", "train", venv, "OUT=there", "TRAIN_ARGS=--steps 5").stdout
    assert f"{tmp_path}/venv/bin/minilong train --out there --steps 5" in train
    assert "--editable '.[text,plot]'" in train
    tests = make("-n", "test", venv, "PYTEST_ARGS=-x").stdout
    assert f"{tmp_path}/venv/bin/pytest --numprocesses auto --dist loadfile -x" in tests
    assert "--editable '.[test]'" in tests
    lint = make("-n", "lint", venv).stdout
    for tool in ("ruff check", "ruff format --check", "mypy"):
        assert f"{tmp_path}/venv/bin/{tool}" in lint
    assert "runs" not in make("-n", "clean").stdout


@needs_make
def test_make_alone_names_every_target() -> None:
    told = make().stdout
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[0].split()
    assert not [name for name in targets if name != "help" and f"make {name} " not in told]


@needs_make
def test_an_environment_is_installed_once(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    for stamp in (".created", ".installed-run", ".installed-test"):
        (tmp_path / ".venv" / stamp).touch()
    for target in ("train", "test", "lint"):
        assert "pip" not in make("-n", target, cwd=tmp_path).stdout
    later = (tmp_path / ".venv/.installed-run").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert "pip" in make("-n", "train", cwd=tmp_path).stdout


@needs_make
def test_an_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("train", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert "make PYTHON=python3.12" in done.stdout
    assert not (tmp_path / "venv/.created").exists()


def test_ci_is_a_script_that_stops_at_the_first_failure() -> None:
    path = ROOT / ".ci/run"
    assert path.stat().st_mode & 0o111
    run(["bash", "-n", str(path)], ROOT)
    text = path.read_text("utf-8")
    assert "set -euo pipefail" in text
    for name in ("make lint", "make test", "make train"):
        assert f"\n{name} " in text


def test_hooks_name_programs_of_the_environment(tmp_path: Path) -> None:
    entries = re.findall(r"^ +entry: (.*)$", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"), re.MULTILINE)
    assert len(entries) == 4
    for entry in entries:
        program, *arguments = shlex.split(entry)
        assert program.startswith(".venv/bin/")
        assert (BIN / Path(program).name).exists()
        if "--dry-run" in arguments:  # the smoke test; the others are what `make lint` runs
            run([str(BIN / Path(program).name), *arguments], tmp_path)
            assert not list(tmp_path.iterdir())
