"""What the probe finds on a device that is right, and on ones that lack a type or compute it wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from standin import cupy

from minilong.backend import probes
from minilong.backend.probes import Probes, probe
from minilong.backend.products import allow_tf32, tf32_allowed
from minilong.errors import UserError

HALF = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    probe.cache_clear()
    with cupy.install():
        yield
    probe.cache_clear()


def test_a_right_device_has_every_type() -> None:
    found = probe(cupy)
    assert found == Probes({}, tf32=True)
    for name in ("float32", "float16", "bfloat16", "float64", "tf32"):
        found.require(name)
    assert probe(cupy) is found


def test_numpy_is_right_in_the_types_that_it_multiplies() -> None:
    assert not {"float32", "float64"} & set(probe(np).wrong)


Product = Callable[..., Any]


def planted(monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Product], Product]) -> Probes:
    monkeypatch.setattr(probes, "matmul", mistake(probes.matmul))
    return probe(cupy)


def rounding(bits: int, only: Callable[[Any], bool]) -> Callable[[Product], Product]:
    """A device that rounds operands of float32 to so many bits of mantissa."""

    def mistake(right: Product) -> Product:
        def product(xp: Any, a: Any, b: Any) -> Any:
            if a.dtype != np.float32 or not only(a):
                return right(xp, a, b)
            drop = 23 - bits
            whole = (((cupy.asnumpy(x).view(np.uint32) + (1 << (drop - 1))) >> drop << drop) for x in (a, b))
            return right(xp, *(cupy.asarray(x.astype(np.uint32).view(np.float32)) for x in whole))

        return product

    return mistake


def test_tf32_that_nobody_asked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planted(monkeypatch, rounding(10, lambda a: True))
    assert set(found.wrong) == {"float32"}
    with pytest.raises(UserError, match="NVIDIA_TF32_OVERRIDE set") as caught:
        found.require("float32")
    assert str(caught.value).endswith("use float16 or bfloat16")
    found.require("bfloat16")


def test_tf32_that_rounds_too_much_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planted(monkeypatch, rounding(5, lambda a: tf32_allowed()))
    assert set(found.wrong) == {"tf32"}
    assert not found.tf32


def test_a_card_without_tf32_computes_float32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(right: Product) -> Product:
        def product(*operands: Any) -> Any:
            with allow_tf32(False):
                return right(*operands)

        return product

    assert planted(monkeypatch, mistake) == Probes({}, tf32=False)


@pytest.mark.parametrize("name", HALF)
def test_a_type_that_the_device_refuses_is_named_with_its_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(right: Product) -> Product:
        def product(xp: Any, a: Any, b: Any) -> Any:
            if a.dtype == HALF[name]:
                raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")
            return right(xp, a, b)

        return product

    found = planted(monkeypatch, mistake)
    assert set(found.wrong) == {name}
    with pytest.raises(UserError, match=f"{name} cannot be used .*CUBLAS_STATUS_NOT_SUPPORTED.*; use float32 or "):
        found.require(name)


def test_a_tf32_that_the_device_refuses_is_named_and_float32_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(right: Product) -> Product:
        def product(*operands: Any) -> Any:
            if tf32_allowed():
                raise RuntimeError("CUBLAS_STATUS_ARCH_MISMATCH")
            return right(*operands)

        return product

    found = planted(monkeypatch, mistake)
    assert set(found.wrong) == {"tf32"}
    found.require("float32")
    with pytest.raises(UserError, match=r"tf32 cannot be used on this GPU: .*ARCH_MISMATCH.*; use float32 or "):
        found.require("tf32")


@pytest.mark.parametrize("name", HALF)
def test_sums_in_half_precision_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(right: Product) -> Product:
        def product(xp: Any, a: Any, b: Any) -> Any:
            if a.dtype != HALF[name]:
                return right(xp, a, b)
            total = 0 * (a[..., :1] * b[..., :1, :])
            for k in range(a.shape[-1]):
                total = total + a[..., k : k + 1] * b[..., k : k + 1, :]
            return total

        return product

    assert set(planted(monkeypatch, mistake).wrong) == {name}


def test_wrong_batches_and_views_and_numbers_that_are_none_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(when: Callable[[Any], bool], spoil: Callable[[Any], Any]) -> Callable[[Product], Product]:
        return lambda right: lambda xp, a, b: spoil(right(xp, a, b)) if when(a) else right(xp, a, b)

    def batch(a: Any) -> bool:
        return a.ndim > 2 and bool(a.flags.c_contiguous)

    def view(a: Any) -> bool:
        return a.ndim > 2 and not a.flags.c_contiguous

    for when, form in ((batch, "products of a batch are"), (view, "products of a batch of views are")):
        for spoil in (lambda y: y[::-1], lambda y: y * np.nan):
            with monkeypatch.context() as patch:
                probe.cache_clear()
                found = planted(patch, spoilt(when, spoil))
            assert all(form in found.wrong[name] for name in probes.TOLERANCE)
            with pytest.raises(UserError, match="no type works"):
                found.require("float32")
