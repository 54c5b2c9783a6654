"""What a session does besides resuming: seeds, threads, dropout, budgets, divergence, refusals, learning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_faults import memory_folder
from tiny_runs import TEXT, cheap, contents, copy, differing, ignore, lm, never, train

import minilong.train.session as sessions
from minilong.data.vocabulary import BOS
from minilong.errors import Diverged, UserError
from minilong.train.checkpoint import read_config
from minilong.train.loaded import load
from minilong.train.loop import Progress
from minilong.train.presets import preset
from minilong.train.replicas import Replicas
from minilong.train.run import RunFolder
from minilong.train.source import open_source
from minilong.train.translate import exact_match


@pytest.fixture(scope="module", autouse=True)
def cheap_runs() -> Iterator[None]:
    with cheap():
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture
def text(folder: Path) -> Path:
    path = folder / "book.txt"
    path.write_text(TEXT)
    return path


# Seeds and threads


@pytest.mark.parametrize("task", ["lm", "copy"])
@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_bits(task: str, threads: int, text: Path, folder: Path) -> None:
    changes: dict[str, Any] = {"train__threads": threads, "model__dropout": 0.2, "train__accumulate": 2}
    config = lm(text, **changes) if task == "lm" else copy(**changes)
    train(config, folder / "a")
    train(config, folder / "b")
    assert differing(folder / "a", folder / "b") == []


def test_another_seed_gives_another_run(text: Path, folder: Path) -> None:
    train(lm(text, train__seed=1), folder / "a")
    train(lm(text, train__seed=2), folder / "b")
    assert {"model.safetensors", "optimizer.safetensors", "metrics.jsonl"} <= set(differing(folder / "a", folder / "b"))


def test_the_number_of_threads_is_recorded(text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilong.train.config.available_threads", lambda: 3)
    session = sessions.start(lm(text, train__threads=0), folder / "run")
    session.run(ignore, lambda: session.state.step >= 2)
    monkeypatch.setattr("minilong.train.config.available_threads", lambda: 1)  # resumed on a smaller machine
    resumed = sessions.resume(folder / "run")
    assert resumed.config.train.threads == 3
    resumed.run(ignore, never)
    with RunFolder.open(folder / "run") as run:
        assert read_config(run).train.threads == 3


def test_dropout_differs_between_steps_parts_and_replicas_and_is_a_function_of_the_step(
    text: Path, folder: Path
) -> None:
    # The same rows in every place of every batch: what differs between two gradients is the dropout alone.
    session = sessions.start(lm(text, model__dropout=0.5, train__batch=4), folder / "run")
    one = session.source.batch(0).shards(4)[0]
    keys: list[Any] = []
    batch = replace(one, inputs=np.repeat(one.inputs, 4, axis=0), targets=np.repeat(one.targets, 4, axis=0))
    session.source = replace(session.source, batch=lambda step: batch, loss=noting(session.source.loss, keys))

    def gradient(step: int, threads: int, accumulate: int) -> np.ndarray:
        session.config = replace(session.config, train=replace(session.config.train, accumulate=accumulate))
        with Replicas(threads, session.layout) as replicas:
            return session.gradient(replicas, step)[1].copy()

    assert np.array_equal(gradient(3, 1, 1), gradient(3, 1, 1))
    assert not np.array_equal(gradient(3, 1, 1), gradient(4, 1, 1))
    keys.clear()
    gradient(3, 2, 2)
    assert len(set(keys)) == 4  # two parts of two replicas each


def noting(loss: Callable[..., Any], keys: list[Any]) -> Callable[..., Any]:
    def noted(model: Any, batch: Any, *, key: Any = None, denominator: float | None = None) -> Any:
        keys.append(key)
        return loss(model, batch, key=key, denominator=denominator)

    return noted


def test_validation_is_without_dropout_and_weighted_by_tokens(text: Path, folder: Path) -> None:
    session = sessions.start(lm(text, model__dropout=0.5), folder / "run")
    batches = [*session.source.validation, session.source.validation[0].shards(2)[0]]
    with Replicas(2, session.layout) as replicas:
        measured = session.mean_loss(replicas, batches)
        assert measured == session.mean_loss(replicas, batches)
    rows = [
        (float(session.source.loss(session.model, row)), row.tokens)
        for batch in batches
        for row in batch.shards(len(batch.inputs))
    ]
    assert measured == pytest.approx(sum(loss * n for loss, n in rows) / sum(n for _, n in rows), rel=1e-5)


# Records and saves


def test_records_reports_and_saves_come_when_they_are_due(text: Path, folder: Path) -> None:
    config = lm(text, train__steps=7, train__eval_every=3, train__save_every=2, train__log_every=4)
    reports: list[Progress] = []
    outcome = sessions.start(config, folder / "run").run(reports.append, never)
    assert [p.step for p in reports] == list(range(1, 8))
    assert [p.step for p in reports if p.validation is not None] == [3, 6, 7]
    assert [p.step for p in reports if p.saved] == [2, 4, 6, 7]
    lines = contents(folder / "run")["metrics.jsonl"]
    assert [(line["step"], "validation" in line) for line in lines] == [(3, True), (4, False), (6, True), (7, True)]
    assert outcome.step == 7
    assert not outcome.interrupted
    assert outcome.validation_loss == reports[-1].validation
    assert outcome.train_loss == reports[-1].loss
    assert outcome.bits_per_character == reports[-1].bits_per_character
    assert outcome.bits_per_character == pytest.approx(reports[-1].validation / np.log(2), rel=0.02)


def test_best_holds_the_weights_of_the_lowest_validation(text: Path, folder: Path) -> None:
    config = lm(text, train__lr=1.0, train__steps=8, train__schedule="constant", train__seed=3)
    session = sessions.start(config, folder / "run")
    weights: dict[int, np.ndarray] = {}
    validations: dict[int, float] = {}

    def report(progress: Progress) -> None:
        weights[progress.step] = session.vector.copy()
        if progress.validation is not None:
            validations[progress.step] = progress.validation

    session.run(report, never)
    best = min(validations, key=lambda step: validations[step])
    assert best != 8  # such a learning rate: the last validation is not the best
    for name, step in (("best", best), ("last", 8)):
        loaded = load(folder / "run", name)
        assert loaded.step == step
        vector = session.layout.gather(loaded.model, np.empty_like(session.vector))
        assert np.array_equal(vector, weights[step])


def test_a_longer_total_goes_on_from_a_complete_run(text: Path, folder: Path) -> None:
    train(lm(text, train__steps=3), folder / "run")
    with pytest.raises(UserError, match=r"is complete with 3 steps; give a larger --steps"):
        sessions.resume(folder / "run")
    with pytest.raises(UserError, match=r"is complete with 3 steps"):
        sessions.resume(folder / "run", steps=2)
    assert sessions.resume(folder / "run", steps=5).run(ignore, never).step == 5
    assert sessions.resume(folder / "run", steps=6).config.train.steps == 6


def test_a_budget_gives_the_steps_that_fit(text: Path, folder: Path) -> None:
    short, long = (sessions.start(lm(text), folder / str(b), budget=b) for b in (2.0, 200.0))
    assert sessions.LEAST_BUDGET_STEPS <= short.config.train.steps < long.config.train.steps
    assert long.estimate.seconds is not None
    assert 100 < long.estimate.seconds < 400
    assert long.estimate.steps == long.config.train.steps
    assert short.config.train.warmup <= short.config.train.steps // 10
    assert not (folder / "2.0").exists()  # nothing is written before `run`


def test_the_time_of_a_step_and_of_a_validation_is_taken_from_usual_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of sentences differ in length, and those of the validation come from the shortest to the longest."""
    steps: list[int] = []
    measured: list[Any] = []
    gradient, mean_loss = sessions.Session.gradient, sessions.Session.mean_loss
    monkeypatch.setattr(
        sessions.Session, "gradient", lambda self, r, step: [steps.append(step), gradient(self, r, step)][1]
    )
    monkeypatch.setattr(
        sessions.Session, "mean_loss", lambda self, r, some: [measured.extend(some), mean_loss(self, r, some)][1]
    )
    (folder / "long.txt").write_text(TEXT * (20_000 // len(TEXT)))
    session = sessions.start(lm(folder / "long.txt", train__threads=2), folder / "run")
    batches = session.source.validation
    assert len(batches) > 3
    assert len(set(steps)) == len(steps) == 1 + sessions.TRIALS
    places = [next(i for i, batch in enumerate(batches) if batch is one) for one in measured]
    assert places == [(len(batches) - 2) // 2, (len(batches) - 2) // 2 + 1]


# Divergence


def test_the_remedies_of_divergence_are_not_what_the_run_does_already(text: Path, folder: Path) -> None:
    messages = {
        clip: str(sessions.start(lm(text, train__clip=clip), folder / "run").diverged("x", 3)) for clip in (0, 1, 9)
    }
    assert [clip for clip, message in messages.items() if "train.clip = 1" in message] == [0, 9]
    assert "train.clip = 1" in messages[0].rpartition("; ")[2]


def test_a_diverging_run_stops_and_its_last_save_stays_finite(text: Path, folder: Path) -> None:
    session = sessions.start(lm(text, train__lr=1e10, train__save_every=1, train__steps=50), folder / "run")
    with np.errstate(all="ignore"), pytest.raises(Diverged) as caught:
        session.run(ignore, never)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert f"diverged at step {session.state.step + 1} " in message
    assert message.endswith("try a lower --lr (such as 0.001) or a longer train.warmup")  # it clips already
    with RunFolder.open(folder / "run") as run:
        assert f"the save of step {run.step} in {folder / 'run'} is finite and stays" in message
    for weights in ("best", "last"):
        model = load(folder / "run", weights).model
        assert np.isfinite(session.layout.gather(model, np.empty_like(session.vector))).all()


@pytest.mark.parametrize("what", ["loss", "gradient", "validation", "weights at a validation", "weights at a save"])
def test_what_is_not_finite_is_never_saved(what: str, text: Path, folder: Path) -> None:
    config = lm(text, model__tied=False, train__steps=6, train__save_every=3, train__eval_every=2)
    session = sessions.start(config, folder / "run")
    gradient, mean_loss = session.gradient, session.mean_loss
    unread = session.layout.slices(session.vector)["input.tokens.table"][BOS]  # a row that no loss reads

    def bad_gradient(replicas: Replicas, step: int) -> tuple[float, np.ndarray]:
        loss, g = gradient(replicas, step)
        if step == 4:
            if what == "loss":
                loss = np.inf
            if what == "gradient":
                g[3] = np.nan
            if what == "weights at a save":
                unread[:] = np.inf
        if step == 3 and what == "weights at a validation":
            unread[:] = np.nan
        return loss, g

    def bad_mean_loss(replicas: Replicas, batches: Any) -> float:
        value = mean_loss(replicas, batches)
        return np.nan if what == "validation" and session.state.step == 4 else value

    session.gradient, session.mean_loss = bad_gradient, bad_mean_loss  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"step 3 in .* is finite and stays; try a lower --lr") as caught:
        session.run(ignore, never)
    named = {"loss": 5, "gradient": 5, "validation": 4, "weights at a validation": 4, "weights at a save": 6}[what]
    assert f"diverged at step {named} " in str(caught.value)
    saved = contents(folder / "run")
    assert saved["state.json"]["step"] == 3
    assert sessions.resume(folder / "run").run(ignore, never).step == 6  # the fault was not the run's own
    train(config, folder / "whole")
    assert differing(folder / "run", folder / "whole") == []


# Refusals, before anything is written


def test_refusals_leave_what_is_there(text: Path, folder: Path) -> None:
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "notes").write_text("mine")
    train(lm(text, train__steps=1), folder / "run")
    before = contents(folder / "run")
    for name, fact in (("file", "is a file"), ("full", "is not empty"), ("run", "holds a run already")):
        with pytest.raises(UserError, match=fact):
            sessions.start(lm(text), folder / name)
    with pytest.raises(UserError, match="is not empty"):
        sessions.start(lm(text), folder / "full", replace=True)
    with pytest.raises(UserError):
        sessions.start(lm(folder / "missing.txt"), folder / "run", replace=True)
    assert (folder / "file").read_text() == (folder / "full" / "notes").read_text() == "mine"
    assert contents(folder / "run") == before
    assert sessions.start(lm(text, train__steps=2), folder / "run", replace=True).run(ignore, never).step == 2


def test_a_run_cannot_be_resumed_twice_at_once(text: Path, folder: Path) -> None:
    session = sessions.start(lm(text), folder / "run")
    session.run(ignore, lambda: session.state.step >= 1)
    held = sessions.resume(folder / "run")
    with pytest.raises(UserError, match="is being written by process"):
        sessions.resume(folder / "run")
    assert held.run(ignore, never).step == 6


def test_a_failed_resume_lets_go_of_the_run(text: Path, folder: Path) -> None:
    session = sessions.start(lm(text), folder / "run")
    session.run(ignore, lambda: session.state.step >= 1)
    hidden = text.rename(folder / "elsewhere.txt")
    with pytest.raises(UserError, match=r"book\.txt"):
        sessions.resume(folder / "run")
    hidden.rename(text)
    assert sessions.resume(folder / "run").run(ignore, never).step == 6


# Learning


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_language_model_learns_a_repeated_text(optimizer: str, schedule: str, text: Path, folder: Path) -> None:
    config = lm(
        text,
        model__width=32,
        model__context=16,
        train__steps=150,
        train__batch=16,
        train__eval_every=150,
        train__save_every=150,
        train__warmup=10,
        train__optimizer=optimizer,
        train__schedule=schedule,
        train__weight_decay=1e-4 if optimizer == "adam" else 0.1,
    )
    outcome = train(config, folder / "run")
    assert outcome.validation_loss is not None
    assert outcome.validation_loss < 0.4  # log(29) = 3.4 at the start; the text repeats, so it can be learnt by heart
    assert outcome.train_loss < 0.6


@pytest.mark.slow
def test_the_copy_preset_cut_small_learns_to_copy(folder: Path) -> None:
    config = preset("copy")
    config = replace(
        config,
        data=replace(config.data, min_length=1, max_length=4),
        model=replace(config.model, width=32, layers=1),
        train=replace(config.train, steps=400, batch=32, lr=5e-3, eval_every=400, save_every=400, threads=2),
    )
    outcome = train(config, folder / "run")
    assert outcome.accuracy is not None
    assert outcome.accuracy >= 0.95
    loaded = load(folder / "run")
    batches = open_source(config).validation
    assert exact_match(loaded.model, batches, loaded.tokenizer) == outcome.accuracy


def test_a_sample_of_each_task(text: Path, folder: Path) -> None:
    session = sessions.start(lm(text), folder / "lm")
    assert session.sample(5, "the ").startswith("the ")
    assert len(session.sample(7)) == 7
    source, arrow, _ = sessions.start(copy(), folder / "copy").sample(5).partition("\n-> ")
    assert arrow
    assert 2 <= len(source) <= 5


def test_the_metrics_file_is_json_lines_with_seconds_that_grow(text: Path, folder: Path) -> None:
    train(lm(text), folder / "run")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert [set(line) - {"validation"} for line in lines] == [{"step", "loss", "lr", "gradient_norm", "seconds"}] * 6


def test_a_run_whose_text_was_edited_is_not_resumed(folder: Path) -> None:
    book = folder / "book.txt"
    book.write_text(TEXT, encoding="utf-8")
    stopped: list[Progress] = []
    sessions.start(lm(book), folder / "run").run(stopped.append, lambda: bool(stopped))
    book.write_text(TEXT.replace("fox", "ofx"), encoding="utf-8")  # as long, and of the same alphabet
    with pytest.raises(UserError, match="changed since the run was started"):
        sessions.resume(folder / "run")
    book.write_text(TEXT, encoding="utf-8")
    assert sessions.resume(folder / "run").state.step == 1
