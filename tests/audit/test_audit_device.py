"""`minilong audit --device`: the laws on a device, here a stand-in for CuPy, and what of the audit stays on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from standin import cupy
from toy_book import SUBJECT, toy_book

from minilong.attention import Mask
from minilong.audit import load
from minilong.audit.device import HOST, OnDevice, mapped
from minilong.audit.join import audit
from minilong.audit.law import LAWS
from minilong.audit.run import run_law
from minilong.backend import CPU, Device, is_array
from minilong.cli import main
from minilong.errors import UserError

load()

DEVICE = Device("fake")


@pytest.fixture
def stand_in() -> Iterator[None]:
    with cupy.install():
        yield


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> Path:
    """The toy book in place of the real one, and a device."""
    monkeypatch.setattr("minilong.audit.join.open_book", lambda: toy_book(tmp_path))
    return tmp_path


# The wrapper


@dataclass(frozen=True)
class Layer:
    weight: Any
    name: str

    def __post_init__(self) -> None:
        raise AssertionError("a layer that is moved is not made anew")


def test_trees_are_moved_with_all_their_arrays(stand_in: None) -> None:
    layer = object.__new__(Layer)
    object.__setattr__(layer, "weight", np.ones(2))
    object.__setattr__(layer, "name", "w")
    mask = Mask(causal=True, key_lengths=np.array([1, 2]))
    seen: list[Any] = []

    def look(*args: Any, **keywords: Any) -> Any:
        seen.extend([args, keywords])
        return [args[0] + 1, {"y": args[1][0].weight * 2}, (args[3].key_lengths, 3.0, None)]

    y = OnDevice(look, DEVICE)(np.zeros(3), [layer], {"a": (np.arange(2), "text")}, mask, np.float64(2), k=np.ones(1))
    (x, layers, tree, moved, number), keywords = seen
    for array in (x, layers[0].weight, tree["a"][0], moved.key_lengths, keywords["k"]):
        assert isinstance(array, cupy.ndarray)
    assert (type(layers[0]), layers[0].name, tree["a"][1], moved.causal, moved.segments) == (
        *(Layer, "w", "text", True, None),
    )
    assert isinstance(number, np.float64)
    found: list[Any] = []
    mapped(lambda a: found.append(a) or a, y)
    assert [type(a) for a in found] == [np.ndarray] * 3
    np.testing.assert_array_equal(y[0], np.ones(3))
    np.testing.assert_array_equal(y[1]["y"], [2.0, 2.0])
    assert y[2][1:] == (3.0, None)


def test_what_a_function_writes_into_its_arguments_is_seen(stand_in: None) -> None:
    def doubling(x: Any) -> Any:
        x *= 2
        return x + 0

    x = np.arange(3.0)
    OnDevice(doubling, DEVICE)(x)
    np.testing.assert_array_equal(x, [0, 2, 4])
    OnDevice(lambda x: x * 2, DEVICE)(x)
    np.testing.assert_array_equal(x, [0, 2, 4])


def softmax_of(xp: Any, x: Any) -> Any:
    e = xp.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def in_place(x: Any) -> Any:
    x -= x.max(axis=-1, keepdims=True)
    return softmax_of(cupy, x)


@pytest.mark.parametrize(
    ("f", "law", "raised", "text"),
    [
        (lambda x: softmax_of(cupy, x), None, False, ""),
        (lambda x: softmax_of(np, x), "softmax/definition", True, "numpy.exp of a device array"),
        (lambda x: cupy.asarray(softmax_of(np, cupy.asnumpy(x))) * 1.001, "softmax/definition", False, "the law asks"),
        (in_place, "softmax/pure", False, "changed in place"),
        (lambda x: softmax_of(cupy, x.astype("float32")), "softmax/definition", False, "the law asks for"),
    ],
    ids=["right", "a stray np", "wrong numbers", "in place", "float32"],
)
def test_laws_judge_what_the_device_computed(stand_in: None, f: Any, law: str | None, raised: bool, text: str) -> None:
    own = [x for x in LAWS.values() if x.kind == "softmax"]
    failures = {x.name: r.failure for x in own if (r := run_law(x, OnDevice(f, DEVICE), examples=5)).failure}
    if law is None:
        assert not failures
    else:
        failure = failures[law]
        assert failure is not None
        assert failure.raised == raised
        assert text in failure.message
        assert not any(is_array(v) and isinstance(v, cupy.ndarray) for v in failure.case.values())


# The report


def test_the_report_has_laws_and_nothing_else(toy: Path) -> None:
    report = audit(20, book=toy_book(toy), device=DEVICE)
    assert report.passed
    assert (report.device, report.on_cpu) == ("fake:0", False)
    assert (report.equations, report.claims, report.mutants, report.left_out) == ((), (), (), ())
    assert [(law.name, law.passed, law.subjects, law.mutants) for law in report.laws] == [
        ("double/definition", True, ("toy.double",), ())
    ]
    assert report.laws[0].examples
    assert not audit(20, book=toy_book(toy)).left_out
    assert audit(20, book=toy_book(toy)).device == str(CPU)


def test_a_law_that_fails_is_a_hole(toy: Path) -> None:
    book = toy_book(toy, subjects={SUBJECT.name: replace(SUBJECT, f=lambda x: x + x + 1.0)})
    report = audit(20, book=book, device=DEVICE)
    assert len(report.holes) == 1
    assert report.holes[0].startswith("law double/definition fails on toy.double: ")
    assert not report.laws[0].passed


def test_what_is_left_out_is_named(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no law of this runs on a device: leave out --device"):
        audit(20, only="claim:fame", book=toy_book(toy), device=DEVICE)
    monkeypatch.setitem(HOST, "double", "it is of the host")
    with pytest.raises(UserError, match="no law of this runs on a device: it is of the host"):
        audit(20, book=toy_book(toy), device=DEVICE)


# The command


def test_the_command_counts_the_laws(stand_in: None) -> None:
    result = call("--device", "fake", "--only", "softmax", "--examples", "2")
    assert result.exit_code == 0, result.output
    for part in (
        "softmax                      12 of  12 hold", "primitive                     6 of   6 hold",
        "left out: sampling (1): a token is drawn on the host", "left out: primitive/residuals (1): ",
        "device     fake:0; ", " laws are the host's and were left out",
        "on fake:0, laws only, 2 examples a law",
    ):  # fmt: skip
        assert part in result.stdout
    assert "not printed by the article" not in result.stdout


def test_json_says_where(toy: Path) -> None:
    result = call("--device", "fake", "--json", "-", "--quiet")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["device"], found["passed"], found["left_out"]) == ("fake:0", True, [])
    assert found["laws"][0]["name"] == "double/definition"


@pytest.mark.parametrize("option", [["--list"], ["--show", "double"], ["--html", "x.html"], ["--on", "x.py"]])
def test_other_things_are_not_asked_of_a_device(option: list[str]) -> None:
    result = call("--device", "cuda", *option)
    assert result.exit_code == 2
    assert f"{option[0]} concerns the audit on a CPU" in result.stderr


def test_without_a_device_the_command_says_what_is_missing() -> None:
    result = call("--device", "fake")
    assert result.exit_code == 2
    assert "stand-in" in result.stderr
