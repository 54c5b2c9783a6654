// What common.cuh offers to all kernels, called twice in a row, so that its barriers matter.
// types: float32 float16 bfloat16 float64
#include "common.cuh"

// Of n elements a thread: sums and maxima of the first and the second half, over warps and over the block.
extern "C" __global__ void reductions(const scalar_t* x, acc_t* warps, acc_t* block) {
  acc_t a = load(x[threadIdx.x]), b = load(x[blockDim.x + threadIdx.x]);
  acc_t* w = warps + 4 * threadIdx.x;
  w[0] = warp_sum(a);
  w[1] = warp_sum(b);
  w[2] = warp_max(a);
  w[3] = warp_max(b);
  acc_t* y = block + 4 * threadIdx.x;
  y[0] = block_sum(a);
  y[1] = block_sum(b);
  y[2] = block_max(a);
  y[3] = block_max(b);
}

extern "C" __global__ void rounded(const acc_t* x, scalar_t* y, acc_t* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = store<scalar_t>(x[i]);
  back[i] = load(y[i]);
}
