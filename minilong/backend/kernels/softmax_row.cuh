// The greatest element of a row and the sum of its exponentials, in one pass over memory.
#pragma once
#include "elementary.cuh"
#include "rows.cuh"

__device__ __forceinline__ acc_t greater(acc_t a, acc_t b) { return b > a || b != b ? b : a; }  // a NaN stays

// Takes COUNT more elements in: total = sum of exp(x - top), rescaled where top grows.
template <u32 COUNT> __device__ __forceinline__ void include(const acc_t* v, acc_t& top, acc_t& total) {
  acc_t above = top;
#pragma unroll
  for (u32 k = 0; k < COUNT; k++) above = greater(above, v[k]);
  if (above == -INFINITE) return;  // nothing finite yet, and inf - inf is no number
  total *= exponential(top - above);
#pragma unroll
  for (u32 k = 0; k < COUNT; k++) total += exponential(v[k] - above);
  top = above;
}

// The same for the whole row, from what each thread of the team has.
__device__ __forceinline__ void combine(acc_t& top, acc_t& total) {
  acc_t above = team_max(top);
  total = team_sum(total * exponential(top - above));
  top = above;
}
