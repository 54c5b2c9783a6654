// Layer normalisation over rows, and its gradients.
// types: float32 float16 bfloat16 float64
// defines: WIDE=0; WIDE=1
// budget: layer_norm registers=64; layer_norm_vjp registers=112; layer_norm_vjp WIDE=1 registers=88
// budget: layer_norm bfloat16 sm_75 spills=32; layer_norm float64 spills=32; layer_norm_vjp float64 spills=32
#include "norm_vjp.cuh"

constexpr u32 HELD = DTYPE == 3 ? 4 : 16, PACKS = HELD / LANES;  // kept in registers from one pass to the next

// y = (x - mean) / sqrt(variance + eps) gain + bias. The mean is computed twice, the second time as that of the
// deviations from the first, whose rounding would otherwise shift a row far from zero by much of its spread.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
layer_norm(const scalar_t* __restrict__ x, const scalar_t* __restrict__ gain, const scalar_t* __restrict__ bias,
           acc_t eps, scalar_t* __restrict__ y, double* __restrict__ mean, acc_t* __restrict__ inverse, i64 rows,
           u32 n) {
  i64 row = row_of_team();
  if (row >= rows) return;
  x += row * n;
  y += row * n;
  acc_t v[HELD], w[LANES], scale[LANES], offset[LANES], sum = 0;
  read<PACKS>(x, n, 0, 0, v);
#pragma unroll
  for (u32 k = 0; k < HELD; k++) sum += v[k];
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, 0, w);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) sum += w[k];
  }
  acc_t centre = team_sum(sum) / n, shift = 0, square = 0;
#pragma unroll
  for (u32 k = 0; k < HELD; k++) {
    v[k] -= centre;
    if (!inside(k / LANES, k % LANES, n)) continue;
    shift += v[k];
    square += v[k] * v[k];
  }
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, centre, w);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) {
      shift += w[k] - centre;
      square += (w[k] - centre) * (w[k] - centre);
    }
  }
  Two sums = team_sums(shift, square);
  shift = sums.a / n;
  acc_t variance = sums.b / n - shift * shift;  // the shift is a rounding error: nothing cancels
  acc_t factor = 1 / square_root((variance < 0 ? 0 : variance) + eps);
  if (threadIdx.x == 0) {
    mean[row] = (double)centre + (double)shift;
    inverse[row] = factor;
  }
#pragma unroll
  for (u32 p = 0; p < PACKS; p++) {
    read<1>(gain, n, p, 0, scale);
    read<1>(bias, n, p, 0, offset);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) v[p * LANES + k] = (v[p * LANES + k] - shift) * factor * scale[k] + offset[k];
  }
  write<PACKS>(y, n, 0, v);
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, 0, w);
    read<1>(gain, n, p, 0, scale);
    read<1>(bias, n, p, 0, offset);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) w[k] = (w[k] - centre - shift) * factor * scale[k] + offset[k];
    write<1>(y, n, p, w);
  }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
layer_norm_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ x, const scalar_t* __restrict__ gain,
               const double* __restrict__ mean, const acc_t* __restrict__ inverse, scalar_t* __restrict__ gx,
               acc_t* __restrict__ partial, i64 rows, u32 n) {
  norm_vjp<true>(g, x, gain, mean, inverse, gx, partial, rows, n);
}
