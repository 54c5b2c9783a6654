"""On a GPU: every kernel's checks, products, probes, training in each precision. Skipped, with the reason, without one.

`make test-gpu` runs these: the checks that the other tests of this folder make on a stand-in, and some of the sizes of
a real device added.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cases_products
import device_runs
import numpy as np
import pytest

from minilong.backend.device import found_devices
from minilong.backend.probes import TOLERANCE, probe
from minilong.backend.products import matmul
from minilong.train.config import RunConfig
from minilong.train.presets import layered

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what CuPy has to say about an installation is no failure of a test
    GPUS, WHY_NOT = found_devices()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason=WHY_NOT or "no GPU"),
    pytest.mark.filterwarnings("default"),
]
CASES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_plain_operations(name: str, cupy: Any) -> None:
    importlib.import_module(name).check(cupy)


def test_every_type_is_multiplied_rightly(cupy: Any) -> None:
    """On a card that computes bfloat16 (8.0 and later) nothing may be missing."""
    found = probe(cupy)
    assert {name: why for name, why in found.wrong.items() if name != "bfloat16" or new_card()} == {}
    assert found.tf32 == new_card()


def new_card() -> bool:
    return int(GPUS[0].capability.partition(".")[0]) >= 8


@pytest.mark.parametrize("name", TOLERANCE)
def test_large_products(name: str, cupy: Any) -> None:
    """Sizes at which cuBLAS takes other kernels, and cuts long sums into parts; a result of 2^31 numbers and more."""
    probe(cupy).require(name)
    dtype = next(t for t in cases_products.TYPES if str(t) == name)
    for shapes in (((1000, 4096), (4096, 1000)), ((16, 300, 128), (16, 128, 300)), ((64, 50000), (50000, 64))):
        cases_products.compare(cupy, dtype, *shapes, ("plain", "plain", "plain"))


def test_offsets_beyond_31_bits(cupy: Any) -> None:
    free, _ = GPUS[0].device.memory()
    rows, columns = 1 << 16, (1 << 15) + 8
    if free < 3 * 2 * rows * columns:
        pytest.skip(f"{free / 1e9:.0f} GB are free and 13 are needed")
    x = cupy.zeros((rows, columns), np.float16)
    x[-1] = 1
    y = matmul(cupy, x, cupy.ones((columns, 1), np.float16), cupy.empty((rows, 1), np.float32))
    assert float(y[-1, 0]) == columns
    assert float(y.sum()) == columns
    z = matmul(cupy, cupy.ones((rows, 1), np.float16), cupy.ones((1, columns), np.float16))
    assert float(z[-1, -1]) == 1


@pytest.fixture
def folder(tmp_path: Path, cupy: Any) -> Path:
    cupy.get_default_memory_pool().free_all_blocks()
    return tmp_path


def test_losses_in_every_precision(folder: Path) -> None:
    device_runs.check_precisions("cuda", folder)


def test_losses_of_every_part_of_a_model(folder: Path) -> None:
    device_runs.check_models("cuda", folder)


def test_dropout_takes_the_bits_of_the_cpu(folder: Path) -> None:
    device_runs.check_dropout("cuda", folder)


def test_a_step_waits_for_nothing(folder: Path) -> None:
    device_runs.check_no_waiting("cuda", pytest.importorskip("cupyx"), folder)


def test_saves_cross_between_devices(folder: Path) -> None:
    device_runs.check_saves_cross("cuda", folder)


def test_memory_has_a_limit_and_its_end_is_explained(folder: Path) -> None:
    device_runs.check_memory("cuda", folder)


def test_the_small_preset_learns_as_on_a_cpu(folder: Path) -> None:
    config: RunConfig = layered(assignments=("train.threads=1",))
    assert device_runs.check_curve(config, "cuda", 50, folder) <= 1e-3


def test_the_command_trains_and_writes(folder: Path) -> None:
    """`minilong train --device cuda` and what reads its run on a CPU, in processes of their own."""
    run = folder / "run"
    options = ["--steps", "20", "--width", "64", "--layers", "2", "--context", "64", "--precision", "bfloat16"]
    command(["train", "--device", "cuda", *options, "--out", str(run), "--quiet"])
    for device in ("cuda", "cpu"):
        assert command(["generate", str(run), "--device", device, "--length", "20"]).strip()
    assert GPUS[0].name in command(["info", "--devices"])


def command(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", "minilong", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
