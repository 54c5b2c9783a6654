"""A picture of word vectors: their two principal components, with labels."""

from __future__ import annotations

import io

import numpy as np

from minilong.embeddings.vectors import Vectors
from minilong.errors import UserError


def principal(x: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, count) along the directions of most variance, and each one's share of it; `eq:principal`.

    A direction's sign is such that its largest component is positive.
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    total = float(np.sum(spread**2))
    return centred @ (directions * signs[:, None]).T, spread[:count] ** 2 / (total or 1.0)


def picture(vectors: Vectors, words: list[str]) -> bytes:
    """A PNG of some words by the principal components of their unit vectors. UserError without matplotlib."""
    try:
        from matplotlib import font_manager
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a picture needs matplotlib; install it: pip install 'minilong[plot]'") from None
    if len(words) < 3:
        raise UserError(f"a picture of {len(words)} words shows nothing; give 3 or more")
    places, shares = principal(vectors.unit[[vectors.row(word) for word in words]])
    fonts = {font.name for font in font_manager.fontManager.ttflist}
    chinese = [name for name in ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "SimHei", "PingFang SC") if name in fonts]
    if not chinese and any(ord(c) > 0x2E80 for word in words for c in word):
        raise UserError("no font with Chinese characters was found; install one, such as Noto Sans CJK")
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.scatter(places[:, 0], places[:, 1], s=14, color="#c8553d")
    for word, place in zip(words, places, strict=True):
        axes.annotate(
            word.replace("$", r"\$"), place, textcoords="offset points", xytext=(4, 3), fontsize=9,
            fontfamily=["DejaVu Sans", *chinese],
        )  # fmt: skip
    axes.set_xlabel(f"{100 * shares[0]:.0f}% of the variance")
    axes.set_ylabel(f"{100 * shares[1]:.0f}% of the variance")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()
