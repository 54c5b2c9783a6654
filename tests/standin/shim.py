"""Runs unmodified CUDA kernels on the CPU: `compile_kernels(text, options).launch("softmax", grid, block, arguments)`.

g++ compiles the text behind `cuda_cpu.h`. A launch checks each argument against the kernel's signature, since CUDA does
not: there, an int32 given for an int64 reads four bytes of something else. All errors are Python exceptions.

`with thread_order("random", seed=1)` sets the order of the threads; `with checked()` looks at every access to memory:
races, bounds, alignment. A race that no order shows is still found there.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from .shim_arguments import STATIC_LIMIT, Pointer, check_arguments, check_sizes
from .shim_compiler import CompileError, build, lines, reason_absent, runtime

__all__ = [
    "CompileError",
    "LaunchError",
    "Library",
    "Pointer",
    "barriers",
    "barriers_reached",
    "checked",
    "compile_kernels",
    "mutant",
    "numbered_barriers",
    "reason_absent",
    "thread_order",
    "time_limit",
    "without_barrier",
]

GUARD = 256
"""Bytes of a pattern before and after the dynamic shared memory, which are checked after each block."""

ORDERS = {"ascending": 0, "descending": 1, "random": 2}


class LaunchError(Exception):
    """A kernel did what CUDA forbids: divergence at a barrier, a race, an access out of bounds, no end."""


class _Mode(NamedTuple):
    order: str = "ascending"
    seed: int = 0
    checked: bool = False
    skip: int = -1
    reached: np.ndarray | None = None
    seconds: float = 60


_PLAIN = _Mode()
_mode: ContextVar[_Mode] = ContextVar("mode", default=_PLAIN)


@contextmanager
def _changed(**fields: Any) -> Iterator[None]:
    token = _mode.set(_mode.get()._replace(**fields))
    try:
        yield
    finally:
        _mode.reset(token)


def thread_order(order: str, seed: int = 0) -> Any:
    """A context in which threads, warps and blocks run in this order: "ascending", "descending" or "random"."""
    if order not in ORDERS:
        raise ValueError(f"no thread order {order!r}; there are: {', '.join(ORDERS)}")
    return _changed(order=order, seed=seed)


def checked(on: bool = True) -> Any:
    """A context in which each access to memory is checked: about ten times slower. `cuda_checks.h` says for what."""
    return _changed(checked=on)


def time_limit(seconds: float) -> Any:
    """A context in which a kernel that uses more CPU time than this counts as hanging (else 60 s)."""
    return _changed(seconds=seconds)


def without_barrier(number: int) -> Any:
    """A context in which the barrier of this number in texts by `numbered_barriers` is left out."""
    return _changed(skip=number)


def barriers_reached(reached: np.ndarray) -> Any:
    """A context in which `reached[number]` (bytes) becomes 1 where the barrier of this number is come to."""
    return _changed(reached=reached)


class _Launch(ctypes.Structure):
    """`ShimLaunch` of the header."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("stub", ctypes.c_void_p),
        ("library", ctypes.c_void_p * 3),
        ("shared", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("seed", ctypes.c_ulong),
        ("order", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("skip", ctypes.c_int),
        ("checked", ctypes.c_int),
        ("reached", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("error", ctypes.c_char * 1024),
    )


_lock = threading.Lock()


@cache
def _runtime() -> Any:
    library = ctypes.CDLL(str(runtime()))
    library.shim_run.argtypes = (ctypes.POINTER(_Launch),)
    return library


class Library:
    """The kernels of a text. `signatures[name]`: "pf4" a float pointer ("Pf4": to const), "i8" a long long, ..."""

    def __init__(self, code: str, defines: tuple[str, ...]) -> None:
        self._code, self._defines = code, defines
        self._builds: dict[bool, _Build] = {}
        self.signatures: dict[str, tuple[str, ...]] = self._build(_mode.get().checked).signatures

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared: int = 0,
        max_shared: int = STATIC_LIMIT,
    ) -> None:
        """Run a grid. arguments: `Pointer`s, NumPy arrays (C order), NumPy scalars; `np.uint64(0)` is the null pointer.

        shared: bytes of dynamic shared memory, at most max_shared.
        Raises KeyError (name), TypeError (arguments), ValueError (sizes), LaunchError.
        """
        mode = _mode.get()
        if name not in self.signatures:
            raise KeyError(f"no kernel {name!r}; there are: {', '.join(sorted(self.signatures)) or 'none'}")
        made = self._build(mode.checked)
        whole_grid, whole_block = check_sizes(name, grid, block, shared, max_shared, made.bounds[name])
        boxes = check_arguments(name, self.signatures[name], arguments)
        pointers = (ctypes.c_void_p * (len(boxes) + 1))(*[ctypes.addressof(box) for box in boxes])
        memory = np.empty(shared + 2 * GUARD + 48, np.uint8)
        # A multiple of 16 and of nothing larger, which is all that CUDA promises.
        start = (memory.ctypes.data + GUARD + 15) // 32 * 32 + 16
        launch = _Launch(
            grid=(ctypes.c_uint * 3)(*whole_grid),
            block=(ctypes.c_uint * 3)(*whole_block),
            arguments=ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p)),
            stub=made.stubs[name],
            library=made.library,
            shared=start,
            bytes=shared,
            seed=mode.seed,
            order=ORDERS[mode.order],
            milliseconds=round(1000 * mode.seconds),
            skip=mode.skip,
            checked=mode.checked,
            reached=None if mode.reached is None else mode.reached.ctypes.data,
            name=name.encode(),
        )
        with _lock:
            failed = _runtime().shim_run(ctypes.byref(launch))
        if failed:
            raise LaunchError(self._explain(launch.error.decode(errors="replace"), made, boxes))

    def _build(self, checked: bool) -> _Build:
        if checked not in self._builds:
            self._builds[checked] = _Build(self._code, self._defines, checked)
        return self._builds[checked]

    def _explain(self, message: str, made: _Build, boxes: list[Any]) -> str:
        """The message with places made into lines and addresses into arguments, and the lines it names below it."""
        pointers = {i + 1: box.value for i, box in enumerate(boxes) if isinstance(box, ctypes.c_void_p) and box.value}
        found = lines(made.path, re.findall(r"@([0-9a-f]+)", message))
        message = re.sub(r"( at|, at )?(?: )?@([0-9a-f]+)", lambda m: _place(m[1], found[m[2]]), message)
        message = re.sub(r"\b0x[0-9a-f]+", lambda m: m[0] + _argument(int(m[0], 16), pointers), message)
        text = self._code.splitlines()
        named = dict.fromkeys(int(n) for two in re.findall(r"lines? (\d+)(?: and (\d+))?", message) for n in two if n)
        return message + "".join(f"\n  line {n}: {text[n - 1].strip()}" for n in named if 0 < n <= len(text))


