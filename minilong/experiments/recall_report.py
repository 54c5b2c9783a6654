"""Tables, picture and findings of the recall experiment, all of them functions of its results."""

from __future__ import annotations

import io
from typing import Any

from minilong.experiments.recall import KINDS, NAME, title
from minilong.experiments.results import Band, Report, Table, finding

SIMILAR, NEAR = 1.05, 0.1
"""Up to how many times the bits of full attention are similar to them, and how near a predicted share must come."""
TASKS = {"mqar": "values of keys", "passkey": "whole numbers"}


def rows(results: dict[str, Any], task: str) -> list[tuple[str, int, dict[str, Band | None]]]:
    """Memory, size, and bands over the seeds of all that was measured, in the order of the experiment."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        settings = cell["settings"]
        if settings["task"] == task:
            found.setdefault((settings["memory"], settings["size"]), []).append(cell["result"])
    return [
        (memory, size, {key: Band.of([one[key] for one in some]) for key in some[0]})
        for (memory, size), some in found.items()
    ]


def tables(results: dict[str, Any]) -> list[Table]:
    """Recall, what reach predicts, bytes, and bits per character: a table for each task."""
    found = []
    for task, what in TASKS.items():
        titles = ["memory", "bytes", "recall", "one layer", "all layers"]
        lines = []
        for memory, size, bands in rows(results, task):
            line = [title(memory, size), f"{mean(bands, 'bytes'):,.0f}"]
            line += [str(bands[key]) for key in ("recall", "one_layer", "stack")]
            lines.append([*line, *([str(bands["digits"]), str(bands["bits"])] if task == "passkey" else [])])
        if task == "passkey":
            titles += ["digits", "bits/char"]
        caption = (
            f"{task}: {what} recalled, rows of {_length(results, task)} tokens; beside it what one layer, or all, see"
        )
        found.append(Table(caption, titles, lines))
    return found


def mean(bands: dict[str, Band | None], key: str) -> float:
    """The mean of what is always measured."""
    value = bands[key]
    assert value is not None, f"{key} is measured in every cell"
    return value.mean


def findings(results: dict[str, Any]) -> list[str]:
    """What the numbers say of what is known, each with the numbers; "not reproduced" where they say otherwise."""
    said = []
    for task in TASKS:
        found = rows(results, task)
        exact = [(title(m, s), b) for m, s, b in found if m != "compressive"]
        forgetful = [name for name, b in exact if mean(b, "recall") < mean(b, "one_layer") - NEAR]
        shown = [
            f"{mean(b, 'one_layer'):.3f} {mean(b, 'recall'):.3f} {mean(b, 'stack'):.3f}"
            for m, _, b in found
            if m == "window"
        ]
        said.append(
            finding(
                not forgetful,
                f"{task}: exact memories recall what one layer sees, or more (windows: one layer, recall, all layers: "
                f"{'; '.join(shown)}){_but(forgetful)}",
            )
        )
        beyond = [title(m, s) for m, s, b in found if mean(b, "recall") > mean(b, "stack") + NEAR]
        said.append(finding(not beyond, f"{task}: no memory recalls more than all its layers see{_but(beyond)}"))
    found = rows(results, "passkey")
    full = next(b for m, _, b in found if m == "full")
    alike = [(m, s, b) for m, s, b in found if mean(b, "bits") < SIMILAR * mean(full, "bits")]
    least = min(alike, key=lambda entry: mean(entry[2], "recall"))
    said.append(
        finding(
            mean(least[2], "recall") < mean(full, "recall") / 2,
            f"perplexity is not memory: {title(least[0], least[1])} has {mean(least[2], 'bits'):.3f} bits per "
            f"character and full attention {mean(full, 'bits'):.3f}, but they recall {mean(least[2], 'recall'):.3f} "
            f"and {mean(full, 'recall'):.3f}",
        )
    )
    return said


def _but(exceptions: list[str]) -> str:
    return f", but for {', '.join(exceptions)}" if exceptions else ""


def picture(results: dict[str, Any]) -> bytes | None:
    """A PNG: recall by bytes for both tasks, and by bits per character; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(16, 5), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (task, key) in zip(panels, (("mqar", "bytes"), ("passkey", "bytes"), ("passkey", "bits")), strict=True):
        found = rows(results, task)
        for i, kind in enumerate(KINDS):
            own = [(s, b) for m, s, b in found if m == kind.name]
            xs, ys = [mean(b, key) for _, b in own], [mean(b, "recall") for _, b in own]
            line = "-" if key == "bytes" else ""
            axes.plot(xs, ys, line, color=f"C{i}", marker="os^vD"[i], ms=7, label=kind.name)
            for x, y, (size, bands) in zip(xs, ys, own, strict=True):
                seen = bands["recall"]
                if seen is not None and seen.most > seen.least:
                    axes.vlines(x, seen.least, seen.most, color=f"C{i}", alpha=0.4)
                if size:
                    axes.annotate(str(size), (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8)
        axes.set_title(f"{task}, {_length(results, task)} tokens")
        axes.set_xlabel("bytes of memory" if key == "bytes" else "bits per character of plain text, same model")
        if key == "bytes":
            axes.set_xscale("log", base=2)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[2].set_title("perplexity is not memory (passkey)")
    panels[0].set_ylabel("share of answers recalled")
    panels[0].legend(frameon=False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


def _length(results: dict[str, Any], task: str) -> int:
    return int(results["settings"][f"{task}_context"])


REPORT = Report(NAME, tables, findings, picture)
