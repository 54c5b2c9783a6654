"""Segment memories under a stack of layers: one pass again, reach as predicted, and gradients where they belong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minilong.attention import Mask, naive
from minilong.autodiff import grad, ops, value_and_grad
from minilong.autodiff.numeric import rounding_bound
from minilong.memory import Compressive, Compressor, Full, Memory, Segments, Window, reconstruction_loss

WIDTH = 4


def normal(seed: int, *shape: int) -> np.ndarray:
    """The same numbers in every run."""
    return np.random.default_rng(seed).standard_normal(shape)


LAYERS = [tuple(0.5 * normal(10 * i + j, WIDTH, WIDTH) for j in range(3)) for i in range(3)]


def attend(layer: Any, h: Any, rows: Any, mask: Mask | None = None) -> Any:
    """One head over one array of rows."""
    (x,) = rows
    q, k, v = (ops.reshape(y, shape=(y.shape[0], 1, *y.shape[1:])) for y in (h @ layer[0], x @ layer[1], x @ layer[2]))
    y = naive(q, k, v, mask=mask)
    return ops.reshape(y, shape=h.shape)


def stream(memory: Memory, x: Any, lengths: list[int], layers: list[Any]) -> Any:
    """x (b, n, width) through a residual stack, piece by piece, each layer with its own state."""
    states, outputs, seen = [memory.init() for _ in layers], [], 0
    for length in lengths:
        end = seen + length
        while seen < end:
            t = min(end - seen, memory.room(seen) or end)
            h = ops.getitem(x, key=(slice(None), slice(seen, seen + t)))
            for i, layer in enumerate(layers):
                states[i] = memory.write(states[i], (h,))
                h = h + attend(layer, h, memory.read(states[i]), memory.mask(seen, t))
            outputs.append(h)
            seen += t
    return ops.concatenate(*outputs, axis=1)


def one_pass(x: Any, layers: list[Any], allowed: Any) -> Any:
    """The whole sequence at once, under booleans."""
    for q, k, v in layers:
        scores = np.where(allowed, (x @ q) @ (x @ k).swapaxes(-1, -2) / math.sqrt(WIDTH), -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + weights / weights.sum(-1, keepdims=True) @ (x @ v)
    return x


ATOL = rounding_bound(np.float64, 1e4, 1000)


@pytest.mark.parametrize("lengths", [[17], [1] * 17, [5, 1, 7, 4], [3, 14]])
@pytest.mark.parametrize("memory", [Full(), Window(4), Segments(5, 3), Segments(4, 17), Segments(2, 5)], ids=str)
def test_a_stack_over_a_stream_is_one_pass(memory: Memory, lengths: list[int]) -> None:
    x = normal(101, 2, 17, WIDTH)
    expected = one_pass(x, LAYERS, memory.allowed(17))
    np.testing.assert_allclose(stream(memory, x, lengths, LAYERS), expected, atol=ATOL)


def test_with_memory_enough_every_segmentation_is_full_attention() -> None:
    x = normal(102, 1, 23, WIDTH)
    expected = one_pass(x, LAYERS, np.tri(23) > 0)
    for segment in (1, 2, 3, 7, 23):
        np.testing.assert_allclose(stream(Segments(segment, 23), x, [23], LAYERS), expected, atol=ATOL)


@pytest.mark.parametrize(
    "memory",
    [Window(3), Segments(3, 3), Segments(3, 2), Segments(2, 5), Compressive(4, 2, 2, Compressor("mean", 2)),
     Compressive(2, 2, 1, Compressor("max", 2))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_changed_row_moves_outputs_up_to_the_predicted_distance(memory: Memory, layers: int) -> None:
    n, furthest = 64, 0
    x = normal(103, 1, n, WIDTH)
    y = stream(memory, x, [n], LAYERS[:layers])
    for j in range(8):
        other = x.copy()
        other[0, j] += 0.5
        moved = np.flatnonzero(np.any(stream(memory, other, [n], LAYERS[:layers]) != y, axis=(0, 2)))
        assert moved[0] == j
        furthest = max(furthest, int(moved[-1]) - j)
    assert furthest == memory.reach(layers)


def test_gradients_of_a_stack_stop_at_the_segment() -> None:
    """The loss of the second segment moves with the first segment's rows, and has no gradient to them."""
    x, memory = normal(104, 1, 8, WIDTH), Segments(4, 4)

    def loss(x: Any) -> Any:
        y = stream(memory, x, [8], LAYERS[:2])
        return ops.sum(ops.getitem(y, key=(slice(None), slice(4, 8))) * weights)

    weights = normal(105, 1, 4, WIDTH)
    value, g = value_and_grad(loss)(x)
    assert np.all(g[:, :4] == 0)
    assert np.all(np.any(g[:, 4:] != 0, axis=-1))
    x[:, 0] += 1.0
    assert loss(x) != value


def test_a_state_carried_to_the_next_step_is_constant() -> None:
    memory: Memory = Segments(2, 2)
    kept: list[Any] = []

    def step(x: Any) -> Any:
        state = memory.write(kept.pop() if kept else memory.init(), (x,))
        y = ops.sum(memory.read(state)[0] * 2.0)
        kept.append(state.constant())
        return y

    for seen in (0, 2, 4):
        assert np.array_equal(grad(step)(np.ones((1, 2, 3))), np.full((1, 2, 3), 2.0))
        assert all(type(x) is np.ndarray for part in kept[0].parts() for x in part)
        assert memory.bytes(kept[0]) == memory.predicted_bytes(seen, 2, 24)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_convolution_is_the_mean_and_learns_from_its_loss_alone(dtype: Any) -> None:
    compressor = Compressor.create("conv", 3, WIDTH)
    assert compressor.weight is not None
    assert Compressor.create("mean", 3, WIDTH).weight is None
    x, h = (normal(106, 2, t, WIDTH).astype(dtype) for t in (6, 4))
    mean = Compressor("mean", 3)(x)
    assert mean.dtype == dtype
    np.testing.assert_allclose(compressor(x), mean, atol=rounding_bound(np.float32, 10.0, 12))
    layer = tuple(p.astype(dtype) for p in LAYERS[0])

    def loss(compressor: Compressor) -> Any:
        return reconstruction_loss(compressor, attend, layer, h, (x,))

    small = Compressor("conv", 3, compressor.weight.astype(dtype))
    first, g = value_and_grad(loss)(small)
    for _ in range(200):
        _, g = value_and_grad(loss)(small)
        small = Compressor("conv", 3, small.weight - dtype(0.02) * g.weight)
    assert small.weight.dtype == dtype
    assert loss(small) < 0.8 * first


def test_what_leaves_is_what_the_next_turn_compresses() -> None:
    memory = Compressive(4, 6, 5, Compressor("mean", 2))
    x, state = normal(107, 1, 16, WIDTH), memory.init()
    for start, gone in ((0, slice(0, 0)), (4, slice(0, 2)), (8, slice(2, 6)), (12, slice(6, 10))):
        state = memory.write(state, (x[:, start : start + 4],))
        (old,) = memory.leaving(state)
        assert np.array_equal(old, x[:, gone])
        assert old.shape[1] == 0 or state.slots == () or np.array_equal(
            state.slots[0], memory.compressor(x[:, : gone.start])
        )  # fmt: skip
    assert memory.leaving(memory.init()) == ()
    nothing = reconstruction_loss(memory.compressor, attend, LAYERS[0], x, ())
    assert nothing == 0
    assert nothing.dtype == np.float64
