// What the flash attention kernels share: tiles in shared memory, which keys a query sees, which tiles are visited.
//
// A block owns ROWS rows of one head (queries, or keys) and streams the other side's rows past them, COLUMNS at a time:
// the scores of a tile are (ROWS, COLUMNS). Macros, chosen by flash.py:
//   HEAD       row length in shared memory: d and e, filled up with zeros (32, 64, 128)
//   ROWS, COLUMNS, BLOCK_WARPS, CHUNK (columns whose scores are computed at a time)
//   TENSOR     1: flash_tensor.cuh has been included; 0: flash_simt.cuh
//   KEEP       how many of the block's own arrays stay in registers (tensor cores only)
//   ALIGNED    1: rows begin at multiples of 16 bytes and are multiples of 16 bytes long
//   BIAS       1: a bias by distance;    SEGMENTS 1: tokens of several texts
#pragma once
#include "flash_tiles.cuh"

struct Range { int low, high; };  // of the segments in a tile

constexpr int FAR = 1 << 30;  // further than any position

// Which keys a query sees (`eq:mask`): key j is seen by query i where j < end(i), and j >= begin(i) or j < sinks.
struct Sight {
  int ahead, behind, sinks, offset, queries, keys;  // keys: those that are real
  const int* segments;

  __device__ __forceinline__ int end(int i) const { return least_of(i + ahead, keys); }
  __device__ __forceinline__ int begin(int i) const { return i - behind; }
  __device__ __forceinline__ bool sees(int i, int j) const {
    const bool near = (i < queries) & (j < end(i)) & ((j >= begin(i)) | (j < sinks));
    return SEGMENTS ? near && segments[i + offset] == segments[j] : near;
  }
  // Whether every query in [i, i_end) sees every key in [j, j_end), segments left aside.
  __device__ __forceinline__ bool whole(int i, int i_end, int j, int j_end) const {
    return i_end <= queries && j_end <= end(i) && (j >= begin(i_end - 1) || j_end <= sinks);
  }
};

// Of sequence `batch`. window 0: none.
__device__ __forceinline__ Sight sight_of(int causal, int window, int sinks, int offset, int t, int s, const i64* lengths,
                                          int lengths_step, const int* segments, int segments_step, int batch) {
  int keys = s;
  if (lengths) keys = (int)least_of(most_of(lengths[(i64)batch * lengths_step], (i64)0), (i64)s);
  return {causal ? offset + 1 : FAR, window ? window - 1 - offset : FAR, sinks, offset, t, keys,
          segments + (i64)batch * segments_step * s};
}

// The tiles that a block visits: [first, gap) and [resume, stop), but none whose segments are all others.
struct Walk {
  int first, gap, resume, stop;
  Range own;
  const Range* others;

  __device__ __forceinline__ int at_or_after(int n) const {
    for (;; n++) {
      if (n >= gap && n < resume) n = resume;
      if (n >= stop || !SEGMENTS || (others[n].low <= own.high && own.low <= others[n].high)) return n;
    }
  }
  __device__ __forceinline__ bool one_segment(int n) const {
    return !SEGMENTS || (own.low == own.high && others[n].low == own.low && others[n].high == own.low);
  }
};

// The keys that queries [i, i_end) reach, in tiles of COLUMNS.
__device__ __forceinline__ Walk keys_of(const Sight& sight, int i, int i_end, const Range* queries, const Range* keys) {
  const int end = most_of(sight.end(i_end - 1), 0), begin = most_of(sight.begin(i), 0);
  Walk walk = {0, tiles_of(least_of(sight.sinks, end), COLUMNS), begin / COLUMNS, tiles_of(end, COLUMNS), {0, 0}, keys};
  if (SEGMENTS) walk.own = queries[i / ROWS];
  return walk;
}

// The queries that reach keys [j, j_end), in tiles of COLUMNS.
__device__ __forceinline__ Walk queries_of(const Sight& sight, int j, int j_end, const Range* queries, const Range* keys) {
  int end = j < sight.keys ? sight.queries : 0;
  if (j >= sight.sinks) end = least_of(end, j_end + sight.behind);
  const int begin = most_of(j + 1 - sight.ahead, 0);
  Walk walk = {begin / COLUMNS, 0, 0, tiles_of(most_of(end, 0), COLUMNS), {0, 0}, queries};
  if (SEGMENTS) walk.own = keys[j / ROWS];
  return walk;
}

// Begin to copy the biases of a tile by distance, from the smallest distance i + offset - j in it on.
__device__ __forceinline__ void load_line(Tile line, const acc_t* values, int m, int smallest) {
  for (int x = threadIdx.x; x < ROWS + COLUMNS - 1; x += THREADS) {
    const int place = least_of(most_of(smallest + x, 0), m - 1);
    cp_async<sizeof(acc_t)>(line.address + x * (int)sizeof(acc_t), values + place, true);
  }
}

// x = scale x + bias. LAST: the place of the bias at row 0 and column 0; SIGN: that of the rows in the distance.
template <int SIGN, int LAST>
__device__ __forceinline__ void add_line(acc_t (&x)[R][C], Tile line, acc_t scale, int column) {
  const acc_t* biases = reinterpret_cast<const acc_t*>(line.bytes) + LAST;
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int c = 0; c < C; c++) x[r][c] = x[r][c] * scale + biases[SIGN * (row_of(r) - column - column_of(c))];
}

// The scores of keys that are not seen become minus infinity. row, column: those of the tile's first score.
template <bool KEYS_ARE_ROWS>
__device__ __forceinline__ void hide(acc_t (&x)[R][C], const Sight& sight, int row, int column) {
  row = anew(row + row_of(0)) - row_of(0);
  column = anew(column + column_of(0)) - column_of(0);
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int c = 0; c < C; c++) {
      const int a = row + row_of(r), b = column + column_of(c);
      if (!(KEYS_ARE_ROWS ? sight.sees(b, a) : sight.sees(a, b))) x[r][c] = -INFINITE;
    }
}

// Write the rows `first` + row_of(r) < limit of an output, times by[r].
__device__ __forceinline__ void write_rows(const acc_t (&x)[R][E], const acc_t (&by)[R], scalar_t* to, i64 stride,
                                           int first, int limit, int width) {
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int row = first + row_of(r);
    if (row >= limit) continue;
    scalar_t* at = to + (i64)row * stride;
#pragma unroll
    for (int n = 0; n < E; n += 2) {  // two neighbours at a time
      const int column = output_column(n);
#if ALIGNED
      struct alignas(2 * sizeof(scalar_t)) Two { scalar_t a, b; };
      const Two two = {store<scalar_t>(x[r][n] * by[r]), store<scalar_t>(x[r][n + 1] * by[r])};
      if (column < width) *reinterpret_cast<Two*>(at + column) = two;
#else
      if (column < width) at[column] = store<scalar_t>(x[r][n] * by[r]);
      if (column + 1 < width) at[column + 1] = store<scalar_t>(x[r][n + 1] * by[r]);
#endif
    }
  }
}
