"""Perplexity is not memory: what models with memories of several kinds and sizes recall, by bytes and by perplexity.

Two tasks. MQAR: eight key-value pairs, then each key once more; how many of the values are right. Passkey: a number in
a sentence that is hidden at a random depth of a text, and a question for it at the end; how many numbers are right. The
passkey models learn all of their rows, so that recall and bits per character of plain text come from one model.

Every model is trained with the memory that it is measured with. Beside what is recalled stands what the memory's reach
predicts: the share of answers that one layer may look at from the question, and the share that the stack may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import minilong
from minilong.autodiff.tree import leaves
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.corpora import read_text, split_text
from minilong.data.passkey import Passkey
from minilong.data.recall import Mqar
from minilong.data.tokenizers import CharTokenizer
from minilong.errors import UserError
from minilong.experiments.cells import Cell
from minilong.experiments.training import Recipe, bits, digest, fit, rounded, windows
from minilong.keys import Key
from minilong.memory import Memory
from minilong.models.config import ModelConfig
from minilong.nn import LanguageModel
from minilong.objectives import causal_loss
from minilong.objectives.output import output_loss
from minilong.train.recall import task_accuracy

NAME = "recall"
HELD_OUT = 0.1
ROWS_AT_ONCE = 32
PAIRS = (2, 3, 4, 6)
"""MQAR begins with fewer pairs, a quarter of the lessons each: eight at once are guessed for a long time."""


@dataclass(frozen=True)
class Kind:
    """A memory as keys of the model, by its size: tokens that one layer sees beside what is compressed."""

    name: str
    keys: Callable[[int], dict[str, Any]]


SINKS, RATE = 4, 4
KINDS = (
    Kind("full", lambda size: {}),
    Kind("window", lambda size: {"window": size}),
    Kind("window + sinks", lambda size: {"window": size - SINKS, "sinks": SINKS}),
    Kind("segments (XL)", lambda size: {"memory": "xl", "segment": size // 2, "memory_length": size // 2}),
    Kind(
        "compressive",
        lambda size: {
            "memory": "compressive",
            "segment": size // 2,
            "memory_length": size // 2,
            "compressed": size // RATE,
            "compression": RATE,
        },
    ),
)
"""The compressive memory keeps `size` further tokens in size / 4 slots."""


@dataclass(frozen=True)
class Sizes:
    """What a run of the experiment trains. `lessons`: steps at the beginning with easier rows: fewer pairs, or short
    text, for passkeys as short as can be for the first `short` of them."""

    mqar_context: int = 64
    mqar_sizes: tuple[int, ...] = (8, 16, 32)
    mqar_steps: int = 600
    mqar_lessons: int = 400
    mqar_batch: int = 64
    mqar_heads: int = 2
    mqar_lr: float = 3e-3
    mqar_pairs: int = 8
    mqar_symbols: int = 128
    passkey_context: int = 256
    passkey_sizes: tuple[int, ...] = (64, 128)
    passkey_steps: int = 1300
    passkey_short: int = 200
    passkey_lessons: int = 600
    passkey_tokens: int = 2048
    passkey_heads: int = 4
    passkey_lr: float = 3e-3
    passkey_answer_weight: float = 2.0
    passkey_later_weight: float = 0.1
    passkey_digits: int = 3
    layers: int = 2
    width: int = 64
    samples: int = 256
    passkey_text_tokens: int = 16_384

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "mqar_sizes": list(self.mqar_sizes), "passkey_sizes": list(self.passkey_sizes)}

    @staticmethod
    def of(settings: dict[str, Any]) -> Sizes:
        """From `settings`, or the part of them that concerns one task; other keys are left aside."""
        own: dict[str, Any] = {key: settings[key] for key in vars(Sizes()) if key in settings}
        for key in ("mqar_sizes", "passkey_sizes"):
            if key in own:
                own[key] = tuple(own[key])
        return Sizes(**own)


QUICK = Sizes(
    mqar_context=16, mqar_sizes=(8,), mqar_steps=8, mqar_lessons=4, mqar_batch=8, mqar_pairs=4, mqar_symbols=16,
    passkey_context=96, passkey_sizes=(32,), passkey_steps=6, passkey_short=1, passkey_lessons=3, passkey_tokens=192,
    passkey_heads=2, passkey_digits=2, layers=1, width=16, samples=16, passkey_text_tokens=300,
)  # fmt: skip
"""Seconds instead of minutes: the machinery works, the numbers mean nothing."""


def cells(text: str, sizes: Sizes, seeds: int) -> list[Cell]:
    """One cell for each task, memory, size and seed; the long ones first."""
    content = read_text(text)
    _, held_out = split_text(content, HELD_OUT)
    if len(held_out) <= max(sizes.passkey_text_tokens, sizes.passkey_context):
        raise UserError(
            f"the held-out end of the text has {len(held_out)} characters, and {sizes.passkey_text_tokens + 1} are "
            "read; give a longer text"
        )
    found = []
    for seed in range(1, seeds + 1):
        for task, spans, weight in (("passkey", sizes.passkey_sizes, 2.0), ("mqar", sizes.mqar_sizes, 1.0)):
            shared = {"task": task, "seed": seed, "version": minilong.__version__, **_of_task(task, sizes)}
            if task == "passkey":
                shared |= {"text": text, "digest": digest([content])}
            for kind in KINDS:
                for size in spans if kind.name != "full" else (0,):
                    found.append(
                        Cell(
                            f"{task}, {title(kind.name, size)}, seed {seed}",
                            f"{__name__}:compute",
                            {**shared, "memory": kind.name, "size": size},
                            weight * (2.0 if "segment" in kind.keys(8) else 1.0),
                        )
                    )
    return found


def _of_task(task: str, sizes: Sizes) -> dict[str, Any]:
    """The settings that concern a task: those of the other one must not change its cells."""
    other = "mqar_" if task == "passkey" else "passkey_"
    return {key: value for key, value in sizes.settings().items() if not key.startswith(other)}


def title(memory: str, size: int) -> str:
    """A memory with its size, as people call it."""
    return f"{memory} {size}" if size else memory


def compute(settings: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Train one memory on one task, and measure.

    `recall`: share of answers that are right; `digits`: of their tokens. `one_layer`, `stack`: shares of answers that
    one layer, or the whole stack, may look at. `bytes`: of all layers' memory after a row of the task,
    `predicted_bytes` by the formula. `bits`: per character of plain text (passkey), else None.
    """
    sizes = Sizes.of(settings)
    kind = next(k for k in KINDS if k.name == settings["memory"])
    keys: dict[str, Any] = {"tied": False, "layers": sizes.layers, "width": sizes.width}
    keys |= {"position": "rotary", **kind.keys(settings["size"])}
    seed = settings["seed"]
    if settings["task"] == "mqar":
        result = _mqar(sizes, keys, seed, report)
    else:
        text = read_text(settings["text"])
        if digest([text]) != settings["digest"]:
            raise UserError("the text has changed since the experiment began; start it anew with another --out")
        result = _passkey(sizes, keys, seed, text, report)
    found: dict[str, Any] = rounded(result)
    return found


