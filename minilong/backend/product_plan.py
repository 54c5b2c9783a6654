"""The arguments with which cuBLAS computes a product of arrays as they lie in memory, from shapes and strides alone.

Plain Python on tuples: no array, no library. cuBLAS sees a matrix by columns, with one distance `ld` from column to
column, which may be larger than the column; a flag that says it is to be transposed; and a batch of matrices with one
distance from each to the next, which may be 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

Layout: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides, in elements."""

LARGEST = 2**31 - 1
"""cuBLAS counts rows, columns, batches and `ld` in 32 bits; distances within a batch have 64."""


class Plan(NamedTuple):
    """What cuBLAS is told of a product besides types: column-major C (m, n) = A B with inner length k, a batch of such.

    swapped: cuBLAS's A is the second operand, since by rows a b is by columns (b^T a^T)^T. starts: the offsets of A, B
    and C, in elements, for each call.
    """

    swapped: bool
    trans_a: int
    trans_b: int
    m: int
    n: int
    k: int
    ld_a: int
    step_a: int
    ld_b: int
    step_b: int
    ld_c: int
    step_c: int
    batch: int
    starts: tuple[tuple[int, int, int], ...]


class Matrix(NamedTuple):
    """Rows, columns, and the distance from one to the next of each, in elements."""

    rows: int
    columns: int
    down: int
    across: int

    @property
    def transposed(self) -> Matrix:
        return Matrix(self.columns, self.rows, self.across, self.down)

    @property
    def ld(self) -> int:
        """The distance of rows that are contiguous and do not meet; 0 where these are not so."""
        ld = self.down if self.rows > 1 else self.columns
        return ld if (self.across == 1 or self.columns == 1) and self.columns <= ld <= LARGEST else 0

    @property
    def usable(self) -> bool:
        """Whether the rows are contiguous, or the columns are."""
        return self.ld > 0 or self.transposed.ld > 0


class Axis(NamedTuple):
    """An axis of the batch: its length, and the strides of a, b and c = a b."""

    length: int
    a: int
    b: int
    c: int


@lru_cache(4096)
def result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a product of arrays of two axes or more. Raises ValueError where they do not fit."""
    if a[-1] != b[-2]:
        raise ValueError(f"no product of shapes {a} and {b}: {a[-1]} columns, {b[-2]} rows")
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


@lru_cache(4096)
def needs_copy(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether cuBLAS can neither read nor write the matrices of an array as they lie."""
    return not Matrix(*shape[-2:], *strides[-2:]).usable


@lru_cache(4096)
def plan(a: Layout, b: Layout, c: Layout) -> Plan:
    """The arguments for c = a b: a (..., m, k), b (..., k, n), c (..., m, n), nothing empty, none that needs a copy.

    Axes of the batch are merged where one stride describes them, and counted as rows or columns where the other operand
    is shared: (b, t, d) times (d, f) is one product of b t rows. Of the axes that are left the longest is the batch of
    each call, so that the calls are few.
    """
    left, right, product = (Matrix(*shape[-2:], *strides[-2:]) for shape, strides in (a, b, c))
    axes, left, right, product = _folded(_merged(_batch_axes(a, b, c)), left, right, product)
    swapped = product.ld > 0
    if not swapped:  # c lies by columns: its transpose is computed, the product of the transposes
        left, right, product = right.transposed, left.transposed, product.transposed
        axes = [Axis(axis.length, axis.b, axis.a, axis.c) for axis in axes]
    forward = [axis for axis in axes if min(axis.a, axis.b, axis.c) >= 0]
    inner = max(forward, key=lambda axis: axis.length, default=Axis(1, 0, 0, 0))
    starts = [(0, 0, 0)]
    for axis in (axis for axis in axes if axis is not inner):
        steps = [(t * axis.b, t * axis.a, t * axis.c) for t in range(axis.length)]
        starts = [(i + u, j + v, o + w) for i, j, o in starts for u, v, w in steps]
    # What lies by rows lies, transposed, by columns: cuBLAS's A is `right`, its B `left`, its C `product`.
    return Plan(
        swapped=swapped,
        trans_a=int(right.ld == 0),
        trans_b=int(left.ld == 0),
        m=product.columns,
        n=product.rows,
        k=left.columns,
        ld_a=right.ld or right.transposed.ld,
        step_a=inner.b,
        ld_b=left.ld or left.transposed.ld,
        step_b=inner.a,
        ld_c=product.ld,
        step_c=inner.c,
        batch=inner.length,
        starts=tuple(starts),
    )


def _batch_axes(a: Layout, b: Layout, c: Layout) -> list[Axis]:
    """The axes of c but the last two and those of length one. An operand that is shared along one has stride 0."""

    def stride(operand: Layout, axis: int) -> int:
        shape, strides = operand
        at = axis - len(c[0]) + len(shape)
        return 0 if at < 0 or shape[at] == 1 else strides[at]

    return [Axis(n, stride(a, i), stride(b, i), stride(c, i)) for i, n in enumerate(c[0][:-2]) if n > 1]


def _merged(axes: list[Axis]) -> list[Axis]:
    """The same batch with neighbours put together where each outer stride is the inner one times its length."""
    merged: list[Axis] = []
    for axis in axes:
        n, outer = axis.length, merged[-1] if merged else None
        if outer and outer[1:] == (axis.a * n, axis.b * n, axis.c * n) and outer.length * n <= LARGEST:
            merged[-1] = axis._replace(length=outer.length * n)
        else:
            merged.append(axis)
    return merged


def _folded(
    axes: list[Axis], left: Matrix, right: Matrix, product: Matrix
) -> tuple[list[Axis], Matrix, Matrix, Matrix]:
    """Axes that only the left operand has become rows of it, those that only the right one has become columns of it."""
    kept: list[Axis] = []
    for axis in reversed(axes):
        if axis.b == 0 and (pair := _stacked(left, axis.a, product, axis.c, axis.length)):
            left, product = pair
        elif axis.a == 0 and (pair := _stacked(right.transposed, axis.b, product.transposed, axis.c, axis.length)):
            right, product = pair[0].transposed, pair[1].transposed
        else:
            kept.append(axis)
    return kept[::-1], left, right, product


def _stacked(x: Matrix, x_step: int, y: Matrix, y_step: int, length: int) -> tuple[Matrix, Matrix] | None:
    """Two stacks of matrices with equally many rows, each as one matrix of all rows; None where one stride is no more
    enough."""
    x_down, y_down = (x.down, y.down) if x.rows > 1 else (x_step, y_step)
    if (x_step, y_step) != (x.rows * x_down, y.rows * y_down) or x.rows * length > LARGEST:
        return None
    x, y = (Matrix(m.rows * length, m.columns, down, m.across) for m, down in ((x, x_down), (y, y_down)))
    return (x, y) if x.usable and y.usable else None
