"""Laws of what is saved: what was committed is what is read, damage is found, and a resumed run never stopped."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.autodiff import value_and_grad
from minilong.data.batches import PackedWindows
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import flatten
from minilong.objectives import causal_loss
from minilong.optim import Adam, AdamState, clip
from minilong.train import checkpoint as ck
from minilong.train.arrays import arrays_from_bytes
from minilong.train.files import Disk
from minilong.train.run import RunFolder

kind(
    "store",
    "store(path)",
    "`commit(files)` replaces a state, `files` and `read(name)` give the last one, by a new reader.",
)
kind(
    "resumed", "train(steps, stops, seed)", "Weights and moments after some steps of training, stopped at some of them."
)


class QuickDisk(Disk):
    """Does not wait for the medium: only a loss of power tells the difference."""

    def fsync(self, fd: int) -> None:
        """Nothing."""


class OurStore:
    """Our run folder; each look is a reader of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.fresh = path, True

    def commit(self, files: Mapping[str, bytes]) -> None:
        """One commit, as a process of its own would make it."""
        opened = (
            RunFolder.create(self.path, disk=QuickDisk())
            if self.fresh
            else RunFolder.open(self.path, write=True, disk=QuickDisk())
        )
        self.fresh = False
        with opened as run:
            run.commit(files)

    def content(self) -> dict[str, bytes]:
        """Every file of the last state but the metrics."""
        with RunFolder.open(self.path) as run:
            return {name: run.read(name) for name in run.files if name != "metrics.jsonl"}


subject("store", "RunFolder", code=RunFolder, equation="claim:code-save")(OurStore)


def states(n: Numbers, *, commits: int, size: int) -> dict[str, Any]:
    """Contents of two files by commit; the second is not part of each. And a byte to change."""
    return {
        "commits": [
            {"a.bin": n.rng.bytes(size), **({"b.bin": n.rng.bytes(2 * size)} if n.chance(0.5) else {})}
            for _ in range(commits)
        ],
        "file": int(n.integers(0, 1000)),
        "byte": int(n.integers(0, 100_000)),
        "bit": int(n.integers(0, 8)),
    }


STATES = cases(states, commits=(1, 2, 3), size=(1, 20, 300))


def filled(f: F, c: Case, folder: str) -> tuple[Any, dict[str, bytes]]:
    """A store after all commits, and what should be in it."""
    store: Any = f(Path(folder) / "run")
    expected: dict[str, bytes] = {}
    for files in c["commits"]:
        store.commit(files)
        expected |= files
    return store, expected


@law("store", "last-commit", serves="claim:code-save", cases=STATES, share=0.3)
def last_commit(f: F, c: Case, measure: Measure) -> None:
    """A reader finds the files of the last commit, and of earlier ones those that were not replaced, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        store, expected = filled(f, c, folder)
        found = store.content()
        measure.holds(
            found == expected, f"the files {sorted(found)} differ from what was committed: {sorted(expected)}"
        )


@law("store", "damage-is-found", serves="claim:code-save", cases=STATES, share=0.3)
def damage_is_found(f: F, c: Case, measure: Measure) -> None:
    """One changed bit, in any file of the store, is an error for a reader: never other content."""
    with tempfile.TemporaryDirectory() as folder:
        store, expected = filled(f, c, folder)
        files = [p for p in sorted((Path(folder) / "run").rglob("*")) if p.is_file() and p.name != ".lock"]
        whole = [p for p in files if p.stat().st_size]
        path = whole[c["file"] % len(whole)]
        data = bytearray(path.read_bytes())
        data[c["byte"] % len(data)] ^= 1 << c["bit"]
        path.write_bytes(data)
        try:
            found = store.content()
        except UserError:
            found = None
        measure.holds(found is None, f"a changed bit in {path.name} is not found; read: {found == expected}")


class PlainStore(OurStore):
    """Files in a folder, without checksums."""

    def commit(self, files: Mapping[str, bytes]) -> None:
        """Each file written over the old one."""
        self.path.mkdir(exist_ok=True)
        for name, data in files.items():
            (self.path / name).write_bytes(data)

    def content(self) -> dict[str, bytes]:
        """What lies there."""
        return {p.name: p.read_bytes() for p in sorted(self.path.iterdir())}


class FirstStays(PlainStore):
    """A file that is there is not written again."""

    def commit(self, files: Mapping[str, bytes]) -> None:
        """Only new names."""
        self.path.mkdir(exist_ok=True)
        super().commit({name: data for name, data in files.items() if not (self.path / name).exists()})


mutant(
    "store",
    "no checksums",
    kills="damage-is-found",
    met="plausible: safetensors and PyTorch files as they are; a flipped bit in a weight is read as a weight",
)(PlainStore)
mutant(
    "store",
    "existing files kept",
    kills="last-commit",
    met="plausible: `exist_ok` semantics; the optimiser's file of step 1000 beside the model of step 2000",
)(FirstStays)


# Resuming

TEXT = np.random.default_rng(3).integers(4, 9, 60)
CONFIG = ModelConfig(layers=1, width=8, heads=2, context=6, dropout=0.3).resolved()


class Memory:
    """The files of a run, in memory."""

    path = Path("memory")

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def read(self, name: str) -> bytes:
        """A file."""
        return self.files[name]

    def map(self, name: str) -> memoryview:
        """A file as memory of its own."""
        return memoryview(bytearray(self.files[name]))


Restore = Callable[[Any, np.ndarray, Any, int], tuple[AdamState, int]]


def restored(run: Any, vector: np.ndarray, layout: Any, step: int) -> tuple[AdamState, int]:
    """The optimiser's state and the step, as our checkpoint reads them."""
    return ck.read_optimizer(run, vector, layout, step), step


