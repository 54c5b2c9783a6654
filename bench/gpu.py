"""minilong beside PyTorch on one GPU: `python -m bench.gpu [CASE...]`, or `make bench-gpu`. A short table comes last.

The sides of a case have a process each, on the same card; results must agree before anything is timed, and the sides
take turns. Time is of calls that follow one another, waited for at the end of a round; the fastest round counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from . import gpu_report
from .case import Case
from .cases_gpu import GPU, fitted
from .process import Worker
from .registry import PEERS, select
from .results import versions
from .runner import Options, Run

TURNS, ROUNDS, THREADS = 2, 3, 4
TROUBLE = 2
TORCH = """
import json, torch
here = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "here": here}))
"""


class GpuRun(Run):
    """A case whose sides measure several points each, in turns; the record has the best of each point."""

    def time(self, workers: Mapping[str, Worker]) -> None:
        for turn in range(TURNS):
            for side in list(workers)[:: 1 if turn % 2 == 0 else -1]:
                self.report(f"turn {turn + 1}/{TURNS}: {side}")
                found = workers[side].ask("sweep", rounds=self.options.rounds, seconds=self.case.seconds)["points"]
                kept = self.record["sides"][side].setdefault("points", {})
                for point in found:
                    kept[point["name"]] = better(kept.get(point["name"]), point)


def better(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Mapping[str, Any]:
    """The faster of two measurements of a point; one that failed in any turn stays failed."""
    if before is None or "error" in now:
        return now
    return before if "error" in before or before["seconds"] <= now["seconds"] else now


def measure(
    cases: Sequence[Case], peers: Sequence[str], rounds: int, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The records of the cases, as far as Ctrl-C lets them grow."""
    records: list[dict[str, Any]] = []
    for i, case in enumerate(cases):
        options = Options(threads=THREADS, rounds=rounds, pause=0.0)
        title = f"{i + 1}/{len(cases)}  {case.name}"
        run = GpuRun(case, peers, options, lambda text, title=title: report(f"{title}  {text}"))
        records.append(run.record)
        try:
            run()
        except KeyboardInterrupt:
            return records
        report(f"{title}  {run.record['status']}")
    return records


def the_gpu() -> dict[str, Any]:
    """Name, compute capability and memory of the GPU, and CuPy's CUDA. Raises SystemExit where there is none."""
    from minilong.backend.device import found_devices

    found, why = found_devices()
    if not found:
        raise SystemExit(f"no GPU: {why}")
    import cupy

    gpu, runtime = found[0], int(cupy.cuda.runtime.runtimeGetVersion())
    cuda = f"{runtime // 1000}.{runtime % 1000 // 10}"
    return {"name": gpu.name, "capability": gpu.capability, "memory": gpu.total, "free": gpu.free, "cuda": cuda}


def the_torch() -> dict[str, Any]:
    """PyTorch's version and CUDA, asked in a process of its own. Raises SystemExit where it cannot use the GPU."""
    remedy = f"{sys.executable} -m pip install torch; or give --against none"
    if util.find_spec("torch") is None:
        raise SystemExit(f"PyTorch, which is to be measured beside minilong, is not installed; {remedy}")
    asked = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SystemExit(f"PyTorch cannot be imported: {asked.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    if not found["here"]:
        built = f"is built for CUDA {found['cuda']}" if found["cuda"] else "is built without CUDA"
        raise SystemExit(f"PyTorch {found['version']} {built} and finds no GPU; {remedy}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1: a gate is red, or a side failed. 2: there is no GPU, or no PyTorch that uses it."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"names or globs of {', '.join(GPU)} [all]")
    parser.add_argument("--against", default="torch", help="peers, joined by commas: torch, torch-compile; or none")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each point in each turn [%(default)s]")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: the numbers then mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    given = parser.parse_args(arguments)
    chosen, unknown = select(given.cases, GPU)
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; cases are {', '.join(GPU)}")
    if given.list:
        print("\n".join(f"{case.name:<20}{case.about}" for case in chosen))
        return 0
    peers = [] if given.against == "none" else given.against.split(",")
    if strange := [peer for peer in peers if PEERS.get(peer) != "torch"]:
        parser.error(f"--against names {strange[0]!r}; peers are torch and torch-compile, or none")
    try:
        gpu, torch = the_gpu(), the_torch() if peers else None
    except SystemExit as trouble:
        print(trouble, file=sys.stderr)
        return TROUBLE
    cases = [case.shrunk() if given.quick else fitted(case, gpu["free"]) for case in chosen]
    records = measure(cases, peers, given.rounds, lambda line: print(line, file=sys.stderr, flush=True))
    results = {
        "kind": "minilong bench gpu",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": {"against": peers, "rounds": given.rounds, "quick": given.quick},
        "gpu": gpu,
        "torch": torch,
        "versions": versions(),
        "cases": records,
    }
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", "utf-8")
    print("\n".join(gpu_report.lines(results)))
    return 0 if all(record["status"] == "timed" and not record["broken"] for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
