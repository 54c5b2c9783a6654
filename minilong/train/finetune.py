"""Fine-tuning: a trained or opened model goes on learning on other texts, by adapters or as a whole.

By adapters (`nn/lora.py`) the model's own arrays stay where they are, in the run that they come from and mapped from
there: gradients, moments and saves are those of the adapters alone. The new run names that run, with the checksum of
its weights, and holds the adapters. As a whole (`--full`) the new run starts from a copy of the weights, and is a run
like any other. In both cases the steps are those of `session.py`, with its guarantees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilong.backend import CPU, Device
from minilong.errors import UserError
from minilong.keys import Key
from minilong.nn.flat import flatten
from minilong.nn.lora import USUAL, Adapter, attach, create_adapters, merge
from minilong.train import checkpoint as ck
from minilong.train.adapters import (
    ABOUT,
    ADAPTER,
    BEST_ADAPTER,
    Base,
    adapters_of,
    read_base,
    require_elsewhere,
)
from minilong.train.config import RunConfig
from minilong.train.estimate import Estimate
from minilong.train.files import COMMIT
from minilong.train.ledger import FLOAT
from minilong.train.loaded import LoadedRun, load
from minilong.train.opened import RUN_FAMILY, Origin, read_origin
from minilong.train.precision import check_precision
from minilong.train.run import RunFolder
from minilong.train.sample import sample
from minilong.train.session import Session
from minilong.train.session import resume as resume_whole
from minilong.train.source import Source, open_source
from minilong.train.worker import put_model

TASKS = ("lm", "passkey", "mlm", "roberta", "t5")
"""Tasks of runs that can be fine-tuned on a text; a passkey run becomes a language model."""


@dataclass(frozen=True)
class Adapting:
    """How adapters are made: see `nn/lora.py`. alpha / rank scales what they add."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = USUAL


def start_adapters(
    path: Path,
    config: RunConfig,
    adapting: Adapting,
    out: Path,
    *,
    replace_run: bool = False,
    budget: float | None = None,
    device: Device = CPU,
) -> AdapterSession:
    """A new run of adapters of the run at `path`, which is not written to. config: see `settings_for`."""
    config = config.resolved()
    _check(config, device)
    require_elsewhere(path, out)
    RunFolder.check_free(out, replace=replace_run)
    loaded = load(path, decode=True)
    base = Base.of(path, adapting.alpha, out)
    source = open_source(config, loaded.tokenizer)
    key = Key.of(config.train.seed).fold("adapters")
    adapters = create_adapters(loaded.model, key, rank=adapting.rank, targets=adapting.targets)
    session = AdapterSession.of(loaded, base, config, source, adapters, out, device, replace_run=replace_run)
    session.measure(budget)
    return session


def start_full(
    path: Path,
    config: RunConfig,
    out: Path,
    *,
    replace_run: bool = False,
    budget: float | None = None,
    device: Device = CPU,
) -> Session:
    """A new run that starts from all weights of the run at `path`, which is not written to."""
    config = config.resolved()
    check_precision(config.train, device, config.model.depth)
    require_elsewhere(path, out)
    RunFolder.check_free(out, replace=replace_run)
    loaded = load(path, decode=True)
    source = open_source(config, loaded.tokenizer)
    vector, model, layout = flatten(loaded.model)
    session = Session(
        config, source, vector, model, layout, out, replace=replace_run, device=device, measure_first=True
    )
    session.extra = _origin(path)
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
    """Go on with any run, exactly (`session.resume`). text: what a model that was opened, and is at step 0, learns."""
    if not any((Path(path) / part / ABOUT).exists() for part in ("", COMMIT)):
        return resume_whole(path, text=text, steps=steps, device=device, precision=precision)
    if text:
        raise UserError(f"--resume goes on with the text of {path}; leave out {text[0]!r}, or fine-tune anew")
    run = RunFolder.open(Path(path), write=True)
    try:
        config, tokenizer, state = ck.read_config(run), ck.read_tokenizer(run), ck.read_state(run)
        if steps is not None:
            config = replace(config, train=replace(config.train, steps=steps))
        if precision is not None:
            config = replace(config, train=replace(config.train, precision=precision))
        _check(config, device)
        ck.require_unfinished(path, config, state)
        base = read_base(run)
        loaded = base.load(Path(path))
        source = open_source(config, tokenizer)
        ck.require_same_data(path, config, state, source.fingerprint)
        adapters = adapters_of(run, ADAPTER)
        session = AdapterSession.of(loaded, base, config, source, adapters, Path(path), device, run=run, state=state)
    except BaseException:
        run.close()
        raise
    session.measure(None)
    return session


