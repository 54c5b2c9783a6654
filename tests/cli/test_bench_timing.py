"""`minilong bench [CASE...]`: a quick run from end to end, exit codes, what it refuses, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minilong.cli import main
from minilong.cli.timing import registry

pytestmark = pytest.mark.bench


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_a_quick_run_writes_every_number_and_a_picture(tmp_path: Path) -> None:
    file, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    cases = ["step-0.8m", "growth-batch"]
    options = ["--quick", "--profile", "--rounds", "2", "--against", "none", "--json", str(file), "--plot", str(plot)]
    result = call(*cases, *options)
    assert result.exit_code == 0, result.output
    assert "which mean nothing" in result.stdout
    assert "where a step of minilong goes, over 2 replicas" in result.stdout
    assert "2/2  growth-batch  timed" in result.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"bench.json", "bench.png"}
    found = json.loads(file.read_text())
    assert found["format"] == 1
    assert found["settings"] == {"cases": cases, "against": [], "rounds": 2, "threads": 2, "quick": True}
    assert {"cpu", "cores", "blas", "openblas_coretype"} <= set(found["machine"])
    assert {"python", "numpy", "minilong", "torch", "jax"} <= set(found["versions"])
    assert len(found["ceilings"]["measured"]) == 2
    step, growth = found["cases"]
    side = step["sides"]["minilong"]
    assert step["status"] == growth["status"] == "timed"
    assert [set(r) for r in side["rounds"]] == [{"best", "median", "repetitions"}] * 2
    assert side["spread"][0] == side["best"] == min(r["best"] for r in side["rounds"])
    assert {"peak", "growth", "share"} <= set(side)
    assert growth["fits"][0]["deviation"] >= 0
    assert step["profile"]["rows"]


def test_every_case_is_listed() -> None:
    listed = call("--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(registry().CASES)
    assert [line.split()[0] for line in call("kernel-*", "--list").stdout.splitlines()] == [
        name for name in registry().CASES if name.startswith("kernel-")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step-1m"], "No such command 'step-1m', nor a case (did you mean 'step-"),
        (["op-gelu", "nothing-*"], "cases are step-0.8m, step-10.7m"),
        (["--against", "torchh"], "--against names 'torchh' (did you mean 'torch'?); peers are torch, torch-compile"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--threads", "x"], "'x' is not a valid integer"),
        (["op-gelu", "--json", "no/where.json"], "no is no folder; make it first"),
        (["op-gelu", "--plot", "."], ". is a folder; give the name of a file"),
        (["--fast"], "No such option '--fast'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("minilong: error: ")
    assert message in line


def test_a_wrong_peer_ends_with_code_1_and_a_missing_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = registry()
    (tmp_path / "planted_peer.py").write_text(
        f"from {bench.__name__}.ours.operations import Operation\n"
        "class Wrong(Operation):\n"
        "    def gate(self):\n"
        "        return {name: 2 * a for name, a in super().gate().items()}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    sides = {**bench.CASES["op-gelu"].sides, "wrong": "planted_peer:Wrong", "away": "planted_peer:Wrong"}
    case: Any = replace(bench.CASES["op-gelu"], sides=sides)
    monkeypatch.setattr(bench, "CASES", {"op-gelu": case})
    monkeypatch.setattr(bench, "PEERS", {"wrong": "planted_peer", "away": "no_such_library"})
    monkeypatch.setattr(import_module(f"{bench.__name__}.results"), "PEERS", bench.PEERS)
    assert find_spec("planted_peer") is not None
    result = call("--quick", "--against", "wrong")
    assert result.exit_code == 1, result.output
    assert "RED, so not timed: wrong: output differs by 5.0e-01, allowed are 1e-05" in result.stdout
    assert "gates: 0 of 1 green" in result.stdout
    result = call("--quick", "--against", "away")
    assert result.exit_code == 0, result.output
    assert 'away: not installed; pip install "minilong[bench]"' in result.stdout
    assert "minilong  " in result.stdout


def test_an_interrupt_leaves_one_line_and_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "minilong", "bench", "op-gelu", "op-softmax", "--quick", "--against", "none"]
    process = subprocess.Popen(
        [*command, "--rounds", "1000", "--json", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("work ")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (line,) = err.splitlines()
    assert line == f"interrupted: 0 of 2 cases were measured; written     {file}"
    assert "Traceback" not in out
    assert all(case["status"] == "unfinished" for case in json.loads(file.read_text())["cases"])


def test_a_wrong_value_points_to_the_help_that_there_is() -> None:
    result = call("step-0.8m", "--rounds", "0")
    assert result.exit_code == 2
    assert result.output.strip().endswith(" bench --help`")
