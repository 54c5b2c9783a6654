// Kernels over rows of n elements. A team of threads has a row: a warp (blockDim.x is 32, and several rows share a
// block), or a whole block. A thread takes its part of the row in packs of LANES elements.
//
// -DWIDE=1: rows begin at multiples of 16 bytes, and a pack is one access. -DWIDE=0: the lanes of a pack lie blockDim.x
// apart, so that the threads of a warp still read neighbours. A pack never reaches beyond the row: n is a multiple of
// LANES in the first case, and lanes are tested one by one in the second.
#pragma once
#include "packs.cuh"

#define ROW_THREADS 512  // of a block at most, so that each may have 128 registers

__device__ __forceinline__ i64 row_of_team() { return (i64)blockIdx.x * blockDim.y + threadIdx.y; }

__device__ __forceinline__ u32 place(u32 pack, u32 lane) {
  return WIDE ? (pack * blockDim.x + threadIdx.x) * LANES + lane : (pack * LANES + lane) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ bool inside(u32 pack, u32 lane, u32 n) { return place(pack, WIDE ? 0 : lane) < n; }

// COUNT packs from `first` on into v; `outside` where the row has ended.
template <u32 COUNT>
__device__ __forceinline__ void read(const scalar_t* row, u32 n, u32 first, acc_t outside, acc_t* v) {
#pragma unroll
  for (u32 p = 0; p < COUNT; p++) {
#pragma unroll
    for (u32 i = 0; i < LANES; i++) v[p * LANES + i] = outside;
#if WIDE
    if (inside(first + p, 0, n)) read_wide(row + place(first + p, 0), v + p * LANES);
#else
#pragma unroll
    for (u32 i = 0; i < LANES; i++)
      if (inside(first + p, i, n)) v[p * LANES + i] = load(row[place(first + p, i)]);
#endif
  }
}

template <u32 COUNT>
__device__ __forceinline__ void write(scalar_t* row, u32 n, u32 first, const acc_t* v) {
#pragma unroll
  for (u32 p = 0; p < COUNT; p++) {
#if WIDE
    if (inside(first + p, 0, n)) write_wide(row + place(first + p, 0), v + p * LANES);
#else
#pragma unroll
    for (u32 i = 0; i < LANES; i++)
      if (inside(first + p, i, n)) row[place(first + p, i)] = store<scalar_t>(v[p * LANES + i]);
#endif
  }
}

// Reductions over a team: all its threads must take part, and all get the result.
__device__ __forceinline__ acc_t team_sum(acc_t x) { return blockDim.x == 32 ? warp_sum(x) : block_sum(x); }
__device__ __forceinline__ acc_t team_max(acc_t x) { return blockDim.x == 32 ? warp_max(x) : block_max(x); }

struct Two { acc_t a, b; };

__device__ __forceinline__ Two team_sums(acc_t a, acc_t b) {
  __shared__ acc_t parts[2][32];
  a = warp_sum(a);
  b = warp_sum(b);
  if (blockDim.x == 32) return {a, b};
  __syncthreads();  // the parts of an earlier call have been read
  if ((threadIdx.x & 31) == 0) {
    parts[0][threadIdx.x >> 5] = a;
    parts[1][threadIdx.x >> 5] = b;
  }
  __syncthreads();
  a = b = 0;
  for (u32 i = 0; i < blockDim.x >> 5; i++) {
    a += parts[0][i];
    b += parts[1][i];
  }
  return {a, b};
}
