"""The tasks that restore a text, on the stand-in's device: the same losses as on a CPU, and the same fillings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from standin import cupy

import minilong.train.session as sessions
from minilong.backend import Device
from minilong.train.config import FILLING_TASKS
from minilong.train.fill import fill
from minilong.train.loaded import load
from minilong.train.presets import layered

SMALL: dict[str, Any] = {
    "data.tokenizer": "char",
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.context": 40,
    "model.dropout": 0.0,
    "train.steps": 2,
    "train.batch": 4,
    "train.threads": 1,
}


@pytest.mark.parametrize("task", FILLING_TASKS)
def test_a_run_is_the_same_on_a_device(task: str, tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text("The cat sat. The dog ran! It is a cat. She saw the dog. " * 30)
    config = layered(options={"task": task, "data.text": (str(text),), **SMALL})
    here = sessions.start(config, tmp_path / "here")
    here.run(lambda progress: None, lambda: False)
    with cupy.install():
        there = sessions.start(config, tmp_path / "there", device=Device("fake"))
        there.run(lambda progress: None, lambda: False)
        assert there.state.loss == pytest.approx(here.state.loss, abs=1e-5)
        loaded = load(tmp_path / "there")
        assert fill(loaded.on(Device("fake")), "The c___t sat").text == fill(loaded, "The c___t sat").text
        assert "by frequency alone" in there.sample(10)
