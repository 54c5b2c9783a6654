"""What the kernels' files say is to be compiled, and the compilers for real GPUs: nvcc, and NVRTC, which CuPy uses.

A file's header (see `common.cuh`) says the types, the lists of macros, and what each kernel may use. To compile, no GPU
is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from standin import shim_compiler

from minilong.backend.kernels import launch

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
LIMITS = ("registers", "spills", "shared")
SOURCES = tuple(sorted(path.name for path in launch.FOLDER.glob("*.cu")))


@dataclass(frozen=True)
class Build:
    """One compilation of a file: a type, and macros such as "HEAD=64"."""

    type: str
    defines: tuple[str, ...] = ()

    @property
    def macros(self) -> tuple[str, ...]:
        return (f"DTYPE={launch.CODES[self.type]}", *self.defines)

    def __str__(self) -> str:
        return " ".join((self.type, *self.defines))


@dataclass(frozen=True)
class Budget:
    """What a kernel may use where all conditions hold: a type, an architecture, macros."""

    kernel: str
    conditions: frozenset[str]
    limits: dict[str, int]


def header(text: str, key: str) -> list[str]:
    """The values of the comment lines `// key: value`."""
    return re.findall(rf"^// {key}: *(.*?) *$", text, re.MULTILINE)


def builds(text: str) -> list[Build]:
    """All compilations that a file's header asks for."""
    types = [name for line in header(text, "types") for name in line.split()]
    assert types, "a kernel's file begins with a line such as: // types: float32 float16 bfloat16 float64"
    assert set(types) <= set(launch.CODES), f"types: {types}"
    lists = [tuple(part.split()) for line in header(text, "defines") for part in line.split(";")] or [()]
    return [Build(name, defines) for name in types for defines in lists]


def budgets(text: str) -> list[Budget]:
    """The budgets of a file's header, in their order."""
    found = []
    for entry in (part.split() for line in header(text, "budget") for part in line.split(";")):
        pairs = [word.partition("=") for word in entry[1:]]
        limits = {name: int(value) for name, _, value in pairs if name in LIMITS}
        conditions = frozenset("".join(pair) for pair in pairs if pair[0] not in LIMITS)
        for word in conditions:
            assert "=" in word or word in (*launch.CODES, *ARCHITECTURES), f"budget: what is {word!r}?"
        assert limits, f"budget: no limit for {entry[0]}"
        found.append(Budget(entry[0], conditions, limits))
    return found


