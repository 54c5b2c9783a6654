"""`minilong bench` from end to end in its quick form, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minilong.cli import main
from minilong.cli.experiment import state_line
from minilong.experiments.cells import State


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.mark.parametrize("experiment", ["extrapolation", "recall"])
def test_a_quick_run_leaves_numbers_tables_and_a_picture(experiment: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["persuasion", "--quick", "--out", str(out), "--seeds", "1", "--jobs", "2"]
    result = call(experiment, *given)
    assert result.exit_code == 0, result.output
    assert "which mean nothing" in result.stdout
    files = {"cells", "results.json", "tables.md", f"{experiment}.png"}
    assert {p.name for p in out.iterdir()} == files
    found = json.loads((out / "results.json").read_text())
    assert found["experiment"] == experiment
    assert found["settings"]["quick"] is True
    names = {c["name"] for c in found["cells"]}
    assert len(names) == (8 if experiment == "extrapolation" else 10)
    for name in ("tables.md", f"{experiment}.png"):
        (out / name).unlink()
    again = call(experiment, "--out", str(out), "--replot")
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert {p.name for p in out.iterdir()} == files
    quiet = call(experiment, *given, "--quiet")
    assert quiet.stdout == f"{out}\n"
    assert quiet.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["extrapolation"], ["recall"]])
def test_help_shows_examples(arguments: list[str]) -> None:
    result = call(*arguments, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert "  minilong bench" in result.stdout
    options = [line for line in result.stdout.split("Options:")[1].splitlines() if line.startswith("  -")]
    assert all(len(line.split("  ")) > 2 for line in options), "an option has no help"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extrapolation", "--steps", "10", "--budget", "5m"], "leave out one of the two"),
        (["extrapolation", "--budget", "5"], "'5' is not a duration"),
        (["extrapolation", "--seeds", "0"], "0 is not in the range"),
        (["extrapolation", "--jobs", "0"], "0 is not in the range"),
        (["extrapolation", "--steps", "1"], "1 is not in the range"),
        (["extrapolation", "--replot", "--seeds", "2"], "so --seeds cannot be given"),
        (["extrapolation", "--replot"], "run `minilong bench extrapolation` without --replot first"),
        (["extrapolation", "no-such-text"], "no file and no shipped corpus 'no-such-text'"),
        (["recall", "no-such-text"], "no file and no shipped corpus 'no-such-text'"),
        (["recall", "--replot"], "run `minilong bench recall` without --replot first"),
        (["recall", "--out", "file", "--quick"], "file is a file; give --out a folder"),
        (["recal"], "No such command 'recal'"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = call(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("minilong: error: ")
    assert message in lines[0]


def test_replot_refuses_other_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 1, "experiment": "recall"}')
    assert (
        "does not hold results of 'extrapolation'" in call("extrapolation", "--replot", "--out", str(tmp_path)).stderr
    )
    (tmp_path / "results.json").write_text("{")
    assert "is damaged" in call("extrapolation", "--replot", "--out", str(tmp_path)).stderr


def test_a_line_of_progress() -> None:
    state = State(3, 24, (("xl, seed 1", 0.42),), 65.0, 600.0, "t5, seed 1")
    assert state_line(state) == " 3/24  1m05s  10m00s left  done: t5, seed 1  xl, seed 1 42%"
