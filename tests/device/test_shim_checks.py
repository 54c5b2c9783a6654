"""Faults of a kernel on the shim are exceptions; races and what C++ leaves undefined are found when checked."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shim_runs import FLOATS, aligned, every_order, i32, i64, run, zeros
from standin import shim

pytestmark = pytest.mark.skipif(bool(shim.reason_absent()), reason=shim.reason_absent() or "")


FAULTS: list[tuple[str, tuple[Any, ...], dict[str, int], str]] = [
    ("fill_shared", (i32(0), i32(65)), {"shared": 64}, "outside its 64 bytes of dynamic shared memory"),
    ("fill_shared", (i32(-1), i32(1)), {"shared": 64}, "outside its 64 bytes of dynamic shared memory"),
    ("write_far", (FLOATS, i64(2**40)), {}, "memory fault at address"),
    ("write_far", (np.uint64(0), i64(0)), {}, "memory fault at address"),
    ("divide", (zeros(1, i32), i32(0)), {}, "division by zero"),
    ("deep", (zeros(1, np.int8), i32(200000)), {}, "memory fault"),
    ("forever", (zeros(1, i32),), {}, "does not end"),
]


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("name,arguments,kw,message", FAULTS)
def test_faults_are_exceptions(name: str, arguments: Any, kw: dict[str, int], message: str, on: bool) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGSEGV, signal.SIGFPE, signal.SIGVTALRM)]
    if on and name == "fill_shared":
        message = "writes byte (64|-1) of 64 bytes of dynamic shared memory, at line"
    with shim.time_limit(0.2), shim.checked(on), pytest.raises(shim.LaunchError, match=message):
        run(name, 1, 1, *arguments, **kw)
    assert before == [signal.getsignal(s) for s in (signal.SIGSEGV, signal.SIGFPE, signal.SIGVTALRM)]
    y = zeros(64)
    run("barriers", 1, 64, i32(3), y.view(np.int32))  # and the next launch is none the worse
    assert (y.view(np.int32) == 3).all()


UNDEFINED: list[tuple[str, int, int, Callable[[], tuple[Any, ...]], str]] = [
    ("all_write", 1, 32, lambda: (zeros(1),), "race on global memory .* writes at line .* has written at line"),
    ("all_write", 1, 33, lambda: (zeros(1),), "race on global memory"),
    (
        "blocks_add",
        2,
        32,
        lambda: (zeros(1),),
        r"memory at 0x\w+ \(argument 1, byte 0\): .* reads at line .* thread .0, 0, 0. of block .0, 0, 0. has written",
    ),
    ("count_and_read", 1, 32, lambda: (zeros(2, i32),), "atomically"),
    ("turn_by_shuffle", 1, 32, lambda: (FLOATS, zeros(32)), "race on byte .* of static shared memory"),
    ("misaligned", 1, 1, lambda: (aligned(), zeros(1), i32(2)), "not aligned for its type .line"),
    ("outside", 1, 1, lambda: (zeros(1), i32(8)), "index outside an array .line"),
    ("outside", 1, 1, lambda: (zeros(1), i32(-1)), "index outside an array"),
    ("overflow", 1, 1, lambda: (zeros(1, i32), i32(2**16)), "a product of signed integers overflows"),
    ("shift", 1, 1, lambda: (zeros(1, i32), i32(32)), "shift by more than the width"),
    ("to_integer", 1, 1, lambda: (zeros(1, i32), np.float32(1e20)), "does not fit the integer"),
]


@pytest.mark.parametrize("name,grid,block,arguments,message", UNDEFINED)
def test_undefined_behaviour_is_found_when_checked(
    name: str, grid: int, block: int, arguments: Callable[[], tuple[Any, ...]], message: str
) -> None:
    def found() -> None:
        with shim.checked(), pytest.raises(shim.LaunchError, match=r"race|aligned|index|overflows|shift|fit"):
            run(name, grid, block, *arguments())

    every_order(found)
    with shim.checked(), pytest.raises(shim.LaunchError, match=message):
        run(name, grid, block, *arguments())


ORDERED: list[tuple[str, int, int, Callable[[], tuple[Any, ...]]]] = [
    ("blocks_add", 1, 32, lambda: (zeros(1),)),
    ("count", 3, 64, lambda: (zeros(1, i32),)),
    ("last_block", 2, 32, lambda: (FLOATS, zeros(2), zeros(1, np.uint32), zeros(1))),
    ("halves_of_a_word", 1, 64, lambda: (zeros(64, np.uint16),)),
    ("part_of_a_warp", 1, 32, lambda: (FLOATS, zeros(32))),
    ("misaligned", 1, 1, lambda: (aligned(), zeros(1), i32(4))),
    ("outside", 1, 1, lambda: (zeros(1), i32(7))),
    ("overflow", 1, 1, lambda: (zeros(1, i32), i32(2**15))),
    ("shift", 1, 1, lambda: (zeros(1, i32), i32(31))),
]


@pytest.mark.parametrize("name,grid,block,arguments", ORDERED)
def test_what_is_ordered_passes_the_checks(
    name: str, grid: int, block: int, arguments: Callable[[], tuple[Any, ...]]
) -> None:
    def passes() -> None:
        with shim.checked():
            run(name, grid, block, *arguments())

    every_order(passes)


@st.composite
def programs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Accesses (phases, 96 threads) by a few threads of three warps to two words, and what stands after each phase."""
    phases = draw(st.integers(1, 5))
    access = np.full((phases, 96), -1, np.int32)
    threads = st.sampled_from([0, 1, 31, 32, 33, 64, 95])
    for p, t, a in draw(st.lists(st.tuples(st.integers(0, phases - 1), threads, st.integers(0, 3)), max_size=8)):
        access[p, t] = a
    return access, np.array(draw(st.lists(st.integers(0, 2), min_size=phases, max_size=phases)), np.int32)


def has_race(access: np.ndarray, after: np.ndarray) -> bool:
    """Whether two threads touch a word, one writes, and neither a barrier nor, in a warp, a __syncwarp lies between."""
    places = [(p, t, access[p, t]) for p, t in np.argwhere(access >= 0)]
    for p, t, a in places:
        for q, u, b in places:
            if p <= q and t != u and a >> 1 == b >> 1 and (a | b) & 1:
                between = after[p:q].max(initial=0)
                if between < (1 if t // 32 == u // 32 else 2):
                    return True
    return False


def two_readers() -> tuple[np.ndarray, np.ndarray]:
    """A write that is ordered after the last reader, of its own warp, and not after the one before it."""
    access = np.full((2, 96), -1, np.int32)
    access[0, [0, 32]], access[1, 33] = 0, 1
    return access, np.array([1, 0], np.int32)


@given(programs())
@example(two_readers())
def test_exactly_the_races_are_found(program: tuple[np.ndarray, np.ndarray]) -> None:
    access, after = program

    def found() -> bool:
        with shim.checked():
            try:
                run("phases", 1, 96, access, after, i32(len(after)), zeros(2, i32), zeros(96, i32))
            except shim.LaunchError as error:
                return "race on global memory" in str(error)
        return False

    assert every_order(found) == [has_race(access, after)] * 3
