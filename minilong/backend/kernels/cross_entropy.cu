// Cross-entropy of rows of logits with integer targets, and its gradient.
// types: float32 float16 bfloat16 float64
// defines: WIDE=0 TARGET=int; WIDE=1 TARGET=int; WIDE=0 TARGET=i64; WIDE=1 TARGET=i64
// budget: cross_entropy registers=64
// budget: cross_entropy_gradient registers=64; cross_entropy_gradient bfloat16 sm_75 spills=8
#include "softmax_row.cuh"

constexpr u32 GROUP = DTYPE == 3 ? 4 : 16, PACKS = GROUP / LANES;  // read before any of them is used

#define NAN_VALUE __int_as_float(0x7fc00000)

// losses = lse - logits[target], lse = log sum exp of a row; both 0 where the target is `ignored`, and NaN where it is
// no class. lse is a double: rounded to float it would be a relative error of the gradients of the whole row.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy(const scalar_t* __restrict__ logits, const TARGET* __restrict__ targets, i64 ignored,
              acc_t* __restrict__ losses, double* __restrict__ lse, i64 rows, u32 classes) {
  i64 row = row_of_team();
  if (row >= rows) return;
  i64 target = targets[row];
  if (target == ignored) {
    if (threadIdx.x == 0) losses[row] = lse[row] = 0;
    return;
  }
  logits += row * classes;
  acc_t v[GROUP], top = -INFINITE, total = 0;
  for (u32 p = 0; inside(p, 0, classes); p += PACKS) {
    read<PACKS>(logits, classes, p, -INFINITE, v);
    include<GROUP>(v, top, total);
  }
  combine(top, total);
  if (threadIdx.x == 0) {
    bool known = 0 <= target && target < classes;
    double all = known ? (double)top + log((double)total) : NAN_VALUE;
    lse[row] = all;
    losses[row] = (acc_t)(known ? all - (double)load(logits[target]) : all);
  }
}

// out = factor scale (exp(logits - lse) - onehot); 0 where ignored. `out` may be `logits`: each thread reads first.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy_gradient(const scalar_t* logits, const TARGET* __restrict__ targets, const double* __restrict__ lse,
                       const acc_t* __restrict__ factor, acc_t scale, i64 ignored, scalar_t* out, i64 rows,
                       u32 classes) {
  i64 row = row_of_team();
  if (row >= rows) return;
  logits += row * classes;
  out += row * classes;
  bool kept = targets[row] != ignored;
  u32 target = (u32)targets[row];
  acc_t by = factor[0] * scale, high = (acc_t)lse[row], low = (acc_t)(lse[row] - (double)high), v[GROUP];
  for (u32 p = 0; inside(p, 0, classes); p += PACKS) {
    if (kept) read<PACKS>(logits, classes, p, 0, v);
#pragma unroll
    for (u32 k = 0; k < GROUP; k++) {
      acc_t chosen = place(p + k / LANES, k % LANES) == target ? 1 : 0;
      v[k] = kept ? by * (exponential(v[k] - high - low) - chosen) : 0;
    }
    write<PACKS>(out, classes, p, v);
  }
}
