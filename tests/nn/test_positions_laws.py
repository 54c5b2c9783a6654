"""Position schemes against their formulas and the laws that make them useful."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.autodiff import vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.positions import cas, rotary, rotary_turns, sinusoidal

ATOL = rounding_bound(np.float64, 100.0)


@pytest.mark.parametrize("width", [1, 2, 7, 16])
def test_sinusoidal_is_the_papers_formula(width: int) -> None:
    table = sinusoidal(9, width, dtype="float64")
    assert table.shape == (9, width)
    for p in range(9):
        for c in range(width):
            angle = p / 10000 ** (2 * (c // 2) / width)
            assert table[p, c] == pytest.approx(math.sin(angle) if c % 2 == 0 else math.cos(angle), abs=1e-14)


def test_sinusoidal_shift_is_one_linear_map_and_the_norm_constant() -> None:
    table = sinusoidal(40, 8, dtype="float64")
    start, after = table[:30], table[7:37]
    shift, *_ = np.linalg.lstsq(start, after, rcond=None)
    np.testing.assert_allclose(start @ shift, after, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 2.0, atol=ATOL)
    gram = table @ table.T
    np.testing.assert_allclose(gram[:-5, :-5], gram[5:, 5:], atol=ATOL)  # a kernel of the distance alone


def test_cas_is_the_articles_formula() -> None:
    """At d = 4, i = 1 positions 1, 2, 3 give 1.0099, 1.0198, 1.0295 (the article's own example says 1.4142, 0, 0)."""
    table = cas(4, 4, dtype="float64")
    np.testing.assert_allclose(table[1:, 1], [1.0099, 1.0198, 1.0295], atol=5e-5)
    for p in range(4):
        for i in range(4):
            angle = p / 10000 ** (2 * i / 4)
            assert table[p, i] == pytest.approx(math.sqrt(2) * math.sin(angle + math.pi / 4), abs=1e-14)


def test_cas_loses_what_the_sinusoids_have() -> None:
    table = cas(40, 8, dtype="float64")
    norms = np.linalg.norm(table, axis=1)
    assert norms.max() / norms.min() > 1.1
    gram = table @ table.T
    assert np.abs(gram[:-5, :-5] - gram[5:, 5:]).max() > 0.1


@pytest.mark.parametrize("scheme", [sinusoidal, cas])
def test_tables_are_float32_unless_told_and_refuse_nonsense(scheme: object) -> None:
    assert callable(scheme)
    assert scheme(5, 4).dtype == np.float32
    np.testing.assert_array_equal(scheme(5, 4), scheme(5, 4, dtype="float64").astype(np.float32))
    assert scheme(0, 4).shape == (0, 4)
    with pytest.raises(ValueError, match="must be at least"):
        scheme(-1, 4)
    with pytest.raises(ValueError, match="must be at least"):
        scheme(3, 0)


@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 100_000),
    st.sampled_from([2, 4, 10]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_rotary_scores_depend_on_the_distance_only(
    i: int, j: int, shift: int, d: int, interleaved: bool, seed: int
) -> None:
    q, k = np.random.default_rng(seed).standard_normal((2, 1, d))

    def score(at_query: int, at_key: int) -> float:
        turned = [rotary(x, np.array([p]), interleaved=interleaved) for x, p in ((q, at_query), (k, at_key))]
        return float(turned[0][0] @ turned[1][0])

    # An angle of p radians is rounded to eps p, which bounds the difference.
    bound = rounding_bound(np.float64, float(np.abs(q[0]) @ np.abs(k[0])) * (1 + max(i, j) + shift), d)
    assert abs(score(i, j) - score(i + shift, j + shift)) <= bound


def test_rotary_is_the_rotation_matrix_of_the_paper() -> None:
    d, positions = 6, np.array([0, 1, 5, 99])
    x = np.random.default_rng(0).standard_normal((4, d))
    for row, p in enumerate(positions):
        matrix = np.zeros((d, d))
        for j in range(d // 2):
            a = p * 10000 ** (-2 * j / d)
            matrix[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]
        np.testing.assert_allclose(rotary(x, positions)[row], matrix @ x[row], atol=ATOL)


def test_rotary_keeps_norms_and_leaves_position_zero() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 50, 8))
    for interleaved in (True, False):
        y = rotary(x, np.arange(50), interleaved=interleaved)
        np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), atol=ATOL)
        np.testing.assert_array_equal(y[..., 0, :], x[..., 0, :])
        assert np.all(np.abs(y[..., 1:, :] - x[..., 1:, :]).max(-1) > 1e-6)


def test_halves_are_a_permutation_of_neighbours() -> None:
    d = 10
    x = np.random.default_rng(2).standard_normal((7, d))
    order = np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])  # component at each place of the halves
    by_halves = rotary(x[:, order], np.arange(7), interleaved=False)
    np.testing.assert_allclose(by_halves, rotary(x, np.arange(7))[:, order], atol=ATOL)
    assert np.any(np.abs(by_halves - rotary(x[:, order], np.arange(7))) > 0.1)


def test_rotary_base_and_precision() -> None:
    positions = np.array([100_000])
    exact = np.exp(1j * 100_000 * 500.0 ** (-np.arange(0, 8, 2) / 8))
    np.testing.assert_allclose(rotary_turns(positions, 8, base=500.0)[0], exact, atol=1e-6)
    assert rotary_turns(positions, 8).dtype == np.complex64
    with pytest.raises(ValueError, match="pairs need an even one"):
        rotary_turns(positions, 7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rotary_keeps_the_type_both_ways(dtype: type) -> None:
    x = np.random.default_rng(3).standard_normal((5, 6)).astype(dtype)
    y, pull = vjp(lambda a: rotary(a, np.arange(5)), x)
    assert y.dtype == dtype
    back = pull(y)[0]  # a rotation's transpose is its inverse
    assert back.dtype == dtype
    np.testing.assert_allclose(back, x, atol=rounding_bound(dtype, 4.0))
