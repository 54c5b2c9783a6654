"""Results: ratios, shares, laws of growth, the table and the picture, from records made by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bench.growth import fit, line
from bench.plot import picture
from bench.report import compared, findings, head, profile_rows, seconds, size, table
from bench.results import assemble, good

pytestmark = pytest.mark.bench

CEILINGS = [
    {"matmul": 1e11, "copy": 2e10, "blas": [{"internal_api": "openblas", "version": "1", "architecture": "Zen"}]},
    {"matmul": 2e11, "copy": 1e10, "blas": []},
]
SETTINGS = {"threads": 2, "rounds": 3, "quick": False}


def record(name: str, sides: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": "timed",
        "work": {"ceiling": "matmul", "amount": 1e10},
        "sides": {
            side: {"rounds": [{"best": t} for t in times], "peak": 3e8, "growth": 1e8} for side, times in sides.items()
        },
        "absent": {},
        "broken": {},
        "gates": {"torch": {"green": True, "red": []}},
        "points": [],
        "profile": None,
        **more,
    }


def growing(name: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    return record(name, {}, work=None, gates={}, points=points)


LENGTHS = [512, 1024, 2048, 4096]
POINTS = [
    *({"curve": "full", "x": n, "keys": n / 2, "times": [n * (1e-5 + 1e-8 * n), 9.0]} for n in LENGTHS),
    *({"curve": "window 512", "x": n, "keys": 500, "times": [n * 2e-5]} for n in LENGTHS),
]
BATCHES = [{"curve": "step", "x": b, "times": [0.5, 0.001 + 0.002 * b]} for b in (2, 4, 8)]


def test_ratio_spread_and_share_follow_from_the_rounds() -> None:
    found = assemble([record("a", {"minilong": [0.1, 0.2, 0.1], "torch": [0.3, 0.3, 0.2]})], CEILINGS, SETTINGS)
    json.dumps(found, allow_nan=False)
    assert found["ceilings"]["matmul"] == 2e11
    assert found["ceilings"]["copy"] == 2e10
    sides = found["cases"][0]["sides"]
    assert sides["minilong"]["best"] == 0.1
    assert sides["minilong"]["spread"] == [0.1, 0.2]
    assert sides["minilong"]["share"] == pytest.approx(1e11 / 2e11)
    assert sides["torch"]["ratio"] == pytest.approx(2.0)
    assert sides["torch"]["ratio_spread"] == pytest.approx([1.5, 3.0])
    assert "ratio" not in sides["minilong"]
    assert compared(found["cases"]) == [("a", "torch", pytest.approx(2.0), pytest.approx(1.5), pytest.approx(3.0))]


def test_records_that_were_cut_short_are_shown() -> None:
    cut = [
        record("a", {"minilong": [0.1], "torch": []}, status="unfinished"),
        record("b", {}, status="unfinished", gates={}),
        record("c", {"minilong": []}, status="red", gates={"torch": {"green": False, "red": ["loss differs"]}}),
        record("d", {"minilong": []}, status="failed", error="minilong: its process ended with code 3"),
        record("e", {"minilong": [0.2]}, absent={"torch": "torch: not installed; pip"}, broken={"jax": "jax: no"}),
    ]
    found = assemble(cut, [], SETTINGS)
    lines = "\n".join(table(found))
    for text in ("not finished", "RED, so not timed: torch: loss differs", "FAILED: minilong: its process", "pip"):
        assert text in lines
    assert [good(case) for case in found["cases"]] == [False] * 5
    assert good(record("f", {"minilong": [1.0]}, absent={"torch": "torch: not installed"}))
    assert "share" not in found["cases"][0]["sides"]["minilong"]
    assert any("4 of" not in line and "gates" in line for line in findings(found))


def test_the_table_has_columns_and_says_what_holds_numpy_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = assemble([record("a", {"minilong": [0.1], "torch": [0.2]})], CEILINGS, SETTINGS)
    assert any("OPENBLAS_CORETYPE=Haswell is set: it holds NumPy to older kernels" in line for line in head(found))
    assert "openblas 1 (Zen)" in "\n".join(head(found))
    slow = record("b", {"minilong": [0.1], "jax": [0.2]})
    slow["sides"]["jax"]["gate_seconds"] = 9.25
    assert any("jax: compiled within the 9.25 s of its gate" in line for line in table(assemble([slow], [], SETTINGS)))
    title, ours, theirs = table(found)
    assert ours.split() == ["a", "minilong", "100", "ms", "100", "ms", "300", "MB", "+100", "MB", "0.50"]
    assert "2.00   2.00-2.00" in theirs
    assert title.index("ratio") == theirs.index("2.00")
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert not any("OPENBLAS_CORETYPE" in line for line in head(assemble([], CEILINGS, SETTINGS)))


def test_laws_of_growth_are_found() -> None:
    full, window = fit("growth-length", POINTS)
    assert full["slope"] == pytest.approx(1e-8)
    assert full["intercept"] == pytest.approx(1e-5)
    assert full["deviation"] < 1e-9
    assert window["intercept"] == pytest.approx(2e-5)
    (step,) = fit("growth-batch", BATCHES)
    assert (step["intercept"], step["slope"]) == pytest.approx((0.001, 0.002))
    assert line(np.array([1.0, 2, 3]), np.array([1.0, 2, 6]))[2] > 0.1


def test_the_picture_holds_ratios_and_curves() -> None:
    records = [
        record("a", {"minilong": [0.1, 0.2], "torch": [0.3, 0.3], "jax": [0.05, 0.06]}),
        growing("growth-batch", BATCHES),
        growing("growth-length", POINTS),
    ]
    pytest.importorskip("matplotlib")
    for some in (records, records[:1], records[1:]):
        drawn = picture(assemble(some, CEILINGS, SETTINGS))
        assert drawn is not None
        assert drawn.startswith(b"\x89PNG")
    assert picture(assemble([], [], SETTINGS)) is None


def test_figures_for_people() -> None:
    assert [seconds(t) for t in (2.345, 0.0123, 4.5e-5)] == ["2.35 s", "12.3 ms", "45 us"]
    assert [size(b) for b in (2.5e9, 3.2e8)] == ["2.50 GB", "320 MB"]


def test_small_parts_of_a_profile_are_shown_together() -> None:
    rows = [
        {"part": "a", "direction": "forward", "calls": 2.0, "seconds": 0.9985},
        *({"part": p, "direction": "", "calls": 1.0, "seconds": 5e-4} for p in "bcd"),
    ]
    shown = profile_rows({"step": 1.0, "rows": rows})
    assert [row[0] for row in shown] == ["a", "smaller parts", "step"]
    assert shown[1][3] == "1.50"
