"""Runs that train in milliseconds, and the law that a stopped and resumed run is the one that never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minilong.train.session as sessions
from minilong.data.tasks import TASKS
from minilong.models.build import build
from minilong.train.checkpoint import read_config, read_state
from minilong.train.config import RunConfig
from minilong.train.files import Disk
from minilong.train.loaded import LoadedRun
from minilong.train.loop import Outcome, Progress
from minilong.train.replicas import Abandoned
from minilong.train.run import RunFolder
from minilong.train.session import Session
from minilong.train.source import train_tokenizer

TEXT = "the quick brown fox jumps over the lazy dog; a wizard's job is to vex chumps.\n" * 9
HELD_OUT = 20

SMALL: dict[str, Any] = {
    "model.layers": 2,
    "model.width": 8,
    "model.heads": 2,
    "model.context": 8,
    "train.steps": 6,
    "train.batch": 4,
    "train.lr": 1e-2,
    "train.warmup": 2,
    "train.eval_every": 2,
    "train.save_every": 3,
    "train.log_every": 1,
    "train.threads": 1,
}
COPY: dict[str, Any] = {"task": "copy", "model.kind": "encoder-decoder", "data.min_length": 2, "data.max_length": 5}


def lm(text: Path, **changes: Any) -> RunConfig:
    """A small language model on a text file; changes are named as keys with `__` for the dot."""
    return RunConfig.from_flat(SMALL | {"data.text": (str(text),)} | dotted(changes))


def copy(**changes: Any) -> RunConfig:
    """A small encoder-decoder on the copy task."""
    return RunConfig.from_flat(SMALL | COPY | dotted(changes))


def dotted(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in changes.items()}


@contextmanager
def cheap() -> Iterator[pytest.MonkeyPatch]:
    """Few held-out pairs, no picture and no waiting for the disk: what takes most of the time of a run of six steps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("copy", "reverse"):
            patch.setitem(TASKS, name, replace(TASKS[name], held_out=HELD_OUT))
        patch.setattr(sessions, "loss_plot", lambda records, characters_per_token: None)
        patch.setattr(Disk, "fsync", lambda self, fd: None)
        yield patch


def train(config: RunConfig, out: Path) -> Outcome:
    """A run from start to end."""
    return sessions.start(config, out).run(ignore, never)


def ignore(progress: Progress) -> None:
    """A report that nobody reads."""


def never() -> bool:
    return False


def untrained(config: RunConfig, text: str, seed: int = 0, scale: float = 1.0) -> LoadedRun:
    """A model with random weights, not a run on disk. scale: of the logits, by the final norm's gain."""
    from minilong.keys import Key

    tokenizer = TASKS[config.task].tokenizer if config.task != "lm" else train_tokenizer(config, [text])
    model: Any = build(config.model, tokenizer.size, Key.of(seed))
    last = model.stack if config.task == "lm" else model.decoder
    np.multiply(last.norm.gain, scale, out=last.norm.gain)
    return LoadedRun(config, model, tokenizer, 0)


# The law


@dataclass(frozen=True)
class Stop:
    """A stop at the first chance from `step` on. where: `between` steps, in a `gradient` or a `validation` (given up
    half-way), or a `crash`: an error after the step, which nobody saves."""

    step: int
    where: str


class Crash(Exception):
    pass


def contents(path: Path) -> dict[str, Any]:
    """Every file of a run but the picture, without what counts seconds."""
    with RunFolder.open(path) as run:
        files: dict[str, Any] = {name: run.read(name) for name in run.files if name != "loss.png"}
    state = json.loads(files["state.json"])
    assert state.pop("seconds") > 0
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return files | {"state.json": state, "metrics.jsonl": lines}


def content_of(path: Path, name: str) -> bytes:
    """One file of a run."""
    with RunFolder.open(path) as run:
        return run.read(name)


def differing(a: Path, b: Path) -> list[str]:
    """The names of the files in which two runs differ."""
    left, right = contents(a), contents(b)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def run_with_stops(config: RunConfig, stops: Sequence[Stop], out: Path) -> int:
    """Train a run that stops, and is resumed after each stop; the number of stops that took place."""
    session, happened = sessions.start(config, out), 0
    for stop in stops:
        if not interrupted(session, stop):
            return happened
        happened += 1
        if complete(out):  # a crash after the last save: there is nothing left to resume
            return happened
        session = sessions.resume(out)
    assert not session.run(ignore, never).interrupted
    return happened


def complete(path: Path) -> bool:
    """Whether the last save of a run is that of its last step, with its validation."""
    with RunFolder.open(path) as run:
        steps, state = read_config(run).train.steps, read_state(run)
    return state.step == state.validated_step == steps


def interrupted(session: Session, stop: Stop) -> bool:
    """Run a session with a stop; whether it stopped before its end."""
    report: Callable[[Progress], None] = ignore
    should_stop: Callable[[], bool] = never
    if stop.where == "between":

        def should_stop() -> bool:
            return session.state.step >= stop.step
    elif stop.where == "crash":

        def report(progress: Progress) -> None:
            if progress.step >= stop.step:
                raise Crash
    else:
        name = "gradient" if stop.where == "gradient" else "mean_loss"
        whole: Callable[..., Any] = getattr(session, name)

        def given_up(*args: Any) -> Any:
            result = whole(*args)
            if session.state.step >= stop.step:
                raise Abandoned
            return result

        setattr(session, name, given_up)
    try:
        return session.run(report, should_stop).interrupted
    except Crash:
        return True
