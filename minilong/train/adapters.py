"""The files of a run of adapters: which run they belong to, and the adapters themselves.

`adapter.json` names the run whose weights are adapted by a path relative to this run and by an absolute one, and by the
checksum of the file of its weights. Whichever path leads to a run with that very file is taken; another is an error. So
a base that was moved together with its adapters is found, and one that learnt on is never mistaken for itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilong.errors import UserError
from minilong.nn.lora import Adapter
from minilong.train import checkpoint as ck
from minilong.train.arrays import arrays_in
from minilong.train.files import Disk
from minilong.train.run import RunFolder
from minilong.train.snapshot import Snapshot

if TYPE_CHECKING:
    from minilong.train.loaded import LoadedRun

ABOUT, ADAPTER, BEST_ADAPTER = "adapter.json", "adapter.safetensors", "best_adapter.safetensors"


@dataclass(frozen=True)
class Base:
    """The run that adapters belong to. alpha: see `nn/lora.py`. file: whose weights, with sha256."""

    path: str
    absolute: str
    file: str
    sha256: str
    alpha: float

    @staticmethod
    def of(path: Path, alpha: float, out: Path) -> Base:
        """The base at `path` for adapters in `out`, its best weights."""
        with RunFolder.open(path) as run:
            file = best_weights(run)
            relative = os.path.relpath(path.resolve(), out.resolve())
            return Base(relative, str(path.resolve()), file, run.sha256(file), alpha)

    def to_json(self) -> bytes:
        """`adapter.json`."""
        return json.dumps(asdict(self), indent=1).encode()

    def found(self, out: Path) -> Path:
        """Where the base is, seen from the adapters' folder. UserError where it is gone, or is not what it was."""
        for path in (out / self.path, Path(self.absolute)):
            if path.is_dir() and self._fits(path):
                return path
        raise UserError(
            f"{out} adapts the run {self.absolute}, which is gone or has other weights than it had; "
            f"put it back there, or at {out / self.path}"
        )

    def load(self, out: Path) -> LoadedRun:
        """The base opened, low-bit weights decoded."""
        from minilong.train.loaded import load  # which needs this module

        path = self.found(out)
        return load(path, "best" if self.file in (ck.BEST, BEST_ADAPTER) else "last", decode=True)

    def _fits(self, path: Path) -> bool:
        """Whether a run's manifest has that file; `load` verifies it."""
        held = Snapshot.take(Disk(), path)
        entry = None if held is None else held.manifest.files.get(self.file)
        return entry is not None and entry.sha256 == self.sha256


def best_weights(run: RunFolder) -> str:
    """The file of the weights of the best validation, or of the last step where none was measured."""
    return next(name for name in (BEST_ADAPTER, ADAPTER, ck.BEST, ck.MODEL) if name in run.files)


def read_base(run: RunFolder) -> Base:
    """What `adapter.json` of a run says."""
    values = json.loads(run.read(ABOUT))
    kinds = {"path": str, "absolute": str, "file": str, "sha256": str, "alpha": float}
    if not isinstance(values, dict) or {k: type(v) for k, v in values.items()} != kinds:
        raise UserError(f"{run.path / ABOUT} does not say which run is adapted; restore it from a copy of the run")
    return Base(**values)


def adapters_of(run: RunFolder, name: str) -> dict[str, Adapter]:
    """The adapters of a file, by the paths of their layers."""
    source = str(run.path / name)
    arrays, _ = arrays_in(run.map(name), source)
    paths = sorted({key.rpartition(".")[0] for key in arrays})
    if {f"{path}.{part}" for path in paths for part in "ab"} != set(arrays):
        raise UserError(f"{source} does not hold two factors for each layer; restore it from a copy of the run")
    return {path: Adapter(arrays[f"{path}.a"], arrays[f"{path}.b"]) for path in paths}


def require_elsewhere(path: Path, out: Path) -> None:
    """UserError where a new run would take the place of the run that it comes from, or of one that that one adapts."""
    while True:
        if path.resolve() == out.resolve():
            raise UserError(f"{out} is what is fine-tuned, or part of it, and never written to; choose another --out")
        with RunFolder.open(path) as run:
            if ABOUT not in run.files:
                return
            path = read_base(run).found(path)
