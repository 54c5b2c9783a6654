"""The benchmark of a GPU, without one: minilong on the stand-in beside PyTorch on the CPU, and the table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin import cupy

from bench import gpu
from bench.case import Case
from bench.cases_gpu import ATTENTION_POINTS, GPU, LENGTHS, OPERATION_POINTS, fitted
from bench.gate import compare
from bench.gpu_points import PointsSide, timed
from bench.gpu_report import columns, lines
from bench.worker import class_of

pytestmark = pytest.mark.bench
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture
def installed() -> Iterator[None]:
    with cupy.install():
        yield


def tiny(name: str, **changes: Any) -> Case:
    """The case in tiny sizes, on the stand-in. Lengths of attention, which are all the same then, are left out."""
    case = GPU[name].shrunk()
    if name == "gpu-attention":
        changes["points"] = case.settings["points"][:: len(LENGTHS)]
    return replace(case, settings={**case.settings, "device": "fake", **changes})


def both(case: Case) -> tuple[Any, Any]:
    """Our side and PyTorch's."""
    ours = class_of(case.sides["minilong"])(case.settings, 1, {})
    shared = {name: np.array(a) for name, a in ours.share().items()}
    return ours, class_of(case.sides["torch"])(case.settings, 1, shared)


@pytest.mark.peer
@needs_torch
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", GPU)
def test_both_sides_compute_the_same_and_name_the_same_points(name: str) -> None:
    case = tiny(name)
    ours, theirs = both(case)
    gate = compare(ours.gate(), theirs.gate(), case.tolerance)
    assert gate["green"], gate["red"]
    mine, other = ours.sweep(1, 0.0), theirs.sweep(1, 0.0)
    assert [p["name"] for p in mine] == [p["name"] for p in other]
    assert all(p.get("seconds", 0) > 0 for p in (*mine, *other)), (mine, other)
    ours.run()
    theirs.run()
    ours.close()


