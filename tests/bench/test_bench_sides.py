"""Every case: its declaration is whole, minilong's side builds, shares and runs at tiny sizes, its work is counted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bench import CASES, Case
from bench.counting import decoder_step, encoder_decoder_step, generation, visible_pairs
from bench.ours.steps import Trainer, as_batch, tokens
from bench.registry import select
from bench.worker import class_of

pytestmark = pytest.mark.bench

RUN = [case for case in CASES.values() if not case.growth]


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_case_is_whole(case: Case) -> None:
    assert json.loads(json.dumps(case.settings)) == case.settings
    assert set(case.quick) <= set(case.settings)
    assert case.about
    assert case.estimate(1, 5) > 0
    if len(case.sides) > 1:
        assert case.tolerance, "no tolerance is stated"
        assert all(limit <= 1e-4 or math.isinf(limit) for limit in case.tolerance.values())
    assert (case.work is None) == (case.kind in ("start", "data", "growth"))


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.name)
def test_our_side_builds_runs_and_shows_finite_results(case: Case) -> None:
    tiny = case.shrunk()
    side = class_of(tiny.sides["minilong"])(tiny.settings, tiny.threads or 2, {})
    try:
        shared = side.share()
        found = side.gate()
        side.run()
    finally:
        side.close()
    assert found or len(case.sides) == 1
    assert shared or case.kind == "start"
    for name, array in {**shared, **found}.items():
        assert np.isfinite(array).all(), name
    work = tiny.least_work()
    assert work is None or work.amount > 0


@pytest.mark.parametrize("name", ["growth-batch", "growth-length"])
def test_growth_cases_give_a_point_for_each_size(name: str) -> None:
    tiny = CASES[name].shrunk()
    points = class_of(tiny.sides["minilong"])(tiny.settings, 2, {}).sweep(2, 0.0)
    sizes = tiny.settings["batches"] if name == "growth-batch" else 2 * tiny.settings["lengths"]
    assert [p["x"] for p in points] == sizes
    assert all(len(p["times"]) == 2 and min(p["times"]) > 0 for p in points)


def test_cases_are_chosen_by_names_and_globs_in_their_order() -> None:
    found, unknown = select(["op-gelu", "step-0*", "nothing", "kernel-*-256"])
    assert [c.name for c in found] == ["step-0.8m", "op-gelu", "kernel-attention-256"]
    assert unknown == ["nothing"]
    assert [c.name for c in select([])[0]] == list(CASES)


def test_the_work_of_a_step_is_counted_as_stated() -> None:
    step = decoder_step(CASES["step-10.7m"].settings)
    matrices = 12 * 6 * 384**2 + 73 * 384
    assert step.amount == (6 * matrices + 6 * 6 * 256 * 384) * 2048
    assert round(step.amount / 1e9) == 138
    # Every array with two axes but the positions multiplies; the tied table once.
    for name in ("step-0.8m", "step-encoder-decoder"):
        settings = CASES[name].settings
        trainer = Trainer(settings["model"], settings["vocabulary"], 2, 1)
        multiplied = sum(
            math.prod(s)
            for n, s in zip(trainer.layout.names, trainer.layout.shapes, strict=True)
            if len(s) == 2 and n != "input.positions.table"
        )
        d, layers, t = settings["model"]["width"], settings["model"]["layers"], settings["length"]
        per_token = (6 if name == "step-0.8m" else 12 + 12 + 6) * layers * t * d
        count = decoder_step if name == "step-0.8m" else encoder_decoder_step
        assert count(settings).amount == (6 * multiplied + per_token) * settings["batch"] * t


def test_visible_pairs_are_those_of_the_mask() -> None:
    for n, window in ((1, 0), (7, 0), (7, 3), (7, 7), (5, 9)):
        i, j = np.mgrid[:n, :n]
        assert visible_pairs(n, window) == ((j <= i) & (i - j < (window or n))).sum()
    assert generation(CASES["generate-1"].settings).amount > 0


def test_threads_go_to_rows_first_and_then_inside() -> None:
    model = CASES["step-0.8m"].quick["model"]
    assert Trainer(model, 19, rows=3, threads=2).replicas.threads == 2
    assert Trainer(model, 19, rows=1, threads=2).replicas.threads == 1


def test_the_trainer_learns() -> None:
    settings = CASES["step-0.8m"].shrunk().settings
    batch = as_batch(tokens(settings))
    with Trainer(settings["model"], settings["vocabulary"], settings["batch"], 2) as trainer:
        losses = [trainer.step(batch) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.3
