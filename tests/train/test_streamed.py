"""Evaluation by a cache: with everything remembered it is the plain one, and less memory costs what it must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_runs import SMALL, TEXT, cheap, lm, train, untrained

from minilong.cli import main
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.memory import Full, HeavyHitters, Quantised, SnapKV, Window
from minilong.train.config import RunConfig
from minilong.train.evaluate import evaluate, token_losses
from minilong.train.loaded import LoadedRun
from minilong.train.recall import _scores
from minilong.train.streamed import streamed_hidden, streamed_losses


@pytest.fixture(scope="module")
def loaded() -> LoadedRun:
    config = RunConfig.from_flat(SMALL | {"data.text": ("unread",), "model.context": 64})
    return untrained(config, TEXT, scale=3.0)


def batch_of(loaded: LoadedRun, length: int) -> LanguageBatch:
    ids = np.asarray(loaded.tokenizer.encode(TEXT), np.int32)
    rows = np.stack([ids[i : i + length + 1] for i in (0, 100)])
    targets = rows[:, 1:].copy()
    targets[:, 5] = IGNORE
    return LanguageBatch(rows[:, :-1], targets)


@pytest.mark.parametrize("memory", [Full(), HeavyHitters(60, block=4), SnapKV(60, 3), Quantised(16, 4, 8)], ids=str)
def test_everything_remembered_is_the_plain_loss(loaded: LoadedRun, memory: Any) -> None:
    batch = batch_of(loaded, 60)
    expected = token_losses(loaded.model, batch)
    for chunk in (7, 512):
        found = streamed_losses(loaded.model, batch, memory, chunk=chunk)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 if isinstance(memory, Quantised) else 1e-4)
        assert np.all(found[:, 5] == 0)


def test_evaluation_with_a_memory(loaded: LoadedRun) -> None:
    plain = evaluate(loaded, TEXT, stride=16, per_position=True)
    full = evaluate(loaded, TEXT, stride=16, per_position=True, memory=Full())
    assert full.tokens == plain.tokens
    assert full.nats_per_token == pytest.approx(plain.nats_per_token, abs=1e-5)
    assert full.positions == pytest.approx(plain.positions, abs=1e-4)
    alone = evaluate(loaded, TEXT, memory=Full())
    assert alone.nats_per_token == pytest.approx(evaluate(loaded, TEXT).nats_per_token, abs=1e-5)
    less = evaluate(loaded, TEXT, memory=HeavyHitters(8, block=2))
    window = evaluate(loaded, TEXT, memory=Window(8))
    assert abs(less.nats_per_token - alone.nats_per_token) > 1e-4
    assert abs(window.nats_per_token - less.nats_per_token) > 1e-4


def test_a_prompt_ends_where_the_answer_begins(loaded: LoadedRun) -> None:
    batch = batch_of(loaded, 40)
    targets = np.full_like(batch.targets, IGNORE)
    targets[:, -3:] = batch.targets[:, -3:]
    asked = LanguageBatch(batch.inputs, targets)
    whole = loaded.model.hidden(batch.inputs)
    short = streamed_hidden(loaded.model, asked, SnapKV(8, 4))
    np.testing.assert_allclose(short[:, :38], whole[:, :38], rtol=0, atol=1e-4)
    assert np.abs(short[:, 38:] - whole[:, 38:]).max() > 1e-3
    assert _scores(loaded.model, asked, Full()) == _scores(loaded.model, asked, None)


def test_commands_take_a_memory(tmp_path: Any) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    with cheap():
        train(lm(tmp_path / "book.txt", model__context=32), tmp_path / "run")
    run = str(tmp_path / "run")

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, list(arguments))

    for options in (["--memory", "h2o", "--budget", "8"], ["--cache-bits", "4"], ["--memory", "snapkv"],
                    ["--window", "8", "--cache-bits", "2"]):  # fmt: skip
        made = call("generate", run, "--prompt", "the quick", "--length", "40", *options)
        assert made.exit_code == 0, made.output
        assert made.stdout.startswith("the quick")
        if "snapkv" not in options:
            measured = call("evaluate", run, "--json", *options)
            assert measured.exit_code == 0, measured.output
    refused = call("evaluate", run, "--memory", "snapkv")
    assert refused.exit_code == 2
    assert "chooses at the end of a prompt, and a text has none" in refused.stderr
    ragged = call("generate", run, "--memory", "h2o", "--prompt", "the quick", "--prompt", "the", "--length", "3")
    assert ragged.exit_code == 2
    assert "must begin together; give the prompts one at a time" in ragged.stderr
