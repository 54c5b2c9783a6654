"""The installed command as a user runs it: killed, interrupted, out of space, diverging. Each ends as it should."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from run_faults import memory_folder
from tiny_runs import TEXT, contents, differing

from minilong.cli.info import run_facts
from minilong.errors import UserError
from minilong.train.arrays import arrays_from_bytes
from minilong.train.files import Disk
from minilong.train.loaded import load
from minilong.train.run import RunFolder

MINILONG = (sys.executable, "-m", "minilong")
READY = "stop        Ctrl-C saves"
TINY = ["--layers", "1", "--width", "8", "--context", "8", "--batch", "4", "--threads", "1"]
TINY += ["--set", "heads=2", "--set", "log_every=1"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        (path / "book.txt").write_text(TEXT)
        yield path


def spawn(arguments: Sequence[str], limit: int | None = None) -> subprocess.Popen[str]:
    """A process of the command; limit: bytes that a file may have at most."""
    return subprocess.Popen(
        [*MINILONG, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def call(*arguments: str, limit: int | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    process = spawn(arguments, limit)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def until_ready(process: subprocess.Popen[str]) -> None:
    """Read what the command says until the training starts."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(READY):
            return
    pytest.fail(f"the process ended with {process.wait()} before it trained")


def closed(process: subprocess.Popen[str]) -> int:
    process.communicate()
    return process.returncode


def step_of(run: Path) -> int:
    return int(json.loads((run / "state.json").read_text())["step"])


# Kill


@pytest.mark.slow
def test_a_killed_run_loads_and_goes_on_to_the_same_end(folder: Path) -> None:
    """Kill -9 at random moments of two runs that save at every step or two: 24 times in all."""
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda seed: campaign(folder, seed, kills=12), (1, 2)))
    assert sum(midway for midway, _ in reports) >= 6  # most kills come while it trains, not before or after
    for _, difference in reports:
        assert difference == []


def campaign(folder: Path, seed: int, kills: int) -> tuple[int, list[str]]:
    numbers = random.Random(seed)
    run = folder / f"killed-{seed}"
    settings = [*TINY, "--seed", str(seed), "--steps", "600", "--set", "dropout=0.1", "--set", f"save_every={seed}"]
    settings += ["--set", "eval_every=7", "--quiet"]
    train = ["train", str(folder / "book.txt"), *settings]
    midway = 0
    for _ in range(kills):
        saved = (run / "manifest.json").exists() or (run / ".commit").exists()
        before = stamp(run)
        process = spawn(["train", "--resume", str(run), "--quiet"] if saved else [*train, "--out", str(run)])
        wait_for_a_commit(run, before, process)
        time.sleep(numbers.random() * 0.15)
        process.kill()
        assert closed(process) == -signal.SIGKILL
        facts = run_facts(run)
        assert 0 <= facts["step"] < 600
        load(run)
        midway += facts["step"] > 0
    code, _, err = call("info", str(run))
    assert (code, err) == (0, "")
    code, out, err = call("train", "--resume", str(run), "--quiet")
    assert (code, out, err) == (0, f"{run}\n", "")
    whole = folder / f"whole-{seed}"
    assert call(*train, "--out", str(whole))[0] == 0
    return midway, differing(run, whole)


def stamp(run: Path) -> tuple[int, int] | None:
    try:
        status = (run / "manifest.json").stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def wait_for_a_commit(run: Path, before: tuple[int, int] | None, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while stamp(run) == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


# Interrupt


def interrupted(process: subprocess.Popen[str]) -> tuple[float, int, str]:
    """Seconds to the end after a Ctrl-C, exit code and the rest of stderr."""
    process.send_signal(signal.SIGINT)
    begin = time.perf_counter()
    _, err = process.communicate(timeout=60)
    return time.perf_counter() - begin, process.returncode, err


def in_time(seconds: Sequence[float]) -> None:
    """Two seconds, unless other work on this machine takes the processor: then at one time of several at least."""
    assert min(seconds) < 2.0, seconds
    assert max(seconds) < 10.0, seconds


def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path) -> None:
    run, times = folder / "run", []
    train = ["train", str(folder / "book.txt"), *TINY, "--steps", "500", "--set", "dropout=0.1"]
    command = [*train, "--out", str(run)]
    for _ in range(2):
        process = spawn(command)
        until_ready(process)
        time.sleep(0.2)
        seconds, code, err = interrupted(process)
        times.append(seconds)
        assert code == 130
        assert f"interrupted after step {step_of(run)}, saved; go on with:" in err
        assert f"minilong train --resume {run}" in err
        assert "Traceback" not in err
        assert 0 <= step_of(run) < 500
        command = ["train", "--resume", str(run)]
    in_time(times)
    assert call(*command)[0] == 0
    assert call(*train, "--out", str(folder / "whole"))[0] == 0
    assert differing(run, folder / "whole") == []


@pytest.mark.slow
def test_ctrl_c_gives_up_a_step_that_takes_long(folder: Path) -> None:
    """A step of 1024 parts, which takes some seconds, is not waited for."""
    shape = ["--layers", "2", "--width", "64", "--context", "8", "--batch", "8192", "--threads", "1"]
    shape += ["--set", "accumulate=1024"]
    run = folder / "run"
    times: list[float] = []
    command = ["train", str(folder / "book.txt"), *shape, "--steps", "1000", "--out", str(run)]
    while not times or (times[-1] >= 2.0 and len(times) < 3):
        process = spawn(command)
        until_ready(process)
        while not (run / "manifest.json").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        seconds, code, _ = interrupted(process)
        times.append(seconds)
        assert code == 130
        assert step_of(run) == 0
        command = ["train", "--resume", str(run)]
    in_time(times)
    assert run_facts(run)["step"] == 0


