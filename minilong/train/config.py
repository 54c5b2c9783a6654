"""The configuration of a run: frozen, checked when built, written as TOML and read back exactly.

Nothing in a configuration is executed. A key has a full name (`model.layers`) and, where no other section has the same
field, a short one (`layers`).
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from minilong.errors import UserError, did_you_mean
from minilong.models.config import ModelConfig
from minilong.models.fields import Rule, check_fields, rule_of, setting, show

TASKS = (
    "lm", "translate", "copy", "reverse", "mqar", "induction", "selective-copy", "copy-lm", "passkey",
    "mlm", "roberta", "t5",
)  # fmt: skip
OPENED_TASKS = ("encode",)
"""What only a model that was opened is for: an encoder without output layer gives vectors, and is not trained here."""

TOKENIZERS = ("char", "byte", "bpe", "pretrained")
OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
KIND_OF_TASK = {
    "lm": "decoder",
    "translate": "encoder-decoder",
    "copy": "encoder-decoder",
    "reverse": "encoder-decoder",
    "mqar": "decoder",
    "induction": "decoder",
    "selective-copy": "decoder",
    "copy-lm": "decoder",
    "passkey": "decoder",
    "mlm": "encoder",
    "roberta": "encoder",
    "t5": "encoder-decoder",
    "encode": "encoder",
}
RECALL_TASKS = ("mqar", "induction", "selective-copy", "copy-lm", "passkey")
"""Tasks whose rows end in, or hold, answers that a causal model is to find in its context."""

FILLING_TASKS = ("mlm", "roberta", "t5")
"""Tasks that restore what a text has lost, by what stands on both sides."""

COMMAND_OF_TASK = {
    "lm": "generate",
    **dict.fromkeys(RECALL_TASKS, "evaluate"),
    **dict.fromkeys(FILLING_TASKS, "fill"),
    **dict.fromkeys(OPENED_TASKS, "embed sentences"),
    **dict.fromkeys(("translate", "copy", "reverse"), "translate"),
}
"""The command by which a run of each task is used."""

LEAST_CONTEXT = 8
"""Tokens that such a task needs: two sentences of two and three special ones, say."""

TEXTLESS = ("copy", "reverse", "mqar", "induction", "selective-copy", "copy-lm")
"""Tasks that read no text."""


@dataclass(frozen=True)
class DataConfig:
    """What is read. `text` holds paths or names of shipped texts; lengths count tokens and concern pairs only."""

    text: tuple[str, ...] = setting((), "files or shipped texts; empty for generated tasks")
    tokenizer: str = setting(
        "char", "characters, bytes or byte-pair encoding; pretrained: that of the opened model", choices=TOKENIZERS
    )
    vocabulary: int = setting(4096, "entries of the vocabulary (bpe only)", least=300, most=1_000_000)
    validation: float = setting(0.1, "share of the text, its end, that is held out", above=0, below=1)
    min_length: int = setting(1, "shortest sequence of a generated task, in tokens", least=1)
    length: int = setting(0, "lm: tokens of a row in training (0 = model.context)", least=0, most=1_000_000_000)
    max_length: int = setting(64, "longest sequence of a pair, in tokens; longer pairs are left out", least=1)
    items: int = setting(
        0, "mqar: pairs, selective-copy: tokens (0 = 8), passkey: numbers (0 = 1)", least=0, most=10_000
    )
    symbols: int = setting(0, "distinct symbols (0 = 256 for mqar, else 16)", least=0, most=20_000)
    digits: int = setting(5, "digits of a passkey", least=1, most=100)
    masks: int = setting(1, "mlm: masks that a pair has, in turn from epoch to epoch", least=1, most=10_000)
    loss_on: str = setting(
        "answer", "what a passkey run learns: the answer, or the whole text", choices=("answer", "text")
    )

    def __post_init__(self) -> None:
        check_fields("data", self)
        if self.min_length > self.max_length:
            raise UserError(
                f"data.min_length {self.min_length} is above data.max_length {self.max_length}; "
                "lower the first or raise the second"
            )


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. `batch` sequences a step, split into `accumulate` parts; `lr` is the highest learning rate."""

    steps: int = setting(1000, "updates of the parameters", least=1, most=1_000_000_000_000)
    batch: int = setting(16, "sequences in one step", least=1, most=1_000_000_000)
    accumulate: int = setting(1, "parts of a batch that are computed one after another, to save memory", least=1)
    optimizer: str = setting("adamw", "update rule", choices=OPTIMIZERS)
    lr: float = setting(1e-3, "highest learning rate", above=0)
    schedule: str = setting("cosine", "course of the learning rate after warm-up", choices=SCHEDULES)
    warmup: int = setting(100, "steps over which the learning rate rises from 0", least=0)
    final_lr: float = setting(0.1, "learning rate at the end, as a fraction of lr", least=0, most=1)
    beta1: float = setting(0.9, "decay of the gradient's running mean", least=0, below=1)
    beta2: float = setting(0.99, "decay of the squared gradient's running mean", least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the second moment", above=0)
    weight_decay: float = setting(0.1, "decoupled weight decay (adamw)", least=0)
    clip: float = setting(1.0, "largest global norm of the gradient (0 = no clipping)", least=0)
    threads: int = setting(0, "replicas that share a batch (0 = cores available, at most 8)", least=0, most=1024)
    precision: str = setting("float32", "numbers that a GPU computes in", choices=PRECISIONS)
    seed: int = setting(1, "seed of initial values, order of data and dropout")
    eval_every: int = setting(250, "steps between two validations", least=1)
    save_every: int = setting(250, "steps between two saves", least=1)
    log_every: int = setting(10, "steps between two lines of metrics.jsonl", least=1)

    def __post_init__(self) -> None:
        check_fields("train", self)
        if self.accumulate > self.batch:
            raise UserError(
                f"train.accumulate {self.accumulate} is above train.batch {self.batch}; "
                "a batch cannot have more parts than sequences: lower it"
            )

    @property
    def inner_threads(self) -> int:
        """Threads for operations inside each replica: more than one where a part of the batch has fewer rows."""
        rows = -(-self.batch // self.accumulate)
        return max(1, self.threads // rows)


@dataclass(frozen=True)
class RunConfig:
    """A whole run. Raises `UserError` naming the key for a task and a model that do not belong together."""

    task: str = "lm"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.task, str):
            raise UserError(f"task must be a string, but is {show(self.task)}; choose one of {', '.join(TASKS)}")
        if self.task not in KIND_OF_TASK:
            raise UserError(
                f"task is {show(self.task)}; choose one of {', '.join(TASKS)}{did_you_mean(self.task, TASKS)}"
            )
        kind = KIND_OF_TASK[self.task]
        if self.model.kind != kind:
            raise UserError(
                f"model.kind is {self.model.kind!r}, but task {self.task!r} needs {kind!r}; set model.kind = {kind!r}"
            )
        if self.data.length > self.model.context:
            raise UserError(
                f"data.length is {self.data.length}, but the model sees model.context = {self.model.context} tokens; "
                "lower the first, or raise the second"
            )
        if self.data.length and self.task != "lm":
            raise UserError(f"data.length is for task 'lm', but the task is {self.task!r}; leave it out")
        if self.task in TEXTLESS and self.data.text:
            raise UserError(
                f"task {self.task!r} generates its data, but data.text names {show(self.data.text[0])}; "
                "leave out the text, or use --task lm"
            )
        if self.task in FILLING_TASKS and self.model.context < LEAST_CONTEXT:
            raise UserError(
                f"model.context is {self.model.context}, which holds no sentence to restore; set model.context = "
                f"{LEAST_CONTEXT}, or more"
            )
        if kind == "encoder-decoder" and self.task != "t5" and self.data.max_length >= self.model.context:
            raise UserError(
                f"data.max_length is {self.data.max_length}, which with a start mark exceeds model.context "
                f"{self.model.context}; set model.context = {self.data.max_length + 1}, or lower data.max_length"
            )

    @property
    def row(self) -> int:
        """Tokens of a row in training."""
        return self.data.length or self.model.context

    def resolved(self) -> RunConfig:
        """The same run with every value that a zero stands for written out."""
        train = replace(self.train, threads=self.train.threads or available_threads())
        items = self.data.items or (1 if self.task == "passkey" else 8)
        data = replace(self.data, items=items, symbols=self.data.symbols or (256 if self.task == "mqar" else 16))
        return replace(self, data=data, model=self.model.resolved(), train=train)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values: `task`, and a table for each section. Tuples become lists."""
        values = asdict(self)
        values["data"]["text"] = list(self.data.text)
        return values

    def to_toml(self) -> str:
        """A TOML document that `from_toml` reads back to an equal configuration."""
        return dump_toml(self.to_dict())

    @staticmethod
    def from_flat(values: Mapping[str, Any]) -> RunConfig:
        """Build from full key names (`model.layers`) to values; keys left out keep their defaults.

        Raises `UserError` for an unknown key, a wrong type and a value out of range, each naming the key.
        """
        sections: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}}
        for key, value in values.items():
            section, _, name = full_key(key).rpartition(".")
            if section:
                sections[section][name] = value
        return RunConfig(
            task=values.get("task", "lm"),
            data=DataConfig(**sections["data"]),
            model=ModelConfig(**sections["model"]),
            train=TrainConfig(**sections["train"]),
        )

    @staticmethod
    def from_toml(text: str, source: str = "config.toml") -> RunConfig:
        """Read a complete document, as a run folder holds it. A missing key is an error as an unknown one is."""
        values = load_flat(text, source)
        missing = [key for key in RULES if key not in values]
        if missing:
            raise UserError(f"{source}: key {missing[0]!r} is missing; restore the file, or add the key")
        try:
            return RunConfig.from_flat(values)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


RULES: Mapping[str, Rule] = {
    "task": Rule("what is learnt", choices=(*TASKS, *OPENED_TASKS)),
    **{
        f"{section}.{entry.name}": rule_of(entry)
        for section, kind in (("data", DataConfig), ("model", ModelConfig), ("train", TrainConfig))
        for entry in fields(kind)
    },
}
"""Every key of a configuration by its full name, in the order in which they are written."""


def full_key(key: str) -> str:
    """The full name of a key given in full or in short (`layers` is `model.layers`); `UserError` if there is none."""
    if key in RULES:
        return key
    matches = [full for full in RULES if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"key {show(key)} is ambiguous; write {' or '.join(matches)}")
    choices = RULES if "." in key else [full.rpartition(".")[2] for full in RULES]
    hint = did_you_mean(key, choices) or did_you_mean(key.rpartition(".")[2], [f.rpartition(".")[2] for f in RULES])
    raise UserError(f"unknown key {show(key)}{hint}; `minilong info --keys` lists all keys")


def load_flat(text: str, source: str) -> dict[str, Any]:
    """Read a TOML document into full key names; values are not checked yet. `UserError` names the source."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{source} is not valid TOML: {error}; mend that place") from None
    values: dict[str, Any] = {}
    for name, value in table.items():
        entries = value if isinstance(value, dict) else {"": value}
        for entry, item in entries.items():
            written = f"{name}.{entry}" if entry else name
            try:
                key = full_key(written)
            except UserError as error:
                raise UserError(f"{source}: {error}") from None
            if key in values:
                raise UserError(f"{source}: key {key!r} is given twice; leave out one of the two")
            values[key] = item
    return values


def dump_toml(table: Mapping[str, Any]) -> str:
    """A TOML document of plain values and one level of tables: str, int, float, bool and lists of them."""
    plain = [f"{key} = {_toml_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    parts = ["\n".join(plain)] if plain else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            parts.append("\n".join([f"[{key}]", *(f"{name} = {_toml_value(item)}" for name, item in value.items())]))
    return "\n\n".join(parts) + "\n"


def available_threads() -> int:
    """Cores that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)  # Python's shortest exact form is a TOML number, `inf` and `nan` included
    if isinstance(value, str):
        # A JSON string is a TOML basic string but for DEL, which JSON leaves bare and TOML forbids.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    raise TypeError(f"a configuration holds no {type(value).__name__}")
