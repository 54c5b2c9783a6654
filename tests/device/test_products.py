"""`matmul` on a GPU's arrays against NumPy's, through cuBLAS's calls; numbers are chosen so that every sum is exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cases_products
import ml_dtypes
import numpy as np
import pytest
from cases_products import RESULTS, VIEWS
from hypothesis import given
from hypothesis import strategies as st
from standin import cupy

from minilong.backend import products
from minilong.backend.products import allow_tf32, matmul, tf32_allowed


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    with cupy.install():
        yield


TYPES = [np.dtype(t) for t in ("float32", "float64", "float16", ml_dtypes.bfloat16)]


def numbers(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


def device(x: np.ndarray) -> Any:
    return cupy.asarray(x)


def host(x: Any) -> np.ndarray:
    return cupy.asnumpy(x).astype(np.float64)


class Calls:
    """The calls of cuBLAS and the copies of operands while a test runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, tuple[Any, ...]]] = []
        self.copies, self.within = 0, False
        library = products._library(cupy)
        for name in ("gemmEx", "gemmStridedBatchedEx", "setMathMode"):
            monkeypatch.setattr(library, name, self.watch(name, getattr(library, name)))
        make = cupy.ascontiguousarray

        def copy(x: Any) -> Any:
            self.copies += 1
            return make(x)

        monkeypatch.setattr(cupy, "ascontiguousarray", copy)

    def watch(self, name: str, call: Any) -> Any:
        def watched(*arguments: Any) -> Any:
            if not self.within:  # the stand-in's gemmEx calls the other one
                self.made.append((name, arguments))
            self.within, before = True, self.within
            try:
                return call(*arguments)
            finally:
                self.within = before

        return watched

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.made if name != "setMathMode"]

    @property
    def written_to(self) -> list[int]:
        """The addresses of C."""
        return [arguments[14 if name == "gemmEx" else 16] for name, arguments in self.made if name != "setMathMode"]

    @property
    def computed_in(self) -> set[int]:
        return {arguments[-2] for name, arguments in self.made if name != "setMathMode"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@st.composite
def operands(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Two arrays that fit, their batches broadcast against each other, and how each lies in memory."""
    m, k, n = (draw(st.integers(1, 5)) for _ in range(3))
    lead = draw(st.lists(st.integers(1, 3), max_size=3))
    shapes = []
    for tail in ((m, k), (k, n)):
        own = [draw(st.sampled_from([1, length])) for length in lead[draw(st.integers(0, len(lead))) :]]
        shapes.append((*own, *tail))
    dtype = draw(st.sampled_from(TYPES))
    a, b = (numbers(shape, seed, dtype) for seed, shape in enumerate(shapes))
    return a, b, draw(st.sampled_from(list(VIEWS))), draw(st.sampled_from(list(VIEWS)))


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.matmul(a.astype(np.float64), b.astype(np.float64))


def test_normal_numbers_in_every_layout_and_type() -> None:
    cases_products.check(cupy)
    cupy.check_guards()


@given(operands())
def test_products_equal_numpys_in_every_layout_and_type(case: tuple[np.ndarray, np.ndarray, str, str]) -> None:
    a, b, first, second = case
    product = matmul(cupy, VIEWS[first](cupy, device(a)), VIEWS[second](cupy, device(b)))
    assert product.dtype == a.dtype
    assert np.array_equal(host(product), exact(a, b))


@given(operands(), st.sampled_from(RESULTS), st.booleans(), st.booleans())
def test_a_product_is_written_into_any_view_and_added_to_it(
    case: tuple[np.ndarray, np.ndarray, str, str], kind: str, add: bool, wide: bool
) -> None:
    a, b, first, second = case
    right = exact(a, b)
    before = numbers(right.shape, 2, np.float32 if wide and a.itemsize == 2 else a.dtype)
    out = VIEWS[kind](cupy, device(before))
    assert matmul(cupy, VIEWS[first](cupy, device(a)), VIEWS[second](cupy, device(b)), out, add=add) is out
    assert out.dtype == before.dtype
    assert np.array_equal(host(out), right + before.astype(np.float64) * add)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_layout_of_operands_and_result(dtype: Any) -> None:
    a, b, before = (numbers((2, 3, *tail), i, dtype) for i, tail in enumerate(((4, 5), (5, 2), (4, 2))))
    right = exact(a, b)
    for first, second, kind in itertools.product(VIEWS.values(), VIEWS.values(), RESULTS):
        out = VIEWS[kind](cupy, device(before))
        matmul(cupy, first(cupy, device(a)), second(cupy, device(b)), out, add=True)
        assert np.array_equal(host(out), right + before.astype(np.float64))
    cupy.check_guards()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("a, b", [((4,), (4,)), ((4,), (4, 3)), ((2, 4), (4,)), ((4,), (5, 4, 3)), ((5, 2, 4), (4,))])
def test_vectors_lose_their_axis(a: tuple[int, ...], b: tuple[int, ...], dtype: Any) -> None:
    x, y = numbers(a, 0, dtype), numbers(b, 1, dtype)
    right = exact(x, y)
    product = matmul(cupy, device(x), device(y))
    assert product.shape == right.shape
    assert np.array_equal(host(product), right)
    out = cupy.zeros(right.shape, dtype)
    matmul(cupy, device(x), device(y), out)
    matmul(cupy, device(x), device(y), out, add=True)
    assert np.array_equal(host(out), 2 * right)


@pytest.mark.parametrize("dtype", TYPES[2:], ids=str)
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype: Any) -> None:
    k = 4099  # 4099 ones summed in bfloat16 would stop at 256, in float16 at 2048
    for lead in ((), (3,)):
        a, b = cupy.ones((*lead, 2, k), dtype), cupy.ones((*lead, k, 2), dtype)
        assert np.all(host(matmul(cupy, a, b)) == float(np.float32(k).astype(dtype)))
        assert np.all(host(matmul(cupy, a, b, cupy.empty((*lead, 2, 2), np.float32))) == k)


def test_the_library_is_told_never_to_add_parts_of_a_sum_in_the_type_of_the_result(calls: Calls) -> None:
    matmul(cupy, cupy.ones((2, 2), np.float16), cupy.ones((2, 2), np.float16))
    assert next((name, arguments[-1]) for name, arguments in calls.made) == ("setMathMode", 16)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tf32_concerns_float32_only_and_only_where_it_is_allowed(
    dtype: Any, shape: tuple[int, ...], calls: Calls
) -> None:
    x = cupy.ones(shape, dtype)
    plain = {products.SUM_FLOAT64 if dtype == np.float64 else products.SUM_FLOAT32}
    matmul(cupy, x, x)
    assert calls.computed_in == plain
    calls.made.clear()
    with allow_tf32():
        assert tf32_allowed()
        matmul(cupy, x, x)
        assert calls.computed_in == ({products.SUM_TF32} if dtype == np.float32 else plain)
        calls.made.clear()
        with allow_tf32(False):
            matmul(cupy, x, x)
        assert calls.computed_in == plain
        calls.made.clear()
    with pytest.raises(RuntimeError, match="within"), allow_tf32():
        raise RuntimeError("within")
    matmul(cupy, x, x)
    assert calls.computed_in == plain
    assert not tf32_allowed()


def test_products_of_attention_are_one_call_each_and_copy_nothing(calls: Calls) -> None:
    b, h, t, d = 1, 3, 5, 4
    q, k, v = (device(numbers((b, t, h, d), i, np.float32)).transpose(0, 2, 1, 3) for i in range(3))
    scores = matmul(cupy, q, k.swapaxes(-1, -2))
    product = matmul(cupy, scores, v)
    for_v = matmul(cupy, scores.swapaxes(-1, -2), product)
    matmul(cupy, product.transpose(0, 2, 1, 3).reshape(b, t, h * d), device(numbers((h * d, 7), 3, np.float32)))
    assert calls.names == ["gemmStridedBatchedEx"] * 3 + ["gemmEx"]
    assert calls.copies == 0
    q, k, v = (host(x) for x in (q, k, v))
    assert np.array_equal(host(for_v), (q @ k.swapaxes(-1, -2)).swapaxes(-1, -2) @ (q @ k.swapaxes(-1, -2) @ v))


def test_no_product_waits_for_the_device_or_sends_it_anything(calls: Calls) -> None:
    x = device(numbers((2, 3, 4, 4), 0, np.float32))
    layouts = [x, x.transpose(1, 0, 3, 2), x[..., ::2, ::2], x[0, 0], x[0, 0, 0]]
    with cupy.no_sync(h2d=False):
        for a in layouts:
            for b in layouts[:1] if a.shape[-1] == 4 else [x[..., :2, :]]:
                out = matmul(cupy, a.swapaxes(0, 1) if a.ndim == 4 and a.shape[0] == 3 else a, b)
                matmul(cupy, out.swapaxes(-1, -2), out, add=False)
                matmul(cupy, x, x, x, add=True)
    cupy.check_guards()


def test_only_what_no_call_describes_is_copied(calls: Calls) -> None:
    x = device(numbers((2, 4, 4), 0, np.float32))
    columns = VIEWS["every other column"](cupy, x)
    calls.copies = 0
    for first, second in itertools.product((x, columns), repeat=2):
        assert np.array_equal(host(matmul(cupy, first, second)), host(x) @ host(x))
    assert calls.copies == 4


def test_a_result_that_shares_memory_with_an_operand_is_computed_apart(calls: Calls) -> None:
    for add in (False, True):
        x = numbers((2, 4, 4), 0, np.float32)
        for operands in ((0, 1), (1, 0), (0, 0)):
            mine, other = device(x), device(x + 1)
            a, b = ((mine, other)[i] for i in operands)
            right = host(a) @ host(b) + x * add
            calls.made.clear()
            matmul(cupy, a, b, mine, add=add)
            assert np.array_equal(host(mine), right)
            assert len(calls.written_to) == 1
            assert mine.data.ptr not in calls.written_to
    calls.made.clear()
    apart = device(x)
    matmul(cupy, device(x), device(x), apart)
    assert calls.written_to == [apart.data.ptr]
    whole = device(numbers((8, 4), 0, np.float32))
    right = host(whole[::-1][:4]) @ np.eye(4)
    matmul(cupy, whole[::-1][:4], cupy.eye(4, dtype=np.float32), whole[2:6])
    assert np.array_equal(host(whole[2:6]), right)


def test_neighbours_in_one_allocation_are_no_overlap(calls: Calls) -> None:
    whole = cupy.zeros((3, 4, 4), np.float32)
    assert not products.overlap(whole[0], whole[1])
    assert products.overlap(whole[0], whole[:2])
    assert products.overlap(whole[::-1], whole[0])
    assert not products.overlap(whole[2:0:-1], whole[0])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_empty_arrays(dtype: Any) -> None:
    for a, b in [((0, 3), (3, 2)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 2)), ((2, 0, 2, 3), (1, 3, 4)), ((0, 0), (0, 0))]:
        product = matmul(cupy, cupy.zeros(a, dtype), cupy.zeros(b, dtype))
        assert product.shape == np.matmul(np.zeros(a), np.zeros(b)).shape
    assert np.array_equal(host(matmul(cupy, cupy.zeros((2, 0), dtype), cupy.zeros((0, 3), dtype))), np.zeros((2, 3)))
    out = cupy.ones((2, 3), dtype)
    matmul(cupy, cupy.zeros((2, 0), dtype), cupy.zeros((0, 3), dtype), out, add=True)
    assert np.array_equal(host(out), np.ones((2, 3)))


def test_types_meet_as_in_numpy_and_whole_numbers_are_the_librarys(calls: Calls) -> None:
    a, b = numbers((3, 4)), numbers((4, 5))
    half = device(a.astype(ml_dtypes.bfloat16))
    assert matmul(cupy, half, device(b.astype(np.float32))).dtype == np.float32
    assert matmul(cupy, device(a.astype(np.float32)), device(b)).dtype == np.float64
    assert calls.names == ["gemmEx"] * 2
    whole = matmul(cupy, device(a.astype(np.int64)), device(b.astype(np.int64)))
    assert whole.dtype == np.int64
    assert np.array_equal(host(whole), a @ b)
    matmul(cupy, device(a.astype(np.int64)), device(b.astype(np.int64)), whole, add=True)
    assert np.array_equal(host(whole), 2 * (a @ b))
    assert calls.names == ["gemmEx"] * 2


@pytest.mark.parametrize("dtype, out", [(np.float32, np.float64), (np.float32, np.float16), (np.float64, np.float32)])
def test_a_result_of_another_type_is_refused(dtype: Any, out: Any) -> None:
    x = cupy.ones((2, 2), dtype)
    with pytest.raises(TypeError, match="cannot be written"):
        matmul(cupy, x, x, cupy.empty((2, 2), out))


def test_what_does_not_fit_is_refused() -> None:
    x = cupy.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="3 columns, 2 rows"):
        matmul(cupy, x, x)
    with pytest.raises(ValueError, match="one axis or more"):
        matmul(cupy, x, cupy.ones((), np.float32))
    for shape in ((3, 3), (1, 2, 2), (2,)):
        with pytest.raises(ValueError, match="an `out` of shape"):
            matmul(cupy, x, x.T, cupy.empty(shape, np.float32))
    for xp, y in ((cupy, x), (np, np.ones((2, 3)))):
        with pytest.raises(ValueError, match="added to an `out`"):
            matmul(xp, y, y.T, add=True)


def test_on_numpy_it_is_numpys_product() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    out = np.empty((3, 4, 4))
    assert np.array_equal(matmul(np, a, b), np.matmul(a, b))
    assert matmul(np, a, b, out) is out
    assert matmul(np, a, b, out, add=True) is out
    assert np.array_equal(out, np.matmul(a, b) + np.matmul(a, b))
