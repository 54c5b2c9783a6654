"""Planted mistakes in the kernels are found: every barrier left out, and the mutants that each cases file lists.

A file cases_NAME.py has `check(xp)`, which compares what kernels give with the reference; `MUTANTS`, pairs of a piece
of text that occurs once (in NAME.cu, or else in the files that have it) and what is to stand there; and `REDUNDANT`,
where a barrier is not needed: a piece of text around it -> the reason. `UNDECLARED` says why a file is used with macros
that its header does not list, if it is.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_builds import Build, builds
from standin import cupy, shim
from standin.memory import GuardError

from minilong.backend.kernels import launch

pytestmark = pytest.mark.skipif(bool(shim.reason_absent()), reason=shim.reason_absent() or "")

CASES = tuple(sorted(path.stem.removeprefix("cases_") for path in Path(__file__).parent.glob("cases_*.py")))
FILES = tuple(sorted(path.name for path in launch.FOLDER.glob("*.cu*")))
FOUND = (AssertionError, shim.LaunchError, GuardError, ArithmeticError)
"""How a mistake shows: wrong numbers, what CUDA forbids, an access out of bounds, numbers that overflow."""

PASSED, FAILED, OTHER = 0, 1, 2


def cases(name: str) -> Any:
    return importlib.import_module(f"cases_{name}")


def forget() -> None:
    """Kernels are read and compiled anew."""
    for function in (launch.function, launch._module, launch.text):
        function.cache_clear()


@contextmanager
def kernels_in(folder: Path) -> Iterator[None]:
    """Kernels of another folder, with nothing compiled before or kept after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "FOLDER", folder)
        forget()
        try:
            yield
        finally:
            forget()


def fork() -> int:
    """`os.fork`, also where there are threads: of these the child uses none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def fails(check: Callable[[Any], None]) -> bool:
    """Whether the check finds a mistake; a kernel that does not end is one too.

    In a process of its own: a wrong index may write anywhere, and then the crash is what is found.
    """
    child = fork()
    if child == 0:
        status = OTHER
        try:
            with cupy.install(), shim.time_limit(5):
                check(cupy)
            status = PASSED
        except FOUND:
            status = FAILED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != OTHER, "the check ended in an error that is no find"
    return status != PASSED


def found(check: Callable[[Any], None], modes: tuple[bool, ...] = (False, True)) -> bool:
    """Whether the check fails in one of the orders, or with each access to memory checked."""
    for on in modes:
        for order in shim.ORDERS:
            with shim.checked(on), shim.thread_order(order, 1):
                if fails(check):
                    return True
    return False


class Barriers:
    """All barriers of all kernels, by number: which of them each check comes to, with which builds, in what time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: list[tuple[str, int]] = []
        for name in FILES:
            text, lines = shim.numbered_barriers((launch.FOLDER / name).read_text("utf-8"), len(self.places))
            (folder / name).write_text(text, "utf-8")
            self.places += [(name, line) for line in lines]
        self.reached: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}
        self.used: dict[str, set[tuple[str, Build]]] = {}

    def run(self, name: str) -> None:
        """The check passes, in each order of threads and with each access to memory checked."""
        if name in self.reached:
            return
        reached, used, module = np.zeros(len(self.places) + 1, np.uint8), set(), launch._module

        def noted(xp: Any, source: str, dtype: str, defines: tuple[str, ...]) -> Any:
            used.add((source, Build(dtype, defines)))
            return module(xp, source, dtype, defines)

        with kernels_in(self.folder), pytest.MonkeyPatch.context() as patch, cupy.install(), shim.checked():
            patch.setattr(launch, "_module", noted)
            with shim.barriers_reached(reached):
                cases(name).check(cupy)
            start = time.perf_counter()
            for order in ("descending", "random") if used else ():
                with shim.thread_order(order, 1):
                    cases(name).check(cupy)
        self.reached[name], self.used[name] = reached, used
        self.seconds[name] = time.perf_counter() - start

    def killed(self, number: int) -> bool:
        """Whether some check that comes to the barrier fails without it."""
        for name in sorted(self.reached, key=self.seconds.__getitem__):
            with shim.without_barrier(number):
                if self.reached[name][number] and found(cases(name).check, (True, False)):
                    return True
        return False


@pytest.fixture(scope="module")
def barriers(tmp_path_factory: pytest.TempPathFactory) -> Barriers:
    return Barriers(tmp_path_factory.mktemp("numbered"))


