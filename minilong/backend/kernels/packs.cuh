// Sixteen bytes at a time (-DWIDE=1): what a thread reads or writes at once where addresses allow it.
#pragma once
#include "common.cuh"

constexpr u32 LANES = WIDE || DTYPE == 3 ? 16 / sizeof(scalar_t) : 4;  // elements of a pack
struct alignas(16) Pack { scalar_t at[LANES]; };

__device__ __forceinline__ void read_wide(const scalar_t* from, acc_t* v) {
  Pack pack = *reinterpret_cast<const Pack*>(from);
#pragma unroll
  for (u32 i = 0; i < LANES; i++) v[i] = load(pack.at[i]);
}

__device__ __forceinline__ void write_wide(scalar_t* to, const acc_t* v) {
  Pack pack;
#pragma unroll
  for (u32 i = 0; i < LANES; i++) pack.at[i] = store<scalar_t>(v[i]);
  *reinterpret_cast<Pack*>(to) = pack;
}
