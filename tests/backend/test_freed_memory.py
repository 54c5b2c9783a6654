"""Freed memory stays with the process: fewer page faults on glibc, nothing done where there is no glibc."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from minilong.backend import keep_freed_memory, memory

COUNT = """
import resource
import numpy as np
from minilong.backend import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(10_000_000 // 8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept = keep_freed_memory()
np.ones(10_000_000 // 8)  # the heap grows once
print(int(kept), before, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a parameter of glibc")
def test_a_step_takes_its_memory_from_the_last_one() -> None:
    """In a process of its own: what is set cannot be taken back."""
    result = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    kept, before, after = map(int, result.stdout.split())
    if not kept:
        pytest.skip("the C library is not glibc")
    assert before > 100  # pages of 4 KiB would be 24,000, of 2 MiB some dozens and the small ones at their ends
    assert after < before / 20


def test_nothing_is_done_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: Any) -> None:
        raise AssertionError("the C library was opened")

    monkeypatch.setattr(ctypes, "CDLL", opened)
    for platform in ("darwin", "win32", "emscripten"):
        monkeypatch.setattr(memory.sys, "platform", platform)
        assert keep_freed_memory() is False


class Library:
    """A C library whose `mallopt` answers as told, and remembers what was asked."""

    def __init__(self, answer: int) -> None:
        self.calls: list[tuple[int, int]] = []

        def mallopt(name: int, value: int) -> int:
            self.calls.append((name, value))
            return answer

        self.mallopt = mallopt


def test_the_answer_is_whether_the_library_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "linux")
    willing, unwilling = Library(1), Library(0)
    for library, right in ((willing, True), (unwilling, False), (object(), False)):  # musl has no mallopt
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert keep_freed_memory() is right
    assert willing.calls == [(-8, 1), (-1, -1), (-4, 0)]  # M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
