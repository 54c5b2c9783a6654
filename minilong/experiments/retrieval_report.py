"""Tables, picture and findings of the retrieval experiment, all of them functions of its results."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from minilong.experiments.results import Band, Report, Table, finding
from minilong.experiments.retrieval import NAME
from minilong.experiments.retrieval_tasks import TASKS

MEASURES = {"at_1": "among 1", "at_10": "among 10", "reciprocal": "mean 1/place"}


def rows(results: dict[str, Any]) -> dict[tuple[str, str], dict[tuple[str, str], Band]]:
    """By method and way to pool: bands over the seeds of each measure of each search, as the experiment orders them."""
    found: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for cell in results["cells"]:
        settings = cell["settings"]
        method = Path(settings["run"]).name if settings["method"] == "run" else settings["method"]
        for variant, tasks in cell["result"]["variants"].items():
            own = found.setdefault((method, variant), {})
            for task, measures in tasks.items():
                for measure, value in measures.items():
                    own.setdefault((task, measure), []).append(value)
    return {name: {key: _band(values) for key, values in own.items()} for name, own in found.items()}


def _band(values: list[float]) -> Band:
    band = Band.of(values)
    assert band is not None, "every measure of every cell is a number"
    return band


def tables(results: dict[str, Any]) -> list[Table]:
    """A table for each search: all methods and ways to pool, the best mean reciprocal rank first, and chance."""
    found, made = rows(results), []
    for task, what in TASKS.items():
        order = sorted(found, key=lambda name: -found[name][task, "reciprocal"].mean)
        lines = [[*name, *(str(found[name][task, measure]) for measure in MEASURES)] for name in order]
        result = results["cells"][0]["result"]
        lines.append(["chance", "", *(f"{result['chance'][task][measure]:.3f}" for measure in MEASURES)])
        asked, candidates = result["counts"][task]
        caption = f"{task}: {what} ({asked} queries, {candidates} candidates)"
        made.append(Table(caption, ["method", "vectors", *MEASURES.values()], lines))
    return made


def findings(results: dict[str, Any]) -> list[str]:
    """What is known of such vectors, and what the numbers say: "not reproduced" where they say otherwise."""
    found = rows(results)
    said = []
    for task in TASKS:

        def at(method: str, variant: str, task: str = task) -> float:
            return found[method, variant][task, "reciprocal"].mean

        first, glove = at("mlm", "first"), at("glove", "mean")
        said.append(
            finding(
                first < glove,
                f"{task}: BERT's [CLS] finds less than the mean of GloVe vectors (Reimers and Gurevych 2019): MRR "
                f"{first:.3f} and {glove:.3f}",
            )
        )
        mean = at("roberta", "mean")
        said.append(
            finding(mean > at("roberta", "first"), f"{task}: of RoBERTa's states the mean ({mean:.3f}) finds more than "
            f"the first ({at('roberta', 'first'):.3f})")
        )  # fmt: skip
        trained = max(at(m, v) for m, v in found if m == "roberta" and not v.startswith("untrained"))
        words = max(at(m, v) for m, v in found if m == "glove")
        best = max(found, key=lambda name: at(*name))
        said.append(
            f"{task}: the best pooling of RoBERTa has {trained:.3f}, of GloVe {words:.3f}, of TF-IDF "
            f"{at('tf-idf', 'words'):.3f}; the best of all is {best[0]} ({best[1]}) with {at(*best):.3f}"
        )
    return said


def picture(results: dict[str, Any]) -> bytes | None:
    """A PNG: mean reciprocal ranks as bars, a panel for each search; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    found = rows(results)
    figure = Figure(figsize=(13, 2 + 0.24 * len(found)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    first = next(iter(TASKS))
    order = sorted(found, key=lambda name: found[name][first, "reciprocal"].mean)
    methods = list(dict.fromkeys(method for method, _ in found))
    for axes, (task, what) in zip(panels, TASKS.items(), strict=True):
        bands = [found[name][task, "reciprocal"] for name in order]
        colours = [f"C{methods.index(method) % 10}" for method, _ in order]
        axes.barh([f"{m}: {v}" for m, v in order], [band.mean for band in bands], color=colours)
        axes.hlines(range(len(bands)), [b.least for b in bands], [b.most for b in bands], color="black", lw=1)
        axes.axvline(results["cells"][0]["result"]["chance"][task]["reciprocal"], color="grey", ls=":")
        axes.set_title(what)
        axes.set_xlabel("mean reciprocal rank (dotted: chance)")
        axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


REPORT = Report(NAME, tables, findings, picture)
