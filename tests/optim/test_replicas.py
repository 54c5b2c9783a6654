"""Replicas and accumulation: any division of a batch gives the loss and gradient of the whole."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minilong.autodiff import IGNORE, value_and_grad
from minilong.data.batches import LanguageBatch, PairBatch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import Layout, flatten
from minilong.objectives import causal_loss, sequence_loss
from minilong.train.replicas import Abandoned, Replicas

V, ROWS, LENGTH = 11, 6, 8
BOUND = 1e-13
"""Relative to the gradient's norm: sums in another order."""


def ragged(seed: int = 0) -> np.ndarray:
    """Targets of which very different numbers count in each row; none in one row."""
    rng = np.random.default_rng(seed)
    kept = np.arange(LENGTH) < np.array([8, 1, 0, 5, 2, 7])[:, None]
    return np.where(kept, rng.integers(0, V, (ROWS, LENGTH)), IGNORE).astype(np.int32)


def problem(kind: str, dtype: Any = np.float64, **settings: Any) -> tuple[Any, Any, Any, Any, Any]:
    config = ModelConfig(kind=kind, layers=1, width=8, heads=2, context=LENGTH, **settings)
    vector, model, layout = flatten(build(config, V, Key.of(0)), dtype)
    rng = np.random.default_rng(1)
    vector += (0.1 * rng.standard_normal(vector.size)).astype(dtype)
    ids = rng.integers(0, V, (ROWS, LENGTH)).astype(np.int32)
    batch: Any
    if kind == "encoder-decoder":
        batch, loss = PairBatch(ids, np.array([8, 1, 3, 5, 2, 7], np.int32), ids[:, ::-1], ragged()), sequence_loss
    else:
        segments = np.sort(rng.integers(0, 3, (ROWS, LENGTH)), axis=1).astype(np.int32)
        batch, loss = LanguageBatch(ids, ragged(), segments), causal_loss
    return vector, model, layout, batch, loss


def parts(batch: Any, *ends: int) -> list[Any]:
    """The batch cut at row numbers."""
    bounds = [0, *ends, ROWS]
    return [
        type(batch)(**{n: None if a is None else a[start:stop] for n, a in vars(batch).items()})
        for start, stop in pairwise(bounds)
    ]


def whole(loss: Any, model: Any, layout: Layout, batch: Any) -> tuple[float, np.ndarray]:
    """Loss and flat gradient of a batch without replicas."""
    value, gradient = value_and_grad(lambda m: loss(m, batch))(model)
    return float(value), layout.gather(gradient, np.empty(layout.size))


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("ends", [(), (3,), (1, 3), (2, 3)], ids=str)
def test_any_division_is_the_whole_batch(kind: str, threads: int, ends: tuple[int, ...]) -> None:
    """Shares over threads (more than rows too) and batches accumulated, with ragged numbers of tokens in each."""
    _, model, layout, batch, loss = problem(kind)
    value, right = whole(loss, model, layout, batch)
    with Replicas(threads, layout, np.float64) as replicas:
        for _ in range(2):  # the buffers of the call before do not matter
            found_value, found = replicas.gradient(loss, model, parts(batch, *ends), None)
            assert found_value == pytest.approx(value, rel=1e-13)
            assert np.linalg.norm(found - right) <= BOUND * np.linalg.norm(right)
            found.fill(np.nan)


def test_a_smaller_batch_after_a_larger_one_leaves_nothing_behind() -> None:
    """Replicas without a share must not add what they held from the call before."""
    _, model, layout, batch, loss = problem("decoder")
    with Replicas(3, layout, np.float64) as replicas:
        for part in (batch, *parts(batch, 1, 3)):
            value, right = whole(loss, model, layout, part)
            found_value, found = replicas.gradient(loss, model, [part], None)
            assert found_value == pytest.approx(value, rel=1e-13)
            assert np.linalg.norm(found - right) <= BOUND * np.linalg.norm(right)


