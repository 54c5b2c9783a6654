"""The picture of a run: ratios with their spread and a line at 1, and the curves of growth beside what they must be."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from .report import compared

COLOURS = {"torch": "#c8553d", "torch-compile": "#588b8b", "jax": "#3d5a80", "transformers": "#8a6f9e"}
MEASURED, PREDICTED = "#3d5a80", "#9db4c0"
RATIO_HEIGHT, CURVE_HEIGHT = 0.3, 3.4


def picture(results: Mapping[str, Any]) -> bytes | None:
    """A PNG, or None without matplotlib (extra `plot`) or without anything to draw."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    ratios = compared(results["cases"])
    grown = [record for record in results["cases"] if record["points"]]
    if not ratios and not grown:
        return None
    heights = [0.9 + RATIO_HEIGHT * len({name for name, *_ in ratios})] if ratios else []
    heights += [CURVE_HEIGHT] * len(grown)
    figure = Figure(figsize=(8, sum(heights) + 0.4), dpi=120, layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    if ratios:
        _ratios(panels[0], ratios)
    for axes, record in zip(panels[len(panels) - len(grown) :], grown, strict=True):
        (_over_batch if record["name"] == "growth-batch" else _over_length)(axes, record)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="both" if axes is not panels[0] or not ratios else "x")
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


def _ratios(axes: Any, ratios: Sequence[tuple[str, str, float, float, float]]) -> None:
    names = list(dict.fromkeys(name for name, *_ in ratios))
    peers = list(dict.fromkeys(peer for _, peer, *_ in ratios))
    for k, peer in enumerate(peers):
        own = [row for row in ratios if row[1] == peer]
        y = [names.index(name) + 0.22 * (k - (len(peers) - 1) / 2) for name, *_ in own]
        value = [row[2] for row in own]
        # The best times of a side may come from different rounds, so that their ratio can lie outside of the spread.
        low = [max(0.0, row[2] - row[3]) for row in own]
        high = [max(0.0, row[4] - row[2]) for row in own]
        axes.errorbar(value, y, xerr=[low, high], fmt="o", ms=4, lw=1.2, color=COLOURS.get(peer), label=peer)
    axes.axvline(1.0, color="black", lw=1)
    axes.set_xscale("log")
    least, most = min(row[3] for row in ratios), max(row[4] for row in ratios)
    ticks = [
        t
        for t in (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200)
        if min(1, least / 1.6) <= t <= max(1, most * 1.6)
    ]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(min(0.7, least / 1.2), max(1.5, most * 1.2))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("time of the peer / time of minilong (right of 1: minilong is faster)")
    axes.legend(frameon=False, loc="best")


def _over_batch(axes: Any, record: Mapping[str, Any]) -> None:
    (law,) = record["fits"]
    x = [p["x"] for p in record["points"]]
    axes.plot([0, *x], [1e3 * (law["intercept"] + law["slope"] * v) for v in [0, *x]], color=PREDICTED, label="line")
    axes.plot(x, [1e3 * min(p["times"]) for p in record["points"]], "o", color=MEASURED, ms=4, label="measured")
    axes.set_xlabel("batch")
    axes.set_ylabel("ms a step")
    axes.set_ylim(0)
    axes.set_title(f"step over batch: worst deviation from a line {100 * law['deviation']:.1f} %", fontsize=10)
    axes.legend(frameon=False)


def _over_length(axes: Any, record: Mapping[str, Any]) -> None:
    for colour, law in zip((MEASURED, "#c8553d"), record["fits"], strict=True):
        own = [p for p in record["points"] if p["curve"] == law["curve"]]
        x = [p["x"] for p in own]
        axes.plot(x, [p["x"] / min(p["times"]) for p in own], "o", color=colour, ms=4, label=law["curve"])
        predicted = [1 / (law["intercept"] + law["slope"] * v) for v in x]
        axes.plot(
            x,
            predicted,
            color=colour,
            lw=1,
            alpha=0.6,
            label=f"{law['curve']}: {'a + b n' if law['slope'] else 'constant'}",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{v:,}" for v in x])
    axes.minorticks_off()
    axes.set_ylim(0)
    axes.set_xlabel("length in tokens")
    axes.set_ylabel("tokens a second, forward and backward")
    axes.legend(frameon=False)
