// Flash attention, forward: y = softmax(scale q k^T + bias) v over the keys that each query sees, and the log-sum-exp.
// A block owns ROWS queries of one head and streams the keys and values past them, keeping a running maximum, sum and
// output in registers. The next tile's copy runs beside the products of this one: one barrier a tile.
#pragma once
#include "flash.cuh"

constexpr int OWN_BYTES = ROWS * ROW_BYTES, OTHER_BYTES = COLUMNS * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * OTHER_BYTES + LINE_BYTES;  // keys, values, biases
static_assert(CHUNK == COLUMNS, "a tile's scores are computed at once");

constexpr acc_t SLACK = 8;  // the maximum moves only where it grew by more: until then no exponential exceeds 2^SLACK

// The tile's exponentials in place of its scores. Where a row's maximum moves, its sums shrink with it.
__device__ __forceinline__ void exponentials(acc_t (&x)[R][C], acc_t (&top)[R], acc_t (&sum)[R], acc_t (&y)[R][E],
                                             acc_t factor) {
  acc_t shrink[R];
  bool moved = false;
#pragma unroll
  for (int r = 0; r < R; r++) {
    acc_t most = x[r][0];
#pragma unroll
    for (int c = 1; c < C; c++) most = most_of(most, x[r][c]);
#pragma unroll
    for (int lanes = 1; lanes < SPREAD; lanes *= 2) most = most_of(most, __shfl_xor_sync(ALL, most, lanes));
    most *= factor;
    shrink[r] = 1;
    if (most > top[r] + SLACK) {
      shrink[r] = power_of_two(top[r] - most);
      top[r] = most;
      moved = true;
    }
  }
  if (__any_sync(ALL, moved)) {
#pragma unroll
    for (int r = 0; r < R; r++) {
      sum[r] *= shrink[r];
#pragma unroll
      for (int n = 0; n < E; n++) y[r][n] *= shrink[r];
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    const acc_t shift = top[r] == -INFINITE ? 0 : -top[r];
#pragma unroll
    for (int c = 0; c < C; c++) {
      x[r][c] = power_of_two(x[r][c] * factor + shift);
      sum[r] += x[r][c];
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) flash_forward(
    const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
    scalar_t* __restrict__ y, acc_t* __restrict__ lse,                                     // y (b, t, h, e)
    i64 q_batch, i64 q_head, i64 q_row, i64 k_batch, i64 k_head, i64 k_row, i64 v_batch, i64 v_head, i64 v_row,
    int heads, int groups, int t, int s, int d, int e, double scale, int causal, int window, int sinks, int offset,
    const i64* __restrict__ lengths, int lengths_step, const int* __restrict__ segments, int segments_step,
    const int* __restrict__ ranges, const acc_t* __restrict__ values, int values_step, int m, int least) {
  DYNAMIC_SHARED(unsigned char, memory);
  const Tile shared = {memory, shared_address(memory)};
  acc_t* scratch = reinterpret_cast<acc_t*>(memory + OWN_BYTES + 2 * STAGE_BYTES);

  const int tiles = tiles_of(t, ROWS), block = blockIdx.x / tiles;
  const int tile = tiles - 1 - blockIdx.x % tiles;  // the last queries reach most keys: they begin
  const int head = block % heads, batch = block / heads, group = head / (heads / groups);
  const int i = tile * ROWS, i_end = least_of(i + ROWS, t);
  q += batch * q_batch + head * q_head;
  k += batch * k_batch + group * k_head;
  v += batch * v_batch + group * v_head;
  values += (i64)head * values_step;

  const Sight sight = sight_of(causal, window, sinks, offset, t, s, lengths, lengths_step, segments, segments_step, batch);
  const Range* pairs = reinterpret_cast<const Range*>(ranges) + (i64)batch * segments_step * (tiles + tiles_of(s, COLUMNS));
  const Walk walk = keys_of(sight, i, i_end, pairs, pairs + tiles);

  auto prefetch = [&](int stage, int n) {
    const Tile to = shared + (OWN_BYTES + stage * STAGE_BYTES);
    load_tile<COLUMNS>(to, k, k_row, n * COLUMNS, s, d);
    load_tile<COLUMNS>(to + OTHER_BYTES, v, v_row, n * COLUMNS, s, e);
#if BIAS
    load_line(to + 2 * OTHER_BYTES, values, m, i + offset - least - (n * COLUMNS + COLUMNS - 1));
#endif
  };

  acc_t out[R][E], top[R], sum[R];
  clear(out);
#pragma unroll
  for (int r = 0; r < R; r++) top[r] = -INFINITE, sum[r] = 0;
  Own<(KEEP > 0)> own;
  own.tile = shared;
  int n = walk.at_or_after(walk.first), stage = 0;
  if (n < walk.stop) {
    load_tile<ROWS>(shared, q, q_row, i, t, d);
    prefetch(0, n);
    cp_async_commit();
  }
  for (bool first = true; n < walk.stop; first = false, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there for all, and all have left the other stage
    if (first) own.arrived();
    const int next = walk.at_or_after(n + 1);
    if (next < walk.stop) prefetch(stage ^ 1, next);
    cp_async_commit();
    const Tile here = shared + (OWN_BYTES + stage * STAGE_BYTES);
    const int j = n * COLUMNS;
    acc_t x[R][C];
    scores(x, own, here, 0);
#if BIAS
    add_line<1, COLUMNS - 1>(x, here + 2 * OTHER_BYTES, (acc_t)scale, 0);
    const acc_t factor = (acc_t)LOG2_E;
#else
    const acc_t factor = (acc_t)(scale * LOG2_E);
#endif
    if (!sight.whole(i, i + ROWS, j, j + COLUMNS) || !walk.one_segment(n)) hide<false>(x, sight, i, j);
    exponentials(x, top, sum, out, factor);
    accumulate(out, x, here + OTHER_BYTES, 0, scratch);
    n = next;
  }

  acc_t by[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
#pragma unroll
    for (int lanes = 1; lanes < SPREAD; lanes *= 2) sum[r] += __shfl_xor_sync(ALL, sum[r], lanes);
    by[r] = sum[r] == 0 ? 0 : 1 / sum[r];
    const int row = i + row_of(r);
    if (row < t && column_of(0) == 0)
      lse[(i64)block * t + row] = sum[r] == 0 ? -(acc_t)INFINITE : top[r] * (acc_t)LN_2 + logarithm(sum[r]);
  }
  write_rows(out, by, y + ((i64)batch * t * heads + head) * e, (i64)heads * e, i, t, e);
}
