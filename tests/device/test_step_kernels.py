"""Kernels of a training step beside the model's products: embedding, rotary, dropout, norm, AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases_adamw
import cases_dropout
import cases_embedding
import cases_gather
import cases_norm
import cases_rotary
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES, UNIT, normal, same_bits

from minilong.backend import scatter_rows as plain_scatter_rows
from minilong.backend.kernels import embedding as embedding_module
from minilong.backend.kernels import grid, norm
from minilong.backend.kernels import rotary as rotary_module
from minilong.backend.kernels.adamw import adamw
from minilong.backend.kernels.dropout import dropout, kept
from minilong.backend.kernels.embedding import gather, scatter_rows
from minilong.backend.kernels.norm import Control, gradient_control, new_control, new_scaler
from minilong.backend.kernels.rotary import rotate
from minilong.keys import Key
from minilong.nn.layers import Dropout
from minilong.optim import Adam, clip

CASES: dict[str, Callable[[Any], None]] = {
    "adamw": cases_adamw.check,
    "dropout": cases_dropout.check,
    "embedding": cases_embedding.check,
    "gather": cases_gather.check,
    "norm": cases_norm.check,
    "rotary": cases_rotary.check,
}
ORDERS = ("ascending", "descending", "random")


@pytest.fixture
def short_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids so small that each thread must take several turns."""
    monkeypatch.setattr(grid, "BLOCKS", 2)
    monkeypatch.setattr(norm, "BLOCKS", 3)
    monkeypatch.setattr(embedding_module, "BLOCKS", 2)
    monkeypatch.setattr(rotary_module, "BLOCKS", 1)
    monkeypatch.setattr(rotary_module, "OUTER", 1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", ORDERS)
def test_equal_to_the_plain_operation_in_any_order_of_threads(name: str, order: str) -> None:
    with cupy.thread_order(order, seed=5):
        CASES[name](cupy)


@pytest.mark.usefixtures("short_grids")
@pytest.mark.parametrize("name", ("adamw", "dropout", "gather", "norm"))
def test_threads_take_several_turns(name: str) -> None:
    CASES[name](cupy)


@pytest.mark.usefixtures("short_grids")
@pytest.mark.parametrize("interleaved", (True, False))
def test_rotations_take_several_turns(interleaved: bool) -> None:
    x, turn = normal(0, (3, 2, 150, 16)), cases_rotary.angles(0, (150, 8), FLOAT32)
    got = rotate(cupy, cupy.asarray(x), cupy.asarray(turn), interleaved=interleaved)
    cases_rotary.compare(cupy, got, x, turn, interleaved, False)


# Dropout


@given(st.integers(0, 2**128 - 1), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.floats(0.001, 0.999))
def test_dropout_is_that_of_the_layer(bits: int, shape: list[int], rate: float) -> None:
    key, x = Key(bits), normal(bits % 1000, tuple(shape))
    got = dropout(cupy, cupy.asarray(x), key.words, rate)
    same_bits(cupy, got, Dropout(rate)(x, key) + np.float32(0) * x)


def test_dropout_follows_the_order_of_the_axes_not_of_the_memory() -> None:
    x, key = normal(1, (6, 10)), Key.of(2)
    got = dropout(cupy, cupy.asarray(x).T, key.words, 0.5)
    same_bits(cupy, got, x.T * cases_dropout.numpy_mask((10, 6), key, 0.5, FLOAT32))


def test_what_is_dropped_is_as_in_a_product() -> None:
    x = np.array([-1.0, np.inf, np.nan, 2.0], np.float32)
    rate = float(np.nextafter(np.float32(1), np.float32(0)))
    got = cupy.asnumpy(dropout(cupy, cupy.asarray(x), (1, 2), rate))
    assert np.signbit(got[0])
    assert got[0] == 0
    assert np.isnan(got[1:3]).all()


# Scatter


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000), st.sampled_from((1, 3, 9)))
def test_sums_equal_those_of_the_plain_scatter(m: int, n: int, width: int, seed: int, skew: int) -> None:
    rng = np.random.default_rng(seed)
    indices, rows = rng.integers(-n, n, m) // skew, normal(seed, (m, width), FLOAT64)
    got = cupy.asnumpy(scatter_rows(cupy, cupy.asarray(indices), cupy.asarray(rows), n))
    plain = plain_scatter_rows(np, indices, rows, n)
    np.testing.assert_allclose(got, plain, rtol=0, atol=4 * m * UNIT[FLOAT64] * (1 + np.abs(rows).max()))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_sums_are_the_same_in_every_run(dtype: Any) -> None:
    indices = cupy.asarray(cases_embedding.indices_of("often", 1500, 7))
    rows = cupy.asarray(normal(0, (1500, 33), dtype))
    sums = []
    for order, seed in (("ascending", 0), ("descending", 0), *(("random", i) for i in range(3))):
        with cupy.thread_order(order, seed):
            sums.append(cupy.asnumpy(scatter_rows(cupy, indices, rows, 7)).tobytes())
    assert len(set(sums)) == 1


