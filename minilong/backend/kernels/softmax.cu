// Softmax and its logarithm over rows, and their vector-Jacobian products.
// types: float32 float16 bfloat16 float64
// defines: WIDE=0; WIDE=1
// budget: softmax registers=96; softmax WIDE=1 registers=64; softmax_vjp registers=64
// budget: log_softmax registers=96; log_softmax WIDE=1 registers=64; log_softmax_vjp registers=64
#include "softmax_row.cuh"

constexpr u32 HELD = DTYPE == 3 ? 4 : 32, PACKS = HELD / LANES;  // kept in registers from one pass to the next
constexpr u32 HELD_OF_TWO = HELD / 2, PACKS_OF_TWO = HELD_OF_TWO / LANES;

template <bool LOGARITHM> __device__ __forceinline__ acc_t result(acc_t x, acc_t top, acc_t total) {
  return LOGARITHM ? (x - top) - total : exponential(x - top) / total;
}

template <bool LOGARITHM> __device__ __forceinline__ void forward(const scalar_t* x, scalar_t* y, i64 rows, u32 n) {
  i64 row = row_of_team();
  if (row >= rows) return;
  x += row * n;
  y += row * n;
  acc_t v[HELD], w[LANES], top = -INFINITE, total = 0;
  read<PACKS>(x, n, 0, -INFINITE, v);
  include<HELD>(v, top, total);
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, -INFINITE, w);
    include<LANES>(w, top, total);
  }
  combine(top, total);
  if (LOGARITHM) total = logarithm(total);
#pragma unroll
  for (u32 k = 0; k < HELD; k++) v[k] = result<LOGARITHM>(v[k], top, total);
  write<PACKS>(y, n, 0, v);
  for (u32 p = PACKS; inside(p, 0, n); p++) {
    read<1>(x, n, p, 0, w);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) w[k] = result<LOGARITHM>(w[k], top, total);
    write<1>(y, n, p, w);
  }
}

// softmax: y (g - sum of g y). Its logarithm: g - exp(y) (sum of g).
template <bool LOGARITHM>
__device__ __forceinline__ void backward(const scalar_t* g, const scalar_t* y, scalar_t* gx, i64 rows, u32 n) {
  i64 row = row_of_team();
  if (row >= rows) return;
  g += row * n;
  y += row * n;
  gx += row * n;
  acc_t gs[HELD_OF_TWO], ys[HELD_OF_TWO], a[LANES], b[LANES], sum = 0;
  read<PACKS_OF_TWO>(g, n, 0, 0, gs);
  read<PACKS_OF_TWO>(y, n, 0, 0, ys);
#pragma unroll
  for (u32 k = 0; k < HELD_OF_TWO; k++) sum += LOGARITHM ? gs[k] : gs[k] * ys[k];
  for (u32 p = PACKS_OF_TWO; inside(p, 0, n); p++) {
    read<1>(g, n, p, 0, a);
    if (!LOGARITHM) read<1>(y, n, p, 0, b);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) sum += LOGARITHM ? a[k] : a[k] * b[k];
  }
  sum = team_sum(sum);
#pragma unroll
  for (u32 k = 0; k < HELD_OF_TWO; k++) gs[k] = LOGARITHM ? gs[k] - exponential(ys[k]) * sum : ys[k] * (gs[k] - sum);
  write<PACKS_OF_TWO>(gx, n, 0, gs);
  for (u32 p = PACKS_OF_TWO; inside(p, 0, n); p++) {
    read<1>(g, n, p, 0, a);
    read<1>(y, n, p, 0, b);
#pragma unroll
    for (u32 k = 0; k < LANES; k++) a[k] = LOGARITHM ? a[k] - exponential(b[k]) * sum : b[k] * (a[k] - sum);
    write<1>(gx, n, p, a);
  }
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, u32 n) {
  forward<false>(x, y, rows, n);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
log_softmax(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, u32 n) {
  forward<true>(x, y, rows, n);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ y, scalar_t* __restrict__ gx, i64 rows,
            u32 n) {
  backward<false>(g, y, gx, rows, n);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
log_softmax_vjp(const scalar_t* __restrict__ g, const scalar_t* __restrict__ y, scalar_t* __restrict__ gx, i64 rows,
                u32 n) {
  backward<true>(g, y, gx, rows, n);
}
