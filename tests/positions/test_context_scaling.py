"""Context scaling as turns: identity to the bit, batches of positions, YaRN's factor, and attention with a cache."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from minilong.attention import Mask, naive
from minilong.autodiff import vjp
from minilong.autodiff.numeric import directional, rounding_bound
from minilong.positions import Scaling, dynamic_attention, rotary, rotary_turns

RNG = np.random.default_rng(0)
POSITIONS = np.array([0, 1, 5, 77, 4095, 100_000])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("dim", [2, 4, 10, 64])
@pytest.mark.parametrize("base", [10000.0, 500000.0])
def test_scale_one_is_plain_to_the_bit(dim: int, base: float, dtype: str) -> None:
    angle = POSITIONS.astype(np.float64)[:, None] * base ** (-np.arange(0, dim, 2) / dim)
    plain = np.exp(1j * angle).astype(dtype)
    np.testing.assert_array_equal(rotary_turns(POSITIONS, dim, base=base, dtype=dtype), plain)
    for scaling in (
        Scaling(), Scaling("pi"), Scaling("ntk"), Scaling("yarn", 1.0, 64), Scaling("yarn", 1.0, 4096, "paper"),
    ):  # fmt: skip
        np.testing.assert_array_equal(rotary_turns(POSITIONS, dim, base=base, dtype=dtype, scaling=scaling), plain)
    dynamic = Scaling("dynamic", 8.0, 4096)
    for length in (1, 512, 2048, 4096):
        turns = rotary_turns(POSITIONS, dim, base=base, dtype=dtype, scaling=dynamic, length=length)
        np.testing.assert_array_equal(turns, plain)
    if dim > 2:
        assert np.any(rotary_turns(POSITIONS, dim, base=base, dtype=dtype, scaling=dynamic, length=4097) != plain)


def test_interpolated_positions_may_be_fractions() -> None:
    for s in (2.0, 4.0, 8.0):
        stretched = rotary_turns(s * POSITIONS, 8, dtype="complex128", scaling=Scaling("pi", s))
        np.testing.assert_array_equal(stretched, rotary_turns(POSITIONS, 8, dtype="complex128"))
        fractions = rotary_turns(POSITIONS / s, 8, dtype="complex128")
        interpolated = rotary_turns(POSITIONS, 8, dtype="complex128", scaling=Scaling("pi", s))
        np.testing.assert_allclose(fractions, interpolated, atol=rounding_bound(np.float64, 100_000.0), rtol=0)


def test_positions_of_each_sequence() -> None:
    at = RNG.integers(0, 500, (3, 5))
    for scaling, length in ((None, None), (Scaling("yarn", 4.0, 64), None), (Scaling("dynamic", 2.0, 50), at + 1)):
        rows = [
            rotary_turns(p, 6, scaling=scaling, length=None if length is None else n)
            for p, n in zip(at, at + 1, strict=True)
        ]
        turns = rotary_turns(at, 6, scaling=scaling, length=length)
        assert turns.shape == (3, 5, 3)
        np.testing.assert_array_equal(turns, np.stack(rows))
        for front in ((), (4,), (4, 2)):
            x = RNG.normal(size=(3, *front, 5, 6))
            whole = rotary(x, at, scaling=scaling, length=length)
            for b in range(3):
                one = rotary(x[b], at[b], scaling=scaling, length=None if length is None else at[b] + 1)
                np.testing.assert_array_equal(whole[b], one)


def test_one_length_for_each_sequence() -> None:
    at, lengths = np.arange(6), np.array([[60], [300]])
    turns = rotary_turns(at, 8, scaling=Scaling("dynamic", 2.0, 64), length=lengths)
    assert turns.shape == (2, 6, 4)
    np.testing.assert_array_equal(turns[0], rotary_turns(at, 8))
    np.testing.assert_array_equal(turns[1], rotary_turns(at, 8, scaling=Scaling("dynamic", 2.0, 64), length=300))


def test_yarn_scales_logits_by_the_square_of_its_factor() -> None:
    scaling = Scaling("yarn", 16.0, 64)
    assert scaling.attention_factor == 0.1 * math.log(16.0) + 1.0
    assert [Scaling(kind, 16.0, 64).attention_factor for kind in ("none", "pi", "ntk", "dynamic")] == [1.0] * 4
    turns = rotary_turns(POSITIONS, 8, dtype="complex128", scaling=scaling)
    np.testing.assert_allclose(np.abs(turns), scaling.attention_factor, rtol=1e-14)
    x = RNG.normal(size=(6, 8))
    g, v = RNG.normal(size=(2, 6, 8))
    _, pull = vjp(lambda a: rotary(a, POSITIONS, scaling=scaling), x)
    slope = directional(lambda a: rotary(a, POSITIONS, scaling=scaling), [x], [v], g)
    assert abs(float(np.sum(pull(g)[0] * v)) - slope.value) <= slope.bound


@pytest.mark.parametrize("kind", ["none", "pi", "ntk", "dynamic", "yarn"])
def test_single_precision_stays_single(kind: str) -> None:
    x = RNG.normal(size=(6, 8)).astype(np.float32)
    scaling = Scaling(kind, 4.0, 64)
    y = rotary(x, POSITIONS, scaling=scaling, length=100_001)
    assert y.dtype == np.float32
    exact = rotary(x.astype(np.float64), POSITIONS, scaling=scaling, length=100_001)
    np.testing.assert_allclose(y, exact, atol=rounding_bound(np.float32, 8.0), rtol=0)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"kind": "linear"}, "'linear' is none of none, pi, ntk, dynamic, yarn"),
        ({"kind": "yarn", "ramp": "smooth", "context": 64}, "'smooth' is none of code, paper"),
        ({"kind": "pi", "factor": 0.5}, "must be at least 1"),
        ({"kind": "pi", "factor": math.nan}, "must be at least 1"),
        ({"kind": "dynamic", "factor": 2.0}, "dynamic needs the context"),
        ({"kind": "yarn", "context": 64, "alpha": 4.0, "beta": 2.0}, "0 < alpha < beta"),
        ({"kind": "yarn", "context": 6}, "no pair turns 1.0 times"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Scaling(**given)


def test_frequencies_refuse_what_they_cannot_have() -> None:
    with pytest.raises(ValueError, match="needs the length"):
        Scaling("dynamic", 2.0, 64).frequencies(8)
    with pytest.raises(ValueError, match="must be above 1"):
        Scaling().frequencies(8, base=1.0)
    with pytest.raises(ValueError, match="even"):
        Scaling("pi", 2.0).frequencies(7)
    assert Scaling("dynamic", 2.0, 64).by_length
    assert not Scaling("yarn", 2.0, 64).by_length


# Attention under dynamic scaling

B, H, G, T, D = 2, 4, 2, 9, 6
SCALING = Scaling("dynamic", 2.0, 4)


def problem(dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, grouped keys, values."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.normal(size=(B, heads, T, D)).astype(dtype) for heads in (H, G, G))
    return q, k, v


def attend(q: Any, k: Any, v: Any, begin: int, mask: Mask, starts: np.ndarray | None = None) -> Any:
    """Queries from `begin` on, keys from 0; sequences begin at `starts`, left-padded before."""
    at, keys_at = np.arange(begin, begin + q.shape[-2]), np.arange(k.shape[-2])
    if starts is not None:
        at, keys_at = at - starts[:, None], keys_at - starts[:, None]
    return dynamic_attention(naive, q, k, v, positions=at, key_positions=keys_at, scaling=SCALING, mask=mask)


@pytest.mark.parametrize("fields", [{}, {"window": 3}, {"window": 3, "sinks": 1}])
def test_any_split_into_pieces_is_one_pass(fields: dict[str, int]) -> None:
    q, k, v = problem()
    whole = attend(q, k, v, 0, Mask(causal=True, **fields))
    for cuts in itertools.combinations(range(1, T), 2):
        pieces = [
            attend(q[..., a:b, :], k[..., :b, :], v[..., :b, :], a, Mask(causal=True, offset=a, **fields))
            for a, b in zip((0, *cuts), (*cuts, T), strict=True)
        ]
        np.testing.assert_allclose(np.concatenate(pieces, axis=-2), whole, atol=1e-13)


def test_each_sequence_of_a_ragged_batch_is_as_it_would_be_alone() -> None:
    q, k, v = problem()
    starts = np.array([0, 3])
    segments = (np.arange(T) >= starts[:, None]).astype(int)
    batch = attend(q, k, v, 0, Mask(causal=True, segments=segments), starts)
    for b, start in enumerate(starts):
        alone = attend(*(x[b : b + 1, :, start:] for x in (q, k, v)), 0, Mask(causal=True))
        np.testing.assert_allclose(batch[b, :, start:], alone[0], atol=1e-13)


def test_within_the_context_it_is_one_call_of_the_kernel() -> None:
    q, k, v = problem()
    sizes: list[int] = []

    def counting(q: Any, k: Any, v: Any, *, mask: Mask) -> Any:
        sizes.append(q.shape[-2])
        return naive(q, k, v, mask=mask)

    def run(scaling: Scaling) -> Any:
        at = np.arange(T)
        sizes.clear()
        return dynamic_attention(
            counting, q, k, v, positions=at, key_positions=at, scaling=scaling, mask=Mask(causal=True)
        )

    run(SCALING)
    assert sizes == [4, 1, 1, 1, 1, 1]
    plain = naive(rotary(q, np.arange(T)), rotary(k, np.arange(T)), v, mask=Mask(causal=True))
    for scaling in (Scaling("dynamic", 2.0, T), Scaling()):
        np.testing.assert_array_equal(run(scaling), plain)
        assert sizes == [T]


def test_dynamic_attention_is_differentiable_and_stays_single() -> None:
    q, k, v = problem()
    mask = Mask(causal=True)
    g = RNG.normal(size=(B, H, T, D))
    y, pull = vjp(lambda q, k, v: attend(q, k, v, 0, mask), q, k, v)
    vs = [RNG.normal(size=x.shape) for x in (q, k, v)]
    slope = directional(lambda *xs: attend(*xs, 0, mask), [q, k, v], vs, g)
    found = sum(float(np.sum(a * b)) for a, b in zip(pull(g), vs, strict=True))
    assert abs(found - slope.value) <= slope.bound
    single = attend(*problem(np.float32), 0, mask)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, y.data if hasattr(y, "data") else y, atol=1e-4)
