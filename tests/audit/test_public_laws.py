"""The laws of the public kinds: they hold for this project and for other right ways, and each kills its mutants."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from minilong.attention import naive
from minilong.audit import laws_for, load
from minilong.audit.draw import Numbers
from minilong.audit.law import KINDS, LAWS, MUTANTS, SUBJECTS, Law, LawBroken, Measure, Mutant
from minilong.audit.run import case_as_python, run_law
from minilong.positions import alibi, alibi_slopes

load()

SIGNATURES = {
    "attention": "attention(q, k, v, mask)",
    "softmax": "softmax(x)",
    "layer-norm": "layer_norm(x, gain, bias, eps)",
    "rms-norm": "rms_norm(x, gain, eps)",
    "cross-entropy": "cross_entropy(logits, targets, ignore_index)",
    "adam": "adam(param, grad, m, v, step, lr, beta1, beta2, eps)",
    "clip": "clip(grads, max_norm)",
    "sinusoidal": "sinusoidal(length, width)",
    "rotary": "rotary(x, positions, base)",
    "alibi": "alibi(heads, t, s)",
}
PUBLIC = [law for law in LAWS.values() if law.kind in SIGNATURES]
WRONG = [m for m in MUTANTS.values() if m.kind in SIGNATURES]
EXAMPLES = 20


def test_the_public_kinds_have_the_signatures_that_are_promised() -> None:
    assert {kind.name: kind.signature for kind in KINDS.values() if kind.public} == SIGNATURES
    for name, signature in SIGNATURES.items():
        assert KINDS[name].function == signature.split("(")[0]
        wanted = len(signature.split(","))
        functions = [s.f for s in SUBJECTS.values() if s.kind == name] + [m.f for m in WRONG if m.kind == name]
        assert all(len(inspect.signature(f).parameters) == wanted for f in functions)


@pytest.mark.parametrize("law", PUBLIC, ids=str)
def test_a_law_holds_for_every_implementation(law: Law) -> None:
    subjects = [s for s in SUBJECTS.values() if s.kind == law.kind]
    assert subjects
    for s in subjects:
        result = run_law(law, s.f, examples=EXAMPLES)
        assert result.failure is None, f"{s.name}: {result.failure}"
        assert result.examples == max(5, round(EXAMPLES * law.share))
        assert result.worst <= 1.0


@pytest.mark.parametrize("mutant", WRONG, ids=lambda m: m.name)
def test_a_mutant_dies_of_the_laws_that_it_names(mutant: Mutant) -> None:
    assert mutant.kills
    for name in mutant.kills:
        assert fails(LAWS[name], mutant.f), f"{name} lets it pass"


def fails(law: Law, f: Callable[..., Any]) -> bool:
    """Whether the law is broken, by its own judgement, in 100 cases; no time is spent on a smaller one."""

    @settings(
        max_examples=100,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(law.cases())
    def attempt(case: Any) -> None:
        with np.errstate(all="ignore"):
            law.check(f, case, Measure())

    try:
        attempt()
    except LawBroken:
        return True
    return False


def test_every_law_has_a_mutant() -> None:
    killed = {name for m in WRONG for name in m.kills}
    assert not [law.name for law in PUBLIC if law.name not in killed]
    assert len(WRONG) >= 60


def test_the_sum_of_sine_and_cosine_fails_what_the_pairs_satisfy() -> None:
    failed = {"first-row", "interleaved", "constant-norm", "shift", "linear-shift", "distance-kernel"}
    assert set(MUTANTS["sinusoidal/cas"].kills) == {f"sinusoidal/{name}" for name in failed}


@pytest.mark.parametrize("law", PUBLIC, ids=str)
def test_a_case_pastes_into_python(law: Law) -> None:
    @settings(max_examples=3, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(law.cases())
    def pasted(case: Any) -> None:
        names: dict[str, Any] = {"np": np}
        exec(case_as_python(case), names)
        for name, value in case.items():
            assert_same(names[name], value)

    pasted()


def assert_same(found: Any, right: Any) -> None:
    """Equal in value, type, shape and precision."""
    assert type(found) is type(right)
    if isinstance(right, list):
        assert len(found) == len(right)
        for f, r in zip(found, right, strict=True):
            assert_same(f, r)
    elif isinstance(right, np.ndarray):
        assert found.dtype == right.dtype
        assert found.shape == right.shape
        assert np.array_equal(found, right)
    else:
        assert found == right


def test_numbers_of_cases_are_short() -> None:
    r = Numbers(7, 2)
    for x in (r.normal(4, 5), r.uniform(0, 4, 3), r.nonzero(6), r.spread_out(2, 8)):
        assert np.array_equal(x, np.round(x, 2))
    assert np.all(np.abs(r.nonzero(100)) >= 1)
    assert np.min(np.diff(np.sort(r.spread_out(50, 8), axis=-1), axis=-1)) >= 0.49
    assert all(np.any(Numbers(seed, 0).order(2) != [0, 1]) for seed in range(20))


# Laws leave free what the equation leaves free: these are right, and do otherwise than this project.


def online_attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Two keys at a time, with the running maximum and sum."""
    top, total = np.full((*q.shape[:-1], 1), -np.inf), np.zeros((*q.shape[:-1], 1))
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for j in range(0, k.shape[-2], 2):
        here = slice(j, j + 2)
        s = np.where(mask[:, here], q @ k[..., here, :].swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -np.inf)
        new = np.maximum(top, s.max(axis=-1, keepdims=True))
        finite = np.where(np.isfinite(new), new, 0.0)
        factor, e = np.exp(top - finite), np.exp(s - finite)
        total, y, top = total * factor + e.sum(axis=-1, keepdims=True), y * factor + e @ v[..., here, :], new
    return y / np.where(total == 0, 1.0, total)


