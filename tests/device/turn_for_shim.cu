// Two kernels whose barriers are all needed: y = x turned round by one.
extern "C" __global__ void __launch_bounds__(256) turn(const float* x, float* y) {
  __shared__ float s[256];
  for (int i = 0; i < 2; i++) {
    s[threadIdx.x] = x[threadIdx.x] + i;
    __syncthreads();  // all have written
    y[threadIdx.x] += (s[(threadIdx.x + 1) % blockDim.x] - i) / 2;
    __syncthreads();  // all have read
  }
}

extern "C" __global__ void turn_in_warp(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  y[threadIdx.x] = s[(threadIdx.x + 1) % 32];
}
