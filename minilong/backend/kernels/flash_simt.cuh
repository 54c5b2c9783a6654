// Products of tiles without tensor cores, for every type. 16 neighbouring lanes share R rows; sums are acc_t.
#pragma once
#include "flash_tiles.cuh"

constexpr int UNIT = E < VECTOR ? E : VECTOR;            // neighbouring columns of the output of one thread
constexpr int WIDE = 16 / (int)sizeof(acc_t);            // sums in 16 bytes
constexpr int GROUPS = THREADS / SPREAD;
static_assert(C * SPREAD == CHUNK && R * GROUPS == ROWS && CHUNK % WIDE == 0, "whole tiles");
static_assert(CHUNK == COLUMNS, "scratch is written once between two barriers of the block");

__device__ __forceinline__ int row_of(int r) { return r * GROUPS + (int)threadIdx.x / SPREAD; }
__device__ __forceinline__ int column_of(int c) { return c * SPREAD + (threadIdx.x & (SPREAD - 1)); }
__device__ __forceinline__ int output_column(int n) {
  return (n / UNIT * SPREAD + (threadIdx.x & (SPREAD - 1))) * UNIT + n % UNIT;
}

template <class T, int N> struct alignas(sizeof(T) * N) Vector { T x[N]; };

// N elements of a row from `column` on, which is a multiple of N.
template <int N> __device__ __forceinline__ void read(acc_t (&x)[N], Tile tile, int row, int column) {
  const int at = place(row, column / VECTOR) + column % VECTOR * (int)sizeof(scalar_t);
  const Vector<scalar_t, N> v = *reinterpret_cast<const Vector<scalar_t, N>*>(tile.bytes + at);
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = load(v.x[i]);
}

template <bool> struct Own {
  Tile tile;
  __device__ __forceinline__ void arrived() {}
};

template <bool KEPT>
__device__ __forceinline__ void scores(acc_t (&x)[R][C], const Own<KEPT>& own, Tile tile, int first) {
  clear(x);
#pragma unroll 4
  for (int k = 0; k < HEAD; k += VECTOR) {
    acc_t b[C][VECTOR];
#pragma unroll
    for (int c = 0; c < C; c++) read(b[c], tile, first + column_of(c), k);
#pragma unroll
    for (int r = 0; r < R; r++) {
      acc_t a[VECTOR];
      read(a, own.tile, row_of(r), k);
#pragma unroll
      for (int c = 0; c < C; c++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) x[r][c] += a[i] * b[c][i];
    }
  }
}

// The 16 lanes that share rows exchange their columns of x through `scratch`, which no other warp touches.
__device__ __forceinline__ void accumulate(acc_t (&y)[R][E], const acc_t (&x)[R][C], Tile tile, int first, acc_t* scratch) {
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int c = 0; c < C; c++) scratch[row_of(r) * PITCH + column_of(c)] = x[r][c];
  __syncwarp();
#pragma unroll 2
  for (int k = 0; k < CHUNK; k += WIDE) {
    Vector<acc_t, WIDE> a[R];
#pragma unroll
    for (int r = 0; r < R; r++) a[r] = *reinterpret_cast<const Vector<acc_t, WIDE>*>(scratch + row_of(r) * PITCH + k);
#pragma unroll
    for (int i = 0; i < WIDE; i++)
#pragma unroll
      for (int n = 0; n < E; n += UNIT) {
        acc_t b[UNIT];
        read(b, tile, first + k + i, output_column(n));
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int u = 0; u < UNIT; u++) y[r][n + u] += a[r].x[i] * b[u];
      }
  }
}