def attention_by_logarithm(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Queries and keys each scaled by the fourth root, -1e9 for what is hidden, weights by exp(s - log sum exp)."""
    root = q.shape[-1] ** 0.25
    s = np.where(mask, np.einsum("...td,...sd->...ts", q / root, k / root), -1e9)
    top = s.max(axis=-1, keepdims=True)
    weights = np.exp(s - top - np.log(np.exp(s - top).sum(axis=-1, keepdims=True)))
    return np.where(mask.any(axis=-1)[:, None], (weights * mask) @ v, 0.0)


def softmax_by_logarithm(x: Any) -> Any:
    top = x.max(axis=-1, keepdims=True)
    return np.exp(x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))


def one_pass_layer_norm(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    """Sums of the row and of its squares in one pass, about its first component."""
    x = x - x[..., :1]
    mean = x.mean(axis=-1, keepdims=True)
    variance = np.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
    return x * (gain / np.sqrt(variance + eps)) + (bias - mean * gain / np.sqrt(variance + eps))


def reordered_adam(p: Any, g: Any, m: Any, v: Any, step: int, lr: float, b1: float, b2: float, eps: float) -> Any:
    """PyTorch's order: the root divided by the root of the correction."""
    m, v = m + (g - m) * (1 - b1), v * b2 + g * g * (1 - b2)
    return p - lr / (1 - b1**step) * (m / (np.sqrt(v) / math.sqrt(1 - b2**step) + eps)), m, v


def clip_by_norms(grads: Any, max_norm: float) -> Any:
    norm = float(np.linalg.norm([np.linalg.norm(g.ravel()) for g in grads]))
    return [g * (max_norm / max(norm, max_norm)) for g in grads]


def float32_table(length: int, width: int) -> Any:
    """As in many tutorials: frequencies by exp and log, all in float32."""
    position = np.arange(length, dtype=np.float32)[:, None]
    rate = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width))
    y = np.zeros((length, width), np.float32)
    y[:, 0::2], y[:, 1::2] = np.sin(position * rate), np.cos(position * rate)
    return y


