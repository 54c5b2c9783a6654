"""Recall tasks from a configuration to an accuracy, losses by position, and contexts beyond that of training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import SMALL, TEXT, cheap, dotted, train

from minilong.autodiff import log_softmax
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.train.config import RECALL_TASKS, RunConfig
from minilong.train.evaluate import evaluate
from minilong.train.loaded import LoadedRun, load
from minilong.train.position_plot import pooled, position_plot
from minilong.train.presets import layered, preset
from minilong.train.recall import evaluate_task, exact_answers, task_accuracy
from minilong.train.sample import sample
from minilong.train.source import open_source, train_tokenizer

LONG_TEXT = TEXT * 2


@pytest.fixture(scope="module", autouse=True)
def cheap_runs() -> Iterator[None]:
    with cheap():
        yield


def recall(task: str, text: Path | None = None, **changes: Any) -> RunConfig:
    """A small run of a recall task."""
    own: dict[str, Any] = {"task": task, "model.context": 96 if task == "passkey" else 16, "data.items": 2}
    if task == "passkey":
        own |= {"data.text": (str(text),), "data.items": 1, "data.validation": 0.4, "data.digits": 2}
    return RunConfig.from_flat(SMALL | own | dotted(changes))


def untrained(**changes: Any) -> LoadedRun:
    config = RunConfig.from_flat(SMALL | {"data.text": ("unread",)} | dotted(changes))
    tokenizer = train_tokenizer(config, [TEXT])
    model: Any = build(config.model, tokenizer.size, Key.of(3))
    model.stack.norm.gain[:] *= 2.0
    return LoadedRun(config, model, tokenizer, 0)


@pytest.mark.parametrize("task", RECALL_TASKS)
def test_a_task_trains_reports_its_accuracy_and_shows_a_row(task: str, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(LONG_TEXT)
    outcome = train(recall(task, tmp_path / "book.txt"), tmp_path / "run")
    assert outcome.accuracy is not None
    assert 0 <= outcome.accuracy <= 1
    assert outcome.bits_per_character is None
    loaded = load(tmp_path / "run", "last")
    text = LONG_TEXT if task == "passkey" else None
    found = evaluate_task(loaded, task, contexts=(96, 120), samples=5, text=text)
    assert [[cell.count for cell in row] for row in found.cells] == [[task_answers(task, 96), task_answers(task, 120)]]
    assert "\n-> " in sample(loaded, 10)


def task_answers(task: str, context: int) -> int:
    """Answers in five rows: each key of mqar is a question of its own."""
    return 10 if task == "mqar" else 5


def test_induction_cut_small_is_solved(tmp_path: Path) -> None:
    config = layered(
        options={"task": "induction", "model.context": 16, "train.steps": 150, "train.threads": 1},
        assignments=["width=32", "batch=32", "symbols=8", "lr=1e-2", "eval_every=150", "save_every=150"],
    )
    outcome = train(config, tmp_path / "run")
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.9


def test_the_accuracy_of_a_run_is_that_of_its_held_out_rows(tmp_path: Path) -> None:
    config = recall("selective-copy")
    outcome = train(config, tmp_path / "run")
    loaded = load(tmp_path / "run", "last")
    assert task_accuracy(loaded.model, open_source(config).answers).answers == outcome.accuracy


class Answering:
    """A model that says `answers` and is wrong where they are negative: rows of one-hot logits."""

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = answers

    def hidden(self, inputs: np.ndarray, *, segments: None) -> np.ndarray:
        return np.eye(10)[np.maximum(self.answers, 0)]

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        return hidden


def test_accuracy_counts_tokens_and_whole_answers() -> None:
    no = IGNORE
    targets = np.array([[no, 3, 4, no, 5, no], [7, no, no, 8, 8, 8], [no] * 6], np.int32)
    said = np.array([[0, 3, 4, 0, 6, 0], [7, 0, 0, 8, 8, 9], [0] * 6])
    found = task_accuracy(Answering(said), [LanguageBatch(targets, targets)])
    assert (found.answers, found.tokens, found.count) == (2 / 4, 5 / 7, 4)
    assert exact_answers(np.ones((2, 3), bool), np.array([[True, False, True], [True, True, True]])) == (3, 3)
    assert exact_answers(np.zeros((1, 3), bool), np.zeros((1, 3), bool)) == (0, 0)


def test_a_passkey_run_may_learn_the_text_as_well(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(LONG_TEXT)
    answer = open_source(recall("passkey", tmp_path / "book.txt"))
    whole = open_source(recall("passkey", tmp_path / "book.txt", data__loss_on="text"))
    assert answer.batch(0).tokens == 4 * 2
    assert whole.batch(0).tokens == 4 * 96
    assert all(np.array_equal(a.targets, b.targets) for a, b in zip(answer.answers, whole.answers, strict=True))
    assert answer.fingerprint == whole.fingerprint


def test_depths_and_contexts_make_a_table_with_progress() -> None:
    loaded, calls = untrained(model__context=96), []
    found = evaluate_task(
        loaded,
        "passkey",
        contexts=(96, 128),
        depths=(0.0, 0.5, 1.0),
        samples=3,
        text=LONG_TEXT,
        report=lambda done, of: calls.append((done, of)),
    )
    assert calls == [(n, 6) for n in range(1, 7)]
    assert (found.contexts, found.depths) == ((96, 128), (0.0, 0.5, 1.0))
    assert [len(row) for row in found.cells] == [2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"task": "mqar"}, "the run learnt the task 'lm', not 'mqar'; train one with --task mqar"),
        ({"task": "mqar", "depths": (0.5,)}, "task 'mqar' has no depth"),
        ({"task": "copy"}, "task 'copy' has no questions"),
        ({"task": "passkey", "contexts": (16,)}, "needs a context of at least"),
        ({"task": "passkey", "contexts": (5000,)}, "needs 49"),
    ],
)
def test_questions_that_cannot_be_asked(arguments: dict[str, Any], fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        evaluate_task(untrained(), **arguments, text=LONG_TEXT)


@pytest.mark.parametrize("stride", [None, 3, 1])
def test_losses_by_position_are_those_of_each_window(stride: int | None) -> None:
    loaded, text = untrained(), TEXT[:61]
    ids = loaded.tokenizer.encode(text)
    plain = evaluate(loaded, text, stride=stride)
    result = evaluate(loaded, text, stride=stride, per_position=True)
    assert plain.positions is None
    assert result.nats_per_token == pytest.approx(plain.nats_per_token, rel=1e-5)
    assert result.positions is not None
    assert result.position_tokens is not None
    sums, counts = np.zeros(8), np.zeros(8, int)
    counted, start = 1, 0
    while counted < len(ids):
        window = ids[start : start + 9]
        losses = -np.take_along_axis(
            log_softmax(loaded.model(window[None, :-1])[0].astype(np.float64)), window[1:, None].astype(int), axis=1
        )
        for place in range(counted - start - 1, len(window) - 1):
            sums[place] += losses[place, 0]
            counts[place] += 1
        counted, start = start + len(window), start + (stride or 8)
    assert result.position_tokens == tuple(counts)
    assert result.positions == pytest.approx(sums / counts / math.log(2), rel=1e-4)
    whole = np.dot(result.positions, result.position_tokens) / result.tokens * math.log(2)
    assert whole == pytest.approx(result.nats_per_token, rel=1e-6)


def test_a_context_beyond_that_of_training_is_read_or_refused_with_a_reason() -> None:
    longer = evaluate(untrained(), TEXT, context=32)
    assert longer.context == 32
    assert longer.nats_per_token != evaluate(untrained(), TEXT).nats_per_token
    learned = untrained(model__position="learned")
    assert evaluate(learned, TEXT, context=4).context == 4
    with pytest.raises(UserError, match="learned positions for 8 tokens"):
        evaluate(learned, TEXT, context=9)


def test_progress_counts_tokens() -> None:
    calls: list[tuple[int, int]] = []
    evaluate(untrained(), TEXT, report=lambda done, of: calls.append((done, of)))
    assert calls[-1] == (len(TEXT) - 1, len(TEXT) - 1)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_the_picture_pools_neighbours_by_weight() -> None:
    places, bits = pooled([4.0, 2.0, 1.0, 1.0], [1, 3, 2, 2], points=2)
    assert places.tolist() == [0.75, 2.5]
    assert bits.tolist() == [2.5, 1.0]
    data = position_plot([4.0, 2.0, 1.0], [1, 1, 1], trained=2)
    assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize("task", RECALL_TASKS)
def test_the_preset_of_a_task_is_complete(task: str) -> None:
    config = layered(options={"task": task})
    assert config == preset(task)
    assert config.data.items > 0
    assert config.data.symbols > 0
    with pytest.raises(UserError, match="choose 0 or more"):
        layered(options={"task": task}, assignments=["items=-1"])


@pytest.mark.parametrize("task", [task for task in RECALL_TASKS if task != "passkey"])
def test_a_generated_task_takes_no_text(task: str) -> None:
    with pytest.raises(UserError, match=r"generates its data, but data\.text names 'book\.txt'"):
        layered(options={"task": task, "data.text": ("book.txt",)})
