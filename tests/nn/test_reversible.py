"""Stacks that are run backward: exact at any depth, gradients as stored, memory that does not grow, clear refusals."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
from peak_memory import peak

from minilong.attention import Mask, dense
from minilong.audit.law import LAWS
from minilong.audit.laws.depth_mutants import Slip, by_hand
from minilong.autodiff import grad, ops, vjp
from minilong.autodiff.numeric import directional
from minilong.autodiff.tree import leaves, rebuild
from minilong.errors import Diverged
from minilong.keys import Key
from minilong.nn import FeedForward, LayerNorm, Linear
from minilong.nn.fixed_point import MomentumState, TwoStreams, predicted_bits, ratio, store_words
from minilong.nn.reversible import run_momentum, run_reversible, stored_twin

WIDTH, HEADS = 8, 2


def attend(layer: Any, x: Any, bias: Any, shift: Any) -> Any:
    """A causal attention branch with two extras that all layers share: something added to the keys, and to each row."""
    norm, inner, outer = layer
    q, k, v = [ops.transpose(ops.reshape(inner(norm(x) + shift), shape=(*x.shape[:2], HEADS, 12))[..., i : i + 4],
                             order=(0, 2, 1, 3)) for i in (0, 4, 8)]  # fmt: skip
    y = dense(q, k + bias, v, mask=Mask(causal=True))
    return outer(ops.reshape(ops.transpose(y, order=(0, 2, 1, 3)), shape=x.shape))


def feed(key: Key) -> Callable[..., Any]:
    """A feed-forward branch with dropout."""
    return lambda layer, x, *_: layer[1](layer[0](x), key)


def layers(depth: int, dtype: Any = np.float32) -> list[Any]:
    """Parameters of attention and feed-forward networks, in turns."""
    found: list[Any] = []
    for i in range(depth):
        key = Key.of(i)
        inner, outer = Linear.create(key.fold("i"), WIDTH, 3 * WIDTH), Linear.create(key.fold("o"), WIDTH, WIDTH)
        found.append((LayerNorm.create(WIDTH), inner, outer))
        found.append((LayerNorm.create(WIDTH), FeedForward.create(key, WIDTH, 16, dropout=0.3)))
    return [cast(tree, dtype) for tree in found]


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with its arrays in another precision."""
    return rebuild(tree, iter([x.astype(dtype) for x in leaves(tree)]))


def stack(params: Any, x: Any, extras: Any, how: Callable[..., Any]) -> Any:
    """The branches of all parameters, run in this way."""
    branches = [((attend if i % 2 == 0 else feed(Key.of(7).fold(i))), p) for i, p in enumerate(params)]
    return how(branches, x, *extras)


def problem(depth: int, dtype: Any = np.float32) -> tuple[Any, ...]:
    """params, x, extras, and a cotangent."""
    rng = np.random.default_rng(depth)
    x = rng.standard_normal((2, 5, WIDTH)).astype(dtype)
    extras = (rng.standard_normal((5, 4)).astype(dtype), rng.standard_normal(WIDTH).astype(dtype))
    return layers(depth, dtype), x, extras, rng.standard_normal(x.shape).astype(dtype)


WAYS: dict[str, float | None] = {"two streams": None, "0.9": 0.9, "0.5": 0.5, "gamma 0": 0.0}
every_way = pytest.mark.parametrize("gamma", WAYS.values(), ids=WAYS.keys())


def way(gamma: float | None) -> Callable[..., Any]:
    if gamma is None:
        return run_reversible
    return lambda branches, x, *extras: run_momentum(branches, x, *extras, gamma=gamma)


@every_way
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_transformer_has_the_gradient_of_stored_activations_in_every_bit(gamma: float | None, dtype: Any) -> None:
    params, x, extras, g = problem(20, dtype)
    params = [*params, params[0], params[1], params[0]]  # tied layers
    value, pull = vjp(lambda *a: stack(*a, way(gamma)), params, x, extras)
    other, stored_pull = vjp(
        lambda *a: stack(*a, lambda b, x, *e: stored_twin(b, x, *e, gamma=gamma)), params, x, extras
    )
    found, right = leaves(pull(g)), leaves(stored_pull(g))
    assert value.dtype == dtype
    assert np.array_equal(value, other)
    assert np.array_equal(value, stack(params, x, extras, way(gamma)))
    assert len(found) == len(right)
    for a, e in zip(found, right, strict=True):
        assert a.dtype == dtype
        assert np.array_equal(a, e)
    assert all(np.any(c != 0) for c in leaves(pull_of_first(params, x, extras, g, gamma)))


