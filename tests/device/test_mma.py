"""The tensor core functions on the CPU follow the layouts that the PTX ISA states: what ties the kernels to a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin import cupy, shim
from step_arrays import BFLOAT16, FLOAT16, normal

from minilong.backend.kernels.launch import launch

pytestmark = pytest.mark.skipif(shim.reason_absent() is not None, reason=str(shim.reason_absent()))

SOURCE = str(Path(__file__).with_name("mma_for_test.cu"))
HALVES = pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
LANES = range(32)


def call(name: str, dtype: Any, *arguments: Any, shared: int = 0) -> None:
    launch(cupy, SOURCE, name, dtype, (1,), (32,), arguments, shared=shared)


# "Matrix Fragments for mma.m16n8k16 with floating point type", element by element, as the ISA writes it.


def place_in_a(lane: int, i: int) -> tuple[int, int]:
    group, thread = lane >> 2, lane % 4
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    return row, thread * 2 + (i & 1) if i < 4 else thread * 2 + (i & 1) + 8


def place_in_b(lane: int, i: int) -> tuple[int, int]:
    group, thread = lane >> 2, lane % 4
    return thread * 2 + (i & 1) if i < 2 else thread * 2 + (i & 1) + 8, group


def place_in_c(lane: int, i: int) -> tuple[int, int]:
    group, thread = lane >> 2, lane % 4
    return group if i < 2 else group + 8, thread * 2 + (i & 1)


def registers(matrix: np.ndarray, place: Any, elements: int) -> np.ndarray:
    """What each lane holds of a matrix: (32, elements)."""
    return np.array([[matrix[place(lane, i)] for i in range(elements)] for lane in LANES], matrix.dtype)


@HALVES
def test_mma_multiplies_the_matrices_whose_fragments_the_lanes_hold(dtype: Any) -> None:
    a, b, c = normal(0, (16, 16), dtype), normal(1, (16, 8), dtype), normal(2, (16, 8))
    left, right = (registers(x, place, n).view(np.uint32) for x, place, n in ((a, place_in_a, 8), (b, place_in_b, 4)))
    out = cupy.empty((32, 4), np.float32)
    call("mma", dtype, *map(cupy.asarray, (left, right, registers(c, place_in_c, 4))), out)
    exact = a.astype(np.float64) @ b.astype(np.float64) + c
    np.testing.assert_allclose(cupy.asnumpy(out), registers(exact, place_in_c, 4), rtol=0, atol=1e-5)


def test_ldmatrix_hands_out_rows_and_with_trans_columns() -> None:
    memory = np.arange(48 * 8, dtype=np.uint16).reshape(48, 8)  # rows of 16 bytes, in no order
    row = np.random.default_rng(0).permutation(48)[:32].astype(np.int32)
    plain, transposed = (cupy.empty((32, 4), np.uint32) for _ in range(2))
    words = np.ascontiguousarray(memory).view(np.uint32)
    call("matrices", FLOAT16, cupy.asarray(words), cupy.asarray(row), plain, transposed, np.int32(48), shared=48 * 16)
    got = (cupy.asnumpy(x).view(np.uint16).reshape(32, 4, 2) for x in (plain, transposed))
    for found, turned in zip(got, (False, True), strict=True):
        for lane in LANES:
            for i in range(4):  # lanes 8 i to 8 i + 7 give the addresses of matrix i
                matrix = memory[row[8 * i : 8 * i + 8]]
                matrix = matrix.T if turned else matrix
                first = 2 * (lane % 4)
                np.testing.assert_array_equal(found[lane, i], matrix[lane // 4, first : first + 2])


@pytest.mark.parametrize("given", [True, False])
def test_a_copy_is_seen_after_its_wait_and_not_before(given: bool) -> None:
    source = np.arange(1, 257, dtype=np.uint32).reshape(32, 8)
    seen = cupy.empty((2, 32, 8), np.uint32)
    call("copies", FLOAT16, cupy.asarray(source), seen, np.int32(given), shared=1024)
    first, second = cupy.asnumpy(seen)
    whole = source if given else 0 * source
    np.testing.assert_array_equal(first[:, :4], whole[:, :4])
    assert np.all(first[:, 4:] == 0xFFFFFFFF)  # two NaN, whatever the type
    np.testing.assert_array_equal(second[:, :7], whole[:, :7])
    np.testing.assert_array_equal(second[:, 7], source[:, 7] - whole[:, 7])


@HALVES
def test_pack_rounds_to_the_nearest_and_puts_the_first_below(dtype: Any) -> None:
    x = normal(3, 64) * 100
    x[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -np.inf, 2.0**-20  # ties in bfloat16
    packed, power = cupy.empty(32, np.uint32), cupy.empty(32, np.float32)
    call("elements", dtype, cupy.asarray(x), packed, power)
    np.testing.assert_array_equal(cupy.asnumpy(packed).view(np.uint16), x.astype(dtype).view(np.uint16))
    np.testing.assert_allclose(cupy.asnumpy(power)[:4], np.exp2(x[:4]), rtol=1e-6)
    assert cupy.asnumpy(power)[2] == 0
