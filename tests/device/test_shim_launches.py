"""Launches on the shim: wrong arguments and sizes are refused, a text is compiled once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from shim_runs import FLOATS, OPTIONS, TEXT, TURN, i32, i64, run, zeros
from standin import shim, shim_compiler

pytestmark = pytest.mark.skipif(bool(shim.reason_absent()), reason=shim.reason_absent() or "")


WRONG: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("a Python int", (FLOATS, 1), TypeError, "argument 2 of 2: int64 is wanted, not 1 .a Python number has no size"),
    ("int32 for int64", (FLOATS, i32(1)), TypeError, "int64 is wanted, not int32"),
    ("unsigned", (FLOATS, np.uint64(1)), TypeError, "int64 is wanted, not uint64"),
    ("too few", (FLOATS,), TypeError, "takes 2 arguments, not 1"),
    ("too many", (FLOATS, i64(1), i64(1)), TypeError, "takes 2 arguments, not 3"),
    (
        "doubles",
        (FLOATS.astype(np.float64), i64(1)),
        TypeError,
        "a pointer to float32 is wanted, not an array of float64",
    ),
    ("integers", (FLOATS.astype(np.int32), i64(1)), TypeError, "a pointer to float32 is wanted, not an array of int32"),
    ("strided", (FLOATS[::2], i64(1)), TypeError, "not contiguous"),
    ("number for pointer", (i64(1), i64(1)), TypeError, "a pointer is wanted"),
    ("a list", ([1.0], i64(1)), TypeError, "a pointer is wanted"),
    ("an address", (np.uint64(4096), i64(1)), TypeError, "a pointer is wanted"),
    ("array for number", (FLOATS, np.zeros(1, i64)), TypeError, "int64 is wanted"),
]


@pytest.mark.parametrize("arguments,error,message", [x[1:] for x in WRONG], ids=[x[0] for x in WRONG])
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("write_far", 1, 1, *arguments)


def test_arguments_of_every_type_are_taken() -> None:
    half, bfloat, complexes = np.zeros(4, np.float16), np.zeros(4, ml_dtypes.bfloat16), np.zeros(2, np.complex64)
    numbers = (i64(1), i32(1), np.uint32(1), np.uint64(1), np.float32(1), np.float64(1), np.bool_(1))
    for a, b in ((half, FLOATS), (bfloat, complexes)):
        run("types", 1, 1, a, b, FLOATS, np.zeros(1, bool), *numbers, shim.Pointer(a.ctypes.data))
    run("types", 1, 1, *[np.uint64(0)] * 4, *numbers, np.uint64(0))
    signature = shim.compile_kernels(TEXT, OPTIONS).signatures["types"]
    assert signature == ("Ps2", "pf4", "Ps16", "Pb1", "i8", "i4", "u4", "u8", "f4", "f8", "b1", "pv0")
    for i, wrong in enumerate(numbers):
        given = [np.uint64(0)] * 4 + list(numbers) + [np.uint64(0)]
        given[4 + i] = np.int16(1) if wrong.dtype != np.int16 else wrong
        with pytest.raises(TypeError, match=f"argument {5 + i} of 12"):
            run("types", 1, 1, *given)


SIZES: list[tuple[Any, Any, dict[str, int], str]] = [
    (1, 512, {}, "512 threads a block, at most 256"),
    (1, (64, 64), {}, "4096 threads"),
    (0, 1, {}, "the grid .* is not within"),
    ((1, 65536), 1, {}, "the grid .* is not within"),
    (1, (1, 1, 65), {}, "the block .* is not within"),
    (1, 32, {"shared": 49153}, "49153 bytes of shared memory, at most 49152"),
    (1, 32, {"shared": 300000, "max_shared": 400000}, "300000 bytes of shared memory, at most 232448"),
]


@pytest.mark.parametrize("grid,block,kw,message", SIZES)
def test_sizes_that_a_gpu_refuses(grid: Any, block: Any, kw: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("turn", grid, block, FLOATS, zeros(64), text=TURN, **kw)


def test_unknown_kernels_and_texts_that_do_not_compile() -> None:
    with pytest.raises(KeyError, match=r"no kernel 'tern'; there are: .*types"):
        run("tern", 1, 1)
    with pytest.raises(shim.CompileError, match=r"kernel\.cu:2:.*undefined_name"):
        shim.compile_kernels('\nextern "C" __global__ void f() { undefined_name(); }')
    kernels = shim.compile_kernels(TEXT, OPTIONS)
    assert "made_by_a_macro" in kernels.signatures
    assert "only_with_more" not in kernels.signatures
    with pytest.raises(ValueError, match="128 threads a block, at most 64"):
        kernels.launch("made_by_a_macro", (1,), (128,), (zeros(1, i32),))
    more = shim.compile_kernels('#if WITH_MORE\nextern "C" __global__ void more() {}\n#endif', ("-DWITH_MORE=1",))
    assert list(more.signatures) == ["more"]


def test_a_library_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = shim_compiler.compiler()
    monkeypatch.setattr(shim_compiler, "folder", lambda: tmp_path)
    text = f'// {tmp_path}\nextern "C" __global__ void f(int* y) {{ y[threadIdx.x] = 5; }}'
    program = (
        "import sys; from standin import shim, shim_compiler; from pathlib import Path\n"
        f"shim_compiler.folder = lambda: Path({str(tmp_path)!r})\n"
        f"shim.compile_kernels({text!r})"
    )
    both = [subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    monkeypatch.setattr(shim_compiler, "run", lambda command: pytest.fail("compiled again"))
    monkeypatch.setattr(shim_compiler, "compiler", lambda: found)
    y = zeros(1, i32)
    shim.compile_kernels(text).launch("f", (1,), (1,), (y,))
    assert y[0] == 5
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".names", ".so", ".so"]  # and the runtime's


def test_launches_from_several_threads_of_python() -> None:
    results: list[bool] = []

    def work(seed: int) -> None:
        for _ in range(20):
            y = zeros(64)
            with shim.thread_order("random", seed):
                run("turn", 1, 64, FLOATS * np.float32(seed), y, text=TURN)
            results.append(bool((y == np.roll(FLOATS * np.float32(seed), -1)).all()))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80
