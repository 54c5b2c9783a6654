"""What was measured on a GPU, as a short table: ratios above 1 mean that minilong is the faster one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .case import OURS
from .report import seconds, size

Record = Mapping[str, Any]


def lines(results: Mapping[str, Any]) -> list[str]:
    """Head, then a table for each kind of case, then what did not work."""
    records = results["cases"]
    found = [*head(results), ""]
    for part in (steps(records), attention(records), operations(records)):
        if len(part) > 1:
            found += [*columns(part), ""]
    found += troubles(records)
    if results["settings"]["quick"]:
        found.append("these are the numbers of a quick run, which mean nothing")
    return found


def head(results: Mapping[str, Any]) -> list[str]:
    """What the numbers depend on."""
    gpu, torch, known = results["gpu"], results["torch"], results["versions"]
    beside = "" if torch is None else f"; torch {torch['version']}, CUDA {torch['cuda']}"
    found = [
        f"GPU         {gpu['name']}, compute capability {gpu['capability']}, {size(gpu['memory'])}",
        f"versions    python {known['python']}, numpy {known['numpy']}, minilong on CUDA {gpu['cuda']}{beside}",
        "ratio       time of PyTorch / time of minilong",
    ]
    if torch is not None and torch["cuda"] and torch["cuda"].partition(".")[0] != gpu["cuda"].partition(".")[0]:
        found.append("            the two are built for different CUDA majors: install the other extra of minilong")
    return found


def steps(records: list[Record]) -> list[tuple[str, ...]]:
    """A row for each side of each training step."""
    rows: list[tuple[str, ...]] = [("training step", "batch", "side", "time", "tokens/s", "TFLOP/s", "memory", "ratio")]
    for record in timed(records, "gpu-step"):
        s, work = record["settings"], record["work"]["amount"]
        for side, points in sides(record):
            point = points["step"]
            memory = "" if point.get("memory") is None else size(point["memory"])
            rate = f"{s['batch'] * s['length'] / point['seconds']:,.0f}"
            flops = f"{work / point['seconds'] / 1e12:.1f}"
            against = ratio(record, side, "step")
            title = record["name"].removeprefix("gpu-") if side == OURS else ""
            rows.append((title, str(s["batch"]), side, seconds(point["seconds"]), rate, flops, memory, against))
    return rows


def attention(records: list[Record]) -> list[tuple[str, ...]]:
    """A row for each type, width and direction: ratios by length, and the rates of both sides at the longest."""
    rows: list[tuple[str, ...]] = []
    for record in timed(records, "gpu-points"):
        points = [p for p in record["settings"]["points"] if "backward" in p]
        lengths = sorted({p["shape"][2] for p in points})
        if points and not rows:
            rows.append(("attention", "head", "", *(f"{n:,}" for n in lengths), "TFLOP/s", "PyTorch's"))
        groups: dict[tuple[str, ...], dict[int, Any]] = {}
        for p in points:
            key = p["dtype"], str(p["shape"][3]), "both" if p["backward"] else "forward"
            groups.setdefault(key, {})[p["shape"][2]] = p
        peer = next((side for side, _ in sides(record) if side != OURS), None)
        for key, by_length in groups.items():
            last = by_length[lengths[-1]]
            ratios = ("" if peer is None else ratio(record, peer, by_length[n]["name"]) for n in lengths)
            rates = (rate(record, side, last, 1e12) for side in (OURS, peer))
            rows.append((*key, *ratios, *rates))
    return rows


def operations(records: list[Record]) -> list[tuple[str, ...]]:
    """A row for each operation and type."""
    rows: list[tuple[str, ...]] = [("operation", "shape", "time", "GB/s", "PyTorch's", "ratio")]
    for record in timed(records, "gpu-points"):
        peer = next((side for side, _ in sides(record) if side != OURS), None)
        for p in record["settings"]["points"]:
            if "operation" in p:
                point = record["sides"][OURS]["points"][p["name"]]
                took = "failed" if "error" in point else seconds(point["seconds"])
                rates = (rate(record, side, p, 1e9) for side in (OURS, peer))
                against = "" if peer is None else ratio(record, peer, p["name"])
                rows.append((p["name"], " x ".join(f"{n:,}" for n in p["shape"]), took, *rates, against))
    return rows


def timed(records: list[Record], kind: str) -> Iterator[Record]:
    """The records of a kind that have points of minilong's side."""
    return (r for r in records if r["kind"] == kind and r["sides"].get(OURS, {}).get("points"))


def sides(record: Record) -> list[tuple[str, Mapping[str, Any]]]:
    """The sides that have points."""
    return [(name, side["points"]) for name, side in record["sides"].items() if side.get("points")]


def ratio(record: Record, side: str, name: str) -> str:
    """The side's time over minilong's."""
    ours, theirs = (record["sides"][s]["points"].get(name, {}) for s in (OURS, side))
    if side == OURS or "seconds" not in ours or "seconds" not in theirs:
        return "" if side == OURS else "-"
    return f"{theirs['seconds'] / ours['seconds']:.2f}"


def rate(record: Record, side: str | None, point: Mapping[str, Any], unit: float) -> str:
    """Work of a point over the side's time."""
    if side is None:
        return ""
    found = record["sides"][side]["points"].get(point["name"], {})
    return f"{point['work'] / found['seconds'] / unit:.3g}" if "seconds" in found else "-"


def troubles(records: list[Record]) -> list[str]:
    """Gates that are red, sides and points that failed; or that all gates are green."""
    found = []
    for record in records:
        name = record["name"]
        if record["status"] == "unfinished":
            found.append(f"{name}: not finished")
        if record["status"] == "failed":
            found.append(f"{name}: FAILED: {record['error']}")
        found += [f"{name}: {peer} FAILED: {text}" for peer, text in record["broken"].items()]
        for peer, gate in record["gates"].items():
            found += [f"{name}: RED, so not timed: {peer}: {text}" for text in gate["red"][:3]]
        for side, points in sides(record):
            found += [f"{name}: {side}: {p['name']}: {p['error']}" for p in points.values() if "error" in p]
    gates = [gate["green"] for record in records for gate in record["gates"].values()]
    return [*found, f"gates       {sum(gates)} of {len(gates)} green: results agreed before they were timed"]


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows in columns: text to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {i for i, title in enumerate(rows[0]) if title in ("training step", "side", "attention", "operation", "")}
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
