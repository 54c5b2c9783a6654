// Root mean square normalisation over rows, and its gradients.
// types: float32 float16 bfloat16 float64
// defines: WIDE=0; WIDE=1
// budget: rms_norm registers=64; rms_norm_vjp registers=112; rms_norm_vjp WIDE=1 registers=64
// budget: rms_norm float64 spills=32
#include "norm_vjp.cuh"

constexpr u32 HELD = DTYPE == 3 ? 4 : 16, PACKS = HELD / LANES;  // kept in registers from one pass to the next

// y = x / sqrt(mean of squares + eps) gain.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rms_norm(const scalar_t* __restrict__ x, const scalar_t* __restrict__ gain, acc_t eps, scalar_t* __restrict__ y,
         acc_t* __restrict__ inverse, i64 rows, u32 n) {
  i64 row = row_of_team();
  if (row >= rows) return;
  x += row * n;
  y += row * n;
  acc_t v[HELD], w[LANES], scale[LANES], square = 0;
  read<PACKS>(x, n, 0, 0, v);
#pragma unroll
  for (u32 k = 0; k < HELD; k++) square += v[k] * v[k];
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, 0, w);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) square += w[k] * w[k];
  }
  acc_t factor = 1 / square_root(team_sum(square) / n + eps);
  if (threadIdx.x == 0) inverse[row] = factor;
#pragma unroll
  for (u32 p = 0; p < PACKS; p++) {
    read<1>(gain, n, p, 0, scale);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) v[p * LANES + k] *= factor * scale[k];
  }
  write<PACKS>(y, n, 0, v);
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, 0, w);
    read<1>(gain, n, p, 0, scale);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) w[k] *= factor * scale[k];
    write<1>(y, n, p, w);
  }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rms_norm_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ x, const scalar_t* __restrict__ gain,
             const acc_t* __restrict__ inverse, scalar_t* __restrict__ gx, acc_t* __restrict__ partial, i64 rows,
             u32 n) {
  norm_vjp<false>(g, x, gain, nullptr, inverse, gx, partial, rows, n);
}