def test_gather_and_scatter_are_transposes() -> None:
    indices = cases_embedding.indices_of("negative", 130, 11)
    table, g = normal(1, (11, 6), FLOAT64), normal(2, (130, 6), FLOAT64)
    y = cupy.asnumpy(gather(cupy, cupy.asarray(table), cupy.asarray(indices)))
    back = cupy.asnumpy(scatter_rows(cupy, cupy.asarray(indices), cupy.asarray(g), 11))
    assert abs(np.sum(y * g) - np.sum(table * back)) < 1e-12


# Rotary


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.integers(1, 40), st.sampled_from(TYPES), st.data())
def test_rotations_of_any_shape(b: int, h: int, t: int, half: int, dtype: Any, data: st.DataObject) -> None:
    lead, interleaved = data.draw(st.sampled_from(((), (1, 1), (b, 1), (1, h), (b, h)))), data.draw(st.booleans())
    x, turn = normal(t, (b, t, h, 2 * half), dtype), cases_rotary.angles(half, (*lead, t, half), dtype)
    view = cupy.asarray(x).transpose(0, 2, 1, 3)
    got = rotate(cupy, view, cupy.asarray(turn), interleaved=interleaved)
    cases_rotary.compare(cupy, got, x.transpose(0, 2, 1, 3), turn, interleaved, False)


def test_a_rotation_and_its_inverse() -> None:
    x, turn = normal(0, (4, 10, 32), FLOAT64), cases_rotary.angles(1, (10, 16), FLOAT64)
    there = rotate(cupy, cupy.asarray(x), cupy.asarray(turn))
    back = cupy.asnumpy(rotate(cupy, there, cupy.asarray(turn), inverse=True))
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-14)
    assert rotate(cupy, cupy.asarray(x)[:, :0], cupy.asarray(turn)[:0]).shape == (4, 0, 32)


def test_rotations_refuse_other_angles() -> None:
    x, turn = cupy.asarray(normal(0, (4, 8), FLOAT16)), cases_rotary.angles(1, (4, 4), FLOAT64)
    with pytest.raises(ValueError, match="angles of type complex128 for float16"):
        rotate(cupy, x, cupy.asarray(turn))
    with pytest.raises(ValueError, match="3 angles need a last axis of 6, not 8"):
        rotate(cupy, x, cupy.asarray(turn[:, :3].astype(np.complex64)))


# A step


@pytest.mark.parametrize("weight_decay, decoupled", ((0.0, False), (0.1, False), (0.1, True)))
def test_steps_equal_those_on_the_cpu(weight_decay: float, decoupled: bool) -> None:
    """Twenty steps with clipping, where every step's error goes into the next."""
    optimizer = Adam(weight_decay=weight_decay, decoupled=decoupled)
    theta = normal(0, 1001)
    state, vectors = optimizer.init(theta), [cupy.asarray(x) for x in (theta, 0 * theta, 0 * theta)]
    theta, control, scaler = theta.copy(), new_control(cupy), new_scaler(cupy, 1024.0)
    for step in range(1, 21):
        gradient = normal(step, 1001) * np.float32(0.01 * step)
        device = cupy.asarray(gradient * np.float32(1024))
        with cupy.no_sync():
            gradient_control(cupy, device, control, step, clip=3.0, scaler=scaler)
            run_adamw(optimizer, vectors, device, control, 0.01, 700)
        size = clip(gradient, 3.0)
        cases_norm.near(Control.of(control).norm, size, 1e-6)
        optimizer.step(state, theta, gradient, 0.01, decayed=700)
    assert size > 3.0
    np.testing.assert_allclose(cupy.asnumpy(vectors[0]), theta, rtol=0, atol=2e-7)