def rotate_half(x: Any, positions: Any, base: float) -> Any:
    d = x.shape[-1]
    angle = np.outer(positions, 1 / base ** (np.arange(0, d, 2) / d))
    angle = np.concatenate([angle, angle], axis=-1)
    return x * np.cos(angle) + np.concatenate([-x[..., d // 2 :], x[..., : d // 2]], axis=-1) * np.sin(angle)


def alibi_of_keys(heads: int, t: int, s: int) -> Any:
    """The slope times the key's position, the same for all queries; the future is hidden already."""
    bias = np.tile(alibi_slopes(heads)[:, None, None] * np.arange(s), (1, t, 1))
    return np.where(np.arange(s) > np.arange(t)[:, None], -np.inf, bias)


RIGHT: list[tuple[str, Callable[..., Any]]] = [
    ("attention", online_attention),
    ("attention", attention_by_logarithm),
    ("softmax", softmax_by_logarithm),
    ("layer-norm", one_pass_layer_norm),
    ("adam", reordered_adam),
    ("clip", clip_by_norms),
    ("sinusoidal", float32_table),
    ("rotary", rotate_half),
    ("alibi", alibi_of_keys),
]


@pytest.mark.parametrize(("kind", "f"), RIGHT, ids=lambda x: getattr(x, "__name__", ""))
def test_another_right_way_passes(kind: str, f: Callable[..., Any]) -> None:
    for law in laws_for(kind):
        result = run_law(law, f, examples=EXAMPLES)
        assert result.failure is None, f"{law}: {result.failure}"


# As users meet them


def test_a_law_called_on_a_function_raises_with_equation_and_counterexample() -> None:
    def unscaled(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return MUTANTS["attention/unscaled"].f(q, k, v, mask)

    with pytest.raises(LawBroken) as found:
        LAWS["attention/definition"](unscaled)
    said = str(found.value)
    assert "serves eq:attention" in said
    assert "q = np.array(" in said
    assert "bound" in said


def test_a_counterexample_is_small() -> None:
    failure = run_law(LAWS["attention/definition"], MUTANTS["attention/unscaled"].f).failure
    assert failure is not None
    assert sum(failure.case[name].size for name in "qkv") <= 10


def test_ways_that_differ_only_where_nothing_is_seen_fail_only_there() -> None:
    for kind, mutant, right in (
        ("attention", "minus-infinity", {"definition", "weights", "blind-queries"}),
        ("cross-entropy", "nan-when-none", {"definition", "none-kept"}),
    ):
        failed = {law.name for law in laws_for(kind) if fails(law, MUTANTS[f"{kind}/{mutant}"].f)}
        assert failed == {f"{kind}/{name}" for name in right}


# ALiBi itself


def test_slopes_as_published() -> None:
    np.testing.assert_array_equal(alibi_slopes(8), [1 / 2**i for i in range(1, 9)])
    np.testing.assert_array_equal(alibi_slopes(1), [2.0**-8])
    np.testing.assert_array_equal(alibi_slopes(3), [2.0**-4, 2.0**-8, 2.0**-2])
    np.testing.assert_allclose(alibi_slopes(12)[8:], 2.0 ** -np.array([0.5, 1.5, 2.5, 3.5]), rtol=1e-15)
    with pytest.raises(ValueError, match="0 heads"):
        alibi_slopes(0)


def test_biases_by_hand_and_at_an_offset() -> None:
    np.testing.assert_array_equal(alibi(1, 2, 3) * 2**8, [[[0, -1, -2], [-1, 0, -1]]])
    assert alibi(2, 3, 4).dtype == np.float32
    assert not np.signbit(alibi(2, 3, 3)[:, 0, 0]).any()
    np.testing.assert_array_equal(alibi(6, 2, 9, offset=4), alibi(6, 9, 9)[:, 4:6])


def test_biases_reach_attention() -> None:
    q, k = np.zeros((2, 1, 4)), np.zeros((2, 3, 4))
    v = np.broadcast_to(np.eye(3), (2, 3, 3))
    weights = naive(q, k, v, bias=alibi(2, 1, 3, offset=2, dtype="float64"))[:, 0]
    right = np.exp(-alibi_slopes(2)[:, None] * np.array([2, 1, 0]))
    np.testing.assert_allclose(weights, right / right.sum(axis=-1, keepdims=True), rtol=1e-14)
