"""The picture of a per-position evaluation: bits per token over the position in the window."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from minilong.errors import UserError

POINTS = 64


def position_plot(positions: Sequence[float], counts: Sequence[int], trained: int) -> bytes:
    """A PNG of the mean bits of a token at each position; a line marks the context of training.

    Beyond 64 positions, neighbours share a point: their mean, weighted by counts. UserError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('--plot needs matplotlib; pip install "minilong[plot]"') from None
    places, bits = pooled(positions, counts)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(places, bits, color="#c8553d", lw=1.5)
    if trained < len(positions):
        axes.axvline(trained, color="#9db4c0", lw=1, ls="--")
        axes.annotate("trained", (trained, axes.get_ylim()[1]), textcoords="offset points", xytext=(4, -12))
    axes.set_xlabel("position in the window")
    axes.set_ylabel("bits per token")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


def pooled(positions: Sequence[float], counts: Sequence[int], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` groups of neighbouring positions: their mean position and weighted mean loss."""
    losses, weights = np.asarray(positions, np.float64), np.asarray(counts, np.float64)
    parts = np.array_split(np.arange(len(weights)), min(points, len(weights)))
    places = [np.average(part, weights=weights[part]) for part in parts]
    return np.array(places), np.array([np.average(losses[part], weights=weights[part]) for part in parts])
