"""The extrapolation experiment: what is scored, what its tables say, and that they follow from results.json alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilong.errors import UserError
from minilong.experiments import extrapolation as ex
from minilong.experiments.cells import run_cells
from minilong.experiments.extrapolation_report import REPORT, WAYS, band
from minilong.experiments.results import Band, markdown, save
from minilong.experiments.training import windows

SIZES = replace(ex.QUICK, steps=3, lengths=(16, 32), factors=(2,))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of two seeds and a few schemes."""
    folder = tmp_path_factory.mktemp("extrapolation")
    cells = [c for c in ex.cells(["persuasion"], SIZES, 2) if c.settings["scheme"] in ("learned", "rotary")]
    return save(folder, ex.NAME, {**SIZES.settings(), "seeds": 2}, run_cells(cells, folder))


def made(values: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Results in which rows have the given bits at 16 and 32, side by side; 2.0 where nothing is given."""
    rows = {}
    for row in ex.ROWS:
        first, last = values.get(row, (2.0, 2.0))
        over = values.get(f"{row}, overlapping", (first, last))
        both = dict(zip(WAYS, ((first, last), over), strict=True))
        rows[row] = {way: {"16": a, "32": None if row == "learned" else b} for way, (a, b) in both.items()}
    scaling = {name: {way: {"32": 3.0 - 0.1 * i} for way in WAYS} for i, name in enumerate(ex.SCALINGS)}
    cell = {"result": {"rows": rows, "scaling": scaling}}
    settings = {**SIZES.settings(), "quick": True}
    return {"settings": settings, "cells": [cell, json.loads(json.dumps(cell))]}


def test_results_hold_everything_and_are_json(results: dict[str, Any]) -> None:
    assert results == json.loads(json.dumps(results, allow_nan=False))
    assert set(results) == {"format", "experiment", "settings", "machine", "versions", "processor_seconds", "cells"}
    assert {c["name"] for c in results["cells"]} == {
        f"{name}, seed {seed}" for name in ("learned", "rotary") for seed in (1, 2)
    }
    for cell in results["cells"]:
        for row in cell["result"]["rows"].values():
            assert set(row) == set(WAYS)
            assert all(0 < v < 20 for way in row.values() for v in way.values() if v is not None)


def test_learned_positions_end_at_their_table(results: dict[str, Any]) -> None:
    for way in WAYS:
        assert band(results, "learned", way, 16) is not None
        assert band(results, "learned", way, 32) is None


def test_seeds_differ_and_make_a_band(results: dict[str, Any]) -> None:
    value = band(results, "rotary", "overlapping", 32)
    assert value is not None
    assert value.least < value.mean < value.most
    assert str(Band(1.0, 0.9, 1.1)) == "1.000 ±0.100"
    assert Band.of([1.0, None]) is None


def test_within_its_context_a_window_is_the_plain_model_and_beyond_it_is_not(results: dict[str, Any]) -> None:
    rows = results["cells"][0]["result"]["rows"]
    assert results["cells"][0]["settings"]["scheme"] == "rotary"
    for reading in ("rotary, window", "rotary, window + sinks"):
        for way in WAYS:
            assert rows[reading][way]["16"] == pytest.approx(rows["rotary"][way]["16"], abs=1e-4)
            assert rows[reading][way]["32"] != rows["rotary"][way]["32"]
    plain = results["cells"][0]["result"]["scaling"]["plain"]["side by side"]["32"]
    others = [results["cells"][0]["result"]["scaling"][n]["side by side"]["32"] for n in ex.SCALINGS if n != "plain"]
    assert plain not in others


def test_both_ways_score_the_same_tokens_once() -> None:
    ids = np.arange(4, 4 + 129, dtype=np.int32)
    for length in (16, 24, 128):
        for stride in (None, length // 4):
            scored = [t for b in windows(ids, length, stride) for t in b.targets[b.targets >= 0].tolist()]
            assert sorted(scored) == ids[1:].tolist()


def test_cells_are_declared_before_anything_runs() -> None:
    cells = ex.cells(["persuasion"], SIZES, 3)
    assert len(cells) == 3 * len(ex.SCHEMES)
    assert len({c.file for c in cells}) == len(cells)
    assert len(ex.ROWS) == 10
    assert {c.settings["seed"] for c in cells[: len(ex.SCHEMES)]} == {1}
    with pytest.raises(
        UserError, match=r"held-out end of the text has \d+ characters, and 100001 are scored; give more"
    ):
        ex.cells(["persuasion"], replace(SIZES, tokens=100_000), 1)


def test_a_budget_sets_the_steps() -> None:
    timings = [{"result": {"seconds_per_step": 0.1}}, {"result": {"seconds_per_step": 0.3}}]
    assert ex.steps_for(1200.0, timings, 3, 2) == int(1200 * 2 / (3 * 0.4)) - ex.READING
    assert ex.steps_for(1.0, timings, 3, 2) == 10
    (cell,) = [c for c in ex.timing_cells(["persuasion"], SIZES, 60.0) if c.settings["scheme"] == "learned"]
    assert 0 < ex.time_steps(dict(cell.settings), lambda share: None)["seconds_per_step"] < 5


def test_findings_follow_the_numbers() -> None:
    shape = {"sinusoidal": (2.0, 4.0), "alibi": (2.0, 1.9), "alibi, overlapping": (1.95, 1.94)}
    shape |= {"rotary, window": (2.0, 2.5), "rotary, window + sinks": (2.0, 2.1)}
    said = REPORT.findings(made(shape))
    assert [line.split(":")[0] for line in said[:4]] == ["reproduced"] * 4
    assert "+2.000 bits from 16 to 32 (2.000 to 4.000)" in said[0]
    assert "from 16 to 32 ALiBi gains 0.100 bits with windows side by side, and 0.010 with overlapping ones" in said[2]
    assert said[4].startswith("at 32, overlapping: alibi 1.940; ")
    assert said[4].endswith("; sinusoidal 4.000")
    assert said[-1] == "scaling at 2x: YaRN (paper) is best with 2.500, 0.500 below plain rotary"
    said = REPORT.findings(made({"alibi": (2.0, 2.4)}))
    assert [line.split(":")[0] for line in said[:4]] == ["not reproduced"] * 4


def test_tables_and_picture_follow_from_results_alone(tmp_path: Any) -> None:
    results = made({"sinusoidal": (2.0, 4.0)})
    first = REPORT.tables(results)[0]
    assert first.titles == ["position", "16", "32"]
    assert ["sinusoidal", "2.000", "4.000"] in first.rows
    assert ["learned", "2.000", "-"] in first.rows
    assert len(REPORT.tables(results)) == 4
    files = REPORT.write(tmp_path, results)
    assert [f.name for f in files] == ["tables.md", "extrapolation.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert "| sinusoidal             | 2.000 | 4.000 |" in files[0].read_text()


def test_markdown_is_aligned() -> None:
    assert markdown(["a", "bcd"], [["long", "1"]]) == "| a    | bcd |\n| ---- | --- |\n| long | 1   |\n"