def pull_of_first(params: Any, x: Any, extras: Any, g: Any, gamma: float | None) -> Any:
    """Cotangents of the first two layers."""
    return vjp(lambda p: stack([*p, *params[2:]], x, extras, way(gamma)), params[:2])[1](g)


@every_way
def test_a_later_token_changes_no_bit_of_an_earlier_one(gamma: float | None) -> None:
    params, x, extras, _ = problem(6)
    other = x.copy()
    other[:, -1] *= -3
    before, after = stack(params, x, extras, way(gamma)), stack(params, other, extras, way(gamma))
    assert np.array_equal(before[:, :-1], after[:, :-1])
    assert np.any(before[:, -1] != after[:, -1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.9, 0.5, 0.99, 0.123])
def test_512_layers_are_found_again_without_error(gamma: float, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8)).astype(dtype)
    weights = [(rng.standard_normal((8, 8)) / 8).astype(dtype) for _ in range(512)]
    state, seen = MomentumState(x, gamma), []
    for w in weights:
        seen.append(state.read())
        state.push(np.tanh(seen[-1] @ w))
    assert state.words == store_words(512, gamma)
    assert abs(64 * (state.words + 1) - predicted_bits(512, gamma)) <= 64 + 12 * state.words
    for w, right in zip(reversed(weights), reversed(seen), strict=True):
        state.rewind()
        assert np.array_equal(state.read(), right)
        state.pop(np.tanh(right @ w))
    assert state.back_at_start()


def test_floating_point_does_not_come_back() -> None:
    rng = np.random.default_rng(0)
    x = begin = rng.standard_normal((4, 8))
    weights = [rng.standard_normal((8, 8)) / 8 for _ in range(512)]
    v = 0.0 * x
    for w in weights:
        v = 0.9 * v + 0.1 * np.tanh(x @ w)
        x = x + v
    for w in reversed(weights):
        x = x - v
        v = (v - 0.1 * np.tanh(x @ w)) / 0.9
    assert np.max(np.abs(x - begin)) > 1e8


def tanh_branch(w: Any, x: Any) -> Any:
    return ops.tanh(x @ w)


@every_way
def test_second_derivatives_go_through_the_stored_twin(gamma: float | None) -> None:
    rng = np.random.default_rng(1)
    x, c, v = (rng.standard_normal((2, 3)) for _ in range(3))
    weights = [rng.standard_normal((3, 3)) / 3 for _ in range(5)]

    def slope(x: Any) -> Any:
        return grad(lambda x: ops.sum(way(gamma)([(tanh_branch, w) for w in weights], x) * c))(x)

    found = float(np.sum(grad(lambda x: ops.sum(slope(x) * c))(x) * v))
    numeric = directional(lambda x: np.sum(slope(x) * c), [x], [v], np.ones(()))
    grid = 2.0**-40 * 1000 / 1e-3  # values move in steps of the grid, which differences divide by their own step
    assert abs(found - numeric.value) <= numeric.bound + grid
    assert abs(found) > 100 * grid


