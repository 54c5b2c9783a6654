"""The picture of a run: training and validation loss over steps."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any


def loss_plot(records: Sequence[dict[str, Any]], characters_per_token: float | None) -> bytes | None:
    """A PNG of the losses in `metrics.jsonl`, or None without matplotlib (extra `plot`) or without records.

    In bits per character where those are known, else in nats per token.
    """
    if not records:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    unit = "nats per token" if characters_per_token is None else "bits per character"
    scale = 1.0 if characters_per_token is None else 1 / math.log(2) / characters_per_token
    trained = [r for r in records if r["loss"] is not None]  # there is none before the first step
    steps, losses = [r["step"] for r in trained], [r["loss"] * scale for r in trained]
    checked = [(r["step"], r["validation"] * scale) for r in records if "validation" in r]
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="#9db4c0", lw=1, label="training")
    if checked:
        at, values = zip(*checked, strict=True)
        axes.plot(at, values, "o-", color="#c8553d", ms=4, label="validation")
        axes.annotate(f"{values[-1]:.3f}", checked[-1], textcoords="offset points", xytext=(-4, 8), ha="right")
        low = min(*values, *losses)
        axes.set_ylim(low * 0.95, max(values[0], low * 1.5) * 1.1)  # the first steps may leave the picture at the top
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()
