"""Multi-head attention is attention in subspaces, concatenated and mixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilong.attention import Mask, naive
from minilong.autodiff import vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.autodiff.tree import named
from minilong.keys import Key
from minilong.nn import MultiHeadAttention, View, flatten
from minilong.positions import rotary, rotary_turns

ATOL = rounding_bound(np.float64, 10.0, 16)


def layer(width: int, heads: int, seed: int = 0, **settings: Any) -> MultiHeadAttention:
    """A layer in float64 whose biases are not zero."""
    vector, made, _ = flatten(MultiHeadAttention.create(Key.of(seed), width, heads, **settings), np.float64)
    vector += 0.1 * np.random.default_rng(seed).standard_normal(vector.size)
    return made


def by_heads(m: MultiHeadAttention, x: np.ndarray, memory: np.ndarray, mask: Mask, turned: bool) -> np.ndarray:
    """Each head on its own slice of the projections, then the concatenation times the output's weights."""
    d = x.shape[-1] // m.heads
    q, k, v = (p(s) for p, s in ((m.query, x), (m.key, memory), (m.value, memory)))
    heads = []
    for h in range(m.heads):
        g = h // (m.heads // m.kv_heads)
        qh, kh, vh = q[..., h * d : h * d + d], k[..., g * d : g * d + d], v[..., g * d : g * d + d]
        if turned:
            qh, kh = (rotary(part, np.arange(part.shape[1])) for part in (qh, kh))
        heads.append(naive(qh[:, None], kh[:, None], vh[:, None], mask=mask)[:, 0])
    return m.output(np.concatenate(heads, axis=-1))


@pytest.mark.parametrize("heads,kv_heads", [(1, 1), (4, 4), (4, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_concatenation_of_single_heads(heads: int, kv_heads: int, bias: bool) -> None:
    m = layer(12, heads, kv_heads=kv_heads, bias=bias)
    x = np.random.default_rng(1).standard_normal((2, 7, 12))
    mask = Mask(causal=True, key_lengths=np.array([7, 4]))
    np.testing.assert_allclose(m(x, view=View(mask)), by_heads(m, x, x, mask, False), rtol=0, atol=ATOL)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_rotary_turns_every_head_alike(kv_heads: int) -> None:
    m = layer(16, 4, kv_heads=kv_heads)
    x = np.random.default_rng(2).standard_normal((2, 5, 16))
    turns = rotary_turns(np.arange(5), 4, dtype="complex128")
    found = m(x, view=View(Mask(causal=True), turns))
    np.testing.assert_allclose(found, by_heads(m, x, x, Mask(causal=True), True), rtol=0, atol=ATOL)
    assert np.abs(found - m(x, view=View(Mask(causal=True)))).max() > 1e-3


def test_attends_to_a_memory_of_another_length() -> None:
    m = layer(12, 3)
    rng = np.random.default_rng(3)
    x, memory = rng.standard_normal((2, 4, 12)), rng.standard_normal((2, 9, 12))
    mask = Mask(key_lengths=np.array([9, 5]))
    found = m(x, memory, view=View(mask))
    assert found.shape == (2, 4, 12)
    np.testing.assert_allclose(found, by_heads(m, x, memory, mask, False), rtol=0, atol=ATOL)


def test_multi_query_is_repeated_key_and_value_weights() -> None:
    """One shared key head equals four heads whose key and value weights are copies of it."""
    shared = layer(8, 4, kv_heads=1)
    copies = replace(
        shared,
        key=replace(shared.key, weight=np.tile(shared.key.weight, 4), bias=np.tile(shared.key.bias, 4)),
        value=replace(shared.value, weight=np.tile(shared.value.weight, 4), bias=np.tile(shared.value.bias, 4)),
        kv_heads=4,
    )
    x = np.random.default_rng(4).standard_normal((2, 6, 8))
    np.testing.assert_allclose(shared(x), copies(x), rtol=0, atol=ATOL)


def test_the_kernel_is_a_value_that_is_used() -> None:
    seen = []

    def kernel(q: Any, k: Any, v: Any, *, mask: Mask, bias: Any = None) -> Any:
        seen.append((q.shape, k.shape, v.shape, mask))
        return naive(q, k, v, mask=mask)

    m = layer(12, 4, kv_heads=2)
    x = np.random.default_rng(5).standard_normal((2, 5, 12))
    mask = Mask(causal=True)
    np.testing.assert_allclose(replace(m, kernel=kernel)(x, view=View(mask)), m(x, view=View(mask)), rtol=0, atol=ATOL)
    assert seen == [((2, 4, 5, 3), (2, 2, 5, 3), (2, 2, 5, 3), mask)]


def test_grouped_heads_save_parameters() -> None:
    sizes = {g: sum(a.size for a in named(layer(16, 4, kv_heads=g)).values()) for g in (4, 2, 1)}
    assert sizes == {g: 2 * (16 * 16 + 16) + 2 * (16 * 4 * g + 4 * g) for g in (4, 2, 1)}


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide the width 12"):
        layer(12, 5)
    with pytest.raises(ValueError, match="3 key heads do not divide 4 query heads"):
        layer(16, 4, kv_heads=3)


def test_no_gradient_reaches_hidden_tokens() -> None:
    m = layer(8, 2)
    x = np.random.default_rng(6).standard_normal((1, 6, 8))
    y, pull = vjp(lambda a: m(a, view=View(Mask(causal=True))), x)
    g = np.zeros_like(y)
    g[:, 2] = 1.0
    back = pull(g)[0]
    assert np.all(back[:, 3:] == 0)
    assert np.all(np.abs(back[:, :3]).max(-1) > 0)
