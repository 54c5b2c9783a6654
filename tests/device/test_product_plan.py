"""The arguments of cuBLAS, run by an emulation of the call on raw buffers: every layout is right, mutants are seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from minilong.backend import product_plan
from minilong.backend.product_plan import LARGEST, Plan, needs_copy, plan, result_shape

Make = Callable[[int, int, int, int], np.ndarray]
"""A view of shape (b, h, rows, columns), or one that broadcasts to it, in a buffer of its own."""


def numbers(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape)), dtype=np.float64) * 7919 % 1009 / 64 - 8).reshape(shape)  # exact sums


OPERANDS: dict[str, Make] = {
    "plain": lambda b, h, r, c: numbers(b, h, r, c),
    "transposed": lambda b, h, r, c: numbers(b, h, c, r).swapaxes(-1, -2),
    "heads": lambda b, h, r, c: numbers(b, r, h, c).transpose(0, 2, 1, 3),
    "heads transposed": lambda b, h, r, c: numbers(b, c, h, r).transpose(0, 2, 3, 1),
    "one of three in a row": lambda b, h, r, c: numbers(b, r, 3, h, c)[:, :, 1].transpose(0, 2, 1, 3),
    "wide rows": lambda b, h, r, c: numbers(b, h, r, c + 3)[..., 2:-1],
    "every other row": lambda b, h, r, c: numbers(b, h, 2 * r, c)[:, :, 1::2],
    "shared by all": lambda b, h, r, c: numbers(r, c),
    "shared by all, transposed": lambda b, h, r, c: numbers(c, r).T,
    "shared by heads": lambda b, h, r, c: numbers(b, 1, r, c),
    "shared by texts": lambda b, h, r, c: numbers(1, h, r, c),
    "shared by a stride of 0": lambda b, h, r, c: np.broadcast_to(numbers(b, 1, r, c), (b, h, r, c)),
    "batch swapped": lambda b, h, r, c: numbers(h, b, r, c).swapaxes(0, 1),
    "batch backwards": lambda b, h, r, c: numbers(b, h, r, c)[::-1, ::-1],
    "every other head": lambda b, h, r, c: numbers(b, 2 * h, r, c)[:, ::2],
}
RESULTS = ("plain", "transposed", "heads", "heads transposed", "wide rows", "batch swapped")
NEED_COPY: dict[str, Make] = {
    "every other column": lambda b, h, r, c: numbers(b, h, r, 2 * c)[..., ::2],
    "rows of one number": lambda b, h, r, c: np.broadcast_to(numbers(b, h, r, 1), (b, h, r, c)),
    "one row many times": lambda b, h, r, c: np.broadcast_to(numbers(b, h, 1, c), (b, h, r, c)),
    "rows backwards": lambda b, h, r, c: numbers(b, h, r, c)[:, :, ::-1],
    "a moving window": lambda b, h, r, c: np.lib.stride_tricks.sliding_window_view(numbers(b, h, r + c - 1), c, axis=2),
}
SIZES = [(1, 1, 1, 1, 1), (2, 3, 4, 5, 6), (1, 3, 4, 2, 5), (2, 1, 3, 4, 2), (2, 3, 1, 4, 5), (3, 2, 4, 5, 1)]
SIZES += [(2, 2, 1, 3, 1), (2, 3, 3, 1, 2), (1, 1, 2, 3, 4), (4, 1, 1, 2, 3)]


class Buffer(NamedTuple):
    """Memory, and where in it an array begins."""

    memory: np.ndarray
    start: int

    @staticmethod
    def of(x: np.ndarray) -> Buffer:
        base = x
        while isinstance(base.base, np.ndarray):
            base = base.base
        memory = np.lib.stride_tricks.as_strided(base, (base.size,), (base.itemsize,))  # bases here are contiguous
        return Buffer(memory, (x.ctypes.data - base.ctypes.data) // x.itemsize)


def layout(x: np.ndarray) -> product_plan.Layout:
    return x.shape, tuple(stride // x.itemsize for stride in x.strides)


def emulate(p: Plan, first: Buffer, second: Buffer, out: Buffer) -> None:
    """C = A B by columns, as cuBLAS documents it: refuses what cuBLAS refuses, reads and writes through indices."""

    def where(start: int, transposed: int, rows: int, columns: int, ld: int) -> np.ndarray:
        stored = (columns, rows) if transposed else (rows, columns)
        assert max(1, stored[0]) <= ld <= LARGEST, "leading dimension"
        index = start + np.arange(stored[0])[:, None] + ld * np.arange(stored[1])
        return index.T if transposed else index

    assert min(p.m, p.n, p.k, p.batch) >= 1
    assert min(p.step_a, p.step_b, p.step_c) >= 0
    a, b = (second, first) if p.swapped else (first, second)
    for i, j, o in p.starts:
        for t in range(p.batch):
            at_a = where(a.start + i + t * p.step_a, p.trans_a, p.m, p.k, p.ld_a)
            at_b = where(b.start + j + t * p.step_b, p.trans_b, p.k, p.n, p.ld_b)
            at_c = where(out.start + o + t * p.step_c, 0, p.m, p.n, p.ld_c)
            assert min(at_a.min(), at_b.min(), at_c.min()) >= 0, "before the buffer"
            assert np.isnan(out.memory[at_c]).all(), "written twice"
            out.memory[at_c] = a.memory[at_a] @ b.memory[at_b]


def fails(p: Plan, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    """Whether a plan gives anything but a b in c, or touches memory around it."""
    out = Buffer.of(c)
    out.memory[:] = np.nan
    try:
        emulate(p, Buffer.of(a), Buffer.of(b), out)
    except (AssertionError, IndexError, ValueError):
        return True
    right = np.matmul(a, b)
    return not np.array_equal(c, right) or int(np.isnan(out.memory).sum()) != out.memory.size - right.size


def cases(sizes: list[tuple[int, ...]]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    for b, h, m, k, n in sizes:
        for first, second in itertools.product(OPERANDS, OPERANDS):
            x, y = OPERANDS[first](b, h, m, k), OPERANDS[second](b, h, k, n)
            lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            for result in RESULTS if len(lead) == 2 else ("plain",):
                c = OPERANDS[result](*lead, m, n) if len(lead) == 2 else numbers(m, n)
                yield x, y, c, f"{first} times {second} as {result}, {(b, h, m, k, n)}"


def test_every_layout_gives_the_product_without_a_copy() -> None:
    done = 0
    for a, b, c, name in cases(SIZES):
        assert not any(needs_copy(*layout(x)) for x in (a, b, c)), name
        assert not fails(plan(layout(a), layout(b), layout(c)), a, b, c), name
        done += 1
    assert done > 5000


MUTANTS: dict[str, Callable[[Plan], Plan]] = {
    "a transposed": lambda p: p._replace(trans_a=1 - p.trans_a),
    "b transposed": lambda p: p._replace(trans_b=1 - p.trans_b),
    "flags exchanged": lambda p: p._replace(trans_a=p.trans_b, trans_b=p.trans_a),
    "operands exchanged": lambda p: p._replace(swapped=not p.swapped),
    "m and n exchanged": lambda p: p._replace(m=p.n, n=p.m),
    "m and k exchanged": lambda p: p._replace(m=p.k, k=p.m),
    "one column less": lambda p: p._replace(k=max(1, p.k - 1)),
    "ld of a as if rows were close": lambda p: p._replace(ld_a=p.k if p.trans_a else p.m),
    "ld of b as if rows were close": lambda p: p._replace(ld_b=p.n if p.trans_b else p.k),
    "ld of c as if rows were close": lambda p: p._replace(ld_c=p.m),
    "ld of a of the wrong axis": lambda p: p._replace(ld_a=p.m if p.trans_a else p.k),
    "step of a as if contiguous": lambda p: p._replace(step_a=p.m * p.k),
    "step of b as if contiguous": lambda p: p._replace(step_b=p.k * p.n),
    "step of c as if contiguous": lambda p: p._replace(step_c=p.m * p.n),
    "steps exchanged": lambda p: p._replace(step_a=p.step_b, step_b=p.step_a),
    "one of the batch": lambda p: p._replace(batch=1),
    "one call": lambda p: p._replace(starts=p.starts[:1]),
    "offsets of a dropped": lambda p: p._replace(starts=tuple((0, j, o) for _, j, o in p.starts)),
    "offsets of b dropped": lambda p: p._replace(starts=tuple((i, 0, o) for i, _, o in p.starts)),
    "offsets exchanged": lambda p: p._replace(starts=tuple((j, i, o) for i, j, o in p.starts)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_in_the_arguments_is_seen(mutant: str) -> None:
    changed = ((plan(layout(a), layout(b), layout(c)), a, b, c) for a, b, c, _ in cases(SIZES[1:4]))
    assert any(fails(MUTANTS[mutant](p), a, b, c) for p, a, b, c in changed)


def merge_all(axes: list[Any]) -> list[Any]:
    return [axes[-1]._replace(length=int(np.prod([axis.length for axis in axes])))] if axes else []


def stack_all(x: Any, x_step: int, y: Any, y_step: int, length: int) -> Any:
    return tuple(m._replace(rows=m.rows * length) for m in (x, y))


@pytest.mark.parametrize("name, mistake", [("_merged", merge_all), ("_stacked", stack_all)])
def test_a_planted_mistake_in_the_planning_is_seen(name: str, mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_plan, name, mistake)
    careless = plan.__wrapped__
    assert any(fails(careless(layout(a), layout(b), layout(c)), a, b, c) for a, b, c, _ in cases(SIZES[1:3]))


@pytest.mark.parametrize("name", NEED_COPY)
def test_layouts_that_no_call_describes_need_a_copy(name: str) -> None:
    assert needs_copy(*layout(NEED_COPY[name](2, 3, 4, 5)))
    assert not needs_copy(*layout(np.ascontiguousarray(NEED_COPY[name](2, 3, 4, 5))))


B, H, KEY_HEADS, T, D, F = 2, 6, 2, 8, 4, 16


def heads(width: int = D, heads: int = H) -> np.ndarray:
    return numbers(B, T, heads, width).transpose(0, 2, 1, 3)


def attention_products() -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """The products of a Transformer, and the calls that each may take: weights (b, h, t, s) are contiguous, queries,
    keys and values are views of the projections (b, t, h d)."""
    weights, grouped = numbers(B, H, T, T), numbers(B, T, H, D).transpose(0, 2, 1, 3)
    grouped = grouped.reshape(B, KEY_HEADS, H // KEY_HEADS, T, D)
    keys = heads(heads=KEY_HEADS)[:, :, None]
    contiguous = numbers(B, H, T, D)
    fused = numbers(B, T, 3, H, D).transpose(2, 0, 3, 1, 4)
    rows, hidden = numbers(B * T, D), numbers(B, T, D)
    return {
        "scores": (heads(), heads().swapaxes(-1, -2), B),
        "scores of contiguous heads": (contiguous, contiguous.swapaxes(-1, -2), 1),
        "scores of a fused projection": (fused[0], fused[1].swapaxes(-1, -2), B),
        "scores of one text": (heads()[:1], heads()[:1].swapaxes(-1, -2), 1),
        "scores of one head": (heads()[:, :1], heads()[:, :1].swapaxes(-1, -2), 1),
        "values": (weights, heads(), B),
        "cotangent of values": (weights.swapaxes(-1, -2), heads(), B),
        "cotangent of weights": (contiguous, heads().swapaxes(-1, -2), B),
        "cotangent of keys": (weights.swapaxes(-1, -2), contiguous, 1),
        "scores of grouped queries": (grouped, keys.swapaxes(-1, -2), B * KEY_HEADS),
        "a linear map": (hidden, numbers(D, F), 1),
        "a linear map of one token": (numbers(B, 1, D), numbers(D, F), 1),
        "a linear map by the transposed table": (hidden, numbers(F, D).T, 1),
        "a linear map of one in three": (numbers(B, T, 3 * D)[..., D : 2 * D], numbers(D, F), 1),
        "cotangent of its input": (numbers(B, T, F), numbers(D, F).T, 1),
        "cotangent of its weights": (rows.T, numbers(B * T, F), 1),
        "sum over rows": (np.ones((1, B * T)), rows, 1),
        "a matrix on each of a batch of vectors": (numbers(F, D), numbers(B, D, 1), 1),
    }


@pytest.mark.parametrize("name", attention_products())
def test_products_of_a_transformer_need_no_copy_and_few_calls(name: str) -> None:
    a, b, calls = attention_products()[name]
    c = np.empty(result_shape(a.shape, b.shape))
    assert not any(needs_copy(*layout(x)) for x in (a, b, c))
    p = plan(layout(a), layout(b), layout(c))
    assert not fails(p, a, b, c)
    assert len(p.starts) <= calls


def test_the_longest_axis_is_the_batch() -> None:
    a, b, c = OPERANDS["heads"](64, 3, 4, 5), OPERANDS["heads"](64, 3, 5, 6), np.empty((64, 3, 4, 6))
    p = plan(layout(a), layout(b), layout(c))
    assert (p.batch, len(p.starts)) == (64, 3)


def test_counts_stay_within_32_bits_and_distances_need_not() -> None:
    far = 2**40  # a view that no memory here could hold: the plan is arithmetic alone
    a, b, c = ((2, 3, 4), (far, 4, 1)), ((2, 4, 5), (far, 5, 1)), ((2, 3, 5), (far, 5, 1))
    assert (plan(a, b, c).step_a, plan(a, b, c).step_b, plan(a, b, c).step_c) == (far, far, far)
    assert needs_copy((3, 4), (2**31, 1))
    assert not needs_copy((3, 4), (2**31 - 1, 1))
    rows = 2**20
    p = plan(((2**12, rows, 4), (rows * 4, 4, 1)), ((4, 5), (5, 1)), ((2**12, rows, 5), (rows * 5, 5, 1)))
    assert (p.batch, p.n) == (2**12, rows)  # 2^32 rows would not fit


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 columns, 4 rows"):
        result_shape((3, 5), (4, 6))
    with pytest.raises(ValueError, match="broadcast"):
        result_shape((2, 3, 5), (3, 5, 6))
