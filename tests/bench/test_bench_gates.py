"""Gates: equal results pass, what a mistake in training would change does not; every case's peers agree with ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import CASES, PEERS, Case
from bench.gate import compare, difference
from bench.ours import steps
from bench.process import Worker
from bench.runner import environment
from bench.worker import class_of
from minilong.optim import Adam

pytestmark = pytest.mark.bench

STEP = CASES["step-0.8m"]
TESTED = ("torch", "jax", "transformers")  # torch.compile takes ten seconds a case
SAME = ("step-10.7m", "step-23m", "step-long")
"""They differ from `step-0.8m` by sizes, which a quick case does not have."""

PAIRS = [(c, p) for c in CASES.values() for p in c.sides if p in TESTED and c.name not in SAME and c.kind != "start"]


def test_differences_are_relative_norms() -> None:
    a = np.array([3.0, 4.0])
    assert difference(a, a) == 0
    assert difference(a + np.array([0, 0.05]), a) == pytest.approx(0.01)
    assert difference(a, 0 * a) == 5
    assert difference(a, a[:1]) == np.inf
    assert difference(np.array([np.nan]), np.array([np.nan])) == np.inf


def test_a_gate_names_what_is_wrong() -> None:
    ours = {"loss": np.ones(3), "parameters.a": np.ones(2), "parameters.key.bias": np.ones(2), "extra": np.ones(1)}
    theirs = {"loss": np.ones(3), "parameters.a": np.ones(2) * 1.01, "parameters.key.bias": -np.ones(2)}
    limits = {"loss": 1e-6, "*.key.bias": np.inf, "parameters.*": 1e-4}
    gate = compare(ours, theirs, limits)
    assert not gate["green"]
    assert gate["red"] == ["only one side has extra", "parameters.a differs by 9.9e-03, allowed are 1e-04"]
    assert gate["worst"]["*.key.bias"] == {"name": "parameters.key.bias", "difference": 2.0, "limit": None}
    del ours["extra"]
    assert compare(ours, {**theirs, "parameters.a": np.ones(2)}, limits)["green"]
    assert compare({"x": np.ones(1)}, {"x": np.ones(1)}, limits)["red"] == ["no tolerance is stated for x"]
    assert compare({}, {}, limits)["red"] == ["there is nothing to compare"]


@contextmanager
def our_side(case: Case, settings: Any = None) -> Iterator[Any]:
    side = class_of(case.sides["minilong"])(settings or case.settings, case.threads or 2, {})
    try:
        yield side
    finally:
        side.close()


@pytest.mark.parametrize("mistake", ["no decay", "decay on all", "no clipping", "other gelu", "beta2", "rate", "none"])
def test_the_gate_of_a_step_finds_mistakes_in_training(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = STEP.shrunk()
    with our_side(case) as side:
        right = side.gate()
    settings = case.settings
    if mistake == "other gelu":
        settings = {**settings, "model": {**settings["model"], "activation": "gelu_tanh"}}
    if mistake == "no clipping":
        monkeypatch.setattr(steps, "MAX_NORM", 0.0)
    if mistake == "beta2":
        monkeypatch.setattr(steps, "BETAS", (0.9, 0.999))
    if mistake == "rate":
        monkeypatch.setattr(steps, "RATE", 1.01e-3)
    if mistake == "no decay":
        monkeypatch.setattr(steps, "DECAY", 0.0)
    if mistake == "decay on all":
        plain = Adam.step
        monkeypatch.setattr(Adam, "step", lambda self, s, p, g, lr, **_: plain(self, s, p, g, lr))
    with our_side(case, settings) as side:
        found = side.gate()
    assert compare(found, right, case.tolerance)["green"] == (mistake == "none")


@pytest.fixture(scope="module")
def apart() -> Iterator[Worker]:
    """A process for the sides that should not be in that of the tests: JAX warns of every fork from then on."""
    with Worker("apart", environment("jax", 2)) as worker:
        yield worker


def results_of(case: Case, peer: str, shared: dict[str, np.ndarray], apart: Worker, folder: Path) -> Any:
    """What a peer's gate gives, after which it also ran once."""
    threads = case.threads or 2
    if peer == "jax":
        np.savez(folder / "shared.npz", **shared)  # type: ignore[arg-type]
        what = {"side": case.sides[peer], "settings": dict(case.settings), "threads": threads}
        apart.ask("prepare", **what, shared=str(folder / "shared.npz"), cores=None)
        apart.ask("gate", file=str(folder / "gate.npz"))
        apart.ask("warm")
        return dict(np.load(folder / "gate.npz"))
    side = class_of(case.sides[peer])(case.settings, threads, shared)
    try:
        found = side.gate()
        side.run()
        return found
    finally:
        side.close()


@pytest.mark.peer
@pytest.mark.parametrize(("case", "peer"), PAIRS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_peers_agree(case: Case, peer: str, apart: Worker, tmp_path: Path) -> None:
    if find_spec(PEERS[peer]) is None:
        pytest.skip(f"{peer} is not installed")
    tiny = case.shrunk()
    with our_side(tiny) as side:
        shared = {name: np.array(a) for name, a in side.share().items()}
        ours = side.gate()
    gate = compare(ours, results_of(tiny, peer, shared, apart, tmp_path), tiny.tolerance)
    assert gate["green"], gate["red"]