def run_adamw(optimizer: Adam, vectors: list[Any], gradient: Any, control: Any, lr: float, decayed: int) -> None:
    adamw(
        cupy,
        vectors[0],
        gradient,
        *vectors[1:],
        control,
        lr=lr,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        decayed=decayed,
        decoupled=optimizer.decoupled,
    )


def test_a_skipped_step_leaves_no_trace() -> None:
    """With loss scaling, a run with an overflow in it makes the updates of the run without."""
    optimizer, ends = Adam(), []
    for overflows in (False, True):
        vectors = [cupy.asarray(x) for x in (normal(0, 100), np.zeros(100, np.float32), np.zeros(100, np.float32))]
        control, scaler = new_control(cupy), new_scaler(cupy, 64.0)
        step = 0
        for seed in (1, 2, 3):
            for bad in (True, False) if overflows and seed == 2 else (False,):
                step += 1
                gradient = normal(seed, 100) * np.float32(cupy.asnumpy(scaler)[0])
                gradient[7] = np.inf if bad else gradient[7]
                device = cupy.asarray(gradient)
                gradient_control(cupy, device, control, step, scaler=scaler)
                run_adamw(optimizer, vectors, device, control, 0.1, 0)
        assert (step, Control.of(control).taken) == (4 if overflows else 3, 3)
        ends.append([cupy.asnumpy(x).tobytes() for x in vectors])
    assert ends[0] == ends[1]


def test_a_run_that_goes_on_makes_the_same_steps() -> None:
    """All that a step depends on is the number of updates: a control made from it gives the same bits."""
    optimizer, control = Adam(beta1=0.87), new_control(cupy)
    vectors = [cupy.asarray(x) for x in (normal(0, 50), np.zeros(50, np.float32), np.zeros(50, np.float32))]
    for step in range(1, 8):
        if step == 5:
            copies, again = [x.copy() for x in vectors], new_control(cupy, taken=int(Control.of(control).taken))
        gradient = cupy.asarray(normal(step, 50))
        runs = [(vectors, control)] if step < 5 else [(vectors, control), (copies, again)]
        for arrays, own in runs:
            gradient_control(cupy, gradient, own, step, clip=1.0)
            run_adamw(optimizer, arrays, gradient, own, 0.1, 0)
    assert [cupy.asnumpy(x).tobytes() for x in vectors] == [cupy.asnumpy(x).tobytes() for x in copies]


def test_adam_refuses_what_is_no_vector() -> None:
    good = [cupy.asarray(normal(i, 10)) for i in range(4)]
    control = cases_adamw.control_of(cupy, 1)
    for vectors, message in (
        ([good[0], good[1][:9], *good[2:]], "one size and type"),
        ([*good[:3], cupy.asarray(normal(0, 10, FLOAT64))], "one size and type"),
        ([cupy.asarray(normal(0, 20))[::2], *good[1:]], "contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            run_adamw(Adam(), [vectors[0], *vectors[2:]], vectors[1], control, 0.1, 0)


def test_nothing_waits_and_launches_are_few() -> None:
    """What one call launches: a number that grows here is time lost in every step."""
    x, key = cupy.asarray(normal(0, (2, 3, 8, 16))), Key.of(1).words
    turn, indices = cupy.asarray(cases_rotary.angles(0, (8, 8), FLOAT32)), cupy.asarray(np.arange(96) % 5)
    rows, vector = x.reshape(-1, 8), [cupy.asarray(normal(i, 768)) for i in range(4)]
    control, scaler, loss = new_control(cupy), new_scaler(cupy), cupy.asarray(np.float32(1))
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "dropout": (1, lambda: dropout(cupy, x, key, 0.1)),
        "kept": (1, lambda: kept(cupy, (5, 5), key, 0.1, BFLOAT16)),
        "rotate": (1, lambda: rotate(cupy, x.swapaxes(1, 2).swapaxes(1, 2), turn)),
        "gather": (1, lambda: gather(cupy, rows, indices, FLOAT16)),
        "scatter_rows": (5, lambda: scatter_rows(cupy, indices, rows, 5)),  # zeros, remainder, argsort and two
        "gradient_control": (2, lambda: gradient_control(cupy, vector[1], control, 1, loss=loss, scaler=scaler)),
        "adamw": (1, lambda: run_adamw(Adam(), [vector[0], *vector[2:]], vector[1], control, 0.1, 0)),
    }
    for name, (most, call) in calls.items():
        with cupy.no_sync(h2d=False), cupy.counting() as counts:
            call()
        assert counts.launches <= most, f"{name}: {counts.names}"
