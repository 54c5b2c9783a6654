"""How results are shown: lines about the machine, a table of the cases, their growth and profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .case import OURS

TITLES = ("case", "side", "best", "slowest", "ratio", "by round", "memory", "growth", "share")
COMPILED = ("torch-compile", "jax")
HIDDEN = 0.002
"""Parts of a profile that take less than this share of the step are shown together."""


def seconds(value: float) -> str:
    """A time for people: 12.3 us, 4.56 ms, 1.23 s."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def size(value: float) -> str:
    """Bytes for people, in powers of 1000."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def head(results: Mapping[str, Any]) -> list[str]:
    """What the numbers depend on."""
    m, c, v, s = results["machine"], results["ceilings"], results["versions"], results["settings"]
    blas = ", ".join(f"{b['internal_api']} {b['version']} ({b['architecture']})" for b in m["blas"])
    known = ", ".join(f"{name} {version}" for name, version in v.items() if version is not None)
    lines = [f"machine     {m['cpu']}, {m['cores']} cores; {s['threads']} threads a side unless a case says", known]
    lines[1] = f"versions    {known}"
    lines.append(f"products    {blas or 'unknown library'}")
    if m["openblas_coretype"]:
        lines.append(
            f"            OPENBLAS_CORETYPE={m['openblas_coretype']} is set: it holds NumPy to older kernels than this "
            "processor could run, and its peers to nothing"
        )
    if "matmul" in c:
        lines.append(
            f"ceilings    {c['matmul'] / 1e9:.0f} GFLOP/s in float32 products, {c['copy'] / 1e9:.1f} GB/s read and "
            "written in copies"
        )
    return lines


def table(results: Mapping[str, Any]) -> list[str]:
    """A line for each side that was timed, in columns, and one for each that was not, with its reason."""
    found: list[tuple[str, ...]] = [TITLES]
    for record in results["cases"]:
        own = [_row(side, r) for side, r in record["sides"].items() if r.get("best") is not None]
        own += [(text,) for text in remarks(record)]
        found += [(record["name"] if i == 0 else "", *row) for i, row in enumerate(own or [("not finished",)])]
    widths = [max(len(row[i]) for row in found if len(row) == len(TITLES)) for i in range(len(TITLES))]
    widths[0] = max(len(row[0]) for row in found)
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)).rstrip() for row in found]


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What else is to be said of a case: peers that are not there, compilation, red gates, failures, laws of growth."""
    found = [*record["absent"].values(), *record["broken"].values()]
    for side, r in record["sides"].items():
        if side in COMPILED and "gate_seconds" in r:
            found.append(f"{side}: compiled within the {seconds(r['gate_seconds'])} of its gate, which are not counted")
    for peer, gate in record["gates"].items():
        found += [f"RED, so not timed: {peer}: {text}" for text in gate["red"][:3]]
    if record["status"] == "failed":
        found.append(f"FAILED: {record['error']}")
    for law in record["fits"]:
        found.append(f"{law['curve']}: {law['law']}; worst deviation {100 * law['deviation']:.1f} %")
    return found


def _row(side: str, r: Mapping[str, Any]) -> tuple[str, ...]:
    ratio, over = "", ""
    if "ratio" in r:
        ratio, over = f"{r['ratio']:.2f}", f"{r['ratio_spread'][0]:.2f}-{r['ratio_spread'][1]:.2f}"
    peak = "" if r.get("peak") is None else size(r["peak"])
    growth = "" if r.get("growth") is None else f"+{size(r['growth'])}"
    share = f"{r['share']:.2f}" if "share" in r else ""
    return side, seconds(r["best"]), seconds(r["spread"][1]), ratio, over, peak, growth, share


def findings(results: Mapping[str, Any]) -> list[str]:
    """How the columns are to be read, and the gates."""
    lines = []
    timed = [side for record in results["cases"] for side in record["sides"].values() if side.get("best") is not None]
    if timed:
        lines.append("best, slowest: of the rounds, each by its fastest repetition")
    if any("ratio" in side for side in timed):
        lines.append("ratio: the peer's best time over minilong's, above 1 where minilong is faster")
    if any(side.get("peak") is not None for side in timed):
        lines.append("memory: peak of the process while timed; growth: above what it held once imports were done")
    if any("share" in side for side in timed):
        lines.append("share: of the machine's ceiling, by the work that cannot be avoided")
    gates = [gate for record in results["cases"] for gate in record["gates"].values()]
    if gates:
        green = sum(gate["green"] for gate in gates)
        lines.append(f"gates: {green} of {len(gates)} green (equal results before anything was timed)")
    return lines


def profile_rows(profile: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Part, direction, calls, milliseconds and percent of the step, which they sum to."""
    step, shown, small = profile["step"], [], 0.0
    for row in profile["rows"]:
        if row["seconds"] < HIDDEN * step and row["calls"]:
            small += row["seconds"]
            continue
        shown.append(_profile_row(row["part"], row["direction"], f"{row['calls']:.0f}", row["seconds"], step))
    if small:
        shown.append(_profile_row("smaller parts", "", "", small, step))
    return [*shown, _profile_row("step", "", "", step, step)]


def _profile_row(part: str, direction: str, calls: str, spent: float, step: float) -> tuple[str, ...]:
    return part, direction, calls, f"{1e3 * spent:.2f}", f"{100 * spent / step:.1f}"


def compared(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float, float, float]]:
    """Case, peer, ratio, and the least and most of it, where there is a ratio."""
    return [
        (record["name"], side, r["ratio"], *r["ratio_spread"])
        for record in records
        for side, r in record["sides"].items()
        if side != OURS and "ratio" in r
    ]
