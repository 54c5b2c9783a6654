"""How kernels are found, compiled and launched: a stand-in for CuPy's module writes down what it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minilong.backend.kernels import launch


class Kernel:
    """A kernel that notes how it is launched, and how its limit on shared memory is set."""

    def __init__(self, log: list[Any], name: str) -> None:
        object.__setattr__(self, "log", log)
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: int) -> None:
        self.log.append((name, value))

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
        self.log.append((self.name, grid, block, arguments, shared_mem))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(launch, "FOLDER", tmp_path)
    functions = (launch.text, launch._module, launch.function)
    for function in functions:
        function.cache_clear()
    yield tmp_path
    for function in functions:
        function.cache_clear()


class Library:
    """A module that has RawModule alone."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:
        self.log.append((code, options))
        return SimpleNamespace(get_function=lambda name: Kernel(self.log, name))


def test_a_kernel_is_compiled_once_for_each_type_and_list_of_macros(files: Path) -> None:
    (files / "f.cu").write_text("text", "utf-8")
    log: list[Any] = []
    xp, n = Library(log), np.int32(3)
    for dtype, defines in (("float32", ()), ("float16", ()), ("float32", ("HEAD=64",)), ("float32", ())):
        launch.launch(xp, "f.cu", "f", np.dtype(dtype), (2,), (32,), (n,), defines=defines)
    compiled = [entry[1] for entry in log if entry[0] == "text"]
    assert compiled == [
        ("-std=c++17", "-DDTYPE=0"),
        ("-std=c++17", "-DDTYPE=1"),
        ("-std=c++17", "-DDTYPE=0", "-DHEAD=64"),
    ]
    assert [entry for entry in log if entry[0] == "f"] == [("f", (2,), (32,), (n,), 0)] * 4


def test_an_empty_grid_launches_nothing(files: Path) -> None:
    log: list[Any] = []
    launch.launch(Library(log), "absent.cu", "f", "float32", (4, 0), (32,), ())
    assert log == []


def test_the_limit_on_shared_memory_only_grows(files: Path) -> None:
    """The driver keeps one limit for a kernel: a smaller one would refuse the next launch that needs more."""
    (files / "f.cu").write_text("", "utf-8")
    log: list[Any] = []
    xp = Library(log)
    for shared in (1000, 60000, 90000, 60000, 90000, 49152):
        launch.launch(xp, "f.cu", "f", "float32", (1,), (32,), (), shared=shared)
    launch.launch(xp, "f.cu", "g", "float32", (1,), (32,), (), shared=50000)
    limits = [entry for entry in log if entry[0] == "max_dynamic_shared_size_bytes"]
    assert [limit for _, limit in limits] == [60000, 90000, 50000]


def test_includes_are_put_in_once_and_in_order(files: Path) -> None:
    (files / "f.cu").write_text('// f\n#include "a.cuh"\n#include "b.cuh"\nf\n', "utf-8")
    (files / "a.cuh").write_text('#include "c.cuh"\na\n', "utf-8")
    (files / "b.cuh").write_text('#include "a.cuh"\n#include "c.cuh"\nb\n', "utf-8")
    (files / "c.cuh").write_text("c\n", "utf-8")
    assert launch.text("f.cu").split() == ["//", "f", "c", "a", "b", "f"]
