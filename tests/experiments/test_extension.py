"""The experiment on extension: its texts and questions, forks that leave the reading alone, and what figures say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from minilong.cli import main
from minilong.data.passkey import needle
from minilong.data.tokenizers import CharTokenizer
from minilong.errors import UserError
from minilong.experiments import extension as ex
from minilong.experiments import extension_reading as reading
from minilong.experiments.extension_report import REPORT, verdict
from minilong.keys import Key
from minilong.memory import Full
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.positions import Scaling

PLAIN = "It was a bright cold day, and all the clocks were striking. " * 200
CODEC = CharTokenizer.train([PLAIN + "\n" + "".join(map(chr, range(32, 127)))])
SIZES = replace(ex.Sizes(), slots=4, questions=2, digits=3, chunk=32)


def test_sentences_stand_where_they_are_said_to_stand() -> None:
    text = reading.hidden_text(CODEC, PLAIN, 800, SIZES, 1)
    assert len(text.tokens) == len(text.counted) == 801
    assert len(text.hidden) == 4
    whole = CODEC.decode(text.tokens)
    for i, one in enumerate(text.hidden):
        ask, answer = CODEC.decode(one.ask), CODEC.decode(one.answer)
        name = ask.removeprefix("\nThe passkey for ").split()[0]
        assert whole[one.place :].startswith(needle(name, answer.strip()))
        assert i * 200 <= one.place < (i + 1) * 200
    plain = CODEC.decode(text.tokens[text.counted])
    assert plain in PLAIN + PLAIN
    other = reading.hidden_text(CODEC, PLAIN, 800, SIZES, 2)
    assert not np.array_equal(text.tokens, other.tokens)
    with pytest.raises(UserError, match="give a longer one"):
        reading.hidden_text(CODEC, PLAIN[:300], 800, SIZES, 1)


def model(**changes: Any) -> Any:
    return build(ModelConfig(layers=1, width=16, heads=2, context=64, **changes), CODEC.size, Key.of(1))


def test_a_reading_gives_the_losses_of_one_pass_and_forks_leave_it_alone() -> None:
    m = model()
    text = reading.hidden_text(CODEC, PLAIN, 320, SIZES, 1)
    found = reading.read(lambda stop: m, Full(400), text, [160, 320], SIZES, lambda share: None)
    none = reading.read(lambda stop: m, Full(400), text, [160, 320], replace(SIZES, questions=0), lambda share: None)
    assert found["losses"] == none["losses"]
    logits = np.asarray(m(text.tokens[None, :-1])[0], np.float64)
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(320), text.tokens[1:]]
    counted = text.counted[1:] & text.counted[:-1]
    for end, span in (("160", slice(0, 160)), ("320", slice(160, 320))):
        assert found["losses"][end] == pytest.approx(nats[span][counted[span]].mean(), abs=1e-4)
    assert [len(found["answers"][end]) for end in ("160", "320")] == [1, 2]
    one = reading._chosen(text, 320, 2)[0]
    row = np.concatenate([text.tokens[:320], one.ask, one.answer[:-1]])
    told = np.asarray(m(row[None])[0])[-len(one.answer) :].argmax(-1)
    assert found["answers"]["320"][0] == [320 - one.place, int((told == one.answer).sum()), len(one.answer)]


def test_dynamic_scaling_by_the_end_of_what_is_read() -> None:
    """Within one piece all queries have the frequencies of its end; in pieces of one, each has its own."""
    exact = model(rope_scaling="dynamic", rope_factor=2.0)
    text = reading.hidden_text(CODEC, PLAIN, 100, replace(SIZES, slots=1), 1)

    def at(stop: int) -> Any:
        return replace(exact, scheme=replace(exact.scheme, scaling=reading.Stepped.at(stop, 64, 2.0)))

    def losses(chunk: int, of: Any) -> Any:
        return reading.read(of, Full(), text, [100], replace(SIZES, chunk=chunk, questions=0), lambda share: None)

    stepwise, own = (np.array(losses(1, of)["curve"], float) for of in (at, lambda stop: exact))
    np.testing.assert_allclose(stepwise, own, rtol=0, atol=1e-5)
    assert np.nanmax(np.abs(np.array(losses(32, at)["curve"], float) - own)) > 1e-4
    stepped = reading.Stepped.at(96, 64, 2.0)
    frequencies = Scaling("dynamic", 2.0, 64).frequencies(8, length=96)
    assert np.array_equal(stepped.frequencies(8, length=96), frequencies)
    assert np.array_equal(stepped.frequencies(8, length=80), frequencies)
    assert np.array_equal(reading.Stepped.at(30, 64, 2.0).frequencies(8, length=30), Scaling().frequencies(8))


def test_what_cannot_be_extended() -> None:
    for changes, message in (
        ({"position": "alibi"}, "alibi positions"),
        ({"window": 8}, "choose one without window"),
        ({"memory": "xl"}, "choose one without window"),
        ({"rope_scaling": "pi", "rope_factor": 2.0}, "reads by pi already"),
    ):
        with pytest.raises(UserError, match=message):
            ex.trained_context(ModelConfig(**changes))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no method 'alibi'"):
        ex.chosen(["alibi"])
    assert [m.name for m in ex.chosen(["yarn", "Plain"])] == ["plain", "YaRN"]
    assert ex.lengths(8192, ex.Sizes()) == [4096, 8192, 12288, 16384]


def made(figures: dict[str, tuple[float, int]], near: int = 4) -> dict[str, Any]:
    """Results of methods with a last loss, and right answers of 4 beyond; `near` of 4 are right within."""
    cells = []
    for name, (loss, told) in figures.items():
        losses = {"50": 3.0, "100": 3.0, "150": 3.0, "200": loss}
        within = [[40, 5 if i < near else 4, 5] for i in range(4)]
        answers = dict.fromkeys(("50", "100", "150"), within)
        answers["200"] = [*within, *([150, 5 if i < told else 0, 5] for i in range(4))]
        result = {"losses": losses, "curve": [[50.0, 3.0], [150.0, loss]], "answers": answers, "bytes": 1000}
        cells += [{"settings": {"method": name, "trained": 100}, "result": result}]
    return {"settings": {"quick": False}, "cells": cells}


def test_findings_follow_the_figures(tmp_path: Path) -> None:
    figures = {"plain": (8.0, 0), "PI": (3.05, 4), "NTK": (3.05, 1), "dynamic NTK": (3.2, 3), "YaRN": (3.2, 1)}
    good = made({**figures, "window + sinks": (3.0, 0)})
    assert {name: verdict(good, name) for name in (*figures, "window + sinks")} == {
        "plain": "breaks", "PI": "extends memory", "NTK": "fluent only", "window + sinks": "fluent only",
        "dynamic NTK": "extends memory, less fluent", "YaRN": "neither fluent nor memory",
    }  # fmt: skip
    said = REPORT.findings(good)
    assert said[0] == "extends memory: PI (3.050 nats, 4 of 4)"
    assert said[-1] == (
        "fluency is not memory: window + sinks reads its last tokens at 3.000 nats, and tells 0 of 4 passkeys that lie "
        "behind its window"
    )
    blind = made({"plain": (3.0, 0), "window + sinks": (3.0, 0)}, near=0)
    assert verdict(blind, "plain") == "fluent; memory not told"
    assert "tells too few passkeys within its trained 100 tokens" in REPORT.findings(blind)[-1]
    files = REPORT.write(tmp_path, good)
    assert [f.name for f in files] == ["tables.md", "extension.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    losses, passkeys, far = REPORT.tables(good)
    assert losses.rows[0][-2:] == ["8.000", "0.0 MB"]
    assert passkeys.rows[1][-1] == "100% of 8"
    assert far.rows[2] == ["NTK", "100% of 4", "25% of 4", "fluent only"]


def test_the_command_reads_a_run_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(PLAIN)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, list(arguments))

    trained = call(
        "train", "book.txt", "--preset", "tiny", "--context", "64", "--steps", "2", "--out", "run", "--quiet"
    )
    assert trained.exit_code == 0, trained.output
    one = ["bench", "extension", "run", "book.txt", "--quick", "--out", "out"]
    first = call(*one, "--method", "plain", "--method", "window + sinks")
    assert first.exit_code == 0, first.output
    assert "which mean nothing" in first.stdout
    again = call(*one, "--method", "plain", "--method", "yarn, h2o")
    assert "1 are there from before" in again.stderr
    replot = call("bench", "extension", "--out", "out", "--replot")
    assert replot.stdout == again.stdout
    for arguments, message in (
        (["bench", "extension"], "no run is given; name a run folder"),
        (["bench", "extension", "run", "--method", "x"], "there is no method 'x'"),
        (["bench", "extension", "nowhere"], "nowhere"),
    ):
        wrong = call(*arguments)
        assert wrong.exit_code == 2
        assert len(wrong.stderr.splitlines()) == 1
        assert message in wrong.stderr
