"""Figure 3: a momentum stack run backward without error, and the memory of a gradient against depth.

    python -m bench.depth                          both tables and depth.png: about two minutes
    python -m bench.depth --layers 8 32 128 --out shallow.png

The branches are those of a Transformer layer (width 64, 4 heads, causal, 128 positions, norm before each branch). One
layer's weights stand at every depth, so that what grows with depth is activations and no parameters. Memory is the peak
of value and gradient by tracemalloc, which NumPy reports its arrays to; times are of one run, on one thread.
Nothing is measured unless the backward run is exact and gradients equal those of stored activations first.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from minilong.attention import Mask
from minilong.autodiff import ops, value_and_grad, vjp
from minilong.autodiff.tree import leaves, rebuild
from minilong.keys import Key
from minilong.nn import Dropout, Encoder, EncoderLayer, FeedForward, LayerNorm, MultiHeadAttention, View
from minilong.nn.depth import DEPTHS
from minilong.nn.fixed_point import MomentumState, predicted_bits
from minilong.nn.reversible import run_momentum, stored_twin

WIDTH, HEADS, LENGTH, GAMMA = 64, 4, 128, 0.9
LAYERS = (8, 32, 128, 512)
VIEW = View(mask=Mask(causal=True))
COLOURS = {
    "stored": "#9d4edd",
    "checkpoint": "#c8553d",
    "sqrt": "#e0a458",
    "reversible": "#588157",
    "momentum": "#274c77",
}


def layer(dtype: Any) -> EncoderLayer:
    """A Transformer layer; its writes to the stream are scaled down, as for a stack of some depth."""
    key = Key.of(0)
    made = EncoderLayer(
        MultiHeadAttention.create(key.fold("attention"), WIDTH, HEADS, gain=0.2),
        LayerNorm.create(WIDTH),
        FeedForward.create(key.fold("network"), WIDTH, 4 * WIDTH, gain=0.2),
        LayerNorm.create(WIDTH),
        Dropout(),
        "pre",
    )
    return rebuild(made, iter([x.astype(dtype) for x in leaves(made)]))


def branches(depth: int, dtype: Any) -> list[tuple[Callable[..., Any], Any]]:
    """`depth` branches: attention and feed-forward network in turns."""
    pair = layer(dtype).branches(VIEW, None, None)
    return [pair[i % 2] for i in range(depth)]


def inputs(dtype: Any) -> np.ndarray:
    """One sequence (1, LENGTH, WIDTH)."""
    return np.random.default_rng(0).standard_normal((1, LENGTH, WIDTH)).astype(dtype)


def gate() -> bool:
    """Whether the gradient of 64 branches equals that of stored activations in every bit."""
    stack, x = branches(64, np.float32), inputs(np.float32)
    found = vjp(lambda x: run_momentum(stack, x, gamma=GAMMA), x)[1](x)[0]
    right = vjp(lambda x: stored_twin(stack, x, gamma=GAMMA), x)[1](x)[0]
    return bool(np.array_equal(found, right))


def float_error(depth: int, dtype: Any) -> float:
    """Largest error of x after `depth` branches there and back, by the formula and its inverse in floating point."""
    x = begin = inputs(dtype)
    v = np.zeros_like(x)
    stack = branches(depth, dtype)
    for f, p in stack:
        v = v * GAMMA + f(p, x) * (1 - GAMMA)
        x = x + v
    with np.errstate(all="ignore"):
        for f, p in reversed(stack):
            x = x - v
            v = (v - f(p, x) * (1 - GAMMA)) / GAMMA
        return float(np.max(np.abs(x.astype(np.float64) - begin)))


def exact_error(depth: int) -> tuple[float, int]:
    """The same in fixed point, from float32: the error, and the words of the bit store per element."""
    stack = branches(depth, np.float32)
    state = MomentumState(inputs(np.float32), GAMMA)
    begin = state.read()
    for f, p in stack:
        state.push(f(p, state.read()))
    words = state.words + 1
    for f, p in reversed(stack):
        state.rewind()
        state.pop(f(p, state.read()))
    return float(np.max(np.abs(state.read() - begin))), words


def gradient(depth: str, layers: int) -> tuple[float, float]:
    """Peak MiB and seconds of the value and gradient of a stack with tied weights."""
    one, x = layer(np.float32), inputs(np.float32)

    def loss(weights: EncoderLayer) -> Any:
        return ops.sum(Encoder((weights,) * layers, None, depth=depth, momentum=GAMMA)(x, view=VIEW))

    start = perf_counter()
    value_and_grad(loss)(one)
    seconds = perf_counter() - start
    tracemalloc.start()
    value_and_grad(loss)(one)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20, seconds


def reconstruction(layers: list[int]) -> dict[str, list[float]]:
    """Prints and returns the errors by depth."""
    print(f"error of x after L layers (2 L branches) forward and backward, gamma {GAMMA}")
    print(f"{'layers':>8} {'float32':>10} {'float64':>10} {'fixed':>8} {'bits lost':>10} {'bits kept':>10}")
    rows: dict[str, list[float]] = {"float32": [], "float64": [], "fixed point": []}
    for n in layers:
        single, double = float_error(2 * n, np.float32), float_error(2 * n, np.float64)
        exact, words = exact_error(2 * n)
        lost = predicted_bits(2 * n, GAMMA)
        print(f"{n:>8} {single:>10.2g} {double:>10.2g} {exact:>8.2g} {lost:>10.1f} {64 * words:>10}")
        for name, value in zip(rows, (single, double, exact), strict=True):
            rows[name].append(value)
    return rows


def memory(layers: list[int]) -> dict[str, list[float]]:
    """Prints and returns the peaks by way and depth."""
    print("\npeak MiB (and seconds) of value and gradient, float32")
    print(f"{'layers':>8}" + "".join(f"{how:>18}" for how in DEPTHS))
    rows: dict[str, list[float]] = {how: [] for how in DEPTHS}
    for n in layers:
        cells = []
        for how in DEPTHS:
            peak, seconds = gradient(how, n)
            rows[how].append(peak)
            cells.append(f"{peak:>9.1f} ({seconds:5.2f})".rjust(18))
        print(f"{n:>8}" + "".join(cells))
    return rows


def picture(layers: list[int], errors: dict[str, list[float]], peaks: dict[str, list[float]], path: str) -> None:
    """Both tables as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in (("float32", "#c8553d"), ("float64", "#e0a458"), ("fixed point", "#274c77")):
        left.plot(
            layers, [min(e, 1e38) if e == e else 1e38 for e in errors[name]], "o-", color=colour, ms=4, label=name
        )
    left.set_yscale("symlog", linthresh=1e-16)  # so that an error of 0 has a place
    left.set_ylim(-5e-17, 1e40)
    left.set_yticks([0.0, *(10.0**k for k in range(-16, 40, 8))])
    left.set_ylabel("largest error of x, forward and backward")
    left.set_title(f"momentum {GAMMA}: what comes back (at the top: no number)", fontsize=10)
    for how, values in peaks.items():
        right.plot(layers, values, "o-", color=COLOURS[how], ms=4, label=how)
    right.set_yscale("log")
    right.set_ylabel("MiB at the peak of a gradient")
    right.set_title("what a gradient needs", fontsize=10)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(layers, [str(n) for n in layers])
        axes.set_xlabel("layers (attention and feed-forward network)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    FigureCanvasAgg(figure).print_figure(path)


def main() -> int:
    """Both tables and the picture; 1 where the gate is shut or the backward run is not exact."""
    parser = argparse.ArgumentParser(description="Depth: exact reversal, and memory against depth.")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--out", default="depth.png", help="where the picture goes")
    options = parser.parse_args()
    with threadpool_limits(1):
        if not gate():
            print("gradients differ from those of stored activations: nothing is measured")
            return 1
        errors = reconstruction(options.layers)
        peaks = memory(options.layers)
    picture(options.layers, errors, peaks, options.out)
    print(f"\n{options.out}")
    return 0 if not any(errors["fixed point"]) else 1


if __name__ == "__main__":
    sys.exit(main())