@pytest.mark.parametrize("name", CASES)
def test_checks_pass_with_every_access_to_memory_checked(name: str, barriers: Barriers) -> None:
    """No races, nothing out of bounds or misaligned; and what is used is what the headers say is compiled."""
    barriers.run(name)
    for source, build in sorted(barriers.used[name], key=str):
        declared = [set(other.defines) for other in builds(launch.text(source)) if other.type == build.type]
        assert declared, f"{source}: the header does not name {build.type}"
        assert set(build.defines) in declared or getattr(cases(name), "UNDECLARED", ""), (
            f"{source}: {build} is not in the header, and cases_{name} does not say why, in UNDECLARED"
        )


def redundant() -> dict[tuple[str, int], str]:
    """Barriers that a cases file says are not needed: file and line -> reason."""
    found = {}
    for name in CASES:
        for piece, reason in getattr(cases(name), "REDUNDANT", {}).items():
            assert len(shim.barriers(piece)) == 1, f"cases_{name}: not one barrier: {piece!r}"
            places = [
                (file, text.count("\n", 0, text.index(piece)) + shim.barriers(piece)[0][0])
                for file in FILES
                if piece in (text := (launch.FOLDER / file).read_text("utf-8"))
            ]
            assert len(places) == 1, f"cases_{name}: in {len(places)} files: {piece!r}"
            found[places[0]] = reason
    return found


@pytest.mark.parametrize("file", [name for name in FILES if shim.barriers((launch.FOLDER / name).read_text("utf-8"))])
def test_every_barrier_is_needed(file: str, barriers: Barriers, counted: Callable[[str, int], None]) -> None:
    for name in CASES:
        barriers.run(name)
    spare, problems = redundant(), []
    with kernels_in(barriers.folder):
        for number, place in enumerate(barriers.places):
            if place[0] != file:
                continue
            where = f"{file}:{place[1]}"
            if not any(reached[number] for reached in barriers.reached.values()):
                problems.append(f"{where}: no check comes to this barrier")
            elif barriers.killed(number):
                counted("barriers of kernels found to be needed", 1)
                if place in spare:
                    problems.append(f"{where}: is needed, and yet listed as redundant: {spare[place]}")
            elif place in spare:
                counted("barriers of kernels redundant, with a reason", 1)
            else:
                problems.append(f"{where}: no check fails without this barrier")
    assert not problems, "\n".join(problems)


def survivors(name: str, mutants: list[tuple[str, str]], folder: Path) -> list[str]:
    """Those of the mutants that the check of a cases file does not find. folder: where the mutated texts may lie."""
    alive, texts = [], {file: (launch.FOLDER / file).read_text("utf-8") for file in FILES}
    for file, text in texts.items():
        (folder / file).write_text(text, "utf-8")
    for old, new in mutants:
        own = f"{name}.cu"
        among = [own] if old in texts.get(own, "") else [file for file in FILES if old in texts[file]]
        assert among, f"no kernel's text has {old!r}"
        for file in among:
            (folder / file).write_text(shim.mutant(texts[file], old, new), "utf-8")
        with kernels_in(folder):
            if not found(cases(name).check):
                alive.append(f"{old!r} -> {new!r}")
        for file in among:
            (folder / file).write_text(texts[file], "utf-8")
    return alive


@pytest.mark.parametrize("name", [name for name in CASES if getattr(cases(name), "MUTANTS", [])])
def test_planted_mistakes_are_found(name: str, tmp_path: Path, counted: Callable[[str, int], None]) -> None:
    """In one process a core: most of the time goes to compiling each mutant."""
    mutants, cores = cases(name).MUTANTS, len(os.sched_getaffinity(0))
    children = {}
    for share in range(cores):
        folder = tmp_path / str(share)
        folder.mkdir()
        child = fork()
        if child == 0:
            status = OTHER
            try:
                (folder / "alive").write_text(json.dumps(survivors(name, mutants[share::cores], folder)), "utf-8")
                status = PASSED
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children[child] = folder / "alive"
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [PASSED] * cores, "a process ended in an error that is no find"
    alive = [line for path in children.values() for line in json.loads(path.read_text("utf-8"))]
    counted("mistakes planted in kernels found", len(mutants) - len(alive))
    assert not alive, "not found:\n" + "\n".join(alive)


def test_a_check_that_misses_mistakes_is_told(barriers: Barriers) -> None:
    """This file's own test: a check that does nothing finds no mistake, a mutant of no place is refused."""
    assert not fails(lambda xp: None)
    assert fails(lambda xp: np.testing.assert_array_equal(1, 2))
    with pytest.raises(AssertionError, match="occurs 0 times"):
        shim.mutant("a", "b", "c")
    assert len(barriers.places) == sum(len(shim.barriers((launch.FOLDER / name).read_text("utf-8"))) for name in FILES)