@pytest.mark.peer
@needs_torch
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name, rate", [("gpu-step-float32", 1.01e-3), ("gpu-step-bfloat16", 2e-3)])
def test_a_mistake_in_training_is_seen(name: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.ours import gpu_steps

    case = tiny(name)
    monkeypatch.setattr(gpu_steps, "RATE", rate)
    ours, theirs = both(case)
    assert not compare(ours.gate(), theirs.gate(), case.tolerance)["green"]


def test_points_have_names_of_their_own_and_sizes_that_shrink() -> None:
    names = [p["name"] for p in (*ATTENTION_POINTS, *OPERATION_POINTS)]
    assert len(set(names)) == len(names) == 71
    for case in GPU.values():
        points = case.shrunk().settings.get("points", [])
        assert all(np.prod(p["shape"]) <= 1 << 14 for p in points)
        assert [len(p["shape"]) for p in points] == [len(p["shape"]) for p in case.settings.get("points", [])]


def test_work_of_a_point() -> None:
    point = next(p for p in ATTENTION_POINTS if p["name"] == "attention bfloat16 128 512 both")
    assert point["shape"] == [32, 8, 512, 128]
    assert point["work"] == 12 * 32 * 8 * 128 * (512 * 513 / 2)
    softmax = next(p for p in OPERATION_POINTS if p["name"] == "softmax bfloat16")
    assert softmax["work"] == 5 * 2 * 32_768 * 1024


@pytest.mark.parametrize("memory, batch", [(8e9, 1), (24e9, 4), (40e9, 8), (80e9, 16), (192e9, 32)])
def test_a_batch_fits_into_the_gpu(memory: int, batch: int) -> None:
    assert fitted(GPU["gpu-step-float32"], int(memory)).settings["batch"] == batch
    assert fitted(GPU["gpu-long"], int(memory)) is GPU["gpu-long"]


def test_a_time_is_that_of_the_fastest_round_and_includes_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now, queue, slow = [0.0], [0.0], iter([0.0, 0.0, 5.0, 0.0, 2.0])

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now[0]

    def run() -> None:
        queue[0] += 0.25

    def wait() -> None:
        now[0] += queue[0] + next(slow)
        queue[0] = 0.0

    monkeypatch.setattr("bench.gpu_points.time", Clock)
    assert timed(run, wait, rounds=3, seconds=1.0) == 0.25


class Planted(PointsSide):
    """Its second point fails."""

    def prepared(self, point: dict[str, Any]) -> Any:
        return {"a": lambda: None, "b": lambda: 1 / 0}[point["name"]]

    def wait(self) -> None:
        pass

    def release(self) -> None:
        self.released = getattr(self, "released", 0) + 1


def test_a_point_that_fails_leaves_the_others() -> None:
    side = Planted({"points": [{"name": "b"}, {"name": "a"}]}, 1, {})
    failed, fine = side.sweep(1, 0.0)
    assert failed == {"name": "b", "error": "ZeroDivisionError: division by zero"}
    assert fine["seconds"] >= 0
    assert side.released == 2


def test_the_better_of_two_turns_counts_and_a_failure_stays() -> None:
    fast, slow, failed = {"seconds": 1.0}, {"seconds": 2.0}, {"error": "x"}
    assert gpu.better(None, slow) is slow
    assert gpu.better(slow, fast) is fast
    assert gpu.better(fast, slow) is fast
    assert gpu.better(fast, failed) is failed
    assert gpu.better(failed, fast) is failed


def record(name: str, ours: dict[str, Any], theirs: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    case = GPU[name]
    work = case.least_work()
    return {
        "name": name,
        "kind": case.kind,
        "settings": json.loads(json.dumps(dict(case.settings))),
        "work": None if work is None else {"amount": work.amount},
        "status": "timed",
        "sides": {"minilong": {"points": ours}, **({} if theirs is None else {"torch": {"points": theirs}})},
        "broken": {},
        "gates": {"torch": {"green": True, "red": []}},
        **more,
    }


def results(*records: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "settings": {"quick": False},
        "gpu": {"name": "Card", "capability": "9.0", "memory": 80e9, "cuda": "13.0"},
        "torch": {"version": "2.13.0", "cuda": "13.0"},
        "versions": {"python": "3.12", "numpy": "2.5"},
        "cases": list(records),
        **more,
    }


def every(points: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {p["name"]: {"name": p["name"], "seconds": seconds} for p in points}


def test_the_table_has_ratios_rates_and_memory() -> None:
    step = record(
        "gpu-step-bfloat16",
        {"step": {"seconds": 0.1, "memory": 20e9}},
        {"step": {"seconds": 0.15, "memory": None}},
    )
    attention = record("gpu-attention", every(ATTENTION_POINTS, 1e-3), every(ATTENTION_POINTS, 5e-4))
    operations = record("gpu-operations", every(OPERATION_POINTS, 1e-3), every(OPERATION_POINTS, 2e-3))
    shown = lines(results(step, attention, operations))
    ours = next(line for line in shown if line.startswith("step-bfloat16")).split()
    assert ours == [
        "step-bfloat16",
        "8",
        "minilong",
        "100",
        "ms",
        "81,920",
        f"{step['work']['amount'] / 1e11:.1f}",
        "20.00",
        "GB",
    ]
    assert shown[shown.index(next(x for x in shown if x.startswith("step-bfloat16"))) + 1].split()[-1] == "1.50"
    row = next(line.split() for line in shown if line.startswith("float16") and " 64 " in line and "both" in line)
    assert row[3:8] == ["0.50"] * 5
    work = 12 * 2 * 16 * 64 * (8192 * 8193 / 2)
    assert row[8:] == [f"{work / 1e-3 / 1e12:.3g}", f"{work / 5e-4 / 1e12:.3g}"]
    adamw = next(line.split() for line in shown if line.startswith("adamw"))
    assert adamw[-3:] == [f"{7 * 4 * 124e6 / 1e-3 / 1e9:.3g}", f"{7 * 4 * 124e6 / 2e-3 / 1e9:.3g}", "2.00"]
    assert len(shown) < 45, "short"
    assert max(map(len, shown)) <= 120
    assert shown[-1] == "gates       3 of 3 green: results agreed before they were timed"


def test_what_failed_is_said() -> None:
    points = every(ATTENTION_POINTS, 1e-3)
    name = ATTENTION_POINTS[0]["name"]
    points[name] = {"name": name, "error": "OutOfMemoryError: no room"}
    partly = record("gpu-attention", points, every(ATTENTION_POINTS, 1e-3))
    red = record("gpu-long", {}, None, status="red", gates={"torch": {"green": False, "red": ["loss differs"]}})
    broken = record("gpu-step-float32", {"step": {"seconds": 1.0}}, None, broken={"torch": "torch: no"}, gates={})
    failed = record("gpu-operations", {}, None, status="failed", error="minilong: ended with code 3", gates={})
    failed["sides"] = {}
    cut = record("gpu-step-bfloat16", {}, None, status="unfinished", gates={})
    text = "\n".join(lines(results(partly, red, broken, failed, cut, torch={"version": "2", "cuda": "12.8"})))
    for part in (
        f"gpu-attention: minilong: {name}: OutOfMemoryError: no room",
        "gpu-long: RED, so not timed: torch: loss differs",
        "gpu-step-float32: torch FAILED: torch: no",
        "gpu-operations: FAILED: minilong: ended with code 3",
        "gpu-step-bfloat16: not finished",
        "different CUDA majors",
        "gates       1 of 2 green",
    ):
        assert part in text


def test_numbers_stand_right_and_words_left() -> None:
    assert columns([("side", "n"), ("a", "1"), ("long", "100")]) == ["side    n", "a       1", "long  100"]


ON_THE_STAND_IN = """
from standin import cupy
cupy.install()
from bench.ours.gpu_points import Operations
"""


@pytest.mark.peer
@needs_torch
def test_a_whole_run_in_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "on_the_stand_in.py").write_text(ON_THE_STAND_IN, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]))
    case = tiny("gpu-operations")
    case = replace(case, sides={**case.sides, "minilong": "on_the_stand_in:Operations"})
    (found,) = gpu.measure([case], ["torch"], 1, lambda line: None)
    assert found["status"] == "timed", found
    assert found["gates"]["torch"]["green"]
    shown = lines(results(json.loads(json.dumps(found, allow_nan=False))))
    assert sum(line.split()[-1].replace(".", "").isdigit() for line in shown if "x" in line) >= 10
    assert shown[-1].startswith("gates       1 of 1 green")


