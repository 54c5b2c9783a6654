"""Plausible mistakes in the engine, each planted in its source, are found by the engine's laws or its state machine."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import engine_laws
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_graph_machine import GraphMachine

from minilong.autodiff import core

# what -> (function of the engine, the line as it is, the mistake)
MUTANTS = {
    "assigns instead of accumulating": ("backward", "total = current + c\n", "total = c\n"),
    "accumulates in a borrowed array": ("backward", "elif parent in owned:", "elif type(current) is np.ndarray:"),
    "forgets a use whose cotangent is None": ("backward", "if parent is None:", "if parent is None or c is None:"),
    "does not wait for all uses": ("backward", "if not waiting[parent]:", "if True:"),
    "counts a node's uses once": ("count_children", "count[parent] += 1", "pass"),
    "keeps consumed graphs": ("backward", "node.saved = node.params = None", "pass"),
    "takes the level from the arguments alone": (
        "_trace",
        "level = _depth.get() + 1",
        "level = 1 + max((x.level for x in flat if type(x) is Tensor), default=0)",
    ),
    "leaves its level behind": ("_trace", "_depth.reset(token)", "pass"),
    "drops inputs that are not reached": ("vjp", "zeros_like(x) if found.get(i) is None else found[i]", "found.get(i)"),
    "hands over no leaf that is not reached": ("deliver_gradient", "for i in sorted(missing):", "for i in ():"),
    "hands a reached leaf zeros as well": ("deliver_gradient", "missing.discard(i)", "pass"),
    "hands over that there is no cotangent": ("deliver_gradient", "if g is not None:", "if True:"),
    "holds what was handed over": (
        "backward",
        "deliver(place[node], g)",
        "deliver(place[node], cotangent.setdefault(node, g))",
    ),
    "differentiates constants": ("_trace", "traced = type(y) is Tensor and y.level == level", "traced = True"),
}


def broken(function: str, line: str, mistake: str) -> Callable[..., Any]:
    """A function of the engine with one place of its source changed."""
    source = textwrap.dedent(inspect.getsource(getattr(core, function)))
    assert source.count(line) == 1, f"{function} has no single {line!r} any more: mend the mutant"
    scope = dict(vars(core))
    exec(compile(source.replace(line, mistake), f"<mutant of {function}>", "exec"), core.__dict__, scope)
    return scope[function]


def killer() -> str | None:
    """The name of the first check that notices; None where none does."""
    for law in engine_laws.LAWS:
        try:
            law()
        except Exception:  # a wrong engine may also raise
            return law.__name__
    try:
        quick = settings(max_examples=20, stateful_step_count=15, derandomize=True, phases=[Phase.generate])
        run_state_machine_as_test(GraphMachine, settings=quick)
    except Exception:
        return "graph machine"
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = MUTANTS[name][0]
    monkeypatch.setattr(core, function, broken(*MUTANTS[name]))
    depth = core._depth.set(0)
    try:
        assert killer() is not None
    finally:
        core._depth.reset(depth)


def test_the_right_engine_survives() -> None:
    assert killer() is None


@pytest.mark.parametrize("name", [n for n in MUTANTS if n.startswith(("assigns", "counts", "does not wait"))])
def test_the_state_machine_alone_kills_mistakes_of_the_sweep(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import test_graph_machine

    monkeypatch.setattr(core, MUTANTS[name][0], broken(*MUTANTS[name]))
    monkeypatch.setattr(test_graph_machine, "vjp", core.vjp)
    quick = settings(max_examples=50, stateful_step_count=15, derandomize=True, phases=[Phase.generate])
    with pytest.raises((AssertionError, KeyError, RuntimeError)):
        run_state_machine_as_test(GraphMachine, settings=quick)
