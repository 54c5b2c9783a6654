// Gradients of a normalisation y = z gain + bias with z = (x - mean) inverse; without mean and bias where not CENTRED.
#pragma once
#include "elementary.cuh"
#include "rows.cuh"

constexpr u32 HELD_BY_FOUR = DTYPE == 3 ? 2 : 8, PACKS_BY_FOUR = HELD_BY_FOUR / LANES;  // in registers, of four arrays

// With u = g gain: gx = inverse (u - mean of u - z (mean of u z)), the first mean only where CENTRED.
//
// The gradients of gain and bias are sums over rows. A team takes one row in `teams`, and adds up in `partial`
// (1 or 2, teams, n) what its threads see of their columns, in registers as far as they reach; `column_sums` adds the
// teams up. So the order of additions is fixed, and g and x are read from memory once.
template <bool CENTRED>
__device__ __forceinline__ void norm_vjp(const scalar_t* g, const scalar_t* x, const scalar_t* gain, const double* mean,
                                         const acc_t* inverse, scalar_t* gx, acc_t* partial, i64 rows, u32 n) {
  i64 team = row_of_team(), teams = (i64)gridDim.x * blockDim.y;
  acc_t* for_gain = partial + team * n;
  acc_t* for_bias = partial + (teams + team) * n;
  acc_t gain_sum[HELD_BY_FOUR] = {}, bias_sum[HELD_BY_FOUR] = {};
  for (i64 row = team; row < rows; row += teams) {
    const scalar_t* g_row = g + row * n;
    const scalar_t* x_row = x + row * n;
    scalar_t* out = gx + row * n;
    // The mean in two parts: the difference to the first is exact where it matters.
    double middle = CENTRED ? mean[row] : 0;
    acc_t high = (acc_t)middle, low = (acc_t)(middle - (double)high), factor = inverse[row];
    acc_t u[HELD_BY_FOUR], z[HELD_BY_FOUR], a[LANES], b[LANES], scale[LANES], u_sum = 0, uz_sum = 0;
    read<PACKS_BY_FOUR>(g_row, n, 0, 0, u);
    read<PACKS_BY_FOUR>(x_row, n, 0, 0, z);
#pragma unroll
    for (u32 p = 0; p < PACKS_BY_FOUR; p++) {
      read<1>(gain, n, p, 0, scale);
#pragma unroll
      for (u32 i = 0; i < LANES; i++) {
        u32 k = p * LANES + i;
        z[k] = (z[k] - high - low) * factor;
        gain_sum[k] += u[k] * z[k];
        bias_sum[k] += u[k];
        u[k] *= scale[i];  // 0 outside the row
        u_sum += u[k];
        uz_sum += u[k] * z[k];
      }
    }
    for (u32 p = PACKS_BY_FOUR; inside(p, 0, n); p++) {
      read<1>(g_row, n, p, 0, a);
      read<1>(x_row, n, p, 0, b);
      read<1>(gain, n, p, 0, scale);
#pragma unroll
      for (u32 i = 0; i < LANES; i++) {
        if (!inside(p, i, n)) continue;
        acc_t normal = (b[i] - high - low) * factor;
        u32 at = place(p, i);
        for_gain[at] = (row == team ? 0 : for_gain[at]) + a[i] * normal;
        if (CENTRED) for_bias[at] = (row == team ? 0 : for_bias[at]) + a[i];
        u_sum += a[i] * scale[i];
        uz_sum += a[i] * scale[i] * normal;
      }
    }
    if (CENTRED) {
      Two sums = team_sums(u_sum, uz_sum);
      u_sum = sums.a / n;
      uz_sum = sums.b / n;
    } else {
      u_sum = 0;
      uz_sum = team_sum(uz_sum) / n;
    }
#pragma unroll
    for (u32 k = 0; k < HELD_BY_FOUR; k++) u[k] = factor * (u[k] - u_sum - z[k] * uz_sum);
    write<PACKS_BY_FOUR>(out, n, 0, u);
    for (u32 p = PACKS_BY_FOUR; inside(p, 0, n); p++) {
      read<1>(g_row, n, p, 0, a);
      read<1>(x_row, n, p, 0, b);
      read<1>(gain, n, p, 0, scale);
#pragma unroll
      for (u32 i = 0; i < LANES; i++)
        a[i] = factor * (a[i] * scale[i] - u_sum - (b[i] - high - low) * factor * uz_sum);
      write<1>(out, n, p, a);
    }
  }
#pragma unroll
  for (u32 k = 0; k < HELD_BY_FOUR; k++) {
    if (!inside(k / LANES, k % LANES, n)) continue;
    for_gain[place(k / LANES, k % LANES)] = gain_sum[k];
    if (CENTRED) for_bias[place(k / LANES, k % LANES)] = bias_sum[k];
  }
}

// out (blockIdx.y, n) = sum over teams of partial (blockIdx.y, teams, n). 32 columns a block of 32 by 32 threads.
extern "C" __global__ void __launch_bounds__(1024)
column_sums(const acc_t* __restrict__ partial, acc_t* __restrict__ out, i64 teams, u32 n) {
  __shared__ acc_t parts[32][33];
  u32 column = blockIdx.x * 32 + threadIdx.x;
  acc_t sum = 0;
  if (column < n)
    for (i64 team = threadIdx.y; team < teams; team += 32) sum += partial[(blockIdx.y * teams + team) * n + column];
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = warp_sum(parts[threadIdx.x][threadIdx.y]);  // a warp has a column now
  column = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && column < n) out[(i64)blockIdx.y * n + column] = sum;
}
