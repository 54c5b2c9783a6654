"""CUDA kernels: the text of a `.cu` file beside this one, compiled for a type when first needed, and launched.

`launch(xp, "softmax.cu", "softmax", dtype, grid, block, arguments)`. Arguments are device arrays, and scalars of a
NumPy type (`np.int32(n)`): a Python number has no size that a kernel could rely on. Nothing here names CuPy: `xp` does.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
"""What `-DDTYPE=` means in `common.cuh`."""

STATIC_LIMIT = 48 * 1024
"""Bytes of shared memory that a kernel may use without asking for more."""

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


def launch(
    xp: Any,
    source: str,
    name: str,
    dtype: Any,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    arguments: tuple[Any, ...],
    *,
    shared: int = 0,
    defines: tuple[str, ...] = (),
) -> None:
    """Run the kernel `name` of the file `source` on the current stream. shared: bytes of dynamic shared memory.

    defines: further macros, such as "HEAD=64". An empty grid launches nothing.
    """
    if 0 in grid:
        return
    kernel = function(xp, source, name, str(dtype), defines)
    if shared > _granted.get(kernel, STATIC_LIMIT):
        kernel.max_dynamic_shared_size_bytes = _granted[kernel] = shared
    kernel(grid, block, arguments, shared_mem=shared)


_granted: dict[Any, int] = {}
"""The shared memory that each kernel has been allowed: the most yet, since the driver knows the last limit only."""


@cache
def function(xp: Any, source: str, name: str, dtype: str, defines: tuple[str, ...]) -> Any:
    """A compiled kernel, which is loaded when it is first launched."""
    return _module(xp, source, dtype, defines).get_function(name)


@cache
def _module(xp: Any, source: str, dtype: str, defines: tuple[str, ...]) -> Any:
    options = ("-std=c++17", f"-DDTYPE={CODES[dtype]}", *(f"-D{define}" for define in defines))
    return xp.RawModule(code=text(source), options=options)


@cache
def text(source: str) -> str:
    """The file with its includes put in (each once), so that CuPy's cache of compiled kernels sees every change."""
    seen: set[str] = set()

    def put_in(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return _INCLUDE.sub(put_in, (FOLDER / match[1]).read_text("utf-8"))

    return _INCLUDE.sub(put_in, (FOLDER / source).read_text("utf-8"))
