"""Rotations on the device: against complex products in float64, on views, with and without vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from step_arrays import FLOAT64, TYPES, UNIT, close, normal, wide

from minilong.autodiff.linear import rotate as plain_rotate
from minilong.backend.kernels.rotary import rotate

MUTANTS = [
    ("a * turn.cos - b * sin", "a * turn.cos + b * sin"),
    ("a * sin + b * turn.cos", "b * sin + a * turn.cos"),
    ("turn.sin * direction", "turn.sin"),
    ("NEIGHBOURS ? 2 * j : j", "j"),
    ("half + j;", "half + j + 1;"),
    ("load_vector<W>(x + half + j)", "load_vector<W>(x + j)"),
    ("in.x[2 * k + 1]", "in.x[2 * k]"),
    ("xs.first | xs.second | xs.position | half", "half"),
    ("rows + position * (2 * (i64)half)", "rows"),
    ("turn + at(ts, a, b, position)", "turn + at(ts, 0, 0, position)"),
    ("turn + at(ts, a, b, position)", "turn + at(ts, a, b, 0)"),
    ("(i64)a * second + b", "(i64)b * first + a"),
    ("i < positions * vectors; i += stride", "i < positions * vectors - 1; i += stride"),
    ("first * s.first + second * s.second", "second * s.first + first * s.second"),
]


def angles(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Complex numbers of modulus one."""
    turn = np.exp(1j * np.random.default_rng(seed).uniform(-4, 4, shape))
    return turn.astype(np.complex128 if dtype == FLOAT64 else np.complex64)


def check(xp: Any) -> None:
    """Within one rounding of the result, and of the two products in float32 (float64 for float64)."""
    for dtype in TYPES:
        for interleaved in (True, False):
            for heads, turn_shape, d in (
                ((), (9, 8), 16),
                ((3,), (9, 3), 6),
                ((2, 3), (9, 16), 32),
                ((2, 3), (2, 1, 9, 8), 16),
                ((2, 1, 3), (2, 1, 1, 9, 4), 8),
            ):
                memory = normal(d, (*heads[:-1], 9, *heads[-1:], d), dtype)
                turn = angles(d, turn_shape, dtype)
                for inverse in (False, True):
                    x = xp.asarray(memory)
                    view = x.swapaxes(-2, -3) if heads else x
                    got = rotate(xp, view, xp.asarray(turn), interleaved=interleaved, inverse=inverse)
                    compare(xp, got, xp.asnumpy(view), turn, interleaved, inverse)
    # Rows that begin where no vector does: seven elements apart, or one element in.
    for dtype in TYPES:
        x, turn = normal(1, (5, 33), dtype), angles(1, (5, 16), dtype)
        for columns in (slice(0, 32), slice(1, 33)):
            compare(xp, rotate(xp, xp.asarray(x)[:, columns], xp.asarray(turn)), x[:, columns], turn, True, False)


def compare(xp: Any, got: Any, x: np.ndarray, turn: np.ndarray, interleaved: bool, inverse: bool) -> None:
    """With the plain primitive in float64."""
    exact_turn = turn.conj() if inverse else turn
    exact = plain_rotate(x.astype(np.float64), turn=exact_turn.astype(np.complex128), interleaved=interleaved)
    size = np.abs(x.astype(np.float64)).max()
    close(xp, got, exact, x.dtype, 1.01 * UNIT[x.dtype] * np.abs(exact) + 4 * UNIT[wide(x.dtype)] * size)