def _mqar(sizes: Sizes, keys: dict[str, Any], seed: int, report: Callable[[float], None]) -> dict[str, Any]:
    task = Mqar(sizes.mqar_context, sizes.mqar_pairs, sizes.mqar_symbols)
    lessons = [replace(task, items=n) for n in PAIRS if n < task.items]

    def loss(model: LanguageModel, step: int, key: Key) -> Any:
        place = step * len(lessons) // max(1, sizes.mqar_lessons)
        now = lessons[place] if place < len(lessons) else task
        return causal_loss(model, now.batch(step, sizes.mqar_batch, key))

    config = ModelConfig(context=task.context, heads=sizes.mqar_heads, **keys)
    model = fit(config, task.tokenizer.size, loss, Recipe(sizes.mqar_steps, sizes.mqar_lr, seed), report)
    rows = list(task.sequential(ROWS_AT_ONCE, sizes.samples))
    return {**_measured(model, rows, _mqar_evidence), "bits": None}


def _passkey(
    sizes: Sizes, keys: dict[str, Any], seed: int, text: str, report: Callable[[float], None]
) -> dict[str, Any]:
    learnt, held_out = split_text(text, HELD_OUT)
    tokenizer = CharTokenizer.train([text, "".join(map(chr, range(33, 127)))])
    ids = tokenizer.encode(held_out)
    task = Passkey(
        sizes.passkey_context,
        codec=tokenizer,
        text=tokenizer.encode(learnt),
        held_out_text=ids,
        digits=sizes.passkey_digits,
        whole=True,
    )
    least = min(task.least + 8, task.context)

    def loss(model: LanguageModel, step: int, key: Key) -> Any:
        """Of all tokens, and once more of the answers, which are few. Rows grow during the lessons; afterwards answers
        count less, since those out of reach are noise that would spoil the learning of the text."""
        grown = (step - sizes.passkey_short) / (sizes.passkey_lessons - sizes.passkey_short)
        share = min(1.0, max(0.0, grown))
        weight = sizes.passkey_answer_weight if step < sizes.passkey_lessons else sizes.passkey_later_weight
        now = task.at(round(least + (task.context - least) * share))
        batch = now.batch(step, max(1, sizes.passkey_tokens // now.context), key)
        answers = np.full_like(batch.targets, IGNORE)
        answers[:, -sizes.passkey_digits :] = batch.targets[:, -sizes.passkey_digits :]
        hidden = model.hidden(batch.inputs)
        return output_loss(model, hidden, batch.targets) + weight * output_loss(model, hidden, answers)

    config = ModelConfig(context=task.context, heads=sizes.passkey_heads, **keys)
    model = fit(config, tokenizer.size, loss, Recipe(sizes.passkey_steps, sizes.passkey_lr, seed), report)
    rows = list(replace(task, whole=False).sequential(ROWS_AT_ONCE, sizes.samples))
    plain = bits(model, windows(ids[: sizes.passkey_text_tokens + 1], task.context))
    return {**_measured(model, rows, _passkey_evidence), "bits": plain}


def _measured(
    model: LanguageModel, rows: list[LanguageBatch], evidence: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """What compute's result says of any task. evidence: (question, answer) places of a row, (n, 2)."""
    accuracy = task_accuracy(model, rows)
    stream = model.start()
    memory, length, layers = stream.memory, rows[0].inputs.shape[1], len(model.stack.layers)
    for place in range(length):
        model.extend(rows[0].inputs[:1, place : place + 1], stream)
    width = model.input.tokens.table.shape[-1]
    arrays = 1 if stream.pasts[0].of_inputs else 2  # inputs, or keys and values
    row_bytes = arrays * width * model.input.tokens.table.itemsize
    seen = [_visible(memory, length, depth) for depth in (1, layers)]
    shares = [
        np.mean(
            [
                allowed[places[:, 0], places[:, 1]].mean()
                for batch in rows
                for places in map(evidence, batch.inputs, batch.targets)
            ]
        )
        for allowed in seen
    ]
    return {
        "recall": accuracy.answers,
        "digits": accuracy.tokens,
        "one_layer": float(shares[0]),
        "stack": float(shares[1]),
        "bytes": stream.bytes,
        "predicted_bytes": layers * memory.predicted_bytes(length - 1, 1, row_bytes),
        "parameters": sum(array.size for array in leaves(model)),
    }


def _visible(memory: Memory, length: int, layers: int) -> np.ndarray:
    """(length, length) booleans: whether a stack of so many layers can carry something from the second to the first."""
    one = memory.allowed(length).astype(np.float32)
    path = one
    for _ in range(layers - 1):
        path = (path @ one > 0).astype(np.float32)
    return np.asarray(path > 0)


def _mqar_evidence(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Each question, and where its value stands among the pairs."""
    asked = np.flatnonzero(targets != IGNORE)
    return np.array([(place, np.flatnonzero(inputs == targets[place])[0]) for place in asked])


def _passkey_evidence(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The first digit's question, and where that digit stands in the hidden sentence.

    The sentence is the first place where the number stands whole: the row ends with all but its last digit.
    """
    asked = np.flatnonzero(targets != IGNORE)
    number = targets[asked]
    places = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(inputs, len(number)) == number).all(axis=1))
    return np.array([(asked[0], places[0])])
