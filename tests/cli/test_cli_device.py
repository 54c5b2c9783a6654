"""`--device` on every command that computes: what is missing is said, with its remedy; a device computes the same."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calling import call, refused
from standin import cupy

from minilong.backend import Device
from minilong.backend import device as devices
from minilong.cli.output import bytes_of
from minilong.errors import UserError

COMPUTING = {
    "train": ["train", "--steps", "2"],
    "generate": ["generate", "RUN", "--length", "4"],
    "evaluate": ["evaluate", "RUN"],
    "translate": ["translate", "RUN", "abc"],
}
FAST = ["--steps", "3", "--batch", "2", "--threads", "1", "--layers", "1", "--width", "16", "--context", "16"]
FAST += ["--set", "heads=2", "--set", "eval_every=3", "--set", "log_every=1", "--quiet"]


def printed(*arguments: str | Path, input: str | None = None) -> str:
    result = call(*arguments, given=input)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CuPy and without a driver, whatever this one has."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(devices, "_driver", lambda: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each kind, trained on the CPU."""
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "book.txt"
    text.write_text("The cat sat on the mat, and the dog sat by the door.\n" * 40)
    kinds = {
        "lm": [text],
        "copy": ["--task", "copy", "--set", "max_length=5", "--set", "min_length=2"],
        "mqar": ["--task", "mqar", "--set", "items=2"],
    }
    for name, own in kinds.items():
        printed("train", *own, *FAST, "--out", folder / name)
    return {name: folder / name for name in kinds}


# What is missing


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.usefixtures("no_gpu")
def test_without_gpu_the_error_names_the_extras(name: str) -> None:
    message = refused(*COMPUTING[name], "--device", "cuda")
    assert "CuPy is not installed, and no NVIDIA driver was found" in message
    assert "pip install 'minilong[cuda12]'" in message
    assert "pip install 'minilong[cuda13]'" in message


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_a_device_that_does_not_exist_is_one_line(name: str, device: str) -> None:
    assert f"no device is called {device!r}" in refused(*COMPUTING[name], "--device", device)


@pytest.mark.usefixtures("no_gpu")
def test_devices_are_listed_with_what_is_missing() -> None:
    shown = printed("info", "--devices")
    assert re.search(r"^cpu +\d+ threads$", shown, re.MULTILINE)
    assert "minilong[cuda13]" in shown
    facts = json.loads(printed("info", "--devices", "--json"))
    assert facts["gpus"] == []
    assert facts["missing"]


def test_the_fake_device_needs_a_stand_in() -> None:
    assert "the device 'fake' is for minilong's own tests" in refused("train", "--device", "fake")