@pytest.mark.slow
def test_ctrl_c_gives_up_a_validation_that_takes_long(folder: Path) -> None:
    shape = ["--layers", "4", "--width", "96", "--context", "64", "--batch", "1", "--threads", "1"]
    (folder / "long.txt").write_text(TEXT * 250)
    train = ["train", str(folder / "long.txt"), *shape, "--steps", "1", "--set", "validation=0.9"]
    run, times = folder / "run", []
    command = [*train, "--out", str(run)]
    given_up = 0
    for _ in range(2):
        process = spawn(command)
        until_ready(process)
        before = stamp(run) if run.exists() else None
        if command[1] != "--resume":
            wait_for_a_commit(run, before, process)
        time.sleep(0.1)
        seconds, code, _ = interrupted(process)
        times.append(seconds)
        assert code == 130
        state = contents(run)["state.json"]
        assert state["step"] == 1
        given_up += state["validated_step"] == 0
        command = ["train", "--resume", str(run)]
    assert given_up == 2
    in_time(times)
    assert call(*command)[0] == 0
    assert call(*train, "--out", str(folder / "whole"))[0] == 0
    assert differing(run, folder / "whole") == []


# No space


def out_of_space(code: int, err: str, run: Path) -> None:
    """One line, the remedy in it, and the saved state whole."""
    last = err.splitlines()[-1]
    assert code == 2
    assert last.startswith(f"minilong: error: cannot save to {run}: File too large")
    assert "raise the limit of the file size" in last
    assert f"the state of step {step_of(run)} is whole" in last
    assert f"minilong train --resume {run}" in last
    load(run, "last")


def test_a_full_disk_leaves_the_last_save_whole(folder: Path) -> None:
    run = folder / "run"
    train = ["train", str(folder / "book.txt"), *TINY, "--steps", "400", "--set", "save_every=5", "--quiet"]
    # Everything of the first saves fits; then metrics.jsonl, which grows with each step, does not.
    code, _, err = call(*train, "--out", str(run), limit=30_000)
    out_of_space(code, err, run)
    assert 5 <= step_of(run) < 400
    assert err.count("\n") == 1
    before = contents(run)
    # Here the new state itself does not fit.
    code, _, err = call("train", "--resume", str(run), "--quiet", limit=8_000)
    out_of_space(code, err, run)
    assert contents(run) == before
    assert call("train", "--resume", str(run), "--quiet")[0] == 0
    assert call(*train, "--out", str(folder / "whole"))[0] == 0
    assert differing(run, folder / "whole") == []


def test_a_disk_that_is_full_from_the_start_leaves_no_half_a_run(folder: Path) -> None:
    run = folder / "run"
    code, out, err = call(
        "train", str(folder / "book.txt"), *TINY, "--steps", "5", "--out", str(run), "--quiet", limit=1000
    )
    assert (code, out) == (2, "")
    assert "no state was saved yet" in err
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.open(run)
    assert call("train", str(folder / "book.txt"), *TINY, "--steps", "5", "--out", str(run), "--quiet")[0] == 0


# Divergence and folders that cannot be used


def test_a_diverging_run_ends_with_one_and_a_finite_save(folder: Path) -> None:
    run = folder / "run"
    arguments = [*TINY, "--steps", "300", "--lr", "1e10", "--set", "save_every=1", "--out", str(run), "--quiet"]
    code, out, err = call("train", str(folder / "book.txt"), *arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("minilong: error: diverged at step ")
    for fact in ("learning rate 1e+10", f"the save of step {step_of(run)} in {run} is finite and stays", "lower --lr"):
        assert fact in err
    with RunFolder.open(run) as opened:
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert all(np.isfinite(a).all() for a in arrays_from_bytes(opened.read(name), name).values())


def test_folders_that_cannot_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from minilong.cli import main

    def mkdir(self: Disk, path: Path) -> None:
        if folder / "locked" in path.parents:  # as for anybody but the administrator, who may write everywhere
            raise PermissionError(13, "Permission denied", str(path))
        os.mkdir(path)

    monkeypatch.setattr(Disk, "mkdir", mkdir)
    (folder / "locked").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("mine")
    cases = {
        "locked/run": "Permission denied; make it writable, or choose another folder",
        "book.txt": "is a file, not a folder; choose another --out",
        "book.txt/run": "choose another",
        "full": "is not empty and not a run (it has thesis.tex); choose another --out",
        "x" * 300: "File name too long; choose a shorter name",
    }
    for name, fact in cases.items():
        out = str(folder / name)
        result = CliRunner().invoke(main, ["train", str(folder / "book.txt"), *TINY, "--steps", "2", "--out", out])
        assert result.exit_code == 2
        assert result.stdout == ""
        assert fact in result.stderr.splitlines()[-1]
        assert result.stderr.count("minilong: error: ") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["book.txt", "full", "locked"]
    assert (folder / "full" / "thesis.tex").read_text() == "mine"
    assert (folder / "book.txt").read_text() == TEXT