def test_mean_of_means_would_be_another_gradient() -> None:
    """The ragged batch tells the two apart."""
    _, model, layout, batch, loss = problem("decoder")
    first, second = (whole(loss, model, layout, part)[1] for part in parts(batch, 3))
    _, right = whole(loss, model, layout, batch)
    assert np.linalg.norm((first + second) / 2 - right) > 0.05 * np.linalg.norm(right)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_without_targets_gives_zero(kind: str, threads: int) -> None:
    _, model, layout, batch, loss = problem(kind)
    empty = type(batch)(**(vars(batch) | {"targets": np.full((ROWS, LENGTH), IGNORE, np.int32)}))
    assert empty.tokens == 0
    with Replicas(threads, layout, np.float64) as replicas:
        replicas.gradient(loss, model, [batch], None)
        value, gradient = replicas.gradient(loss, model, [empty], None)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equal_seeds_and_threads_give_equal_bits(threads: int) -> None:
    _, model, layout, batch, loss = problem("decoder", np.float32, dropout=0.3)
    results = []
    for seed in (1, 1, 2):
        with Replicas(threads, layout) as replicas:
            value, gradient = replicas.gradient(loss, model, parts(batch, 2), Key.of(seed))
            results.append((value, gradient.copy()))
    assert results[0][1].dtype == np.float32
    assert results[0][0] == results[1][0] != results[2][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert np.any(results[0][1] != results[2][1])


def test_every_share_has_a_key_of_its_own() -> None:
    keys: list[Key | None] = []
    lock = threading.Lock()

    def loss(model: Any, batch: Any, *, key: Key | None, denominator: float) -> Any:
        with lock:
            keys.append(key)
        return causal_loss(model, batch, key=key, denominator=denominator)

    _, model, layout, batch, _ = problem("decoder")
    with Replicas(2, layout, np.float64) as replicas:
        replicas.gradient(loss, model, parts(batch, 2), Key.of(3))
        assert len(keys) == len(set(keys)) == 4
        assert None not in keys
        keys.clear()
        replicas.gradient(loss, model, [batch], None)
        assert keys == [None, None]


def test_errors_in_a_replica_reach_the_caller_and_leave_the_rest_usable() -> None:
    _, model, layout, batch, loss = problem("decoder")

    def breaks(model: Any, share: Any, *, key: Key | None, denominator: float) -> Any:
        if len(share.inputs) == 1 and share.inputs[0, 0] == batch.inputs[-1, 0]:
            raise KeyError("of a replica")
        return loss(model, share, key=key, denominator=denominator)

    with Replicas(3, layout, np.float64) as replicas:
        right_value, right = replicas.gradient(loss, model, [batch], None)
        right = right.copy()
        with pytest.raises(KeyError, match="of a replica"):
            replicas.gradient(breaks, model, parts(batch, 5), None)
        value, gradient = replicas.gradient(loss, model, [batch], None)
    assert value == right_value
    np.testing.assert_array_equal(gradient, right)


def test_an_error_waits_for_the_other_replicas() -> None:
    """A replica that went on after the error would write into the buffers of the next call."""
    _, model, layout, batch, _ = problem("decoder")
    failed, finished = threading.Event(), []

    def one_fails(model: Any, share: Any, *, key: Key | None, denominator: float) -> Any:
        if np.array_equal(share.inputs, batch.inputs[:3]):
            failed.set()
            raise KeyError("of a replica")
        assert failed.wait(10)
        time.sleep(0.2)
        finished.append(True)
        return causal_loss(model, share, denominator=denominator)

    with Replicas(2, layout, np.float64) as replicas:
        with pytest.raises(KeyError, match="of a replica"):
            replicas.gradient(one_fails, model, [batch], None)
        assert finished == [True]


def test_a_stop_gives_work_up_after_the_patience_and_not_before() -> None:
    _, _, layout, _, _ = problem("decoder")
    asked, release = [], threading.Event()

    def should_stop() -> bool:
        asked.append(True)
        return True

    with Replicas(2, layout, should_stop=should_stop, patience=0.15) as replicas:
        assert replicas.map(lambda x: x + 1, [1, 2]) == [2, 3]  # what ends in time is not lost
        start = time.monotonic()
        with pytest.raises(Abandoned):
            replicas.map(lambda _: release.wait(20), [1, 2])
        release.set()
        assert 0.1 < time.monotonic() - start < 10
    assert asked


def test_blas_has_one_thread_inside_and_its_own_number_after() -> None:
    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    _, _, layout, _, _ = problem("decoder")
    before = blas()
    with Replicas(2, layout):
        assert blas() == [1] * len(before)
    assert blas() == before


def test_map_keeps_the_order() -> None:
    _, _, layout, _, _ = problem("decoder")
    with Replicas(3, layout) as replicas:
        assert replicas.map(lambda x: x * x, list(range(20))) == [x * x for x in range(20)]
