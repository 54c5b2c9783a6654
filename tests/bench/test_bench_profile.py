"""The profile: self times, parts that sum to the step, a planted slow primitive, everything as before afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import CASES, profiling
from bench.ours.steps import Trainer, as_batch, tokens
from bench.profiling import REST, Clock, instrumented, profile
from bench.report import profile_rows
from minilong.autodiff import REGISTRY
from minilong.nn.flat import Layout

pytestmark = pytest.mark.bench


@pytest.fixture
def training() -> Iterator[tuple[Trainer, Any]]:
    settings = CASES["step-0.8m"].shrunk().settings
    with Trainer(settings["model"], settings["vocabulary"], settings["batch"], 2) as trainer:
        yield trainer, as_batch(tokens(settings))


def state() -> list[Any]:
    return [f for p in REGISTRY.values() for f in (p.forward, p.rule)] + [Layout.receiver]


def test_the_parts_sum_to_the_step(training: tuple[Trainer, Any]) -> None:
    before = state()
    found = profile(*training, steps=4)
    assert state() == before
    assert "map" not in vars(training[0].replicas)
    total = sum(row["seconds"] for row in found["rows"])
    assert total == pytest.approx(found["step"], rel=0.02)
    rest = next(row["seconds"] for row in found["rows"] if row["part"] == REST)
    assert rest >= -0.02 * found["step"], "a time was counted twice"
    named = {(row["part"], row["direction"]): row for row in found["rows"]}
    assert named["gelu", "forward"]["calls"] == 4  # two layers, two replicas
    assert named["gelu", "backward"]["calls"] == 4
    assert {"optimiser", "clip", "gather gradients", "sum gradients"} <= {part for part, _ in named}
    shown = profile_rows(found)
    assert sum(float(row[4]) for row in shown[:-1]) == pytest.approx(100, abs=2)
    assert shown[-1][0] == "step"


def test_a_slow_primitive_shows(training: tuple[Trainer, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gelu, original = REGISTRY["gelu"], REGISTRY["gelu"].rule

    def slow(*args: Any, **named: Any) -> Any:
        time.sleep(0.02)
        return original(*args, **named)

    monkeypatch.setattr(gelu, "rule", slow)
    found = profile(*training, steps=2)
    first = next(row for row in found["rows"] if row["part"] != REST)
    assert (first["part"], first["direction"]) == ("gelu", "backward")
    assert first["seconds"] >= 2 * 0.02  # two layers, one after the other, on each of two threads
    assert found["step"] >= first["seconds"]


def test_an_error_leaves_everything_as_before(training: tuple[Trainer, Any]) -> None:
    trainer, batch = training
    before = state()

    def broken(_: Any) -> None:
        raise ArithmeticError("planted")

    trainer.update = broken  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError):
        profile(trainer, batch, 1)
    with instrumented(Clock()):
        assert state() != before
    assert state() == before
    assert "map" not in vars(trainer.replicas)


def test_time_of_what_is_called_inside_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Fake:
        @staticmethod
        def perf_counter() -> float:
            return now[0]

    def pass_(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(profiling, "time", Fake)
    clock = Clock()
    inner = clock.timed(lambda: pass_(5.0), ("inner", ""))

    def both() -> None:
        pass_(1.0)
        inner()
        inner()
        pass_(2.0)

    outer = clock.timed(both, ("outer", ""))
    thread = threading.Thread(target=outer)
    thread.start()
    thread.join()
    assert clock.seconds == {("inner", ""): 10.0, ("outer", ""): 3.0}
    assert clock.calls == {("inner", ""): 2, ("outer", ""): 1}
