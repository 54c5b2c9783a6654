"""A run that was stopped and resumed is, bit for bit, the run that never stopped; mutants prove the law sharp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_faults import memory_folder
from tiny_runs import TEXT, Stop, cheap, copy, differing, lm, run_with_stops, train

import minilong.train.session as sessions
from minilong.keys import Key
from minilong.optim import AdamState
from minilong.train import checkpoint as ck
from minilong.train.config import RunConfig
from minilong.train.replicas import Replicas
from minilong.train.run import RunFolder
from minilong.train.session import Session


@pytest.fixture(scope="module", autouse=True)
def cheap_runs() -> Iterator[None]:
    with cheap():
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text(TEXT)
    return path


STOPS = st.lists(
    st.builds(Stop, st.integers(0, 7), st.sampled_from(["between", "gradient", "validation", "crash"])),
    min_size=1,
    max_size=3,
)
CHANGES = st.fixed_dictionaries(
    {
        "model__dropout": st.sampled_from([0.1, 0.5]),
        "model__position": st.sampled_from(["rotary", "learned"]),
        "train__steps": st.integers(2, 7),
        "train__optimizer": st.sampled_from(["adam", "adamw"]),
        "train__schedule": st.sampled_from(["cosine", "linear", "constant"]),
        "train__warmup": st.integers(0, 3),
        "train__clip": st.sampled_from([0.0, 0.5]),
        "train__accumulate": st.integers(1, 3),
        "train__threads": st.integers(1, 2),
        "train__eval_every": st.integers(1, 4),
        "train__save_every": st.integers(1, 4),
        "train__log_every": st.integers(1, 3),
        "train__seed": st.integers(0, 2**40),
    }
)


@given(task=st.sampled_from([lm, copy]), changes=CHANGES, stops=STOPS)
def test_stopped_and_resumed_equals_never_stopped(
    text: Path, task: Callable[..., RunConfig], changes: dict[str, Any], stops: list[Stop]
) -> None:
    config = task(text, **changes) if task is lm else task(**changes)
    with memory_folder() as folder:
        train(config, folder / "whole")
        run_with_stops(config, stops, folder / "stopped")
        assert differing(folder / "whole", folder / "stopped") == []


MANY = [Stop(1, "between"), Stop(3, "gradient"), Stop(4, "validation"), Stop(5, "crash")]


def law(config: RunConfig) -> list[str]:
    with memory_folder() as folder:
        train(config, folder / "whole")
        assert run_with_stops(config, MANY, folder / "stopped") == len(MANY)
        return differing(folder / "whole", folder / "stopped")


def eventful(text: Path) -> RunConfig:
    """A run with dropout whose best validation is not its last."""
    wild: dict[str, Any] = {"train__lr": 1.0, "train__schedule": "constant", "train__seed": 3}
    return lm(text, train__steps=8, train__eval_every=2, train__save_every=2, model__dropout=0.2, **wild)


def test_the_example_that_the_mutants_run_on_satisfies_the_law(text: Path) -> None:
    assert law(eventful(text)) == []


def restarted_batches(patch: pytest.MonkeyPatch) -> None:
    """The data start from the beginning after a resume: an order by position, not by step."""
    original = sessions.resume

    def resume(path: Path) -> Session:
        session = original(path)
        source, first = session.source, session.state.step
        session.source = replace(source, batch=lambda step: source.batch(step - first))
        return session

    patch.setattr(sessions, "resume", resume)


def restarted_dropout(patch: pytest.MonkeyPatch) -> None:
    """One stream of random numbers that is seeded at each start."""
    original = Session.run

    def run(self: Session, *args: Any) -> Any:
        numbers = Key.of(1).generator()

        def gradient(replicas: Replicas, step: int) -> Any:
            parts = self.source.batch(step).shards(1)
            return replicas.gradient(self.source.loss, self.model, parts, Key.of(int(numbers.integers(1 << 30))))

        self.gradient = self.__dict__.get("gradient", gradient)  # type: ignore[method-assign]
        return original(self, *args)

    patch.setattr(Session, "run", run)


def reset_adam_steps(patch: pytest.MonkeyPatch) -> None:
    """The bias correction of Adam starts anew."""
    original = ck.read_optimizer
    patch.setattr(ck, "read_optimizer", lambda run, vector, layout, step: original(run, vector, layout, 0))


def reset_moments(patch: pytest.MonkeyPatch) -> None:
    """Moments are not restored."""

    def read_optimizer(run: RunFolder, vector: np.ndarray, layout: Any, step: int) -> Any:
        return AdamState(np.zeros_like(vector), np.zeros_like(vector), step)

    patch.setattr(ck, "read_optimizer", read_optimizer)


def forget(**values: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """A part of the state is not restored."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = ck.read_state

        def read_state(run: RunFolder) -> ck.State:
            state = original(run)
            for name, value in values.items():
                setattr(state, name, value)
            return state

        patch.setattr(ck, "read_state", read_state)

    return mutate


def skipped_validation(patch: pytest.MonkeyPatch) -> None:
    """A validation that was given up is not made up for."""
    original = ck.read_state

    def read_state(run: RunFolder) -> ck.State:
        state = original(run)
        state.validated_step = state.step
        return state

    patch.setattr(ck, "read_state", read_state)


def unsaved_best(patch: pytest.MonkeyPatch) -> None:
    """The best weights are written where a run ends, but not where it is stopped."""
    original = ck.read_state

    def read_state(run: RunFolder) -> ck.State:
        state = original(run)
        if state.best_validation is not None:
            state.best_validation = 0.0
        return state

    patch.setattr(ck, "read_state", read_state)


def measuring_trains(patch: pytest.MonkeyPatch) -> None:
    """The trial that measures the time of a step leaves its traces in the weights."""

    def measure(self: Session, budget: float | None) -> None:
        self.vector *= np.float32(1 + 1e-6)

    patch.setattr(Session, "measure", measure)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "restarted batches": restarted_batches,
    "restarted dropout": restarted_dropout,
    "reset Adam steps": reset_adam_steps,
    "reset moments": reset_moments,
    "reset smoothed loss": forget(smoothed_loss=None),
    "reset best": forget(best_validation=None, best_step=None),
    "reset step": forget(step=0),
    "skipped validation": skipped_validation,
    "unsaved best": unsaved_best,
    "measuring trains": measuring_trains,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_law_kills_a_resume_that_forgets(mutant: str, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[mutant](monkeypatch)
    assert law(eventful(text)) != []
