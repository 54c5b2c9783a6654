// Products of tiles on tensor cores. A warp owns R / 2 times 16 rows of the block; see mma.cuh for the layouts.
#pragma once
#include "flash_tiles.cuh"

static_assert(R % 2 == 0 && C % 4 == 0 && E % 4 == 0, "whole products of 16 x 8, two at a time");

// Row r, column c of this thread within the block's rows and the chunk's columns; the same for the output's columns.
__device__ __forceinline__ int row_of(int r) {
  return (threadIdx.x >> 5) * (8 * R) + 8 * r + (threadIdx.x >> 2 & 7);
}
__device__ __forceinline__ int column_of(int c) { return 8 * (c >> 1) + 2 * (threadIdx.x & 3) + (c & 1); }
__device__ __forceinline__ int output_column(int n) { return column_of(n); }

// The block's own rows: the left side of x = rows columns^T. KEPT: they stay in registers.
template <bool KEPT> struct Own {
  Tile tile;
  u32 kept[KEPT ? HEAD / 16 : 1][R / 2][4];

  __device__ __forceinline__ void read(u32 (&a)[R / 2][4], int k) const {
    const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * (8 * R) + (lane & 15);
#pragma unroll
    for (int m = 0; m < R / 2; m++) ldmatrix_x4(a[m], tile.address + place(row + 16 * m, 2 * k + (lane >> 4)));
  }
  // Once the tile has arrived.
  __device__ __forceinline__ void arrived() {
#pragma unroll
    for (int k = 0; k < (KEPT ? HEAD / 16 : 0); k++) read(kept[k], k);
  }
  __device__ __forceinline__ void operand(u32 (&a)[R / 2][4], int k) const {
    if (!KEPT) return read(a, k);
#pragma unroll
    for (int m = 0; m < R / 2; m++)
#pragma unroll
      for (int i = 0; i < 4; i++) a[m][i] = kept[KEPT ? k : 0][m][i];
  }
};

// x = rows columns^T for the CHUNK rows of `tile` from `first` on.
template <bool KEPT>
__device__ __forceinline__ void scores(acc_t (&x)[R][C], const Own<KEPT>& own, Tile tile, int first) {
  const int lane = threadIdx.x & 31, row = first + (lane & 7) + (lane >> 4 << 3), half = lane >> 3 & 1;
  clear(x);
#pragma unroll
  for (int k = 0; k < HEAD / 16; k++) {
    u32 a[R / 2][4];
    own.operand(a, k);
#pragma unroll
    for (int n = 0; n < C; n += 4) {
      u32 b[4];
      ldmatrix_x4(b, tile.address + place(row + 4 * n, 2 * k + half));
#pragma unroll
      for (int m = 0; m < R; m += 2) {
        mma_16816(x[m][n], x[m][n + 1], x[m + 1][n], x[m + 1][n + 1], a[m / 2], b[0], b[1]);
        mma_16816(x[m][n + 2], x[m][n + 3], x[m + 1][n + 2], x[m + 1][n + 3], a[m / 2], b[2], b[3]);
      }
    }
  }
}

// y += x rows, for the CHUNK rows of `tile` from `first` on: accumulators of one product are operands of the next.
__device__ __forceinline__ void accumulate(acc_t (&y)[R][E], const acc_t (&x)[R][C], Tile tile, int first, acc_t*) {
  // Addresses are not kept from one product to the next: registers are what is short. (Measured by spills.)
  const int lane = R * E < 128 ? anew(threadIdx.x & 31) : threadIdx.x & 31, row = first + (lane & 15);
#pragma unroll
  for (int k = 0; k < C; k += 4) {
    u32 a[R / 2][4];
#pragma unroll
    for (int m = 0; m < R; m += 2) {
      a[m / 2][0] = pack(x[m][k], x[m][k + 1]);
      a[m / 2][1] = pack(x[m + 1][k], x[m + 1][k + 1]);
      a[m / 2][2] = pack(x[m][k + 2], x[m][k + 3]);
      a[m / 2][3] = pack(x[m + 1][k + 2], x[m + 1][k + 3]);
    }
#pragma unroll
    for (int n = 0; n < E; n += 4) {
      u32 b[4];
      ldmatrix_x4_trans(b, tile.address + place(row + 4 * k, n / 2 + (lane >> 4)));
#pragma unroll
      for (int m = 0; m < R; m += 2) {
        mma_16816(y[m][n], y[m][n + 1], y[m + 1][n], y[m + 1][n + 1], a[m / 2], b[0], b[1]);
        mma_16816(y[m][n + 2], y[m][n + 3], y[m + 1][n + 2], y[m + 1][n + 3], a[m / 2], b[2], b[3]);
      }
    }
  }
}