@pytest.mark.parametrize("gamma", [None, 0.9, 0.5])
def test_memory_is_flat_in_depth_but_for_the_bit_store(gamma: float | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((512, 32)).astype(np.float32)
    w = rng.standard_normal((32, 32)).astype(np.float32) / 32

    def at(depth: int) -> int:
        loss = grad(lambda w, x: ops.sum(way(gamma)([(tanh_branch, w)] * depth, x)))
        return peak(lambda: loss(w, x))

    shallow, deep = at(8), at(130)
    words = 0 if gamma is None else store_words(130, gamma) - store_words(8, gamma)
    assert deep - shallow <= 8 * words * x.size + 800 * (130 - 8)  # a branch's own few Python objects
    if words:
        assert deep - shallow >= 8 * words * x.size * 0.9
    assert shallow <= 80 * x.size  # 24 for x, v and the store, the rest for one branch and three cotangents


def test_the_state_dies_with_the_pullback() -> None:
    x, w = np.ones((2, 3)), np.ones((3, 3)) / 4
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = run_momentum([(tanh_branch, w)] * 3, x)
        seen.append(weakref.ref(y.node.saved[0]))
        return y

    gc.disable()
    try:
        _, pull = vjp(f, x)
        assert seen[0]() is not None
        pull(np.ones((2, 3)))
        assert seen[0]() is None
        _, pull = vjp(f, x)
        del pull
        assert seen[1]() is None
    finally:
        gc.enable()


def test_a_graph_is_consumed_once() -> None:
    _, pull = vjp(lambda x: run_momentum([(tanh_branch, np.eye(3))] * 2, x), np.ones((2, 3)))
    pull(np.ones((2, 3)))
    with pytest.raises(RuntimeError, match="already consumed"):
        pull(np.ones((2, 3)))


@every_way
def test_constants_stay_constants(gamma: float | None) -> None:
    """An array that is not differentiated does not become a tensor: it may be complex, or an index."""

    def f(w: Any, x: Any, angles: Any, rows: Any) -> Any:
        assert isinstance(angles, np.ndarray)
        return ops.tanh(ops.getitem(x, key=(rows,)) @ w) * float(np.abs(angles[0]))

    rows, angles = np.array([1, 0]), np.exp(1j * np.arange(2))
    x, w = np.random.default_rng(0).standard_normal((2, 3)), np.eye(3) / 2
    of_w, of_x = grad(lambda both: ops.sum(way(gamma)([(f, both[0])] * 3, both[1], angles, rows)))((w, x))
    assert np.all(of_x != 0)
    assert np.any(of_w != 0)


def test_unused_arguments_have_zeros_and_the_rest_is_right() -> None:
    x, unused = np.ones((2, 3)), np.ones(4)
    of_unused, of_x = grad(lambda a: ops.sum(run_momentum([(lambda p, x: ops.tanh(x), a[0])] * 2, a[1])))((unused, x))
    assert np.array_equal(of_unused, np.zeros(4))
    assert np.all(of_x > 1)


def test_a_constant_branch_and_no_branch() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    for gamma in WAYS.values():
        value, pull = vjp(lambda x, gamma=gamma: way(gamma)([(lambda p, x: np.full((2, 3), 0.25), ())] * 2, x), x)
        assert np.all(value > x)
        assert np.array_equal(pull(np.ones((2, 3)))[0], np.ones((2, 3)))
        assert np.allclose(way(gamma)([], x), x, rtol=0, atol=2.0**-41)


def test_a_branch_that_does_not_repeat_itself_is_found_out() -> None:
    for gamma in (None, 0.9):
        calls = count()
        branch = (lambda p, x, calls=calls: x * (0.1 + 0.01 * next(calls)), ())
        _, pull = vjp(lambda x, b=branch, gamma=gamma: way(gamma)([b] * 3, x), np.ones((2, 3)))
        with pytest.raises(RuntimeError, match="gave other values"):
            pull(np.ones((2, 3)))


def test_a_tensor_from_outside_is_refused() -> None:
    with pytest.raises(TypeError, match="not among its arguments"):
        vjp(lambda w: run_reversible([(lambda p, x: x @ w, ())], np.ones((2, 3))), np.eye(3))  # all else is plain
    with pytest.raises(TypeError, match="not among its arguments"):
        vjp(lambda w, x: run_momentum([(lambda p, x: x @ w, ())], x), np.eye(3), np.ones((2, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_leaving_the_range_is_an_error_of_one_line(bad: float) -> None:
    for how in (run_reversible, run_momentum):
        with pytest.raises(Diverged, match=r"range of fixed point.*; ") as caught:
            how([(lambda p, x: x * bad, ())], np.ones((2, 3), np.float32))
        assert "\n" not in str(caught.value)


def push_often(state: Any, delta: np.ndarray) -> None:
    for _ in range(20):
        state.push(delta)


def test_a_slow_overflow_is_seen_too() -> None:
    for state in (TwoStreams(np.zeros(3)), MomentumState(np.zeros(3), 0.5)):
        state.push(np.full(3, 9e5))
        with pytest.raises(Diverged):
            push_often(state, np.full(3, 9e5))


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="float16"):
        run_momentum([], np.ones(3, np.float16))
    with pytest.raises(TypeError, match="returned float64"):
        run_reversible([(lambda p, x: x.astype(np.float64), ())], np.ones(3, np.float32))
    with pytest.raises(TypeError, match="one array"):
        run_reversible([(lambda p, x: (x, x), ())], np.ones(3))
    with pytest.raises(TypeError, match=r"\(2,\)"):
        run_reversible([(lambda p, x: x[:2], ())], np.ones(3))


@pytest.mark.parametrize("gamma", [1.0, -0.1, 0.9999, np.nan])
def test_a_gamma_without_fraction_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="momentum"):
        ratio(gamma)


def test_gamma_is_a_fraction() -> None:
    assert ratio(0.9) == (9, 10)
    assert ratio(0.999) == (999, 1000)
    assert ratio(0.0) == (0, 1)
    assert ratio(1 / 3) == (1, 3)


def test_the_hand_written_reversal_of_the_mutants_is_right_without_a_slip() -> None:
    for name in ("depth-gradient/as stored", "depth-gradient/float formula"):
        LAWS[name](by_hand(Slip()), examples=50)
