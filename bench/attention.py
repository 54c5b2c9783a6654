"""Blockwise attention beside PyTorch's fused kernel: time forward and backward, what a window saves, and memory.

    python -m bench.attention                      all of it: some minutes
    python -m bench.attention --parts speed --rounds 9

Float32, batch 1, 8 heads of 64, causal, two threads each. Both are timed in turn in one process, and the best of the
rounds counts, which is what a kernel costs when nothing else runs on the machine. Nothing is timed unless the kernel
agrees with the definition and with PyTorch first. Needs `pip install minilong[bench]` for the peer.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch

from minilong.attention import Blockwise, DistanceBias, Mask, naive
from minilong.autodiff import vjp

HEADS, WIDTH, THREADS = 8, 64, 2
LENGTHS = (512, 2048, 8192, 16384)
WINDOW, WINDOW_LENGTH = 512, 32768
MEMORY_LENGTH, MEMORY_LIMIT = 65536, 64.0
KERNEL = Blockwise(threads=THREADS)
Arrays = list[np.ndarray]


def arrays(n: int, *, heads: int = HEADS, dtype: Any = np.float32) -> Arrays:
    """Queries, keys, values and a cotangent, (1, heads, n, WIDTH), normally distributed."""
    rng = np.random.default_rng(n)
    return [rng.standard_normal((1, heads, n, WIDTH)).astype(dtype) for _ in range(4)]


def ours(xs: Arrays, mask: Mask, kernel: Callable[..., Any] = KERNEL, bias: Any = None) -> Arrays:
    """Output and cotangents of queries, keys and values."""
    y, pull = vjp(lambda q, k, v: kernel(q, k, v, mask=mask, bias=bias), *xs[:3])
    return [y, *pull(xs[3])]


def theirs(xs: Arrays) -> Arrays:
    """The same by PyTorch, causal."""
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in xs[:3])
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    y.backward(torch.from_numpy(xs[3]))
    return [y.detach().numpy(), *(x.grad.numpy() for x in (q, k, v))]


def gate() -> bool:
    """Whether the kernel equals the definition in float64, for several masks, and PyTorch in float32."""
    worst, values = 0.0, np.random.default_rng(0).standard_normal((2, 300))
    for mask in (Mask(causal=True), Mask(), Mask(causal=True, window=200), Mask(causal=True, window=99, sinks=3)):
        for bias in (None, DistanceBias(values)):
            xs = arrays(701, heads=2, dtype=np.float64)
            pairs = zip(ours(xs, mask, bias=bias), ours(xs, mask, naive, bias), strict=True)
            worst = max(worst, *(float(np.abs(a - b).max()) for a, b in pairs))
    xs = arrays(1024)
    peer = max(float(np.abs(a - b).max()) for a, b in zip(ours(xs, Mask(causal=True)), theirs(xs), strict=True))
    print(f"gate: definition (float64) to {worst:.1e}, PyTorch (float32) to {peer:.1e}")
    return worst < 1e-11 and peer < 1e-4


def best(rounds: int, *calls: Callable[[], Any]) -> list[float]:
    """The least seconds of each call, called in turn."""
    times = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = perf_counter()
            call()
            times[i] = min(times[i], perf_counter() - start)
    return times


def speed(rounds: int) -> bool:
    """Forward and backward beside PyTorch; scores that need a running maximum as well, as trained models have."""
    causal, good = Mask(causal=True), True
    print(f"{'n':>7} {'ours ms':>10} {'large scores':>13} {'PyTorch ms':>11} {'ratio':>7} {'ratio, large':>13}")
    for n in LENGTHS:
        xs = arrays(n)
        large = [xs[0] * 6, *xs[1:]]
        turns = rounds * max(1, 2048 // n)
        mine, mine_large, peer = best(
            turns, lambda xs=xs: ours(xs, causal), lambda xs=large: ours(xs, causal), lambda xs=xs: theirs(xs)
        )
        ratios = peer / mine, peer / mine_large
        good &= ratios[0] >= 1.0
        print(
            f"{n:>7,} {mine * 1e3:>10.1f} {mine_large * 1e3:>13.1f} {peer * 1e3:>11.1f}"
            f" {ratios[0]:>7.2f} {ratios[1]:>13.2f}",
            flush=True,
        )
    return good


def window(rounds: int) -> bool:
    """What a window saves against full causal attention of the same length."""
    xs = arrays(WINDOW_LENGTH)
    (near,) = best(rounds, lambda: ours(xs, Mask(causal=True, window=WINDOW)))
    (full,) = best(1 if rounds < 5 else 2, lambda: ours(xs, Mask(causal=True)))
    print(
        f"window {WINDOW} at {WINDOW_LENGTH:,}: {near:.3f} s, full causal {full:.1f} s, {full / near:.1f} times faster"
    )
    return full / near >= 20


def memory(_: int) -> bool:
    """Peak of forward and backward beyond inputs, output and cotangents of the inputs."""
    xs = arrays(MEMORY_LENGTH)
    tracemalloc.start()
    start = perf_counter()
    results = ours(xs, Mask(causal=True))
    seconds = perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    extra = (peak - sum(x.nbytes for x in results)) / 2**20
    scores = HEADS * MEMORY_LENGTH**2 * 4 / 2**30
    print(
        f"memory at {MEMORY_LENGTH:,}: {extra:.1f} MiB beyond inputs, output and cotangents (limit {MEMORY_LIMIT:.0f});"
        f" one table of scores would take {scores:.0f} GiB; {seconds:.0f} s"
    )
    return extra <= MEMORY_LIMIT


PARTS = {"speed": speed, "window": window, "memory": memory}


def main() -> int:
    """Run the parts that are asked for; 1 where one misses its target or the gate is shut."""
    parser = argparse.ArgumentParser(description="Blockwise attention beside PyTorch's.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    if not gate():
        print("the kernel is wrong: nothing is timed")
        return 1
    results = [PARTS[part](options.rounds) for part in options.parts]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
