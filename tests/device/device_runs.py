"""What must hold of training on a device. Each check takes the device's name: a stand-in and a GPU pass the same."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.backend import CPU, Device, to_host
from minilong.errors import UserError
from minilong.train.config import RunConfig
from minilong.train.session import Session, resume, start

SMALL: dict[str, Any] = {
    "model.layers": 2,
    "model.width": 16,
    "model.heads": 2,
    "model.context": 12,
    "train.batch": 3,
    "train.warmup": 2,
    "train.threads": 1,
    "train.steps": 6,
    "train.eval_every": 6,
    "train.save_every": 3,
    "train.log_every": 1,
}
TEXT = "the quick brown fox jumps over the lazy dog; a wizard's job is to vex chumps.\n" * 9

BOUNDS = {"float32": 1e-5, "tf32": 3e-3, "float16": 1e-2, "bfloat16": 3e-2}
"""Largest relative difference of a loss within a few steps from float32's on the CPU."""


def small(folder: Path, **changes: Any) -> RunConfig:
    """A run that takes milliseconds; changes are named as keys with `__` for the dot."""
    text = folder / "text.txt"
    text.write_text(TEXT, "utf-8")
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return RunConfig.from_flat(SMALL | {"data.text": (str(text),)} | named)


def losses(config: RunConfig, device: Device, steps: int, folder: Path) -> list[float]:
    """The loss of each of the first steps of a new run."""
    return [numbers.loss for numbers in stepped(start(config, folder / "run", device=device), steps)]


def stepped(session: Session, steps: int) -> Iterator[Any]:
    """What each of the first steps found; it is read after each."""
    with session.workers() as workers:
        update = session.update(workers)
        for step in range(steps):
            update.step(step, session.config.train.lr)
            yield update.read()


def apart(found: list[float], right: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, right, strict=True))


def check_precisions(device: str, folder: Path) -> None:
    """Some steps in each precision lose what float32 loses on the CPU, up to the precision; and they do learn."""
    right = losses(small(folder), CPU, 6, folder)
    assert right[-1] < right[0] - 0.05
    for precision, bound in BOUNDS.items():
        found = losses(small(folder, train__precision=precision), Device.of(device), 6, folder)
        assert apart(found, right) <= bound, precision
    other = losses(small(folder, train__seed=2), CPU, 6, folder)
    assert apart(other, right) > 2 * max(BOUNDS.values()), "the bounds would let another run pass"


def check_models(device: str, folder: Path) -> None:
    """Every part of a model that has kernels of its own: norms, activations, positions, shared key heads, windows."""
    kinds: list[dict[str, Any]] = [
        {"model__position": "rotary", "model__normalization": "rms", "model__activation": "swiglu"},
        {"model__position": "alibi", "model__activation": "gelu_tanh", "model__window": 5},
        {"model__position": "t5", "model__activation": "relu", "model__kv_heads": 1},
        {"model__position": "sinusoidal", "model__norm": "post", "model__tied": False},
        {"model__dropout": 0.2, "train__accumulate": 2},
        {
            "task": "copy",
            "model__kind": "encoder-decoder",
            "data__min_length": 2,
            "data__max_length": 5,
            "data__text": (),
        },
    ]
    for kind in kinds:
        config = small(folder, **kind)
        right, found = (losses(config, on, 3, folder) for on in (CPU, Device.of(device)))
        assert apart(found, right) <= BOUNDS["float32"], kind


def check_dropout(device: str, folder: Path) -> None:
    """The same elements are dropped as on the CPU; others would show."""
    config = small(folder, model__dropout=0.3)
    right, found = (losses(config, on, 3, folder) for on in (CPU, Device.of(device)))
    assert apart(found, right) <= BOUNDS["float32"]
    other = losses(replace(config, model=replace(config.model, dropout=0.31)), CPU, 3, folder)
    assert apart(other, right) > 10 * BOUNDS["float32"]


def check_no_waiting(device: str, cupyx: Any, folder: Path) -> None:
    """A step in any precision asks the device for nothing."""
    for precision in BOUNDS:
        session = start(small(folder, train__precision=precision), folder / "run", device=Device.of(device))
        with session.workers() as workers:
            update = session.update(workers)
            update.step(0, 1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                with cupyx.allow_synchronize(False):
                    update.step(1, 1e-3)
            assert math.isfinite(update.read().loss)


def check_saves_cross(device: str, folder: Path) -> None:
    """A run begun here goes on there: the state that is read is the state that was written, and the course is that of
    a run that never moved."""
    there = Device.of(device)
    whole = start(small(folder), folder / "whole")
    whole.run(lambda progress: None, lambda: False)
    for name, first, second in (("up", CPU, there), ("down", there, CPU), ("stay", there, there)):
        begun = start(small(folder), folder / name, device=first)
        done: list[int] = []
        begun.run(lambda progress, done=done: done.append(progress.step), lambda done=done: len(done) >= 3)
        went_on = resume(folder / name, device=second)
        for mine, theirs in zip(state(went_on), state(begun), strict=True):
            assert np.array_equal(mine, theirs), name
        assert went_on.state.step == 3
        outcome = went_on.run(lambda progress: None, lambda: False)
        assert outcome.step == 6
        assert outcome.train_loss == pytest.approx(whole.state.smoothed_loss, rel=1e-5)
        assert outcome.validation_loss == pytest.approx(whole.state.validation, rel=1e-5)
        for mine, theirs in zip(state(went_on), state(whole), strict=True):
            assert np.linalg.norm(mine - theirs) <= 1e-3 * np.linalg.norm(theirs), name


def state(session: Session) -> list[np.ndarray]:
    """Parameters and moments on the host."""
    return [to_host(x) for x in (session.vector, session.adam.first, session.adam.second)]


@contextmanager
def at_most(device: Device, room: int) -> Iterator[None]:
    """A pool that holds what it holds now and so many bytes more."""
    pool = device.xp.get_default_memory_pool()
    pool.free_all_blocks()
    device.limit_memory(pool.total_bytes() + room)
    try:
        yield
    finally:
        pool.set_limit(size=0)


def check_memory(device: str, folder: Path) -> None:
    """A run that fits into the limit trains; one that does not says so, with the remedy, and what was saved stays."""
    there = Device.of(device)
    with at_most(there, 1 << 28):
        assert len(losses(small(folder), there, 2, folder)) == 2
    wide = small(folder, model__width=256, model__context=64, train__batch=64)
    with at_most(there, 1 << 25), pytest.raises(UserError, match=r"the GPU's memory is full .*; the run was predicted"):
        losses(wide, there, 1, folder)
    with at_most(there, 1 << 10), pytest.raises(UserError, match=r"full .*; the run was predicted"):
        start(small(folder), folder / "run", device=there)
    with pytest.raises(UserError, match=r"exceeds the .* GB of"):
        there.limit_memory(there.memory()[1] + 1)


def check_curve(config: RunConfig, device: str, steps: int, folder: Path) -> float:
    """The losses of a run in float32 beside the CPU's, each of some steps; the largest relative difference."""
    right = losses(config, CPU, steps, folder)
    assert right[-1] < right[0]
    return apart(losses(config, Device.of(device), steps, folder), right)
