// Tiles of queries, keys and values in shared memory, and how a block's threads share the work. Macros: see flash.cuh.
#pragma once
#include "mma.cuh"

constexpr int THREADS = 32 * BLOCK_WARPS;
constexpr int SPREAD = TENSOR ? 4 : 16;             // neighbouring lanes that share a row of scores
constexpr int R = ROWS * SPREAD / THREADS;          // rows of each thread
constexpr int C = CHUNK / SPREAD;                   // its columns of scores
constexpr int E = HEAD / SPREAD;                    // its columns of a row of the output
constexpr int VECTOR = 16 / (int)sizeof(scalar_t);  // elements of 16 bytes
constexpr int VECTORS = HEAD / VECTOR;
constexpr int ROW_BYTES = HEAD * (int)sizeof(scalar_t);
constexpr int LINE_BYTES = BIAS ? (ROWS + COLUMNS) * (int)sizeof(acc_t) : 0;
constexpr int PITCH = CHUNK + 16 / (int)sizeof(acc_t);
constexpr u32 ALL = 0xffffffffu;

__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;

template <class T> __device__ __forceinline__ T least_of(T a, T b) { return b < a ? b : a; }
template <class T> __device__ __forceinline__ T most_of(T a, T b) { return b > a ? b : a; }
template <> __device__ __forceinline__ float most_of(float a, float b) { return fmaxf(a, b); }  // one instruction
__device__ __forceinline__ int tiles_of(int n, int size) { return (n + size - 1) / size; }

// Shared memory, as pointer and as address.
struct Tile {
  unsigned char* bytes;
  shared_t address;
  __device__ __forceinline__ Tile operator+(int by) const { return {bytes + by, address + by}; }
};

// Where 16 bytes of a row lie: neighbouring rows take turns, so that eight rows at one place fill all banks.
__device__ __forceinline__ int place(int row, int vector) {
  return row * ROW_BYTES + ((VECTORS >= 8 ? vector ^ (row & 7) : vector ^ (row >> 1 & 3)) << 4);
}

// Begin to copy N rows from `first` on. Rows from `limit` on, and columns from `width` on, become zeros.
template <int N>
__device__ __forceinline__ void load_tile(Tile tile, const scalar_t* from, i64 stride, int first, int limit, int width) {
  constexpr int STEP = THREADS / VECTORS;
  static_assert(THREADS % VECTORS == 0, "a pass over the tile takes whole rows");
  const int thread = anew(threadIdx.x), vector = thread % VECTORS, begin = thread / VECTORS, column = vector * VECTOR;
  const scalar_t* source = from + (i64)(first + begin) * stride + column;
#pragma unroll
  for (int x = 0; x < N; x += STEP, source += STEP * stride) {
    const int row = x + begin;
    if (N % STEP != 0 && row >= N) continue;
    const int at = place(row, vector);
    const bool given = first + row < limit && column < width;
#if ALIGNED
    cp_async_16(tile.address + at, source, given);
#else
    scalar_t* to = reinterpret_cast<scalar_t*>(tile.bytes + at);
    for (int i = 0; i < VECTOR; i++) to[i] = given && column + i < width ? source[i] : store<scalar_t>(0);
#endif
  }
}

template <int N> __device__ __forceinline__ void clear(acc_t (&x)[R][N]) {
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int n = 0; n < N; n++) x[r][n] = 0;
}
