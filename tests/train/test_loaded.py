"""A run opened for use, the picture of its losses, and the errors of a run whose parts do not fit."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_faults import memory_folder
from tiny_runs import TEXT, cheap, copy, ignore, lm, never, train

import minilong.train.session as sessions
from minilong.errors import UserError
from minilong.train.checkpoint import MODEL, OPTIMIZER, STATE, read_config
from minilong.train.config import RunConfig
from minilong.train.evaluate import evaluate
from minilong.train.generate import generate
from minilong.train.loaded import LoadedRun, load
from minilong.train.plot import loss_plot
from minilong.train.run import RunFolder
from minilong.train.sample import sample
from minilong.train.source import sample_source
from minilong.train.translate import translate


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Path]]:
    """A language model, a wider one, and an encoder-decoder."""
    with memory_folder() as folder:
        (folder / "book.txt").write_text(TEXT)
        configs: dict[str, RunConfig] = {
            "lm": lm(folder / "book.txt"),
            "wide": lm(folder / "book.txt", model__width=12),
            "deep": lm(folder / "book.txt", model__layers=4),
            "copy": copy(),
        }
        with cheap():
            for name, config in configs.items():
                train(config, folder / name)
        yield {name: folder / name for name in configs}


# Loading


def test_a_loaded_run_is_the_model_that_was_trained(runs: dict[str, Path], tmp_path: Path) -> None:
    with RunFolder.open(runs["lm"]) as run:
        session = sessions.start(read_config(run), tmp_path / "run")
    with cheap():
        session.run(ignore, never)
    loaded = load(runs["lm"], "last")
    tokens = np.array([[4, 5, 6]], np.int32)
    assert np.array_equal(loaded.model(tokens), session.model(tokens))
    assert loaded.step == 6
    assert loaded.tokenizer == session.source.tokenizer
    assert loaded.config == session.config
    assert sample(loaded, 9, "the ") == session.sample(9, "the ")


def test_the_last_weights_stand_in_for_a_best_that_was_never_measured(runs: dict[str, Path], tmp_path: Path) -> None:
    with RunFolder.open(runs["lm"]) as run:
        session = sessions.start(read_config(run), tmp_path / "run")
    session.run(ignore, lambda: session.state.step >= 1)
    assert load(tmp_path / "run", "best").step == 1


def test_samples_of_each_task(runs: dict[str, Path]) -> None:
    loaded = load(runs["copy"])
    source = sample_source(loaded.config)
    assert sample(loaded, 5).startswith(f"{source}\n-> ")
    assert sample(loaded, 5, "abc").startswith("abc\n-> ")
    assert len(sample(load(runs["lm"]), 5)) == 5


# Parts that do not fit, under a manifest that is in order


def replaced(path: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Commit other files to a run; what was there before."""
    with RunFolder.open(path, write=True) as run:
        before = {name: run.read(name) for name in files}
        run.commit(files)
    return before


def content(path: Path, name: str) -> bytes:
    with RunFolder.open(path) as run:
        return run.read(name)


@pytest.mark.parametrize(
    ("other", "fact"),
    [
        ("wide", r"stack\.\S+ has shape \(12,.*\) instead of \(8,.*\)"),
        ("deep", r"stack\.layers\.[23]\.\S+ is unexpected"),
        ("copy", r"stack\.\S+ is missing"),
    ],
)
def test_weights_and_moments_of_another_run_are_named_array_by_array(
    runs: dict[str, Path], other: str, fact: str
) -> None:
    unfinished = content(runs["lm"], STATE).replace(b'"step": 6', b'"step": 5')  # or it would not be resumed
    for name, use in ((MODEL, lambda path: load(path, "last")), (OPTIMIZER, sessions.resume)):
        before = replaced(runs["lm"], {name: content(runs[other], name), STATE: unfinished})
        try:
            with pytest.raises(UserError) as caught:
                use(runs["lm"])
        finally:
            replaced(runs["lm"], before)
        message = str(caught.value)
        assert message.startswith(f"{runs['lm'] / name} does not fit the run's configuration: ")
        assert re.search(fact, message)
        assert re.search(r" \(and \d+ more\); restore model and configuration from the same run$", message)
        assert message.count("; ") == 5  # five arrays, and the remedy
        assert "\n" not in message
    load(runs["lm"])


def test_one_array_of_a_wrong_type_or_name_is_named(runs: dict[str, Path]) -> None:
    from minilong.train.arrays import arrays_from_bytes, arrays_to_bytes

    arrays = arrays_from_bytes(content(runs["lm"], MODEL), "model")
    name = "stack.layers.1.attention.query.weight"

    def message(changed: dict[str, np.ndarray]) -> str:
        before = replaced(runs["lm"], {MODEL: arrays_to_bytes(changed)})
        try:
            with pytest.raises(UserError) as caught:
                load(runs["lm"], "last")
        finally:
            replaced(runs["lm"], before)
        return str(caught.value)

    double = message({**arrays, name: arrays[name].astype(np.float64)})
    assert f"{name} has type float64 instead of float32; restore" in double
    renamed = {
        key.replace("layers.1.attention.query.weight", "layers.1.attention.query.wieght"): a
        for key, a in arrays.items()
    }
    assert f"{name} is missing; " in message(renamed)
    assert f"query.wieght is unexpected (did you mean '{name}'?)" in message(renamed)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_model_without_finite_answers_says_so(runs: dict[str, Path], value: float) -> None:
    with pytest.raises(UserError, match=DIVERGED):
        next(generate(diverged(runs["lm"], value), "the", length=3, temperature=0))
    with pytest.raises(UserError, match=DIVERGED):
        evaluate(diverged(runs["lm"], value), "the dog")
    for beam in (1, 2):
        with pytest.raises(UserError, match=DIVERGED):
            translate(diverged(runs["copy"], value), ["abc"], beam=beam)


DIVERGED = "the model's output is not finite, because its training diverged; use --weights best, or train it again"


def diverged(path: Path, value: float) -> LoadedRun:
    loaded = load(path)
    stack = loaded.model.stack if loaded.config.task == "lm" else loaded.model.decoder
    stack.layers[0].feed_forward.up.weight[...] = value
    stack.layers[1].feed_forward.down.weight[...] = value
    return loaded


# The picture


RECORDS: list[dict[str, Any]] = [{"step": step, "loss": 3.0 / step} for step in range(1, 9)]
VALIDATED = [{**record, "validation": record["loss"] + 0.1} for record in RECORDS]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("characters", [None, 1.0, 0.25])
def test_a_picture_with_and_without_validations(characters: float | None) -> None:
    with np.errstate(all="warn"):
        pictures = [loss_plot(records, characters) for records in (RECORDS, VALIDATED, RECORDS[:1])]
    for picture in pictures:
        assert picture is not None
        assert picture.startswith(PNG)
    assert len(set(pictures)) == 3


def test_no_picture_without_records() -> None:
    assert loss_plot([], 1.0) is None


def test_training_goes_on_without_matplotlib(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open(runs["lm"]) as run:
        config = read_config(run)
    train(config, tmp_path / "with")
    assert (tmp_path / "with" / "loss.png").read_bytes().startswith(PNG)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as `import` finds it where it is not installed
    assert loss_plot(RECORDS, 1.0) is None
    assert train(config, tmp_path / "without").step == 6
    assert not (tmp_path / "without" / "loss.png").exists()
    load(tmp_path / "without")