class Broken:
    """An import of CuPy that fails within it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "cupy":
            raise ImportError("libcublas.so.12: cannot open shared object file")


def test_a_broken_cupy_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.setattr(devices, "_driver", lambda: 12040)
    with pytest.raises(UserError, match=r"CuPy cannot be imported \(libcublas.*pip install 'minilong\[cuda12\]'"):
        Device.of("cuda")


def installed(runtime: int, usable: Any = True, count: int = 1) -> Any:
    """As much of a CuPy as is looked at."""

    def is_available() -> bool:
        if isinstance(usable, Exception):
            raise usable
        return bool(usable)

    runtime_functions = SimpleNamespace(runtimeGetVersion=lambda: runtime, getDeviceCount=lambda: count)
    card = SimpleNamespace(use=lambda: None)
    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=is_available, runtime=runtime_functions, Device=lambda index: card)
    )


@pytest.mark.parametrize(
    ("driver", "cupy", "text"),
    [
        (None, installed(13000), "CuPy is installed, but no NVIDIA driver was found"),
        (
            12040,
            installed(13000),
            r"built for CUDA 13, the driver supports CUDA 12.4; pip uninstall cupy-cuda13x",
        ),
        (12040, installed(13000), r"then pip install 'minilong\[cuda12\]'"),
        (13000, installed(12090, usable=False), "no GPU answers; see nvidia-smi"),
        (13000, installed(13000, usable=RuntimeError("cudaErrorUnknown")), "no GPU answers"),
        (13000, None, r"pip install 'minilong\[cuda13\]'"),
    ],
)
def test_what_does_not_fit_together(monkeypatch: pytest.MonkeyPatch, driver: int | None, cupy: Any, text: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(devices, "_driver", lambda: driver)
    with pytest.raises(UserError, match=text):
        Device.of("cuda")


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_driver", lambda: 13000)
    monkeypatch.setitem(sys.modules, "cupy", installed(13000, count=2))
    assert str(Device.of("cuda:1")) == "cuda:1"
    with pytest.raises(UserError, match="there is no GPU 2: cuda:0 to cuda:1 are here"):
        Device.of("cuda:2")
    monkeypatch.setitem(sys.modules, "cupy", installed(12000))  # an older CUDA than the driver's is fine
    with pytest.raises(UserError, match="there is no GPU 5: only cuda:0 is here"):
        Device.of("cuda:5")


def test_a_limit_of_memory() -> None:
    assert [bytes_of(x) for x in ("8GB", "1.5 GB", "500MB", "7", "2kB")] == [8 * 10**9, 15 * 10**8, 5 * 10**8, 7, 2000]
    assert "--gpu-memory: 'much' is no size" in refused_on_fake("train", "--gpu-memory", "much")
    assert "exceeds the" in refused_on_fake("train", "--gpu-memory", "900TB")
    assert "concerns a GPU's memory" in refused("train", "--gpu-memory", "1GB")


def refused_on_fake(*arguments: str) -> str:
    with cupy.install():
        return refused(*arguments, "--device", "fake")


def test_a_precision_needs_a_gpu(tmp_path: Path) -> None:
    message = refused("train", "--precision", "bfloat16", *FAST, "--out", tmp_path / "run")
    assert "precision bfloat16 is a GPU's; give --device cuda, or --precision float32" in message
    message = refused_on_fake("train", "--precision", "float16", "--depth", "momentum", *FAST)
    assert "finer than float16" in message
    assert not (tmp_path / "run").exists()


# The same numbers


@pytest.fixture
def stand_in() -> Iterator[None]:
    with cupy.install():
        yield


@pytest.mark.usefixtures("stand_in")
def test_a_device_generates_the_same_text(runs: dict[str, Path]) -> None:
    for options in (["--temperature", "0"], ["--seed", "3"], ["--memory", "window", "--window", "6", "--sinks", "2"]):
        arguments = ["generate", runs["lm"], "--prompt", "The", "--length", "20", *options]
        if "window" in options:
            arguments[1:2] = [runs["lm"]]
        on_cpu, on_device = (printed(*arguments, "--device", name) for name in ("cpu", "fake"))
        assert on_device == on_cpu
        assert len(on_cpu) > 20
    together = ["generate", runs["lm"], "--prompt", "The c", "--prompt", "A", "--length", "8"]
    assert printed(*together, "--device", "fake") == printed(*together)


@pytest.mark.usefixtures("stand_in")
def test_a_device_measures_the_same(runs: dict[str, Path]) -> None:
    for arguments in (["evaluate", runs["lm"], "--json"], ["evaluate", runs["lm"], "--json", "--per-position"]):
        right, found = (json.loads(printed(*arguments, "--device", name)) for name in ("cpu", "fake"))
        assert found["tokens"] == right["tokens"]
        assert found["nats_per_token"] == pytest.approx(right["nats_per_token"], rel=1e-5)
        assert found.get("positions") == (None if "positions" not in right else pytest.approx(right["positions"]))
    asked = ["evaluate", runs["mqar"], "--samples", "8", "--json"]
    assert json.loads(printed(*asked, "--device", "fake"))["cells"] == json.loads(printed(*asked))["cells"]


@pytest.mark.usefixtures("stand_in")
def test_a_device_translates_the_same(runs: dict[str, Path]) -> None:
    for options in ([], ["--beam", "3"]):
        arguments = ["translate", runs["copy"], "abc", "dcbaa", *options]
        assert printed(*arguments, "--device", "fake") == printed(*arguments)


@pytest.mark.usefixtures("stand_in")
def test_a_run_is_trained_on_a_device_and_resumed_on_the_cpu(tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text("The cat sat on the mat, and the dog sat by the door.\n" * 40)
    printed("train", text, *FAST, "--device", "fake", "--precision", "bfloat16", "--out", tmp_path / "run")
    message = refused("train", "--resume", tmp_path / "run", "--steps", "5")
    assert "--precision float32" in message
    printed("train", "--resume", tmp_path / "run", "--steps", "5", "--precision", "float32", "--quiet")
    assert '"step": 5' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert 'precision = "float32"' in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.usefixtures("stand_in")
def test_devices_that_are_there_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cupy", lambda kind: sys.modules["cupy"])
    facts = json.loads(printed("info", "--devices", "--json"))
    assert [gpu["name"] for gpu in facts["gpus"]] == ["cuda:0"]
    assert re.fullmatch(r"\d+\.\d", facts["gpus"][0]["capability"])
    assert re.search(
        r"^cuda:0 .*compute capability \d+\.\d, .* of .* free$", printed("info", "--devices"), re.MULTILINE
    )
