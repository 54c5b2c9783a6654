// Flash attention, backward, cotangent of q. A block owns ROWS queries of one head, with their cotangents g of the
// output, and streams keys and values past them: gq = scale ds k where ds = p (g v^T - sum of g y), and the weights
// p = exp(scale q k^T + bias - lse) are computed anew.
#pragma once
#include "flash.cuh"

constexpr int OWN_BYTES = ROWS * ROW_BYTES, OTHER_BYTES = COLUMNS * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * OTHER_BYTES + LINE_BYTES;  // keys, values, biases

extern "C" __global__ void __launch_bounds__(THREADS) flash_queries(
    const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
    const scalar_t* __restrict__ g, const acc_t* __restrict__ pairs, scalar_t* __restrict__ gq,  // gq (b, t, h, d)
    i64 q_batch, i64 q_head, i64 q_row, i64 k_batch, i64 k_head, i64 k_row, i64 v_batch, i64 v_head, i64 v_row,
    i64 g_batch, i64 g_head, i64 g_row,
    int heads, int groups, int t, int s, int d, int e, double scale, int causal, int window, int sinks, int offset,
    const i64* __restrict__ lengths, int lengths_step, const int* __restrict__ segments, int segments_step,
    const int* __restrict__ ranges, const acc_t* __restrict__ values, int values_step, int m, int least) {
  DYNAMIC_SHARED(unsigned char, memory);
  const Tile shared = {memory, shared_address(memory)};
  acc_t* scratch = reinterpret_cast<acc_t*>(memory + 2 * OWN_BYTES + 2 * STAGE_BYTES);

  const int tiles = tiles_of(t, ROWS), block = blockIdx.x / tiles;
  const int tile = tiles - 1 - blockIdx.x % tiles;
  const int head = block % heads, batch = block / heads, group = head / (heads / groups);
  const int i = tile * ROWS, i_end = least_of(i + ROWS, t);
  q += batch * q_batch + head * q_head;
  g += batch * g_batch + head * g_head;
  k += batch * k_batch + group * k_head;
  v += batch * v_batch + group * v_head;
  values += (i64)head * values_step;
  pairs += (i64)block * t * 2;

  const Sight sight = sight_of(causal, window, sinks, offset, t, s, lengths, lengths_step, segments, segments_step, batch);
  const Range* spans = reinterpret_cast<const Range*>(ranges) + (i64)batch * segments_step * (tiles + tiles_of(s, COLUMNS));
  const Walk walk = keys_of(sight, i, i_end, spans, spans + tiles);

  auto prefetch = [&](int stage, int n) {
    const Tile to = shared + (2 * OWN_BYTES + stage * STAGE_BYTES);
    load_tile<COLUMNS>(to, k, k_row, n * COLUMNS, s, d);
    load_tile<COLUMNS>(to + OTHER_BYTES, v, v_row, n * COLUMNS, s, e);
#if BIAS
    load_line(to + 2 * OTHER_BYTES, values, m, i + offset - least - (n * COLUMNS + COLUMNS - 1));
#endif
  };

  acc_t out[R][E], lse[R], mean[R];
  clear(out);
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int row = i + row_of(r);
    lse[r] = row < t ? pairs[2 * (i64)row] : 0;
    mean[r] = row < t ? pairs[2 * (i64)row + 1] : 0;
  }
  Own<(KEEP > 0)> queries;
  Own<(KEEP > 1)> cotangents;
  queries.tile = shared;
  cotangents.tile = shared + OWN_BYTES;
  int n = walk.at_or_after(walk.first), stage = 0;
  if (n < walk.stop) {
    load_tile<ROWS>(queries.tile, q, q_row, i, t, d);
    load_tile<ROWS>(cotangents.tile, g, g_row, i, t, e);
    prefetch(0, n);
    cp_async_commit();
  }
  for (bool first = true; n < walk.stop; first = false, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there for all, and all have left the other stage
    if (first) queries.arrived(), cotangents.arrived();
    const int next = walk.at_or_after(n + 1);
    if (next < walk.stop) prefetch(stage ^ 1, next);
    cp_async_commit();
    const Tile here = shared + (2 * OWN_BYTES + stage * STAGE_BYTES);
    const int j = n * COLUMNS;
    const bool cut = !sight.whole(i, i + ROWS, j, j + COLUMNS) || !walk.one_segment(n);
#pragma unroll 1
    for (int c0 = 0; c0 < COLUMNS; c0 += CHUNK) {
      acc_t x[R][C], w[R][C];
      scores(x, queries, here, c0);
#if BIAS
      add_line<1, COLUMNS - 1>(x, here + 2 * OTHER_BYTES, (acc_t)scale, c0);
      const acc_t factor = (acc_t)LOG2_E;
#else
      const acc_t factor = (acc_t)(scale * LOG2_E);
#endif
      if (cut) hide<false>(x, sight, i, j + c0);
      scores(w, cotangents, here + OTHER_BYTES, c0);
#pragma unroll
      for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < C; c++) x[r][c] = power_of_two(x[r][c] * factor - lse[r]) * (w[r][c] - mean[r]);
      accumulate(out, x, here, c0, scratch);
    }
    n = next;
  }

  acc_t by[R];
#pragma unroll
  for (int r = 0; r < R; r++) by[r] = (acc_t)scale;
  write_rows(out, by, gq + ((i64)batch * t * heads + head) * d, (i64)heads * d, i, t, d);
}
