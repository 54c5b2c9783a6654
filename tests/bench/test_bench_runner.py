"""The runner and its processes: turns, gates, and what happens when a side is wrong, raises, or dies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import CASES, memory
from bench.ceiling import measure
from bench.process import ROOT, Failed, Worker
from bench.runner import Options, Run, environment
from bench.worker import Server, answer

pytestmark = pytest.mark.bench

QUICK = Options(threads=1, rounds=3, pause=0.0)


def run(case: Any, peers: tuple[str, ...] = ("peer",), **more: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return Run(case, peers, QUICK, said.append, **more)(), said


def test_sides_take_turns_whose_order_is_turned_round(planted: Any) -> None:
    record, said = run(planted("Talks"))
    assert record["status"] == "timed"
    assert record["gates"]["peer"]["green"]
    turns = [text.split(": ") for text in said if text.startswith("round")]
    assert turns == [
        ["round 1/3", "minilong"],
        ["round 1/3", "peer"],
        ["round 2/3", "peer"],
        ["round 2/3", "minilong"],
        ["round 3/3", "minilong"],
        ["round 3/3", "peer"],
    ]
    for side in record["sides"].values():
        assert len(side["rounds"]) == 3
        assert all(r["repetitions"] >= 1 and 0 < r["best"] <= r["median"] for r in side["rounds"])
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [("Wrong", "gradient.0 differs by 1.0e-03, allowed are 1e-05"), ("Short", "only one side has gradient.0")],
)
def test_a_wrong_peer_is_not_timed(planted: Any, peer: str, reason: str) -> None:
    record, said = run(planted(peer))
    assert record["status"] == "red"
    assert record["gates"]["peer"]["red"] == [reason]
    assert not any(text.startswith("round") for text in said)
    assert record["sides"]["minilong"]["rounds"] == []


def test_a_peer_that_cannot_is_left_out(planted: Any) -> None:
    record, _ = run(planted("Raises"))
    assert record["status"] == "timed"
    assert record["broken"] == {"peer": "peer: ValueError: no such luck"}
    assert len(record["sides"]["minilong"]["rounds"]) == 3


def test_a_side_that_dies_fails_its_case_alone(planted: Any) -> None:
    for case, name in ((planted("Dies"), "peer"), (planted("Right", ours="Dies"), "minilong")):
        record, _ = run(case)
        assert record["status"] == "failed"
        assert record["error"] == f"{name}: its process ended with code 3: out of luck"


def test_a_peer_that_is_not_installed_is_named(planted: Any) -> None:
    record, _ = run(planted("Right"), missing={"peer": "peer: not installed", "other": "other: not installed"})
    assert record["status"] == "timed"
    assert record["absent"] == {"peer": "peer: not installed"}
    assert list(record["sides"]) == ["minilong"]


def test_growth_and_profile_come_from_a_process() -> None:
    record, _ = run(CASES["growth-batch"].shrunk(), ())
    assert record["status"] == "timed"
    assert len(record["points"]) == 3
    options = Options(threads=2, rounds=1, pause=0.0, profile=True)
    record = Run(CASES["step-0.8m"].shrunk(), (), options, lambda text: None)()
    assert record["profile"]["step"] > 0


def test_nothing_that_lies_in_the_working_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minilong", "bench", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run from the working folder')")
    monkeypatch.chdir(tmp_path)
    with Worker("side") as worker:
        assert worker.ask("ceiling", threads=1, repeats=1, quick=True)["matmul"] > 0


def test_the_protocol_of_a_worker() -> None:
    with Worker("side") as worker:
        with pytest.raises(Failed, match=r"^side: RuntimeError: no side was prepared yet$"):
            worker.ask("run", seconds=0.0)
        with pytest.raises(Failed, match="there is no command 'fly'"):
            worker.ask("fly")
        with pytest.raises(Failed, match=r"unexpected keyword argument 'speed'"):
            worker.ask("warm", speed=3)
        tiny = CASES["op-softmax"].shrunk()
        what = {"side": tiny.sides["minilong"], "settings": tiny.settings, "threads": 1, "shared": None}
        assert worker.ask("prepare", **what, cores=None)["build"] > 0
        assert worker.ask("warm")["seconds"] > 0
        assert worker.ask("run", seconds=0.0)["repetitions"] == 1
        found = worker.ask("memory")
        assert found["peak"] is None or found["peak"] >= found["growth"]
    assert worker.process.returncode == 0
    with Worker("side") as worker:
        worker.process.kill()
        with pytest.raises(Failed, match=r"ended by signal 9 \(mostly a lack of memory\)"):
            worker.ask("warm")


def test_an_answer_is_one_line() -> None:
    assert answer(Server(), '{"do": "share", "file": "x"}') == {"error": "RuntimeError: no side was prepared yet"}
    assert answer(Server(), '{"do": "__init__"}') == {"error": "there is no command '__init__'"}


def test_the_peak_of_memory_begins_anew() -> None:
    if memory.peak() is None or not memory.reset():
        pytest.skip("this system has no /proc")
    # A process of its own: in that of the tests, memory that was freed may be handed out again.
    code = (
        "import mmap, sys; sys.path.insert(0, sys.argv[1]); from bench import memory; memory.reset();"
        "before = memory.resident(); block = mmap.mmap(-1, 2**25); block.write(b'1' * 2**25); block.close();"
        "grown = memory.peak(); memory.reset(); print(before, grown, memory.peak())"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True, check=True)
    before, grown, after = map(int, done.stdout.split())
    assert grown - before >= 2**25
    assert after < grown - 2**24


def test_ceilings_are_measured() -> None:
    found = measure(2, repeats=1, quick=True)
    assert found["matmul"] > 0
    assert found["copy"] > 0
    assert all(set(b) == {"internal_api", "version", "architecture"} for b in found["blas"])


def test_xla_is_told_its_threads() -> None:
    assert environment("torch", 2) == {}
    assert environment("jax", 1)["XLA_FLAGS"].endswith("eigen=false")
    assert environment("jax", 2)["XLA_FLAGS"].endswith("eigen=true")