class AdapterSession(Session):
    """A session whose parameters are adapters; `frozen` is the model that they belong to."""

    frozen: Any
    base: Base

    @staticmethod
    def of(
        loaded: LoadedRun,
        base: Base,
        config: RunConfig,
        source: Source,
        adapters: dict[str, Adapter],
        path: Path,
        device: Device,
        *,
        replace_run: bool = False,
        run: RunFolder | None = None,
        state: ck.State | None = None,
    ) -> AdapterSession:
        """A session that starts anew, or goes on from the run's moments."""
        vector, model, layout = flatten(dict(sorted(adapters.items())))  # in one order, whether new or read again
        adam = None if run is None or state is None else ck.read_optimizer(run, vector, layout, state.step)
        frozen = put_model(loaded.model, device)
        session = AdapterSession(
            config,
            replace(source, loss=AdaptedLoss(source.loss, frozen, base.alpha)),
            vector,
            model,
            layout,
            path,
            replace=replace_run,
            run=run,
            adam=adam,
            state=state,
            device=device,
            measure_first=True,
        )
        session.frozen, session.base = frozen, base
        session.estimate = _estimate(session.estimate, layout.size)
        files = _origin(base.found(path))
        session.extra = {**files, ABOUT: base.to_json()} if run is None else {}
        session.weights, session.best_weights = ADAPTER, BEST_ADAPTER
        return session

    def sample(self, length: int, prompt: str | None = None) -> str:
        """What the model writes with its adapters merged in."""
        merged = merge(self.frozen, self.model, self.base.alpha)
        return sample(LoadedRun(self.config, merged, self.source.tokenizer, self.state.step), length, prompt)


@dataclass(frozen=True)
class AdaptedLoss:
    """A model's loss as a function of its adapters."""

    loss: Callable[..., Any]
    frozen: Any
    alpha: float

    def __call__(self, adapters: dict[str, Adapter], batch: Any, *, key: Any = None, denominator: Any = None) -> Any:
        return self.loss(attach(self.frozen, adapters, self.alpha), batch, key=key, denominator=denominator)


def settings_for(path: Path, text: tuple[str, ...], *, full: bool, given: dict[str, Any]) -> RunConfig:
    """The settings of a fine-tuning: those of the run, usual ones for fine-tuning, and those that are given.

    given: values by full key name (`train.steps`). UserError for a run that cannot be fine-tuned.
    """
    with RunFolder.open(Path(path)) as run:
        config = ck.read_config(run)
    if config.task not in TASKS:
        raise UserError(f"{path} is of task {config.task!r}; fine-tuning on a text is for {', '.join(TASKS)}")
    task = "lm" if config.task == "passkey" else config.task
    length = min(config.model.context, 256) if task == "lm" else 0
    usual = {
        "train.steps": 100,
        "train.batch": 4,
        "train.accumulate": 1,
        "train.lr": 1e-3 if not full else 3e-5,
        "train.warmup": 10,
        "train.weight_decay": 0.0 if not full else 0.01,
        "train.schedule": "cosine",
        "train.clip": 1.0,
        "train.threads": 0,
        "train.precision": "float32",
        "train.eval_every": 50,
        "train.save_every": 50,
        "train.log_every": 10,
        "data.text": text,
        "data.length": length,
        "task": task,
    }
    written = config.to_dict()
    before = {f"{part}.{key}": x for part in ("data", "model", "train") for key, x in written[part].items()}
    values = {**before, **usual, **given}
    if "train.warmup" not in given:
        values["train.warmup"] = min(values["train.warmup"], values["train.steps"] // 10)
    return RunConfig.from_flat(values)


def _check(config: RunConfig, device: Device) -> None:
    check_precision(config.train, device, config.model.depth)
    if config.train.precision not in ("float32", "tf32"):
        raise UserError("adapters are trained in float32; leave out --precision, or give --full")


def _origin(path: Path) -> dict[str, bytes]:
    """What a run says of the model that it comes from, to be kept by runs that come of it."""
    with RunFolder.open(path) as run:
        origin = read_origin(run) or Origin(RUN_FAMILY, {}, None, str(path.resolve()), {}, path.name, None)
    return {ck.PRETRAINED: origin.to_json()}


def _estimate(whole: Estimate, parameters: int) -> Estimate:
    """The memory of a session that learns `parameters` numbers beside a frozen model."""
    memory = {
        **whole.memory,
        "gradients": FLOAT * parameters * max(1, whole.memory["gradients"] // max(1, FLOAT * whole.parameters)),
        "optimizer": 2 * FLOAT * parameters,
    }
    return replace(whole, parameters=parameters, memory=memory)
