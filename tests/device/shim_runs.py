"""Launches of the small kernels by which the shim is tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from standin import shim

from minilong.backend.kernels import launch

HERE = Path(__file__).parent
TEXT = launch.text(str(HERE / "kernels_for_shim.cu"))
TURN = (HERE / "turn_for_shim.cu").read_text("utf-8")
OPTIONS = ("-std=c++17", "-DDTYPE=1")
FLOATS = np.arange(1.0, 65.0, dtype=np.float32)
i32, i64 = np.int32, np.int64


def run(name: str, grid: Any, block: Any, *arguments: Any, text: str = TEXT, **kw: int) -> None:
    """A launch of one of the kernels above."""
    sizes = [(n,) if isinstance(n, int) else n for n in (grid, block)]
    shim.compile_kernels(text, OPTIONS).launch(name, *sizes, arguments, **kw)


def every_order(f: Callable[[], object]) -> list[Any]:
    """What f returns in the three orders of threads."""
    results = []
    for order in shim.ORDERS:
        with shim.thread_order(order, 3):
            results.append(f())
    return results


def zeros(n: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(n, dtype)


def aligned() -> np.ndarray:
    """64 floats at a multiple of 16 bytes."""
    memory = np.zeros(80, np.float32)
    return memory[-(memory.ctypes.data // 4) % 4 :][:64]
