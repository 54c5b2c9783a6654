"""The picture of a trace: how large the residual stream is behind each layer, and what is added to it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from minilong.errors import UserError
from minilong.train.trace_records import Record

ADDED = {"attention.output": "attention", "cross.output": "cross-attention", "feed_forward.down": "feed-forward"}
LAYER = re.compile(r"(\w+)\.layers\.(\d+)(?:\.(.+))?")


def stream_plot(records: Sequence[Record]) -> bytes:
    """A PNG of root mean squares by layer. UserError without matplotlib, and for a trace without layers."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('--plot needs matplotlib; pip install "minilong[plot]"') from None
    lines = stream_lines(records)
    if not lines:
        raise UserError("the trace has no layer, so there is nothing to draw; leave out --only")
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), "o-", ms=4, lw=1.5, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("root mean square")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


def stream_lines(records: Sequence[Record]) -> dict[str, list[tuple[int, float]]]:
    """(layer, root mean square) of the stream behind each layer and of what its parts add, by stack and part."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        match = LAYER.fullmatch(record.name)
        if match is None or not record.statistics.rms or match[3] not in (None, *ADDED):
            continue
        part = "stream" if match[3] is None else ADDED[match[3]]
        name = part if match[1] == "stack" else f"{match[1]}, {part}"
        lines.setdefault(name, []).append((int(match[2]), record.statistics.rms))
    return lines