def _argument(address: int, pointers: dict[int, int], reach: int = 2**28) -> str:
    """The argument that an address probably belongs to: the nearest that begins before it."""
    near = [(address - start, i) for i, start in pointers.items() if 0 <= address - start < reach]
    return f" (argument {min(near)[1]}, byte {min(near)[0]})" if near else ""


def _place(before: str | None, line: int | None) -> str:
    return "" if line is None else f"{(before or '').rstrip()} line {line}"


class _Build:
    """A loaded library."""

    def __init__(self, code: str, defines: tuple[str, ...], checked: bool) -> None:
        self.path, names = build(code, defines, checked)
        _runtime()
        library = ctypes.CDLL(str(self.path))
        self.library = (ctypes.c_void_p * 3)()
        library.shim_library(self.library)
        self.signatures: dict[str, tuple[str, ...]] = {}
        self.bounds: dict[str, int] = {}
        self.stubs: dict[str, int | None] = {}
        text = ctypes.create_string_buffer(4096)
        for name in names:
            library[f"shim_signature_{name}"](text)
            self.signatures[name] = tuple(text.value.decode().split())
            self.bounds[name] = library[f"shim_bound_{name}"]()
            self.stubs[name] = ctypes.cast(library[f"shim_stub_{name}"], ctypes.c_void_p).value


@cache
def compile_kernels(code: str, options: tuple[str, ...] = ()) -> Library:
    """The kernels of a CUDA text. Of the options, those that define macros (-D) count. Raises CompileError."""
    return Library(code, tuple(option for option in options if option.startswith("-D")))


def mutant(text: str, old: str, new: str) -> str:
    """The text with a planted mistake. Raises AssertionError unless `old` occurs exactly once."""
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times, not once"
    assert old != new, f"{old!r} is no mistake"
    return text.replace(old, new)


_BARRIER = re.compile(r"(?<!\w)__sync(?:threads|warp)\([^()]*\);")


def barriers(text: str) -> list[tuple[int, str]]:
    """For each barrier: its line (from 1), and the text without it."""
    found = list(_BARRIER.finditer(text))
    return [(text.count("\n", 0, m.start()) + 1, f"{text[: m.start()]};{text[m.end() :]}") for m in found]


def numbered_barriers(text: str, first: int = 0) -> tuple[str, list[int]]:
    """The text with barriers that `without_barrier(number)` leaves out, numbered from `first`, and their lines.

    One compilation serves for all of them.
    """
    numbers = count(first)
    numbered = _BARRIER.sub(lambda m: f"do {{ CPU_CUDA_UNLESS({next(numbers)}) {m[0]} }} while (0);", text)
    return numbered, [line for line, _ in barriers(text)]
