// Flash attention, backward, cotangents of k and v. A block owns ROWS keys of one key head, with their values, and streams
// the queries past them, with their cotangents g of the output, of all heads that share these keys:
//   gv = p^T g    gk = scale ds^T q    where ds = p (g v^T - sum of g y) and p = exp(scale q k^T + bias - lse)
// All scores here are transposed: keys are rows. No block adds to what another writes, so the sums' order is fixed.
#pragma once
#include "flash.cuh"

constexpr int OWN_BYTES = ROWS * ROW_BYTES, OTHER_BYTES = COLUMNS * ROW_BYTES;
constexpr int PAIR_BYTES = COLUMNS * 2 * (int)sizeof(acc_t);
constexpr int STAGE_BYTES = 2 * OTHER_BYTES + PAIR_BYTES + LINE_BYTES;  // queries, cotangents, pairs, biases

extern "C" __global__ void __launch_bounds__(THREADS) flash_keys(
    const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
    const scalar_t* __restrict__ g, const acc_t* __restrict__ pairs,
    scalar_t* __restrict__ gk, scalar_t* __restrict__ gv,                 // gk (b, s, groups, d), gv (b, s, groups, e)
    i64 q_batch, i64 q_head, i64 q_row, i64 k_batch, i64 k_head, i64 k_row, i64 v_batch, i64 v_head, i64 v_row,
    i64 g_batch, i64 g_head, i64 g_row,
    int heads, int groups, int t, int s, int d, int e, double scale, int causal, int window, int sinks, int offset,
    const i64* __restrict__ lengths, int lengths_step, const int* __restrict__ segments, int segments_step,
    const int* __restrict__ ranges, const acc_t* __restrict__ values, int values_step, int m, int least) {
  DYNAMIC_SHARED(unsigned char, memory);
  const Tile shared = {memory, shared_address(memory)};
  acc_t* scratch = reinterpret_cast<acc_t*>(memory + 2 * OWN_BYTES + 2 * STAGE_BYTES);

  const int tiles = tiles_of(s, ROWS), block = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int group = block % groups, batch = block / groups, shared_by = heads / groups;
  const int j = tile * ROWS, j_end = least_of(j + ROWS, s);
  q += batch * q_batch + (i64)group * shared_by * q_head;
  g += batch * g_batch + (i64)group * shared_by * g_head;
  k += batch * k_batch + group * k_head;
  v += batch * v_batch + group * v_head;
  values += (i64)group * shared_by * values_step;
  pairs += ((i64)batch * heads + group * shared_by) * t * 2;

  const Sight sight = sight_of(causal, window, sinks, offset, t, s, lengths, lengths_step, segments, segments_step, batch);
  const int query_tiles = tiles_of(t, COLUMNS);
  const Range* spans = reinterpret_cast<const Range*>(ranges) + (i64)batch * segments_step * (query_tiles + tiles);
  const Walk walk = queries_of(sight, j, j_end, spans, spans + query_tiles);

  auto prefetch = [&](int stage, int head, int n) {
    const Tile to = shared + (2 * OWN_BYTES + stage * STAGE_BYTES);
    load_tile<COLUMNS>(to, q + head * q_head, q_row, n * COLUMNS, t, d);
    load_tile<COLUMNS>(to + OTHER_BYTES, g + head * g_head, g_row, n * COLUMNS, t, e);
    const acc_t* from = pairs + ((i64)head * t + n * COLUMNS) * 2;
    for (int x = threadIdx.x; x < 2 * COLUMNS; x += THREADS)
      cp_async<sizeof(acc_t)>(to.address + 2 * OTHER_BYTES + x * (int)sizeof(acc_t), from + x, n * COLUMNS + x / 2 < t);
#if BIAS
    load_line(to + 2 * OTHER_BYTES + PAIR_BYTES, values + (i64)head * values_step, m,
              n * COLUMNS + offset - least - (j + ROWS - 1));
#endif
  };

  acc_t out_k[R][E], out_v[R][E];
  clear(out_k);
  clear(out_v);
  Own<(KEEP > 0)> keys;
  Own<(KEEP > 1)> own_values;
  keys.tile = shared;
  own_values.tile = shared + OWN_BYTES;
  const int first = walk.at_or_after(walk.first);
  int head = first < walk.stop ? 0 : shared_by, n = first, stage = 0;
  if (head < shared_by) {
    load_tile<ROWS>(keys.tile, k, k_row, j, s, d);
    load_tile<ROWS>(own_values.tile, v, v_row, j, s, e);
    prefetch(0, 0, n);
    cp_async_commit();
  }
  for (bool begun = false; head < shared_by; begun = true, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there for all, and all have left the other stage
    if (!begun) keys.arrived(), own_values.arrived();
    const int i = n * COLUMNS;
    const bool cut = !sight.whole(i, i + COLUMNS, j, j + ROWS) || !walk.one_segment(n);
    n = walk.at_or_after(n + 1);
    if (n >= walk.stop) n = first, head++;
    if (head < shared_by) prefetch(stage ^ 1, head, n);
    cp_async_commit();
    const Tile here = shared + (2 * OWN_BYTES + stage * STAGE_BYTES);
    const acc_t* sums = reinterpret_cast<const acc_t*>(here.bytes + 2 * OTHER_BYTES);
#pragma unroll 1
    for (int c0 = 0; c0 < COLUMNS; c0 += CHUNK) {
      acc_t x[R][C], w[R][C];
      scores(x, keys, here, c0);
#if BIAS
      add_line<-1, ROWS - 1>(x, here + 2 * OTHER_BYTES + PAIR_BYTES, (acc_t)scale, c0);
      const acc_t factor = (acc_t)LOG2_E;
#else
      const acc_t factor = (acc_t)(scale * LOG2_E);
#endif
      if (cut) hide<true>(x, sight, j, i + c0);
#pragma unroll
      for (int c = 0; c < C; c++)
#pragma unroll
        for (int r = 0; r < R; r++) x[r][c] = power_of_two(x[r][c] * factor - sums[2 * (c0 + column_of(c))]);
      accumulate(out_v, x, here + OTHER_BYTES, c0, scratch);
      scores(w, own_values, here + OTHER_BYTES, c0);
#pragma unroll
      for (int c = 0; c < C; c++)
#pragma unroll
        for (int r = 0; r < R; r++) x[r][c] *= w[r][c] - sums[2 * (c0 + column_of(c)) + 1];
      BETWEEN_PRODUCTS
      accumulate(out_k, x, here, c0, scratch);
    }
  }

  acc_t by[R];
#pragma unroll
  for (int r = 0; r < R; r++) by[r] = 1;
  write_rows(out_v, by, gv + ((i64)batch * s * groups + group) * e, (i64)groups * e, j, s, e);
#pragma unroll
  for (int r = 0; r < R; r++) by[r] = (acc_t)scale;
  write_rows(out_k, by, gk + ((i64)batch * s * groups + group) * d, (i64)groups * d, j, s, d);
}
