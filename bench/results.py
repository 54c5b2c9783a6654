"""What a run of the benchmark leaves: the machine, versions, ceilings, and every case with what follows from its times.

All is plain JSON. `assemble` may be called at any moment; cases that were not finished say so.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .case import OURS
from .growth import fit
from .registry import PEERS

FORMAT = 1
LIBRARIES = ("minilong", "numpy", "scipy", "threadpoolctl", "torch", "jax", "transformers")


def assemble(
    records: Sequence[Mapping[str, Any]], ceilings: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole of a run. ceilings: as often as they were measured; the best counts."""
    best = {key: max(c[key] for c in ceilings) for key in ("matmul", "copy")} if ceilings else {}
    return {
        "format": FORMAT,
        "kind": "minilong bench",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
        "machine": machine(ceilings[0]["blas"] if ceilings else []),
        "versions": versions(),
        "ceilings": {**best, "measured": [{key: c[key] for key in ("matmul", "copy")} for c in ceilings]},
        "cases": [completed(record, best) for record in records],
    }


def completed(record: Mapping[str, Any], ceilings: Mapping[str, float]) -> dict[str, Any]:
    """A record with `best`, `spread` and `share` of each side, and the `ratio` and its spread of each peer."""
    sides = {}
    for name, side in record["sides"].items():
        bests = [r["best"] for r in side["rounds"]]
        found = {"best": min(bests, default=None), "spread": [min(bests), max(bests)] if bests else None}
        if bests and record["work"] is not None and ceilings:
            rate = record["work"]["amount"] / min(bests)
            found["share"] = rate / ceilings[record["work"]["ceiling"]]
        sides[name] = {**side, **found}
    ours = sides.get(OURS, {}).get("rounds", [])
    for name, side in sides.items():
        if name != OURS and ours and side["rounds"]:
            each = [b["best"] / a["best"] for a, b in zip(ours, side["rounds"], strict=False)]
            side["ratio"] = side["best"] / sides[OURS]["best"]
            side["ratio_spread"] = [min(each), max(each)]
    return {**record, "sides": sides, "fits": fit(record["name"], record["points"]) if record["points"] else []}


def machine(blas: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What the times depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "memory": _total_memory(),
        "blas": list(blas),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
    }


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return found or platform.machine()


def versions() -> dict[str, str | None]:
    """Of Python and of the libraries; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def good(record: Mapping[str, Any]) -> bool:
    """Whether a case was measured as asked: gates green, nothing failed. A peer that is not installed is no failure."""
    return record["status"] == "timed" and not record["broken"]


def absent_peers(peers: Sequence[str], installed: Mapping[str, bool]) -> dict[str, str]:
    """Peers that are not installed, and what to do."""
    remedy = 'not installed; pip install "minilong[bench]"'
    return {peer: f"{peer}: {remedy}" for peer in peers if not installed[PEERS[peer]]}


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
