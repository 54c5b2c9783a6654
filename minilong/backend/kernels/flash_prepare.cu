// Small passes before those of flash attention.
// types: float32 float16 bfloat16 float64
#include "common.cuh"

// The least and the largest segment of each tile: of the queries [0, t), whose segments begin at `offset`, in tiles of
// `query_rows`, then of the keys in tiles of `key_rows`. segments (b, s) -> ranges (b, tiles, 2). A warp for each tile.
extern "C" __global__ void __launch_bounds__(32) segment_ranges(
    const int* __restrict__ segments, int* __restrict__ ranges, int t, int s, int offset, int query_rows, int key_rows) {
  const int query_tiles = (t + query_rows - 1) / query_rows, tiles = query_tiles + (s + key_rows - 1) / key_rows;
  const int tile = blockIdx.x % tiles;
  const bool of_queries = tile < query_tiles;
  const int begin = of_queries ? offset + tile * query_rows : (tile - query_tiles) * key_rows;
  const int limit = of_queries ? offset + t : s, rows = of_queries ? query_rows : key_rows;
  const int end = begin + rows < limit ? begin + rows : limit;
  const int* own = segments + (i64)(blockIdx.x / tiles) * s;
  int low = 0x7fffffff, high = -low - 1;
  for (int j = begin + threadIdx.x; j < end; j += 32) {
    low = own[j] < low ? own[j] : low;
    high = own[j] > high ? own[j] : high;
  }
  for (int lanes = 16; lanes > 0; lanes >>= 1) {
    const int other_low = __shfl_xor_sync(0xffffffffu, low, lanes), other_high = __shfl_xor_sync(0xffffffffu, high, lanes);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  if (threadIdx.x == 0) {
    ranges[2 * (i64)blockIdx.x] = low;
    ranges[2 * (i64)blockIdx.x + 1] = high;
  }
}

// What the backward kernels need of each query: the log-sum-exp to base 2 (infinite where it sees no key, so that its
// weights become 0), and the sum of g y. g, y (b, h, t, e), lse (b, h, t) -> pairs (b, h, t, 2). A warp for each query.
extern "C" __global__ void __launch_bounds__(256) query_sums(
    const scalar_t* __restrict__ g, const scalar_t* __restrict__ y, const acc_t* __restrict__ lse,
    acc_t* __restrict__ pairs, i64 g_batch, i64 g_head, i64 g_row, i64 y_batch, i64 y_head, i64 y_row,
    i64 rows, int heads, int t, int e) {
  const i64 row = (i64)blockIdx.x * 8 + (threadIdx.x >> 5);
  if (row >= rows) return;
  const i64 i = row % t, head = row / t % heads, batch = row / t / heads;
  g += batch * g_batch + head * g_head + i * g_row;
  y += batch * y_batch + head * y_head + i * y_row;
  acc_t sum = 0;
  for (int c = threadIdx.x & 31; c < e; c += 32) sum += load(g[c]) * load(y[c]);
  sum = warp_sum(sum);
  if ((threadIdx.x & 31) == 0) {
    pairs[2 * row] = lse[row] == -(acc_t)INFINITE ? (acc_t)INFINITE : lse[row] * (acc_t)1.4426950408889634;
    pairs[2 * row + 1] = sum;
  }
}
