"""The forward kernel without tensor cores."""

from __future__ import annotations

from typing import Any

from flash_arrays import UNDECLARED as UNDECLARED
from flash_arrays import check as compare
from step_arrays import FLOAT32

MUTANTS = [
    ("(j < end(i))", "(j <= end(i))"),
    ("((j >= begin(i)) |", "((j > begin(i)) |"),
    ("| (j < sinks)", "| (j <= sinks)"),
    ("j_end <= end(i)", "j_end <= end(i) + 1"),
    ("j >= begin(i_end - 1)", "j + 1 >= begin(i_end - 1)"),
    ("j_end <= sinks", "j <= sinks"),
    ("segments[i + offset] == segments[j]", "segments[j] == 0"),
    ("others[n].low <= own.high", "others[n].low < own.high"),
    ("own.low <= others[n].high", "own.low < others[n].high"),
    ("own.low == own.high && ", ""),
    (" && others[n].high == own.low", ""),
    ("causal ? offset + 1 : FAR", "causal ? offset : FAR"),
    ("window - 1 - offset", "window - offset"),
    ("most_of(lengths[(i64)batch * lengths_step], (i64)0)", "lengths[0]"),
    ("least_of(most_of(smallest + x, 0), m - 1)", "least_of(most_of(smallest + x, 0), m)"),
    ("if (most > top[r] + SLACK) {", "if (false) {"),
    ("sum[r] *= shrink[r];", ""),
    ("y[r][n] *= shrink[r];", ";"),
    ("top[r] == -INFINITE ? 0 : -top[r]", "-top[r]"),
    ("most_of(most, x[r][c])", "x[r][c]"),
    ("most = most_of(most, __shfl_xor_sync(ALL, most, lanes))", "most = most"),
    ("sum[r] += __shfl_xor_sync(ALL, sum[r], lanes)", "sum[r] += 0"),
    ("head / (heads / groups)", "head % groups"),
    ("cp_async_wait<0>();", "cp_async_wait<1>();"),
    ("accumulate(out, x, here + OTHER_BYTES", "accumulate(out, x, here"),
    ("if (next < walk.stop) prefetch(stage ^ 1, next);", "if (next < walk.stop) prefetch(stage, next);"),
    ("(acc_t)(scale * LOG2_E)", "(acc_t)scale"),
    ("sum[r] == 0 ? 0 : 1 / sum[r]", "1 / sum[r]"),
    ("tiles_of(end, COLUMNS)", "end / COLUMNS"),
    ("begin / COLUMNS, tiles_of", "begin / COLUMNS + 1, tiles_of"),
    ("tiles_of(least_of(sight.sinks, end), COLUMNS)", "0"),
    ("i + offset - least - (n * COLUMNS + COLUMNS - 1)", "i + offset - least - (n * COLUMNS + COLUMNS)"),
    ("column % VECTOR * (int)sizeof(scalar_t)", "0"),
    ("scratch[row_of(r) * PITCH + column_of(c)] = x[r][c]", "scratch[column_of(c)] = x[r][c]"),
    ("first + k + i", "first + k"),
    ("first + row < limit && column < width", "column < width"),
]


def check(xp: Any) -> None:
    """Values and logarithms of sums by the definition."""
    compare(xp, FLOAT32, ("y", "lse"))
