"""How often a causal model answers the questions of a recall task: by context length, and for passkeys by depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.backend import beside
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.data.passkey import Passkey
from minilong.data.recall import RecallTask
from minilong.errors import UserError
from minilong.memory import Memory
from minilong.train.config import RECALL_TASKS
from minilong.train.evaluate import reading
from minilong.train.loaded import LoadedRun, finite
from minilong.train.source import evaluation_rows, open_recall_task
from minilong.train.streamed import streamed_hidden
from minilong.train.worker import workers

CHUNK = 1024  # targets whose logits exist at once


@dataclass(frozen=True)
class Accuracy:
    """Shares of answers and of their tokens that are the likeliest ones, and how many answers there were.

    An answer is a run of adjacent targets. Each token is predicted from the true ones before it, so an answer that is
    right here is what greedy generation writes, and the other way round.
    """

    answers: float
    tokens: float
    count: int


def task_accuracy(
    model: Any, batches: Sequence[LanguageBatch], replicas: Any = None, memory: Memory | None = None
) -> Accuracy:
    """How many answers the likeliest tokens give right. memory: what the model remembers of a row, which is then read
    as a stream. UserError for a model whose output is not finite."""
    if replicas is None:
        with workers(model) as own:
            return task_accuracy(model, batches, own, memory)
    parts = replicas.map(lambda batch: _scores(model, batch, memory), batches)
    right, tokens, whole, answers = (max(int(n), 0) for n in np.sum(parts, axis=0))
    return Accuracy(whole / max(1, answers), right / max(1, tokens), answers)


def _scores(model: Any, batch: LanguageBatch, memory: Memory | None) -> tuple[int, int, int, int]:
    """Right tokens, tokens, right answers, answers of a batch."""
    counted = batch.targets != IGNORE
    if memory is None:
        hidden = model.hidden(batch.inputs, segments=batch.segments)
    else:
        hidden = beside(model.input.tokens.table, streamed_hidden(model, batch, memory))
    hidden = hidden.reshape(-1, hidden.shape[-1])[beside(hidden, np.flatnonzero(counted))]
    likeliest = [finite(model.logits(hidden[i : i + CHUNK])).argmax(axis=-1) for i in range(0, len(hidden), CHUNK)]
    right = np.zeros(counted.shape, bool)
    right[counted] = np.concatenate([*likeliest, np.zeros(0, np.int64)]) == batch.targets[counted]
    return int(right.sum()), int(counted.sum()), *exact_answers(right, counted)


def exact_answers(right: np.ndarray, counted: np.ndarray) -> tuple[int, int]:
    """Runs of adjacent counted places (b, t) that are right throughout, and all runs."""
    begins = counted & ~np.pad(counted, ((0, 0), (1, 0)))[:, :-1]
    number = np.cumsum(begins.ravel()) - 1
    wrong = (counted & ~right).ravel()
    runs = int(begins.sum())
    return runs - len(np.unique(number[wrong])), runs


@dataclass(frozen=True)
class TaskResult:
    """Accuracies by depth (rows; None where the task has none) and context (columns); `samples` rows in each cell."""

    task: str
    contexts: tuple[int, ...]
    depths: tuple[float, ...] | None
    samples: int
    cells: tuple[tuple[Accuracy, ...], ...]


def evaluate_task(
    loaded: LoadedRun,
    task: str,
    *,
    contexts: Sequence[int] = (),
    depths: Sequence[float] = (),
    samples: int = 64,
    text: str | None = None,
    memory: Memory | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> TaskResult:
    """Ask a run the held-out rows of a task, in contexts longer and shorter than it was trained on as well.

    A run of its own task, or a language model over text the task `passkey`. text: what passkeys are hidden in. depths:
    shares of the text before the number, for `passkey` only. memory: what the run remembers of a row.
    report: (cells done, cells of all).
    """
    if depths and task != "passkey":
        raise UserError(f"task {task!r} has no depth; leave out --depth, or take --task passkey")
    lengths = tuple(contexts) or (loaded.config.model.context,)
    models = [reading(loaded, length).model for length in lengths]
    tasks = [_puzzle(loaded, task, text, length) for length in lengths]  # all are checked before the first is asked
    cells: list[tuple[Accuracy, ...]] = []
    done = 0
    with workers(loaded.model) as replicas:
        for depth in tuple(depths) or (None,):
            row: list[Accuracy] = []
            for model, one in zip(models, tasks, strict=True):
                row.append(task_accuracy(model, list(_batches(one, depth, samples)), replicas, memory))
                done += 1
                report(done, len(tasks) * max(1, len(depths)))
            cells.append(tuple(row))
    return TaskResult(task, lengths, tuple(depths) or None, samples, tuple(cells))


def _batches(task: RecallTask, depth: float | None, samples: int) -> Iterable[LanguageBatch]:
    rows = evaluation_rows(task.context)
    if depth is None or not isinstance(task, Passkey):
        return task.sequential(rows, samples)
    return task.at_depth(depth, rows, samples)


def _puzzle(loaded: LoadedRun, task: str, text: str | None, context: int) -> RecallTask:
    config = loaded.config
    if task not in RECALL_TASKS:
        raise UserError(f"task {task!r} has no questions; choose one of {', '.join(RECALL_TASKS)}")
    if task != "passkey":
        if config.task != task:
            raise UserError(f"the run learnt the task {config.task!r}, not {task!r}; train one with --task {task}")
        return open_recall_task(config, []).at(context)
    if config.task not in ("lm", "passkey"):
        raise UserError(f"the run learnt the task {config.task!r}, which reads no text; train one with --task passkey")
    if text is None:
        raise ValueError("a passkey is hidden in a text: give one")
    ids = loaded.tokenizer.encode(text)
    items = config.data.items if config.task == "passkey" else 1
    return Passkey(context, codec=loaded.tokenizer, text=ids, held_out_text=ids, items=items, digits=config.data.digits)
