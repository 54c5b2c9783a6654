"""The engine: cells are kept, a stop or a crash loses only what is at work, and the end is as if none had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minilong.errors import Diverged, UserError
from minilong.experiments import extrapolation
from minilong.experiments.cells import KEPT, Cell, State, Stopped, kept, run_cells, sweep, write_whole

SIZES = replace(extrapolation.QUICK, steps=2, lengths=(16, 32), factors=(2,))


def cells(*names: str, seed: int = 1) -> list[Cell]:
    all_cells = extrapolation.cells(["persuasion"], SIZES, seed)
    return [c for c in all_cells if c.settings["scheme"] in names and c.settings["seed"] == seed]


def changed(cell: Cell, **settings: object) -> Cell:
    return replace(cell, settings={**cell.settings, **settings})


def test_cells_are_computed_in_order_kept_and_not_computed_again(tmp_path: Path) -> None:
    wanted = cells("none", "alibi")
    states: list[State] = []
    records = run_cells(wanted, tmp_path, report=states.append)
    assert [r["name"] for r in records] == [c.name for c in wanted]
    assert all(r["settings"] == dict(c.settings) for r, c in zip(records, wanted, strict=True))
    assert all(r["seconds"] > 0 and r["processor_seconds"] > 0 for r in records)
    assert [s.done for s in states if s.finished] == [1, 2]
    assert states[0].running
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / KEPT).iterdir()}
    assert len(before) == 2
    assert run_cells(wanted, tmp_path) == records
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / KEPT).iterdir()} == before


def test_a_cell_is_known_by_all_of_its_settings(tmp_path: Path) -> None:
    (cell,) = cells("none")
    record = {"settings": dict(cell.settings), "result": {}, "seconds": 1.0, "processor_seconds": 1.0}
    (tmp_path / KEPT).mkdir()
    path = tmp_path / KEPT / cell.file
    path.write_text(json.dumps(record))
    assert kept(cell, tmp_path) == {**record, "name": cell.name}
    assert changed(cell, seed=2).file != cell.file
    assert kept(changed(cell, seed=2), tmp_path) is None
    path.write_text(json.dumps({**record, "settings": {}}))
    assert kept(cell, tmp_path) is None
    path.write_text(json.dumps(record)[:-9])
    assert kept(cell, tmp_path) is None


def test_a_stop_gives_up_what_is_at_work_and_keeps_the_rest(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(Stopped, match="1 of 3 cells"):
        run_cells(
            cells("none", "alibi", "t5"),
            tmp_path,
            workers=1,
            report=lambda state: done.append(state.done),
            should_stop=lambda: bool(done and done[-1]),
        )
    assert [p.suffix for p in (tmp_path / KEPT).iterdir()] == [".json"]


def test_what_a_cell_fails_of_is_raised_with_its_name(tmp_path: Path) -> None:
    (cell,) = cells("none")
    with pytest.raises(UserError, match="none, seed 1: a text has changed"):
        run_cells([changed(cell, digest="another")], tmp_path)
    with pytest.raises(Diverged, match="none, seed 1: the training diverged at step 2 of 2; give a lower"):
        run_cells([changed(cell, lr=1e30, width=2, heads=1)], tmp_path)
    assert not list((tmp_path / KEPT).iterdir())


def test_a_process_that_dies_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (cell,) = cells("none")
    with pytest.raises(UserError, match=r"the process of none, seed 1 failed with code 1 .*run the same command again"):
        run_cells([replace(cell, computation="os:abort")], tmp_path)
    assert "computation 'os' is not one of minilong's" in capfd.readouterr().err


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, None)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_nothing_that_lies_in_the_working_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minilong", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run from the working folder')")
    monkeypatch.chdir(tmp_path)
    assert len(run_cells(cells("none"), tmp_path / "out")) == 1


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    """Of a process that is gone, and of no other; whole files and other hidden ones stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".a.json.{dead.pid}", f".b.json.{os.getpid()}", "c.json", ".hidden.json", f".d.json.{10**30}"]
    for name in names:
        (tmp_path / name).write_text("{")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_stopped_and_killed_it_ends_as_if_it_had_run_through(tmp_path: Path) -> None:
    """Ctrl-C, then a crash of the parent: the third attempt finds what both had finished."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minilong", "bench", "extrapolation", "persuasion", "--quick", "--seeds", "1"]
    command += ["--jobs", "2", "--out", str(out)]

    def until(finished: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        while len(list((out / KEPT).glob("*.json")) if out.exists() else []) < finished:
            assert process.poll() is None
            time.sleep(0.01)
        return process

    stopped = until(1)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=30)
    assert stopped.returncode == 130
    assert "of 8 parts are kept" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith("the same command goes on")
    killed = until(3)
    killed.kill()
    killed.communicate(timeout=30)
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "are there from before" in last.stderr
    assert not list(out.rglob(".*"))
    pieces = json.loads((out / "results.json").read_text())["cells"]
    wanted = extrapolation.cells(["persuasion"], extrapolation.QUICK, 1)
    assert [c["name"] for c in pieces] == [c.name for c in wanted]
    whole = run_cells([c for c in wanted if c.settings["scheme"] in ("rotary", "xl")], tmp_path / "whole")
    assert [c["result"] for c in pieces if c["settings"]["scheme"] in ("rotary", "xl")] == [c["result"] for c in whole]
