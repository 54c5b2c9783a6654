"""A training session: start or resume a run, say what it will need, train it, leave it saved.

Each step is a function of the parameters, the optimiser's moments, the seed and the step number, so that a run that was
stopped and resumed is bit for bit the run that never stopped (for the same number of threads, which the run records).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import CPU, Array, Device, to_host
from minilong.backend.device import out_of_memory
from minilong.errors import Diverged, UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.nn.flat import Layout, flatten, view
from minilong.optim import Adam, AdamState
from minilong.train import checkpoint as ck
from minilong.train.config import RunConfig
from minilong.train.estimate import describe
from minilong.train.loaded import LoadedRun
from minilong.train.loop import Outcome, Progress, train_loop
from minilong.train.plot import loss_plot
from minilong.train.precision import check_precision, half_type, products_of
from minilong.train.replicas import Replicas
from minilong.train.run import RunFolder
from minilong.train.sample import sample
from minilong.train.source import Source, open_source
from minilong.train.update import DeviceUpdate, HostUpdate
from minilong.train.worker import DeviceWorker

TRIALS, LONGEST_TRIAL = 5, 1.0  # steps that are timed, and seconds after which none is added
LEAST_BUDGET_STEPS = 10


def start(
    config: RunConfig, out: Path, *, replace: bool = False, budget: float | None = None, device: Device = CPU
) -> Session:
    """A new run: its data are read and checked and its model is built; nothing is written before `run`.

    budget: seconds to train; the number of steps then follows from the time that a step takes here.
    """
    config = config.resolved()
    check_precision(config.train, device, config.model.depth)
    RunFolder.check_free(Path(out), replace=replace)
    source = open_source(config)
    key = Key.of(config.train.seed)
    vector, model, layout = flatten(build(config.model, source.tokenizer.size, key))
    session = Session(config, source, vector, model, layout, Path(out), replace=replace, device=device)
    session.measure(budget)
    return session


def resume(
    path: Path,
    *,
    text: tuple[str, ...] = (),
    steps: int | None = None,
    device: Device = CPU,
    precision: str | None = None,
) -> Session:
    """Go on with a run where its last save stands, exactly; `steps` sets a new total, `precision` another one.

    A new total changes the course of the learning rate from here on, as the configuration then says. Another device or
    precision goes on from the same state, with other roundings. text: what a model that was opened is to learn, which
    has none yet.
    """
    run = RunFolder.open(Path(path), write=True)
    try:
        config, tokenizer, state = ck.read_config(run), ck.read_tokenizer(run), ck.read_state(run)
        fresh = ck.PRETRAINED in run.files and not state.data
        config = _with_text(path, config, text, fresh).resolved()
        if steps is not None:
            config = replace(config, train=replace(config.train, steps=steps))
        if precision is not None:
            config = replace(config, train=replace(config.train, precision=precision))
        check_precision(config.train, device, config.model.depth)
        ck.require_unfinished(path, config, state)
        source = open_source(config, tokenizer)
        if fresh:
            state.data = source.fingerprint
        ck.require_same_data(path, config, state, source.fingerprint)
        vector, model, layout = ck.read_model(run, ck.MODEL, config, tokenizer.size)
        adam = ck.read_optimizer(run, vector, layout, state.step)
    except BaseException:
        run.close()
        raise
    first = ck.PRETRAINED in run.files
    session = Session(
        config,
        source,
        vector,
        model,
        layout,
        Path(path),
        run=run,
        adam=adam,
        state=state,
        device=device,
        measure_first=first,
    )
    session.measure(None)
    return session


def _with_text(path: Path, config: RunConfig, text: tuple[str, ...], fresh: bool) -> RunConfig:
    """The configuration with the texts that a model is to learn that was opened and is not trained yet."""
    if fresh and not text:
        raise UserError(f"{path} was opened and has no text to learn yet; name one: train --resume {path} book.txt")
    if text and not fresh:
        raise UserError(f"--resume goes on with the text of {path}, so {text[0]!r} cannot be given; leave it out")
    return replace(config, data=replace(config.data, text=text)) if fresh else config


class Session:
    """One run in memory. `estimate` is what it will need; `run` trains and saves."""

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        vector: np.ndarray,
        model: Any,
        layout: Layout,
        path: Path,
        *,
        replace: bool = False,
        run: RunFolder | None = None,
        adam: AdamState | None = None,
        state: ck.State | None = None,
        device: Device = CPU,
        measure_first: bool = False,
    ) -> None:
        """measure_first: the loss is measured before the first step as well, since the model has learnt before."""
        train = config.train
        self.config, self.source, self.path, self.replace, self.folder = config, source, path, replace, run
        self.device, self.layout = device, layout
        self.optimizer = Adam(
            train.beta1, train.beta2, train.eps, train.weight_decay, decoupled=train.optimizer == "adamw"
        )
        self.estimate = describe(config, source.tokenizer.size, gpu=not device.is_cpu)
        with self.enough_memory():
            self.place(vector, model, adam or self.optimizer.init(vector))
        self.state = state or ck.State(data=source.fingerprint)
        self._best: bytes | None = None
        self.measure_first = measure_first
        self.weights, self.best_weights = ck.MODEL, ck.BEST
        self.extra: dict[str, bytes] = {}  # files that the first save writes as well

    def place(self, vector: np.ndarray, model: Any, adam: AdamState) -> None:
        """Put the arrays on the device: `model` for people, and `computing`, whose weights may have 16 bits."""
        device, dtype = self.device, half_type(self.config.train)
        self.vector = device.put(vector)
        self.adam = AdamState(device.put(adam.first), device.put(adam.second), adam.steps)
        self.model = model if device.is_cpu else view(model, self.vector, self.layout)
        self.half = None if dtype is None else self.vector.astype(dtype)
        self.computing = self.model if self.half is None else view(model, self.half, self.layout)

    def measure(self, budget: float | None) -> None:
        """Time a few steps without updating anything; with a budget, derive the number of steps from it."""
        batches = self.source.validation
        with self.enough_memory(), self.workers() as replicas:
            threads = replicas.threads
            self.gradient(replicas, self.state.step)  # slower than those that follow: it asks the system for memory
            begin, trials = time.perf_counter(), 0
            while trials < TRIALS and time.perf_counter() - begin < LONGEST_TRIAL:
                trials += 1
                self.gradient(replicas, self.state.step + trials)  # sentences differ in length from batch to batch
                self.device.synchronize()
            step = (time.perf_counter() - begin) / trials
            middle = max(0, (len(batches) - threads) // 2)  # batches of pairs come from the shortest to the longest
            some = batches[middle : middle + threads]
            begin = time.perf_counter()
            self.mean_loss(replicas, some)
            validation = (time.perf_counter() - begin) * len(batches) / len(some)
        if budget is not None:
            per_step = step + validation / self.config.train.eval_every
            steps = max(LEAST_BUDGET_STEPS, int((budget - validation) / per_step))
            warmup = min(self.config.train.warmup, steps // 10)
            self.config = replace(self.config, train=replace(self.config.train, steps=steps, warmup=warmup))
        left = self.config.train.steps - self.state.step
        seconds = left * step + (left // self.config.train.eval_every + 1) * validation
        self.estimate = replace(self.estimate, steps=self.config.train.steps, seconds=seconds)

    def run(self, report: Callable[[Progress], None], should_stop: Callable[[], bool]) -> Outcome:
        """Train to the last step or until asked to stop, and save. Raises Diverged where a number stops being finite:
        the last save, which is finite, then stays."""
        if self.folder is None:
            self.folder = RunFolder.create(self.path, replace=self.replace)
        with self.folder, self.enough_memory(), self.workers(should_stop) as workers:
            return train_loop(self, self.folder, workers, report, should_stop)

    def enough_memory(self) -> AbstractContextManager[None]:
        """Explains a GPU's lack of memory by what the run was predicted to need; the last save stays."""
        return out_of_memory(
            f"the run was predicted to need {self.estimate.by_part()} in float32; lower --batch, --context or --width, "
            "or give --set accumulate=N, --depth checkpoint or --precision bfloat16"
        )

    def workers(self, should_stop: Callable[[], bool] = lambda: False) -> Any:
        """The GPU; or as many replicas as a part of the batch has rows, and the cores left over inside of each."""
        train = self.config.train
        if not self.device.is_cpu:
            return DeviceWorker(self.device, self.layout)
        return Replicas(
            train.threads // train.inner_threads, self.layout, inner=train.inner_threads, should_stop=should_stop
        )

    def update(self, workers: Any) -> HostUpdate | DeviceUpdate:
        """How the parameters are updated on this device."""
        return HostUpdate(self, workers) if self.device.is_cpu else DeviceUpdate(self, workers)

    def sample(self, length: int, prompt: str | None = None) -> str:
        """What the model writes now: a continuation, or an answer to a held-out source."""
        return sample(LoadedRun(self.config, self.model, self.source.tokenizer, self.state.step), length, prompt)

    def save(self, folder: RunFolder) -> None:
        """Commit the whole state at once. Raises Diverged, and writes nothing, where it holds a NaN or an infinity."""
        files = {
            ck.CONFIG: self.config.to_toml().encode(),
            ck.TOKENIZER: json.dumps(self.source.tokenizer.to_dict(), ensure_ascii=False).encode(),
            self.weights: self.finite(ck.model_file, to_host(self.vector)),
            ck.OPTIMIZER: self.finite(ck.optimizer_file, self.adam.on_host()),
        }
        if self._best is not None:
            files[self.best_weights] = self._best
        files |= self.extra
        files[ck.STATE] = ck.state_file(self.state)
        folder.commit(files)
        self._best, self.extra = None, {}

    def draw(self, folder: RunFolder) -> None:
        """Commit `loss.png`, apart from the state: drawing takes a second, and may not delay a save."""
        plot = loss_plot(folder.metrics(), self.source.characters_per_token)
        if plot is not None:
            folder.commit({"loss.png": plot})

    def remember_best(self, validation: float) -> None:
        """Keep the weights for the file of the best if they are the best so far."""
        if self.state.best_validation is None or validation < self.state.best_validation:
            self._best = self.finite(ck.model_file, to_host(self.vector))
            self.state.best_validation, self.state.best_step = validation, self.state.step

    def finite(self, file: Callable[[Any, Layout], bytes], arrays: Any) -> bytes:
        """The file of some arrays. Raises Diverged where one holds a NaN or an infinity."""
        try:
            return file(arrays, self.layout)
        except ValueError as error:
            raise self.diverged(str(error), self.state.step) from error

    def diverged(self, what: str, step: int) -> Diverged:
        """The error that stops a run: what was found, at which step, what is safe, and what to try."""
        train = self.config.train
        remedies = [f"a lower --lr (such as {min(train.lr / 10, 1e-3):.1g})", "a longer train.warmup"]
        if not 0 < train.clip <= 1:
            remedies.append("train.clip = 1")
        safe = ""
        if self.folder is not None and self.folder.step is not None:
            safe = f"; the save of step {self.folder.step} in {self.path} is finite and stays"
        return Diverged(
            f"diverged at step {step} (learning rate {train.lr:g}): {what}{safe}; "
            f"try {', '.join(remedies[:-1])} or {remedies[-1]}"
        )

    def gradient(self, workers: Any, step: int, *scale: Any) -> tuple[Any, Array]:
        """Loss and flat gradient of the batch of a step; on a GPU, times a loss scale if there is one."""
        train = self.config.train
        key = Key.of(train.seed).fold("dropout", step) if self.config.model.dropout else None
        parts = self.source.batch(step).shards(train.accumulate)
        with products_of(train):
            return workers.gradient(self.source.loss, self.computing, parts, key, *scale)  # type: ignore[no-any-return]

    def mean_loss(self, workers: Any, batches: Any) -> float:
        """Mean loss in nats per token over batches, without dropout."""
        with products_of(self.config.train):
            losses = workers.map(lambda batch: float(self.source.loss(self.computing, batch)) * batch.tokens, batches)
        return float(sum(losses) / max(1, sum(batch.tokens for batch in batches)))
