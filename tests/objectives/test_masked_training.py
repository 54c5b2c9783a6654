"""Runs that restore a text: they learn, their parts add up, and a stop changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minilong.train.session as sessions
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.data.marked import MarkedTokenizer
from minilong.data.tokenizers import ByteTokenizer, CharTokenizer, tokenizer_from_dict
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import flatten
from minilong.objectives import masked_loss, next_sentence_accuracy, next_sentence_loss
from minilong.train.config import FILLING_TASKS, RunConfig
from minilong.train.files import Disk
from minilong.train.presets import layered
from minilong.train.pretraining import filling_rows, with_marks
from minilong.train.replicas import Replicas
from minilong.train.sample import sample
from minilong.train.source import loss_by_frequency, open_source

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TEXT = "".join(f"The {a} is {b}. It was {b}! " for a, b in zip(WORDS * 12, WORDS[3:] * 40, strict=False))

SMALL: dict[str, Any] = {
    "data.tokenizer": "char",
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.context": 40,
    "train.steps": 6,
    "train.batch": 5,
    "train.eval_every": 3,
    "train.save_every": 3,
    "train.threads": 2,
}


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "loss_plot", lambda records, characters_per_token: None)
    monkeypatch.setattr(Disk, "fsync", lambda self, fd: None)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text(TEXT)
    return path


def run_of(task: str, book: Path, **more: Any) -> RunConfig:
    """A small run of a task."""
    changes = {key.replace("__", "."): value for key, value in more.items()}
    return layered(options={"task": task, "data.text": (str(book),), **SMALL, **changes})


def tiny_encoder(**more: Any) -> ModelConfig:
    return ModelConfig(
        kind="encoder", layers=1, width=8, heads=2, context=12, types=2, input="normed", output="transform",
        pooler=True, activation="gelu", **more,
    )  # fmt: skip


def batch(rows: int = 5, width: int = 12) -> MaskedBatch:
    rng = np.random.default_rng(1)
    lengths = rng.integers(6, width + 1, rows).astype(np.int32)
    inputs = rng.integers(4, 20, (rows, width)).astype(np.int32)
    counted = (rng.random((rows, width)) < 0.3) & (np.arange(width) < lengths[:, None])
    counted[:, 1] = True
    types = (np.arange(width) >= 5).astype(np.int32) * np.ones((rows, 1), np.int32)
    targets = np.where(counted, rng.integers(4, 20, (rows, width)), IGNORE).astype(np.int32)
    return MaskedBatch(inputs, targets, lengths, types, rng.integers(0, 2, rows).astype(np.int32))


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(threads: int) -> None:
    """Of the masks and of next sentences: shares weigh by their masks."""
    _, model, layout = flatten(build(tiny_encoder(), 20, Key.of(1)), np.float64)
    whole = batch()
    found = []
    for n, parts in ((1, [whole]), (threads, [whole]), (threads, whole.shards(2))):
        with Replicas(n, layout, np.float64) as replicas:
            loss, gradient = replicas.gradient(masked_loss, model, parts, None)
            found.append((loss, gradient.copy()))
    for loss, gradient in found[1:]:
        assert abs(loss - found[0][0]) < 1e-12
        np.testing.assert_allclose(gradient, found[0][1], atol=1e-12)


def test_the_loss_shows_the_masks_and_its_gradient_has_both() -> None:
    _, model, layout = flatten(build(tiny_encoder(), 20, Key.of(1)), np.float64)
    pairs, plain = batch(), replace(batch(), follows=None)
    with Replicas(1, layout, np.float64) as replicas:
        (loss, both), other = replicas.gradient(masked_loss, model, [pairs], None), None
        both = {name: g.copy() for name, g in layout.slices(both).items()}
        other, alone = replicas.gradient(masked_loss, model, [plain], None)
        alone = layout.slices(alone)
    assert loss == pytest.approx(other, abs=1e-14)
    assert not alone["pooler.dense.weight"].any()
    assert both["pooler.dense.weight"].any()
    assert np.abs(both["input.tokens.table"] - alone["input.tokens.table"]).max() > 1e-6


def test_next_sentences_are_learnt_by_descent() -> None:
    """Five rows, one of them a neighbour or two: a few steps tell them apart."""
    vector, model, layout = flatten(build(tiny_encoder(), 20, Key.of(1)), np.float64)
    rows = batch()

    def loss(model: Any, b: MaskedBatch, *, key: Any, denominator: Any) -> Any:
        return next_sentence_loss(model, model.hidden(b.inputs, lengths=b.lengths, types=b.types), b, denominator)

    with Replicas(1, layout, np.float64) as replicas:
        for _ in range(200):
            value, gradient = replicas.gradient(loss, model, [rows], None)
            vector -= 0.3 * gradient
    assert value < 0.05
    assert next_sentence_accuracy(model, [rows]) == 1.0
    turned = replace(rows, follows=1 - rows.follows)  # type: ignore[operator]
    assert next_sentence_accuracy(model, [turned]) == 0.0


@pytest.mark.parametrize("task", FILLING_TASKS)
def test_a_run_stopped_and_resumed_is_the_one_that_never_stopped(task: str, book: Path, tmp_path: Path) -> None:
    config = run_of(task, book, model__dropout=0.1)
    whole = sessions.start(config, tmp_path / "whole")
    whole.run(lambda progress: None, lambda: False)
    first = sessions.start(config, tmp_path / "parts")
    assert first.run(lambda progress: None, lambda: first.state.step >= 4).interrupted
    second = sessions.resume(tmp_path / "parts")
    second.run(lambda progress: None, lambda: False)
    assert np.array_equal(whole.vector, second.vector)
    assert isinstance(second.source.tokenizer, MarkedTokenizer)
    shown = sample(second_loaded(second), 10)
    assert "by frequency alone" in shown
    assert ("next sentences" in shown) == (task == "mlm")


def second_loaded(session: sessions.Session) -> Any:
    from minilong.train.loaded import LoadedRun

    return LoadedRun(session.config, session.model, session.source.tokenizer, session.state.step)


@pytest.mark.parametrize("task", FILLING_TASKS)
def test_a_run_gets_below_what_frequencies_reach(task: str, book: Path, tmp_path: Path) -> None:
    """A text of little variety, and a few hundred steps."""
    more = {"train__steps": 150, "train__lr": 1e-2, "train__batch": 8, "train__eval_every": 150, "model__width": 32}
    session = sessions.start(run_of(task, book, train__warmup=10, **more), tmp_path / "run")
    outcome = session.run(lambda progress: None, lambda: False)
    assert outcome.validation_loss is not None
    assert outcome.validation_loss < loss_by_frequency(session.source) - 0.3


def test_masks_of_mlm_stay_and_those_of_roberta_do_not(book: Path) -> None:
    def asked(task: str, masks: int = 1) -> list[set[bytes]]:
        config = run_of(task, book, data__masks=masks)
        data: Any = filling_rows(config, with_marks(config, ByteTokenizer()), [TEXT], Key.of(1))
        n = len(data.rows)
        return [{data.batch(e * n + i, 1, Key.of(2)).targets.tobytes() for i in range(n)} for e in range(3)]

    fixed, two, new = asked("mlm"), asked("mlm", masks=2), asked("roberta")
    assert fixed[0] == fixed[1] == fixed[2]
    assert two[0] == two[2] != two[1]
    assert not new[0] & new[1]


def test_marks_are_a_tokenizer_that_can_be_saved() -> None:
    marked = MarkedTokenizer(CharTokenizer("abc"), 3)
    assert (marked.size, marked.first, marked.decode([4, 7, 9, 5])) == (10, 7, "ab")
    assert tokenizer_from_dict(marked.to_dict()) == marked
    for wrong, message in (
        ({"kind": "marked", "base": marked.to_dict(), "marks": 1}, "has marks already"),
        ({"kind": "marked", "base": {"kind": "byte"}, "marks": 0}, "has 0 marks"),
        ({"kind": "marked", "base": {"kind": "byte"}}, "has no key 'marks'"),
        ({"kind": "marked", "base": {"kind": "bite"}, "marks": 1}, "did you mean 'byte'"),
    ):
        with pytest.raises(UserError, match=message):
            tokenizer_from_dict(wrong, "tokenizer.json")
    assert MarkedTokenizer(ByteTokenizer(), 1).stream_decoder().push(260) == ""


def test_what_cannot_be_learnt_is_refused(book: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("One. Two. Three.\n\nFour.")
    for task, text, more, message in (
        ("mlm", book, {"model__context": 7}, "model.context is 7, which holds no sentence"),
        ("mlm", short, {}, "too few sentences"),
        ("t5", book, {"model__context": 5000}, "sentinels; lower --context"),
        ("mlm", book, {"model__kind": "decoder"}, "belongs to an encoder, but model.kind is 'decoder'"),
        ("roberta", book, {"model__activation": "swiglu", "model__output": "transform"}, "needs a plain function"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(run_of(task, text, **more))
    for key, value in (("types", 2), ("output", "transform"), ("pooler", True)):
        with pytest.raises(UserError, match=f"model.{key} belongs to an encoder"):
            ModelConfig(**{key: value})
