"""Tables, picture and findings of the extrapolation experiment, all of them functions of its results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from minilong.experiments.extrapolation import NAME, ROWS, SCALINGS, SINKS
from minilong.experiments.results import Band, Report, Table, finding

WAYS = ("side by side", "overlapping")
EXPLOSION, FLAT, CLEAR = 0.5, 0.05, 0.01
"""Bits per character that count as an explosion, as flat, and as a difference at all."""


def band(results: dict[str, Any], row: str, way: str, length: int, *, method: str | None = None) -> Band | None:
    """Bits per character of a row (or of a scaling method) over all seeds; None where it cannot read."""
    values = []
    for cell in results["cells"]:
        part = cell["result"]["scaling"].get(method) if method else cell["result"]["rows"].get(row)
        if part:
            values.append(part[way][str(length)])
    return Band.of(values)


def tables(results: dict[str, Any]) -> list[Table]:
    """Bits per character by scheme and length for both ways of reading, then context scaling."""
    settings = results["settings"]
    found: list[Table] = []
    for way in WAYS:
        caption = f"bits per character, windows {way}"
        rows = [[row, *(_shown(band(results, row, way, n)) for n in settings["lengths"])] for row in ROWS]
        found.append(Table(caption, ["position", *map(str, settings["lengths"])], rows))
    lengths = [settings["context"] * factor for factor in settings["factors"]]
    titles = ["scaling", *(f"{n} ({f}x)" for n, f in zip(lengths, settings["factors"], strict=True))]
    for way in WAYS:
        rows = [[name, *(_shown(band(results, "", way, n, method=name)) for n in lengths)] for name in SCALINGS]
        found.append(Table(f"a trained rotary model beyond {settings['context']}, windows {way}", titles, rows))
    return found


def _shown(value: Band | None) -> str:
    return "-" if value is None else str(value)


def findings(results: dict[str, Any]) -> list[str]:
    """What the numbers say of what was published, each with the numbers; "not reproduced" where they say otherwise."""
    settings = results["settings"]
    first, last = settings["context"], max(n for n in settings["lengths"] if n <= 16 * settings["context"])

    def at(row: str, way: str, length: int) -> float:
        value = band(results, row, way, length)
        assert value is not None, "every row but the learned one reads all lengths"
        return value.mean

    def rise(row: str, way: str = "side by side") -> float:
        return at(row, way, last) - at(row, way, first)

    sinus, alibi = rise("sinusoidal"), rise("alibi")
    gain, left = -alibi, -rise("alibi", "overlapping")
    window, sinks = rise("rotary, window"), rise("rotary, window + sinks")
    order = sorted((row for row in ROWS if row != "learned"), key=lambda row: at(row, "overlapping", last))
    said = [
        finding(
            sinus > EXPLOSION,
            f"sinusoidal positions explode: {sinus:+.3f} bits from {first} to {last} "
            f"({at('sinusoidal', 'side by side', first):.3f} to {at('sinusoidal', 'side by side', last):.3f})",
        ),
        finding(
            alibi < FLAT and sinus > EXPLOSION,
            f"ALiBi stays flat: {alibi:+.3f} bits from {first} to {last} "
            f"({at('alibi', 'side by side', first):.3f} to {at('alibi', 'side by side', last):.3f})",
        ),
        finding(
            gain > CLEAR and left < gain / 2,
            f"the early-token curse: from {first} to {last} ALiBi gains {gain:.3f} bits with windows side by side, "
            f"and {left:.3f} with overlapping ones",
        ),
        finding(
            sinks < window - CLEAR,
            f"sinks save a window: the rotary model read in a window of {first} changes by {window:+.3f} bits, "
            f"with {SINKS} sinks by {sinks:+.3f}",
        ),
        f"at {last}, overlapping: {'; '.join(f'{row} {at(row, WAYS[1], last):.3f}' for row in order)}",
    ]
    for factor in settings["factors"]:
        found = {m: band(results, "", "overlapping", first * factor, method=m) for m in SCALINGS}
        means = {m: value.mean for m, value in found.items() if value is not None}
        best = min(means, key=lambda m: means[m])
        gained = means["plain"] - means[best]
        said.append(f"scaling at {factor}x: {best} is best with {means[best]:.3f}, {gained:.3f} below plain rotary")
    return said


def picture(results: dict[str, Any]) -> bytes | None:
    """A PNG: both ways of reading by length, and scaling by length, with bands; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    settings = results["settings"]
    figure = Figure(figsize=(16, 5.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, way in zip(panels, WAYS, strict=False):
        for i, row in enumerate(ROWS):
            _curve(axes, settings["lengths"], [band(results, row, way, n) for n in settings["lengths"]], row, i)
        axes.set_title(f"windows {way}")
    lengths = [settings["context"] * factor for factor in settings["factors"]]
    for i, name in enumerate(SCALINGS):
        found = [band(results, "", "overlapping", n, method=name) for n in lengths]
        _curve(panels[2], lengths, found, name, i)
    panels[2].set_title("rotary, scaled (windows overlapping)")
    for axes, ticks in zip(panels, (settings["lengths"], settings["lengths"], lengths), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.axvline(settings["context"], color="#999999", lw=0.8, ls=":")
        axes.set_xlabel(f"window, characters (trained at {settings['context']})")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[2].legend(frameon=False, fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False, fontsize=8)
    panels[0].set_ylabel("bits per character")
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


def _curve(axes: Any, at: Sequence[int], found: Sequence[Band | None], label: str, number: int) -> None:
    points = [(x, value) for x, value in zip(at, found, strict=True) if value is not None]
    xs = [x for x, _ in points]
    colour, marker = f"C{number}", "os^v<>DPX*"[number % 10]
    axes.plot(xs, [v.mean for _, v in points], color=colour, marker=marker, ms=4, lw=1.4, label=label)
    if len(points) > 1:
        least, most = [v.least for _, v in points], [v.most for _, v in points]
        axes.fill_between(xs, least, most, color=colour, alpha=0.15, lw=0)


REPORT = Report(NAME, tables, findings, picture)
