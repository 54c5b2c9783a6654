"""Every kernel is compiled for real GPUs, in all its types and variants: no GPU is needed for that.

By nvcc, which tells registers and spills, and by NVRTC, which CuPy uses, each where it is installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest
from kernel_builds import (
    ARCHITECTURES,
    SOURCES,
    Build,
    budgets,
    builds,
    compile_nvcc,
    compile_nvrtc,
    nvcc,
    nvrtc,
    over_budget,
    parse,
    together,
)
from standin.shim_compiler import CompileError

from minilong.backend.kernels import launch

needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="nvcc is not installed")
needs_nvrtc = pytest.mark.skipif(nvrtc() is None, reason="nvidia-cuda-nvrtc is not installed")

Unit = tuple[str, str, list[Build]]


def units() -> list[Unit]:
    """Source, architecture, builds. A text that asks for the architecture is compiled whole for each; others for the
    newest, and for the older ones in one build of each type."""
    found = []
    for source in SOURCES:
        text = launch.text(source)
        first = [next(group) for _, group in groupby(builds(text), key=lambda build: build.type)]
        for architecture in ARCHITECTURES:
            whole = architecture == ARCHITECTURES[-1] or "__CUDA_ARCH__" in text
            found.append((source, architecture, builds(text) if whole else first))
    return found


@needs_nvcc
@pytest.mark.slow
def test_nvcc_compiles_every_kernel_within_its_budget(counted: Callable[[str, int], None]) -> None:
    def compiled(unit: Unit) -> tuple[int, list[str]]:
        source, architecture, wanted = unit
        try:
            used = compile_nvcc(launch.text(source), wanted, architecture, source)
        except CompileError as error:
            return 0, [f"{source} {architecture}: {error}"]
        whole = {str(build): used.get(str(build), {}) for build in builds(launch.text(source))}
        return sum(map(len, used.values())), over_budget(launch.text(source), architecture, whole)

    largest = sorted(units(), key=lambda unit: -len(unit[2]) * len(launch.text(unit[0])))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compiled, largest))
    counted("kernels compiled by nvcc", sum(count for count, _ in results))
    problems = [problem for _, found in results for problem in found]
    assert not problems, "\n".join(problems)


@needs_nvrtc
@pytest.mark.slow
def test_nvrtc_compiles_every_kernel(counted: Callable[[str, int], None]) -> None:
    """For the newest architecture each build by itself, as CuPy does it."""

    def compiled(job: tuple[str, str, str, tuple[str, ...]]) -> list[str]:
        source, architecture, text, macros = job
        try:
            assert compile_nvrtc(text, macros, architecture) > 0
        except CompileError as error:
            return [f"{source} {' '.join(macros)} {architecture}: {error}"]
        return []

    jobs = []
    for source, architecture, wanted in units():
        text = launch.text(source)
        if architecture == ARCHITECTURES[-1]:
            jobs += [(source, architecture, text, build.macros) for build in wanted]
        else:
            jobs.append((source, architecture, together(text, wanted, source), ()))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [problem for found in pool.map(compiled, jobs) for problem in found]
    counted("texts of kernels compiled by NVRTC", len(jobs))
    assert not problems, "\n".join(problems)


def test_headers_say_what_is_compiled() -> None:
    assert SOURCES
    for source in SOURCES:
        text = launch.text(source)
        assert len(set(builds(text))) == len(builds(text)), source
        kernels = re.findall(r'extern "C" __global__ void[^;{]*?\b(\w+)\(', text)
        for budget in budgets(text):
            assert budget.kernel in kernels or "##" in text, f"{source}: budget for {budget.kernel}"


def test_kernels_name_nothing_that_nvrtc_lacks() -> None:
    """NVRTC has no headers: what is a typedef of the C library there compiles under nvcc and nowhere else."""
    lacking = re.compile(
        r"\b(u?int(8|16|32|64|ptr)_t|INFINITY|NAN|(FLT|DBL|INT|UINT|LLONG)_M(AX|IN)|std::\w+|assert)\b"
    )
    for path in (*launch.FOLDER.glob("*.cu"), *launch.FOLDER.glob("*.cuh")):
        text = re.sub(r"//.*", "", path.read_text("utf-8"))
        for part in re.split(r"#ifndef __CUDACC__.*?#e(?:lse|ndif)", text, flags=re.DOTALL):
            found = lacking.search(part.replace("static_assert", ""))
            assert not found, f"{path.name}: {found[0] if found else ''}"


# The tests' own test: each of these must be refused.
GOOD = (
    '// types: float32\nextern "C" __global__ void f(float* y, int n) { for (int i = 0; i < n; i++) y[i] = DTYPE; }\n'
)
ASYNC = (
    '// types: float32\nextern "C" __global__ void f(float* y) { __shared__ float s[4];\n'
    'asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"((int)(long long)s), "l"(y)); }\n'
)
MANY = (
    "// types: float32\n// budget: f registers=20 spills=0\n"
    'extern "C" __global__ void __launch_bounds__(1024) f(float* y) {\n'
    "float a[64]; for (int i = 0; i < 64; i++) a[i] = y[i];\n"
    "for (int j = 0; j < 9; j++) for (int i = 0; i < 64; i++) a[i] = a[i] * a[(i + 7) % 64] + y[j];\n"
    "for (int i = 0; i < 64; i++) y[i] = a[i]; }\n"
)
BAD = [
    ("a syntax error", GOOD.replace("i++)", "i++"), "sm_90", "expected"),
    ("an undefined name", GOOD.replace("= DTYPE", "= DTIPE"), "sm_90", "DTIPE"),
    ("an instruction of sm_80 for sm_75", ASYNC, "sm_75", "sm_80"),
]


@pytest.mark.parametrize("text,architecture,message", [x[1:] for x in BAD], ids=[x[0] for x in BAD])
@pytest.mark.parametrize(
    "with_nvcc", [pytest.param(True, marks=needs_nvcc), pytest.param(False, marks=needs_nvrtc)], ids=["nvcc", "nvrtc"]
)
def test_what_is_wrong_does_not_compile(text: str, architecture: str, message: str, with_nvcc: bool) -> None:
    (build,) = builds(text)
    with pytest.raises(CompileError, match=message):
        compile_nvcc(text, [build], architecture) if with_nvcc else compile_nvrtc(text, build.macros, architecture)


@needs_nvcc
def test_what_is_right_compiles_and_what_is_over_its_budget_is_told() -> None:
    assert compile_nvcc(ASYNC, builds(ASYNC), "sm_80")["float32"]["f"]["shared"] == 16
    used = compile_nvcc(GOOD, builds(GOOD), "sm_90")
    assert not over_budget(GOOD, "sm_90", used)
    told = over_budget(GOOD.replace("float32\n", "float32\n// budget: f registers=2\n"), "sm_90", used)
    assert len(told) == 1
    assert re.fullmatch(r"f \(float32, sm_90\): registers \d+, budget 2", told[0])
    used = compile_nvcc(MANY, builds(MANY), "sm_80")
    told = over_budget(MANY, "sm_80", used)
    assert [re.sub(r" \d+,", " N,", line) for line in told] == [
        "f (float32, sm_80): spills N, budget 0",
        "f (float32, sm_80): registers N, budget 20",
    ]


def test_the_last_budget_that_fits_counts() -> None:
    text = (
        "// types: float32 float16\n// defines: HEAD=64; HEAD=128 STAGES=2\n"
        "// budget: f registers=100 spills=0; g registers=9\n"
        "// budget: f float16 HEAD=128 sm_80 registers=200 shared=10\n"
    )
    assert [str(build) for build in builds(text)] == [
        "float32 HEAD=64",
        "float32 HEAD=128 STAGES=2",
        "float16 HEAD=64",
        "float16 HEAD=128 STAGES=2",
    ]
    kernels = {"f": {"registers": 150, "spills": 4, "shared": 11}, "g": {"registers": 9, "spills": 0, "shared": 99}}
    used = {str(build): kernels for build in builds(text)}
    told = over_budget(text, "sm_80", used)
    assert sum("registers 150, budget 100" in line for line in told) == 3
    assert [line for line in told if "shared" in line] == ["f (float16 HEAD=128 STAGES=2, sm_80): shared 11, budget 10"]
    assert sum("spills 4, budget 0" in line for line in told) == 4
    assert len(over_budget(text, "sm_90", used)) == 8
    assert over_budget(text + "// budget: h registers=1\n", "sm_90", used)[0] == "budget for h, which does not exist"
    for wrong in ("// budget: f\n", "// budget: f sm_8O registers=1\n"):
        with pytest.raises(AssertionError, match="budget"):
            budgets(wrong)
    with pytest.raises(AssertionError, match="begins with a line"):
        builds("// nothing\n")


def test_messages_of_ptxas_are_read() -> None:
    log = """ptxas info    : Compiling entry function '_ZN7build1_7softmaxEPKfPf' for 'sm_90'
ptxas info    : Function properties for _ZN7build1_7softmaxEPKfPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 61 registers, used 1 barriers, 8 bytes cumulative stack size, 256 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'plain' for 'sm_75'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 5 registers, 380 bytes cmem[0]
"""
    assert parse(log) == {
        1: {"softmax": {"registers": 61, "spills": 16, "shared": 256}},
        0: {"plain": {"registers": 5, "spills": 0, "shared": 0}},
    }