def test_without_a_gpu_or_its_pytorch_the_reason_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minilong.backend.device.found_devices", lambda: ([], "no card; buy one"))
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "no GPU: no card; buy one\n"
    monkeypatch.setattr(gpu, "the_gpu", lambda: {"free": 8e9})
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: None)
    assert gpu.main([]) == 2
    assert "is not installed" in capsys.readouterr().err
    for arguments, message in ((["none-such"], "there is no case"), (["--against", "jax"], "peers are torch")):
        with pytest.raises(SystemExit):
            gpu.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.peer
@needs_torch
def test_a_pytorch_without_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match="finds no GPU"):
        gpu.the_torch()


def test_cases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--list", "gpu-[al]*"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["gpu-attention", "gpu-long"]


def test_a_run_takes_turns_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Fake:
        def __init__(self, name: str, times: list[float]) -> None:
            self.name, self.times = name, iter(times)

        def ask(self, do: str, **what: Any) -> dict[str, Any]:
            asked.append((self.name, do, what["rounds"]))
            return {"points": [{"name": "p", "seconds": next(self.times)}]}

    run = gpu.GpuRun(GPU["gpu-long"], ["torch"], gpu.Options(rounds=7), lambda text: None)
    run.record["sides"] = {"minilong": {}, "torch": {}}
    workers: Any = {"minilong": Fake("minilong", [2.0, 1.0]), "torch": Fake("torch", [3.0, 4.0])}
    run.time(workers)
    assert [name for name, *_ in asked] == ["minilong", "torch", "torch", "minilong"]
    assert {rounds for *_, rounds in asked} == {7}
    assert [side["points"]["p"]["seconds"] for side in run.record["sides"].values()] == [1.0, 3.0]
