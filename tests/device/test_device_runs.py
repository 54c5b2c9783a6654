"""Training on the stand-in for a GPU, by the checks that test_on_gpu.py makes on a real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import device_runs
import pytest
from standin import cupy

from minilong.backend import CPU


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with cupy.install():
        yield


def test_losses_in_every_precision(tmp_path: Path) -> None:
    device_runs.check_precisions("fake", tmp_path)


def test_losses_of_every_part_of_a_model(tmp_path: Path) -> None:
    device_runs.check_models("fake", tmp_path)


def test_dropout_takes_the_bits_of_the_cpu(tmp_path: Path) -> None:
    device_runs.check_dropout("fake", tmp_path)


def test_a_step_waits_for_nothing(tmp_path: Path) -> None:
    device_runs.check_no_waiting("fake", sys.modules["cupyx"], tmp_path)


def test_saves_cross_between_devices(tmp_path: Path) -> None:
    device_runs.check_saves_cross("fake", tmp_path)


def test_memory_has_a_limit_and_its_end_is_explained(tmp_path: Path) -> None:
    device_runs.check_memory("fake", tmp_path)


def test_a_curve_is_compared_step_by_step(tmp_path: Path) -> None:
    config = device_runs.small(tmp_path)
    assert device_runs.check_curve(config, "fake", 6, tmp_path) < 1e-5
    assert device_runs.check_curve(config, "cpu", 6, tmp_path) == 0
    assert str(CPU) == "cpu"
