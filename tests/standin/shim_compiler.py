"""Makes a library of an unmodified CUDA text with g++, once for each content: kept in a folder for temporary files."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME, HEADER = HERE / "cuda_runtime.cpp", HERE / "cuda_cpu.h"
COMMON = (
    *("-std=c++17", "-shared", "-fPIC", "-w", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-threadsafe-statics"),
    *("-ffp-contract=off", "-nostartfiles"),
)
KERNEL = ("-O1", "-fstack-clash-protection")  # a large frame touches each page, so the one below a stack as well
CHECKED = (
    *("-g1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),
    "-fsanitize=bounds,alignment,signed-integer-overflow,shift-exponent,float-cast-overflow,integer-divide-by-zero",
    "-nodefaultlibs",  # the instrumentation calls the runtime here, not those of the sanitizers
)
LIBRARIES = ("-lm", "-lc", "-lgcc")


class CompileError(Exception):
    """The compiler refuses the text, or there is none; the message is its own."""


@cache
def reason_absent() -> str | None:
    """Why kernels cannot run here, or None."""
    if platform.system() != "Linux":
        return f"kernels run on the CPU on Linux only, not on {platform.system()}"
    if shutil.which("g++") is None:
        return "there is no g++"
    version = run(["g++", "-dumpversion"]).strip()
    return None if int(version.split(".")[0]) >= 12 else f"g++ {version} has no _Float16, 12 has"


def folder() -> Path:
    """Where libraries are kept: one folder a user."""
    path = Path(tempfile.gettempdir()) / f"minilong-kernels-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise CompileError(f"{path} belongs to somebody else")
    return path


@cache
def tidy() -> None:
    """Removes what has not been used for three days."""
    for path in folder().iterdir():
        with suppress(OSError):  # another process may be at it
            if path.is_file() and time.time() - path.stat().st_mtime > 3 * 86400:
                path.unlink()


def _use(path: Path) -> bool:
    """Whether there is such a file; notes that it is in use."""
    with suppress(OSError):
        os.utime(path)
        return True
    return False


@cache
def compiler() -> tuple[str, str]:
    """Path and version of g++. Raises CompileError where there is none."""
    absent = reason_absent()
    if absent:
        raise CompileError(absent)
    path = shutil.which("g++") or ""
    return path, run([path, "--version"]).splitlines()[0]


@cache
def instructions() -> tuple[str, ...]:
    """Flags for instructions that this processor has: without F16C each conversion of a half type is a call."""
    with suppress(OSError):
        have = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        return tuple(f"-m{name}" for name in ("f16c", "fma") if have and name in have[1].split())
    return ()


@cache
def _sources() -> str:
    return "".join(path.read_text("utf-8") for path in (RUNTIME, *sorted(HERE.glob("cuda_*.h"))))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((*parts, *COMMON, *LIBRARIES, *compiler(), _sources())).encode()).hexdigest()[:40]


def _put(made: Path, *finals: Path) -> None:
    """Moves files to their places, at one stroke each: another process may be making the same."""
    for final in finals:
        os.replace(made / final.name, final)


@cache
def runtime() -> Path:
    """The library that runs kernels, which those of all kernels use. Raises CompileError."""
    library = folder() / f"runtime-{_key('-O2')}.so"
    if not _use(library):
        tidy()
        with tempfile.TemporaryDirectory(dir=folder()) as made:
            # The name by which a kernel's library finds the one that is loaded, wherever that lies.
            flags = (*COMMON, "-O2", f"-Wl,-soname,{library.name}")
            run([compiler()[0], *flags, str(RUNTIME), "-o", str(Path(made) / library.name), *LIBRARIES])
            _put(Path(made), library)
    return library


def build(code: str, defines: tuple[str, ...], checked: bool) -> tuple[Path, tuple[str, ...]]:
    """A shared library, and the names of its kernels. Raises CompileError."""
    flags = (*KERNEL, *instructions(), *(CHECKED if checked else ()), *defines)
    key = _key(code, *flags)
    library, names = folder() / f"{key}.so", folder() / f"{key}.names"
    if not (_use(names) and _use(library)):
        with tempfile.TemporaryDirectory(dir=folder()) as made:
            _build(code, defines, flags, Path(made) / library.name, Path(made) / names.name)
            _put(Path(made), names, library)
    return library, tuple(names.read_text("utf-8").split())


_BOUNDS = re.compile(r"__launch_bounds__\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))")
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+(?:void\s+BOUNDS(\d+)|BOUNDS(\d+)\s+void|void)\s+(\w+)\s*\(')


def _build(code: str, defines: tuple[str, ...], flags: tuple[str, ...], library: Path, names: Path) -> None:
    source = library.with_suffix(".cpp")
    source.write_text(code, "utf-8")
    # Which kernels there are is known once conditions and macros have been dealt with; __global__ is no macro yet.
    kernels = find_kernels(run([compiler()[0], "-E", "-P", "-x", "c++", *defines, str(source)]))
    # In an unnamed namespace no name clashes with one of the C library.
    source.write_text(
        f'#include "{HEADER}"\nnamespace {{\n#line 1 "kernel.cu"\n{code}\n}}\n'
        + "".join(f"CPU_CUDA_KERNEL({name}, {bound})\n" for name, bound in kernels.items()),
        "utf-8",
    )
    run([compiler()[0], *COMMON, *flags, str(source), "-o", str(library), str(runtime()), *LIBRARIES])
    names.write_text("\n".join(kernels), "utf-8")


def find_kernels(text: str) -> dict[str, str]:
    """The kernels of a preprocessed text, each with the expression that bounds its threads."""
    bounds: list[str] = []

    def note(match: re.Match[str]) -> str:
        depth = 0
        for i, char in enumerate(match[1]):
            depth += (char in "([{") - (char in ")]}")
            if char == "," and depth == 1:
                bounds.append(match[1][:i] + ")")
                break
        else:
            bounds.append(match[1])
        return f"BOUNDS{len(bounds) - 1}"

    found = _KERNEL.findall(_BOUNDS.sub(note, text))
    return {name: bounds[int(a or b)] if a or b else "1024" for a, b, name in found}


def run(command: list[str]) -> str:
    """The output of a command. Raises CompileError with what it wrote as errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr[-6000:] or done.stdout[-6000:] or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def lines(library: Path, places: list[str]) -> dict[str, int | None]:
    """The line of the CUDA text for each place (a hexadecimal address in the library)."""
    tool = shutil.which("addr2line")
    if tool is None or not places:
        return dict.fromkeys(places)
    found = run([tool, "-e", str(library), *(hex(max(0, int(place, 16) - 1)) for place in places)]).splitlines()
    numbers = [re.search(r"kernel\.cu:(\d+)", text) for text in found]
    return {place: int(number[1]) if number else None for place, number in zip(places, numbers, strict=True)}
