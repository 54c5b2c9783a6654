"""The training loop: step, validate, record, save, report, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilong.optim import Schedule
from minilong.train.recall import task_accuracy
from minilong.train.replicas import Abandoned
from minilong.train.run import RunFolder
from minilong.train.translate import exact_match

if TYPE_CHECKING:
    from minilong.train.replicas import Replicas
    from minilong.train.session import Session
    from minilong.train.worker import DeviceWorker


@dataclass(frozen=True)
class Progress:
    """One report: losses in nats per token, times in seconds. `validation` only where it was just measured."""

    step: int
    steps: int
    loss: float | None
    validation: float | None
    bits_per_character: float | None
    lr: float
    gradient_norm: float
    tokens_per_second: float
    elapsed: float
    remaining: float
    saved: bool


@dataclass(frozen=True)
class Outcome:
    """How a session ended. `accuracy`: share of held-out answers that are right to the last symbol."""

    step: int
    interrupted: bool
    train_loss: float
    validation_loss: float | None
    bits_per_character: float | None
    accuracy: float | None
    path: Path
    seconds: float
    first_validation: float | None = None
    """Of a model that had learnt before: its loss before the first step."""


def train_loop(
    session: Session,
    folder: RunFolder,
    workers: Replicas | DeviceWorker,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    """Train a session to its last step, or until asked to stop, and leave it saved."""
    return _Loop(session, folder, workers, report, should_stop).run()


class _Loop:
    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        workers: Replicas | DeviceWorker,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.s, self.folder, self.workers, self.report, self.should_stop = (
            session,
            folder,
            workers,
            report,
            should_stop,
        )
        train = session.config.train
        self.schedule = Schedule(train.lr, train.steps, train.warmup, train.schedule, train.final_lr)
        self.begin, self.before = time.perf_counter(), session.state.seconds
        self.first_step, self.tokens = session.state.step, 0
        self.saved_step, self.read_step = -1, session.state.step
        self.update = session.update(workers)

    def run(self) -> Outcome:
        s, train, state = self.s, self.s.config.train, self.s.state
        # The loss of a model that has learnt before is measured, and saved, before its first step.
        first = s.measure_first and state.step == 0 and state.best_step is None
        if state.step == 0 and not first:
            self.save()
        # A stop may have come in the middle of a validation; it is made up for, so that nothing depends on the stop.
        pending = first or (state.step > 0 and self.due(train.eval_every) and state.validated_step < state.step)
        interrupted = False
        try:
            while pending or state.step < train.steps:
                if self.should_stop():
                    raise Abandoned
                if not pending:
                    self.step()
                pending = False
                validation = self.validate() if self.due(train.eval_every) else None
                self.record(validation)
                saved = self.due(train.save_every)
                if saved:
                    self.save()
                self.report(self.progress(validation, saved))
        except Abandoned:
            interrupted = True
        if self.saved_step != state.step or interrupted:
            self.save()
        outcome = self.outcome(interrupted)
        if not interrupted:
            s.draw(self.folder)
        return outcome

    def due(self, every: int) -> bool:
        return self.s.state.step % every == 0 or self.s.state.step == self.s.config.train.steps

    def step(self) -> None:
        """One update, and its numbers where they are there, or due to be shown."""
        state, train = self.s.state, self.s.config.train
        state.lr = self.schedule(state.step)
        self.update.step(state.step, state.lr)
        state.step += 1
        self.tokens += self.s.source.tokens_per_step
        if self.update.waits or any(map(self.due, (train.log_every, train.eval_every, train.save_every))):
            self.read()

    def read(self) -> None:
        """Take over the numbers of the last step."""
        numbers, state = self.update.read(), self.s.state
        state.loss, state.gradient_norm, state.smoothed_loss = numbers.loss, numbers.norm, numbers.smoothed
        self.read_step = state.step

    def validate(self) -> float:
        s = self.s
        validation = s.mean_loss(self.workers, s.source.validation)
        if not math.isfinite(validation):
            raise s.diverged(f"the validation loss is {validation}", s.state.step)
        s.state.validation, s.state.validated_step = validation, s.state.step
        s.remember_best(validation)
        return validation

    def record(self, validation: float | None) -> None:
        state = self.s.state
        if validation is None and not self.due(self.s.config.train.log_every):
            return
        line: dict[str, object] = {key: getattr(state, key) for key in ("step", "loss", "lr", "gradient_norm")}
        if validation is not None:
            line["validation"] = validation
        self.folder.append_metrics({**line, "seconds": round(self.elapsed(), 3)})

    def save(self) -> None:
        if self.read_step != self.s.state.step:
            self.read()
        self.s.state.seconds = self.elapsed()
        self.s.save(self.folder)
        self.saved_step = self.s.state.step

    def elapsed(self) -> float:
        return self.before + time.perf_counter() - self.begin

    def progress(self, validation: float | None, saved: bool) -> Progress:
        s, spent = self.s, time.perf_counter() - self.begin
        done = s.state.step - self.first_step
        return Progress(
            step=s.state.step,
            steps=s.config.train.steps,
            loss=s.state.smoothed_loss,
            validation=validation,
            bits_per_character=bits_per_character(validation, s.source.characters_per_token),
            lr=s.state.lr,
            gradient_norm=s.state.gradient_norm,
            tokens_per_second=self.tokens / max(spent, 1e-9),
            elapsed=self.elapsed(),
            remaining=spent / max(done, 1) * (s.config.train.steps - s.state.step),
            saved=saved,
        )

    def outcome(self, interrupted: bool) -> Outcome:
        s = self.s
        validation = s.state.validation if s.state.validated_step == s.state.step else None
        accuracy = None
        if not interrupted and s.config.task in ("copy", "reverse"):
            accuracy = exact_match(s.model, s.source.validation, s.source.tokenizer)
        if not interrupted and s.source.answers:
            accuracy = task_accuracy(s.model, s.source.answers, self.workers).answers
        return Outcome(
            step=s.state.step,
            interrupted=interrupted,
            train_loss=s.state.smoothed_loss if s.state.smoothed_loss is not None else math.nan,
            validation_loss=validation,
            bits_per_character=bits_per_character(validation, s.source.characters_per_token),
            accuracy=accuracy,
            path=s.path,
            seconds=self.elapsed(),
            first_validation=self.first_validation(),
        )

    def first_validation(self) -> float | None:
        """The loss that was measured before the first step, if it was."""
        if not self.s.measure_first:
            return None
        found = [r["validation"] for r in self.folder.metrics() if r["step"] == 0 and "validation" in r]
        return float(str(found[0])) if found else None


def bits_per_character(nats: float | None, characters_per_token: float | None) -> float | None:
    """Nats per token as bits per character (`eq:bits`), where the text's characters are known."""
    if nats is None or characters_per_token is None:
        return None
    return nats / math.log(2) / characters_per_token