def over_budget(text: str, architecture: str, used: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """What the kernels of a file use beyond their budgets. used: by build and kernel."""
    found, rules = [], budgets(text)
    known = {kernel for kernels in used.values() for kernel in kernels}
    found += [f"budget for {rule.kernel}, which does not exist" for rule in rules if rule.kernel not in known]
    for build in builds(text):
        facts = {build.type, architecture, *build.defines}
        for kernel, amounts in used[str(build)].items():
            limits = {"spills": 0}
            for rule in rules:
                if rule.kernel == kernel and rule.conditions <= facts:
                    limits |= rule.limits
            for name, limit in limits.items():
                if amounts[name] > limit:
                    found.append(f"{kernel} ({build}, {architecture}): {name} {amounts[name]}, budget {limit}")
    return found


def together(text: str, wanted: list[Build], name: str = "kernel.cu") -> str:
    """One text of several builds, each in a namespace of its own: nvcc takes most of its time to begin."""
    macros = sorted(set(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", text, re.MULTILINE)))
    body = text.replace('extern "C" __global__', "__global__").replace("#pragma once\n", "\n")
    parts = []
    for i, build in enumerate(wanted):
        defines = "".join(f"#define {macro.replace('=', ' ', 1)}\n" for macro in build.macros)
        undefines = "".join(f"#undef {macro}\n" for macro in (*(m.partition("=")[0] for m in build.macros), *macros))
        parts.append(f'{defines}namespace build{i}_ {{\n#line 1 "{name} ({build})"\n{body}\n}}\n{undefines}')
    return "".join(parts)


_ENTRY = re.compile(r"Compiling entry function '(?:_ZN\d+build(\d+)_E?(\d+))?(\w+)'")
_USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+)(?:\+\d+)? bytes smem)?")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


def parse(log: str) -> dict[int, dict[str, dict[str, int]]]:
    """What each kernel of each build uses, from the messages of `ptxas -v`. Spills: bytes stored and loaded."""
    used: dict[int, dict[str, dict[str, int]]] = {}
    amounts: dict[str, int] = {}
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            name = entry[3][: int(entry[2])] if entry[2] else entry[3]
            amounts = used.setdefault(int(entry[1] or 0), {}).setdefault(name, dict.fromkeys(LIMITS, 0))
        if spills := _SPILLS.search(line):
            amounts["spills"] = max(amounts["spills"], int(spills[1]) + int(spills[2]))
        if registers := _USED.search(line):
            amounts["registers"], amounts["shared"] = int(registers[1]), int(registers[2] or 0)
    return used


@cache
def nvcc() -> str | None:
    """The path of nvcc, where it is installed."""
    return shutil.which("nvcc")


def compile_nvcc(
    text: str, wanted: list[Build], architecture: str, name: str = "kernel.cu"
) -> dict[str, dict[str, dict[str, int]]]:
    """What each kernel of each build uses. Raises CompileError. Results are kept, by content."""
    version = shim_compiler.run([nvcc() or "nvcc", "--version"])
    source = together(text, wanted, name)
    key = hashlib.sha256("\0".join((source, architecture, version)).encode()).hexdigest()[:40]
    kept = shim_compiler.folder() / f"nvcc-{key}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=shim_compiler.folder()) as made:
            path = Path(made) / "kernel.cu"
            path.write_text(source, "utf-8")
            options = ["-std=c++17", "-cubin", f"-arch={architecture}", "-Xptxas", "-v", "-o", os.devnull]
            done = subprocess.run([nvcc() or "nvcc", *options, str(path)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise shim_compiler.CompileError(done.stderr[-6000:])
            used = parse(done.stderr)
            result = {str(build): used[i] for i, build in enumerate(wanted)}
            (Path(made) / kept.name).write_text(json.dumps(result), "utf-8")
            os.replace(Path(made) / kept.name, kept)
    return json.loads(kept.read_text("utf-8"))  # type: ignore[no-any-return]


def _nvrtc_candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield from map(str, sorted(Path(place).glob("*/lib/libnvrtc.so.*"), reverse=True))


@cache
def nvrtc() -> Any:
    """NVRTC of the packages nvidia-cuda-nvrtc and nvidia-cuda-nvrtc-cu12, which CuPy uses; None where neither is."""
    for path in _nvrtc_candidates():
        if "alt" not in path:
            return ctypes.CDLL(path)
    return None


def compile_nvrtc(text: str, macros: tuple[str, ...], architecture: str) -> int:
    """The size of the machine code that CuPy would make of a text, which is kept. Raises CompileError."""
    options = [f"--gpu-architecture={architecture}", "-std=c++17", *(f"-D{macro}" for macro in macros)]
    key = hashlib.sha256("\0".join((text, *options, nvrtc()._name)).encode()).hexdigest()[:40]
    kept = shim_compiler.folder() / f"nvrtc-{key}.json"
    if not kept.exists():
        size = _compile_nvrtc(text, options)
        with tempfile.TemporaryDirectory(dir=shim_compiler.folder()) as made:
            (Path(made) / kept.name).write_text(json.dumps(size), "utf-8")
            os.replace(Path(made) / kept.name, kept)
    return int(json.loads(kept.read_text("utf-8")))


def _compile_nvrtc(text: str, options: list[str]) -> int:
    library, program = nvrtc(), ctypes.c_void_p()
    strings = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) == 0
    try:
        failed = library.nvrtcCompileProgram(program, len(options), strings)
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        if failed:
            raise shim_compiler.CompileError(log.value.decode(errors="replace")[-6000:])
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        return size.value
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