def trained(restore: Restore = restored, order: Callable[[int, int], int] = lambda step, began: step) -> F:
    """A small run whose state goes through the files of a run folder at each stop."""

    def train(steps: int, stops: list[int], seed: int) -> dict[str, np.ndarray]:
        vector, model, layout = flatten(build(CONFIG, 9, Key.of(seed)))
        optimizer = Adam(weight_decay=0.1, decoupled=True)
        adam, data = optimizer.init(vector), PackedWindows([TEXT], CONFIG.context, separator=None)
        step = began = 0
        while step < steps:
            if step in stops and step != began:
                run: Any = Memory(
                    {
                        ck.MODEL: ck.model_file(vector, layout),
                        ck.OPTIMIZER: ck.optimizer_file(adam, layout),
                        ck.STATE: ck.state_file(ck.State(step=step)),
                    }
                )
                vector, model, layout = flatten(build(CONFIG, 9, Key.of(seed + 1)))
                ck.fill(layout, vector, arrays_from_bytes(run.read(ck.MODEL), "the model"), "the model")
                adam, step = restore(run, vector, layout, int(json.loads(run.read(ck.STATE))["step"]))
                began = step or -1
            batch = data.batch(order(step, began), 2, Key.of(seed).fold("order"))
            key = Key.of(seed).fold("dropout", order(step, began))
            _, gradient = value_and_grad(lambda m, b=batch, k=key: causal_loss(m, b, key=k))(model)
            flat = layout.gather(gradient, np.empty_like(vector))
            clip(flat, 1.0)
            optimizer.step(adam, vector, flat, 1e-2 / (step + 1), decayed=layout.decayed)
            step += 1
        return {"weights": vector, "first": adam.first, "second": adam.second, "steps": np.array(adam.steps)}

    return train


subject("resumed", "checkpoint files", code=ck.read_optimizer, equation="claim:code-save")(trained())


def course(n: Numbers, *, steps: int, stops: int) -> dict[str, Any]:
    """Some steps, and at which of them the run is stopped."""
    return {
        "steps": steps,
        "stops": sorted({int(i) for i in n.integers(1, steps, stops)}),
        "seed": int(n.integers(0, 2**31)),
    }


COURSES = cases(course, steps=(3, 2, 4), stops=(1, 2))


@law("resumed", "never-stopped", serves=("claim:code-save", "claim:batches-pure"), cases=COURSES, share=0.3)
def never_stopped(f: F, c: Case, measure: Measure) -> None:
    """A run that was stopped, saved and resumed has, bit for bit, the weights and moments of one that never stopped."""
    whole, found = f(c["steps"], [], c["seed"]), f(c["steps"], c["stops"], c["seed"])
    for name, a in whole.items():
        measure.close(found[name], a, 0.0, name)


def lost_moments(run: Any, vector: np.ndarray, layout: Any, step: int) -> tuple[AdamState, int]:
    """Moments of zero."""
    return AdamState(np.zeros_like(vector), np.zeros_like(vector), step), step


def lost_count(run: Any, vector: np.ndarray, layout: Any, step: int) -> tuple[AdamState, int]:
    """The optimiser counts from zero."""
    return ck.read_optimizer(run, vector, layout, 0), step


mutant(
    "resumed",
    "moments lost",
    kills="never-stopped",
    met="the article's 5.2 saves the model only: no optimiser, no step, no place in the data",
)(trained(lost_moments))
mutant("resumed", "Adam's step counted anew", kills="never-stopped",
       met="plausible: the bias correction starts again, and the first steps after a resume are ten times too large")(
    trained(lost_count))  # fmt: skip
mutant("resumed", "the data start from the beginning", kills="never-stopped",
       met="plausible: a loader's place is not part of the checkpoint")(
    trained(order=lambda step, began: step - max(began, 0)))  # fmt: skip
