"""Tables, picture and findings of the experiment on extension, all of them functions of its results."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from minilong.experiments.extension import METHODS, NAME
from minilong.experiments.results import Band, Report, Table

FLUENT, BREAKS, RECALLS = 0.1, 0.5, 0.5
"""Nats per token above the window's up to which a method is fluent, and from which on it breaks; and the share of the
recall within the trained context that counts as recall beyond it."""
VERDICTS = (
    "extends memory", "extends memory, less fluent", "fluent only", "neither fluent nor memory",
    "fluent; memory not told", "less fluent; memory not told", "breaks",
)  # fmt: skip
WINDOW, PLAIN = "window + sinks", "plain"


def methods(results: dict[str, Any]) -> list[str]:
    """Those that were measured, in the order of the table."""
    there = {cell["settings"]["method"] for cell in results["cells"]}
    return [method.name for method in METHODS if method.name in there]


def of(results: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """The results of a method, one for each text."""
    return [cell["result"] for cell in results["cells"] if cell["settings"]["method"] == method]


def ends(results: dict[str, Any]) -> list[int]:
    """The lengths, in tokens."""
    return [int(end) for end in results["cells"][0]["result"]["losses"]]


def trained(results: dict[str, Any]) -> int:
    """The context that the run was trained at."""
    return int(results["cells"][0]["settings"]["trained"])


def loss(results: dict[str, Any], method: str, end: int) -> Band | None:
    """Nats per token at the positions before a length, over the texts."""
    return Band.of([one["losses"][str(end)] for one in of(results, method)])


def recall(
    results: dict[str, Any], method: str, end: int, *, beyond: int = -1, within: int = 1 << 62
) -> tuple[int, int]:
    """Numbers that were told right at a length, and how many were asked for, of those further away than `beyond`."""
    asked = [answer for one in of(results, method) for answer in one["answers"][str(end)]]
    asked = [answer for answer in asked if beyond < answer[0] <= within]
    return sum(right == count for _, right, count in asked), len(asked)


def tables(results: dict[str, Any]) -> list[Table]:
    """Loss by position, passkeys by length, and recall by distance with the verdict."""
    at, names, context = ends(results), methods(results), trained(results)
    starts = [0, *at[:-1]]
    spans = [f"{a:,} to {b:,}" for a, b in zip(starts, at, strict=True)]
    losses = [[name, *(_shown(loss(results, name, end)) for end in at), _bytes(results, name)] for name in names]
    found = [[name, *(_share(*recall(results, name, end)) for end in at)] for name in names]
    far = [
        [
            name,
            _share(*recall(results, name, at[-1], within=context)),
            _share(*recall(results, name, at[-1], beyond=context)),
            verdict(results, name),
        ]
        for name in names
    ]
    return [
        Table(f"nats per token by position, trained at {context:,}", ["method", *spans, "bytes"], losses),
        Table("passkeys told, by the length of the text", ["method", *(f"{end:,}" for end in at)], found),
        Table(
            f"passkeys told after {at[-1]:,} tokens, by distance",
            ["method", f"up to {context:,}", f"beyond {context:,}", "verdict"],
            far,
        ),
    ]


def _shown(value: Band | None) -> str:
    return "-" if value is None else str(value)


def _share(right: int, asked: int) -> str:
    return f"{100 * right / asked:.0f}% of {asked}" if asked else "-"


def _bytes(results: dict[str, Any], name: str) -> str:
    return f"{np.mean([one['bytes'] for one in of(results, name)]) / 1e6:,.1f} MB"


def verdict(results: dict[str, Any], method: str) -> str:
    """What the figures say of a method beyond the trained context: does it predict, and does it remember."""
    at, context = ends(results), trained(results)
    last = loss(results, method, at[-1])
    base = loss(results, WINDOW, at[-1]) if WINDOW in methods(results) else loss(results, PLAIN, context)
    if last is None or base is None or last.mean > base.mean + BREAKS:
        return "breaks"
    fluent = last.mean <= base.mean + FLUENT
    right, asked = recall(results, method, at[-1], beyond=context)
    least = _least(results)
    if least is None or not asked:
        return "fluent; memory not told" if fluent else "less fluent; memory not told"
    if right / asked >= least:
        return "extends memory" if fluent else "extends memory, less fluent"
    return "fluent only" if fluent else "neither fluent nor memory"


def _least(results: dict[str, Any]) -> float | None:
    """The share of passkeys that counts as recall; None where the run tells too few within its own context."""
    shares = [
        right / asked
        for right, asked in (recall(results, PLAIN, end) for end in ends(results) if end <= trained(results))
        if asked
    ]
    return RECALLS * max(shares) if shares and max(shares) >= RECALLS / 2 else None


def findings(results: dict[str, Any]) -> list[str]:
    """Which methods extend memory and which only fluency, with the numbers on which that rests."""
    at, context, names = ends(results), trained(results), methods(results)
    said = []
    least = _least(results)
    for kind in VERDICTS:
        own = [name for name in names if verdict(results, name) == kind]
        if own:
            said.append(f"{kind}: {'; '.join(_evidence(results, name, at[-1], context) for name in own)}")
    if least is None:
        said.append(
            f"the run tells too few passkeys within its trained {context:,} tokens to say who remembers beyond; a "
            "model that learnt to copy is needed for that"
        )
    else:
        said.append(
            f"fluent: the last tokens' loss is at most {FLUENT} nats above the window's (from {BREAKS} on it breaks); "
            f"memory: at least {100 * least:.0f}% of the passkeys further away than {context:,} tokens"
        )
    if WINDOW in names and least is not None:
        right, asked = recall(results, WINDOW, at[-1], beyond=context)
        loss_of = loss(results, WINDOW, at[-1])
        if asked and loss_of is not None:
            said.append(
                f"fluency is not memory: {WINDOW} reads its last tokens at {loss_of.mean:.3f} nats, and tells {right} "
                f"of {asked} passkeys that lie behind its window"
            )
    return said


def _evidence(results: dict[str, Any], name: str, end: int, context: int) -> str:
    last = loss(results, name, end)
    right, asked = recall(results, name, end, beyond=context)
    told = f", {right} of {asked}" if asked else ""
    return f"{name} ({last.mean:.3f} nats{told})" if last is not None else name


def picture(results: dict[str, Any]) -> bytes | None:
    """A PNG: loss over the position, and passkeys over the length; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(14, 5), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    context, at, top = trained(results), ends(results), 0.0
    for i, name in enumerate(methods(results)):
        curves = np.array([[y if y is not None else np.nan for _, y in one["curve"]] for one in of(results, name)])
        xs, ys = [x for x, _ in of(results, name)[0]["curve"]], curves.mean(axis=0)
        left.plot(xs, ys, color=f"C{i}", lw=1.4, label=name)
        inside = ys[np.asarray(xs) <= context]
        top = max(top, float(np.nanmax(inside, initial=0.0)) if np.isfinite(inside).any() else 0.0)
        shares = [(end, *recall(results, name, end)) for end in at]
        points = [(end, 100 * told / asked) for end, told, asked in shares if asked]
        right.plot(
            [x for x, _ in points], [y for _, y in points], color=f"C{i}", marker="os^v<>DPX"[i % 9], ms=5, lw=1.4
        )
    for axes in (left, right):
        axes.axvline(context, color="#999999", lw=0.8, ls=":")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(top=top + 2)
    left.set_xlabel(f"position, tokens (trained at {context:,})")
    left.set_ylabel("nats per token")
    right.set_xlabel("length of the text, tokens")
    right.set_ylabel("passkeys told, %")
    right.set_ylim(-3, 103)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(data, format="png")
    return data.getvalue()


REPORT = Report(NAME, tables, findings, picture)
