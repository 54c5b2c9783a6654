"""The recall experiment: what reach predicts, what memory takes, and that findings follow the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.data.batches import IGNORE
from minilong.data.recall import Mqar
from minilong.errors import UserError
from minilong.experiments import recall as ex
from minilong.experiments.recall_report import REPORT
from minilong.keys import Key
from minilong.memory import Full, Segments, Window

BANDS = ("recall", "digits", "one_layer", "stack", "bytes", "predicted_bytes", "bits", "parameters")


def computed(task: str, memory: str) -> dict[str, Any]:
    (cell,) = [
        c for c in ex.cells("persuasion", ex.QUICK, 1) if c.settings["task"] == task and c.settings["memory"] == memory
    ]
    return ex.compute(dict(cell.settings), lambda share: None)


@pytest.mark.parametrize("memory", [kind.name for kind in ex.KINDS])
def test_each_memory_takes_the_bytes_that_its_formula_says(memory: str) -> None:
    result = computed("mqar", memory)
    assert set(result) == set(BANDS)
    assert result["bytes"] == result["predicted_bytes"] > 0
    assert 0 <= result["recall"] <= 1
    assert result["one_layer"] <= result["stack"]
    assert result["bits"] is None
    assert (result["one_layer"] == 1) == (memory in ("full", "compressive"))


def test_passkey_models_are_measured_on_plain_text_too() -> None:
    full, window = computed("passkey", "full"), computed("passkey", "window")
    assert 3 < full["bits"] < 8
    assert full["one_layer"] == 1
    assert window["one_layer"] < 1
    assert window["bytes"] < full["bytes"]
    assert full == computed("passkey", "full")


def test_evidence_is_where_the_answer_stands() -> None:
    inputs, targets = Mqar(32, 4, 16).rows(8, Key.of(1), held_out=True)
    for row, wanted in zip(inputs, targets, strict=True):
        places = ex._mqar_evidence(row, wanted)
        assert len(places) == 4
        for question, answer in places:
            assert row[answer] == wanted[question]
            assert row[answer - 1] == row[question]
    row = np.array([9, 5, 6, 7, 9, 9, 1, 5, 6])
    wanted = np.array([IGNORE] * 6 + [5, 6, 7])
    assert ex._passkey_evidence(row, wanted).tolist() == [[6, 1]]


def test_what_a_stack_sees_is_the_reach_of_its_memory() -> None:
    for memory in (Window(3), Segments(4, 2), Segments(3, 3)):
        for layers in (1, 2, 3):
            seen = ex._visible(memory, 40, layers)
            far = max(i - j for i, j in np.argwhere(seen))
            assert far == memory.reach(layers)
    assert ex._visible(Full(), 9, 2).sum() == 45


def test_cells_change_with_their_own_task_alone() -> None:
    from dataclasses import replace

    first = {c.name: c.file for c in ex.cells("persuasion", ex.QUICK, 1)}
    second = {c.name: c.file for c in ex.cells("persuasion", replace(ex.QUICK, mqar_steps=9), 1)}
    assert {name for name in first if first[name] != second[name]} == {name for name in first if "mqar" in name}
    assert len(set(first.values())) == len(first) == 10
    with pytest.raises(UserError, match="give a longer text"):
        ex.cells("persuasion", replace(ex.QUICK, passkey_text_tokens=1_000_000), 1)


def made(values: dict[str, tuple[float, float, float]]) -> dict[str, Any]:
    """Results with recall, what one layer sees, and bits; 2 seeds that agree."""
    cells = []
    for task in ("mqar", "passkey"):
        for kind in ex.KINDS:
            recall, sees, bits = values.get(kind.name, (1.0, 1.0, 2.0))
            result = dict.fromkeys(BANDS, 1.0) | {"recall": recall, "one_layer": sees, "stack": sees, "bits": bits}
            settings = {"task": task, "memory": kind.name, "size": 0 if kind.name == "full" else 8}
            cells += [{"settings": settings, "result": result}] * 2
    return {"settings": {**ex.QUICK.settings(), "quick": True}, "cells": cells}


def test_findings_follow_the_numbers(tmp_path: Any) -> None:
    good = made({"window": (0.21, 0.2, 2.01), "window + sinks": (0.2, 0.2, 2.0)})
    said = REPORT.findings(good)
    assert all(line.startswith("reproduced") for line in said)
    assert said[-1] == (
        "reproduced: perplexity is not memory: window + sinks 8 has 2.000 bits per character and full attention 2.000, "
        "but they recall 0.200 and 1.000"
    )
    assert "(windows: one layer, recall, all layers: 0.200 0.210 0.200)" in said[0]
    said = REPORT.findings(made({"window": (0.9, 0.2, 2.01), "segments (XL)": (0.1, 0.4, 3.0)}))
    assert [line.split(":")[0] for line in said] == ["not reproduced"] * 5
    assert said[0].endswith(", but for segments (XL) 8")
    assert said[1].endswith(", but for window 8")
    files = REPORT.write(tmp_path, good)
    assert [f.name for f in files] == ["tables.md", "recall.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert [t.titles[0] for t in REPORT.tables(good)] == ["memory", "memory"]
