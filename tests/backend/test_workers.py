"""Threads that are granted to operations: who has how many, every part done once, errors told, numbers unchanged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minilong.attention import Mask, auto, dense
from minilong.autodiff import affine, gelu, gelu_tanh, layer_norm, linear, vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.backend import workers
from minilong.backend.workers import WORTH, grant_threads, granted_threads, share_out, share_rows

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def test_threads_are_granted_inside_only_and_to_this_thread_only() -> None:
    seen: list[int] = []
    assert granted_threads() == 1
    with grant_threads(3):
        assert granted_threads() == 3
        other = threading.Thread(target=lambda: seen.append(granted_threads()))
        other.start()
        other.join()
        with pytest.raises(KeyError), grant_threads(2):
            raise KeyError
        assert granted_threads() == 3
    assert granted_threads() == 1
    assert seen == [1]


@pytest.mark.parametrize("granted", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("nanoseconds", [0.0, WORTH])
def test_rows_are_covered_once(granted: int, rows: int, nanoseconds: float) -> None:
    count = np.zeros(rows, int)
    parts: list[slice] = []

    def work(part: slice) -> None:
        count[part] += 1
        parts.append(part)

    with grant_threads(granted):
        share_rows(work, rows, nanoseconds)
    assert (count == 1).all()
    assert len(parts) == (max(1, min(granted, rows)) if nanoseconds else 1)


def test_calls_may_be_nested_and_all_work_is_done() -> None:
    done: list[tuple[int, int]] = []

    def outer(items: Iterator[int]) -> None:
        for i in items:
            share_out(lambda inner, i=i: done.extend((i, j) for j in inner), range(5), 2)

    share_out(outer, range(6), 2)
    assert sorted(done) == [(i, j) for i in range(6) for j in range(5)]


def test_an_error_of_any_thread_is_told_after_all_have_ended() -> None:
    barrier, ended = threading.Barrier(2, timeout=5), []

    def work(items: Iterator[int]) -> None:
        for i in items:
            barrier.wait()
            if threading.current_thread() is not threading.main_thread():
                raise KeyError(i)
            ended.append(i)

    with pytest.raises(KeyError):
        share_out(work, range(2), 2)
    assert len(ended) == 1


CALLS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "linear": (linear, (drawn(3, 300, 64), drawn(64, 384))),
    "affine": (affine, (drawn(900, 64), drawn(64, 384), drawn(384))),
    "gelu": (gelu, (drawn(900, 400),)),
    "gelu_tanh": (gelu_tanh, (drawn(900, 400),)),
    "layer_norm": (layer_norm, (drawn(2, 900, 256), drawn(256), drawn(256))),
    "auto": (lambda q, k, v: auto(q, k, v, mask=Mask(causal=True)), tuple(drawn(2, 4, 700, 16) for _ in range(3))),
    "dense": (dense, tuple(drawn(8, 4, n, 64) for n in (1, 600, 600))),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_number_depends_on_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f, xs = CALLS[name]
    shared: list[int] = []  # entered only where work is shared

    def noted() -> AbstractContextManager[None]:
        shared.append(granted_threads())
        return nullcontext()

    def everything(granted: int) -> list[np.ndarray]:
        with grant_threads(granted), threadpool_limits(1):
            y, pull = vjp(f, *xs)
            return [y, *pull(np.sin(np.arange(y.size, dtype=np.float32)).reshape(y.shape))]

    monkeypatch.setattr(workers, "one_blas_thread", noted)
    for one, several in zip(everything(1), everything(2), strict=True):
        assert one.dtype == several.dtype == np.float32
        bound = rounding_bound(np.float32, float(np.abs(one).max()) + 1.0, 900)
        np.testing.assert_allclose(several, one, rtol=0, atol=bound)
    assert set(shared) == {2}
