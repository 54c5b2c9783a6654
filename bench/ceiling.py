"""What this machine can do at most: a large matrix product, a large copy, by threads of a single-threaded library.

A share of such a ceiling says how much of a computation's time is work that cannot be avoided, whoever computes it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

MATRIX, BYTES = 2048, 1 << 28
SMALL_MATRIX, SMALL_BYTES = 128, 1 << 16


def measure(threads: int, *, repeats: int = 5, quick: bool = False) -> dict[str, Any]:
    """`matmul` in floating-point operations a second (float32), `copy` in bytes a second, read and written; and what
    computed: the matrix libraries that are loaded."""
    n, size = (SMALL_MATRIX, SMALL_BYTES) if quick else (MATRIX, BYTES)
    numbers = np.random.default_rng(0)
    with threadpool_limits(1):
        a, b = (numbers.standard_normal((n, n), np.float32) for _ in range(2))
        out = [np.empty((n, n), np.float32) for _ in range(threads)]
        flops = 2 * n**3 * threads / best(lambda i: np.matmul(a, b, out=out[i]), threads, repeats)
        sources = [np.ones(size // 4 // threads, np.float32) for _ in range(threads)]
        targets = [np.ones_like(x) for x in sources]
        moved = sum(2 * x.nbytes for x in sources)
        copied = moved / best(lambda i: np.copyto(targets[i], sources[i]), threads, repeats)
    return {"matmul": flops, "copy": copied, "blas": libraries()}


def best(work: Callable[[int], Any], threads: int, repeats: int) -> float:
    """The least seconds in which all threads did their part once."""
    least = float("inf")
    for _ in range(repeats):
        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        least = min(least, time.perf_counter() - begin)
    return least


def libraries() -> list[dict[str, str]]:
    """Name, version and kernels of the matrix libraries of this process."""
    wanted = ("internal_api", "version", "architecture")
    return [{key: str(x.get(key)) for key in wanted} for x in threadpool_info() if x["user_api"] == "blas"]


def held_to() -> str | None:
    """The processor that OPENBLAS_CORETYPE tells NumPy's matrix library to take this one for."""
    return os.environ.get("OPENBLAS_CORETYPE")
