// The norm of the gradient, and what follows for the update: clipping, loss scaling, whether to stop. Two stages.
// types: float32 float16 bfloat16 float64
// budget: squares registers=64 spills=0
// budget: decide registers=40 spills=0
#include "common.cuh"
#include "control.cuh"
#include "vectors.cuh"

#define WIDTH ((int)(16 / sizeof(scalar_t)))

// The sum over a block of 256 threads, in a fixed order; thread 0 has it.
__device__ double block_total(double x) {
  __shared__ double parts[8];
  x = warp_sum(x);
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  double total = 0;
  for (int i = 0; i < 8; i++) total += parts[i];
  return total;
}

// By how much the gradient is to be multiplied before it is looked at.
__device__ __forceinline__ double unscaling(double scale, const float* scaler) {
  return scaler ? scale / (double)scaler[0] : scale;
}

// partial[block] = sum of (unscaling g)^2 over the block's share. Few squares are added in float before a sum in double
// takes them, so the result is as good as the squares are.
extern "C" __global__ void __launch_bounds__(256) squares(
    const scalar_t* __restrict__ g, i64 n, double scale, const float* scaler, double* partial) {
  acc_t factor = (acc_t)unscaling(scale, scaler);
  i64 stride = (i64)gridDim.x * blockDim.x, thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  i64 vectors = aligned(g) ? n / WIDTH : 0;
  double total = 0;
#pragma unroll 4
  for (i64 i = thread; i < vectors; i += stride) {
    Vector<scalar_t, WIDTH> v = load_vector<WIDTH>(g + i * WIDTH);
    acc_t sum = 0;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
      acc_t x = load(v.x[k]) * factor;
      sum += x * x;
    }
    total += sum;
  }
  for (i64 i = vectors * WIDTH + thread; i < n; i += stride) {
    acc_t x = load(g[i]) * factor;
    total += x * x;
  }
  total = block_total(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0; }

// The one thread that decides. A bad step halves the loss scale and is left out; where there is no scale to halve, the
// run has stopped, and what was found stays as it is until the host has looked.
__device__ void decide_step(double norm, double scale, double clip, float* scaler, float least, float most, int growth,
                            const acc_t* loss, double smoothing, double step, double* control) {
  bool bad = !is_finite(norm) || (loss && !is_finite(*loss));
  control[NORM] = norm;
  control[FACTOR] = unscaling(scale, scaler) * (clip > 0 && clip < norm ? clip / norm : 1);
  control[BAD] = bad;
  if (loss) control[LOSS] = *loss;
  if (bad && scaler && scaler[0] > least) {
    scaler[0] *= 0.5f;
    scaler[1] = 0;
  } else if (bad) {
    control[STOPPED] = step;
  } else {
    control[TAKEN] += 1;
    if (loss) {
      double old = control[SMOOTHED];
      control[LOSS_SUM] += *loss;
      control[SMOOTHED] = old == old ? smoothing * old + (1 - smoothing) * *loss : *loss;
    }
    if (scaler) {
      scaler[1] += 1;
      if (scaler[1] >= growth) {
        scaler[0] = fminf(2 * scaler[0], most);
        scaler[1] = 0;
      }
    }
  }
}

// One block: the norm of `blocks` partial sums, and the decision.
extern "C" __global__ void __launch_bounds__(256) decide(
    const double* __restrict__ partial, int blocks, double scale, double clip, float* scaler, float least, float most,
    int growth, const acc_t* loss, double smoothing, double step, double* control) {
  if (control[STOPPED] != 0) return;
  double total = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) total += partial[i];
  total = block_total(total);
  if (threadIdx.x == 0)
    decide_step(sqrt(total), scale, clip, scaler, least, most, growth, loss, smoothing, step, control);
}
