"""minilong trains as its PyTorch twin does: the same losses and gradients at every step."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from bench import twin

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("case", twin.exact_cases(), ids=lambda case: case.name)
def test_float64_steps_equal_the_twin(case: twin.Case) -> None:
    d = twin.exact(case)
    print(f"\n{twin.EXACT_HEAD}\n{twin.exact_line(d)}")
    assert len(d.losses) == 20
    assert d.loss <= 1e-10
    assert d.gradient <= 1e-9, d.gradient_name
    assert d.zero <= 1e-14  # zero by symmetry: rounding alone, on both sides
    assert d.parameters <= 1e-8
    assert d.losses[-1][0] < d.losses[0][0] - 0.2  # a model that trains
    assert d.clipped > 0


@pytest.mark.parametrize("case", twin.single_cases(), ids=lambda case: case.name)
def test_float32_training_ends_where_the_twin_ends(case: twin.Case) -> None:
    d = twin.single(case)
    print(f"\n{twin.SINGLE_HEAD}\n{twin.single_line(d)}")
    ours, theirs = d.losses[-1]
    assert len(d.losses) == 200
    assert abs(ours - theirs) <= 1e-3
    assert ours < d.losses[0][0] - 0.5


@pytest.mark.parametrize(
    "change",
    [{"activation": "gelu"}, {"activation": "silu"}, {"position": "none"}, {"position": "sinusoidal"}],
    ids=str,
)
def test_a_wrong_twin_is_found_out(change: dict[str, str]) -> None:
    """The figures above mean something: exact GELU for its tanh form alone breaks them by orders of magnitude."""
    case = twin.exact_cases()[0]
    d = twin.exact(case, peer_model=replace(case.model, **change))
    assert d.loss > 1e-6
    assert d.gradient > 1e-5


def test_a_twin_with_other_parameters_is_refused() -> None:
    case = twin.exact_cases()[0]
    with pytest.raises(ValueError, match=r"names differ: \['stack\.norm\.bias', 'stack\.norm\.gain'\]"):
        twin.exact(case, peer_model=replace(case.model, norm="post"))
